//! What stands on the lines: every method, every refusal, and whatever else a client may send.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::time::{Duration, Instant};

use daemon_support::{Daemon, Wire, kind};
use serde_json::{Value as Json, json};

#[test]
fn hello_tells_what_there_is_and_refuses_what_there_is_not() {
    // By default as many as the open files of this machine leave room for.
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--max-connections", "100"]);
    let mut wire = daemon.connect();
    let hello = wire.call("hello", json!({ "protocol": [1, 2], "client": "test" })).unwrap();
    assert_eq!(hello["protocol"], 1);
    assert_eq!(hello["store"], json!({ "url": "memory:", "shared": false, "replicas": 1 }));
    assert!(hello["server"].as_str().unwrap().starts_with("tenured/") && !hello["session"].as_str().unwrap().is_empty());
    for (limit, value) in
        [("line_bytes", 2 << 20), ("requests", 64), ("leases", 1_024), ("connections", 100), ("lease_lengths", 64)]
    {
        assert_eq!(hello["limits"][limit], value, "{limit}");
    }
    for method in hello["capabilities"].as_array().unwrap().iter().filter(|name| *name != "buckets") {
        let answer = wire.call(method.as_str().unwrap(), json!({ "no such": 1 }));
        assert_eq!(kind(&answer.unwrap_err()), "invalid_params", "{method}");
    }
    let error = wire.call("hello", json!({ "protocol": [2] })).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["protocol"]), ("unsupported", &json!([1])));
    assert_eq!(wire.refused("hello", json!({})), "invalid_params");
    assert_eq!(wire.refused("hello", json!({ "protocol": [1], "heartbeat_ms": 99 })), "invalid_params");
    let other = daemon.connect().call("hello", json!({ "protocol": [1] })).unwrap();
    assert_ne!(other["session"], hello["session"]);
}

#[test]
fn unknown_methods_are_told_so() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let error = wire.call("lock.aquire", json!({})).unwrap_err();
    assert!(kind(&error) == "method_not_found" && error["message"].as_str().unwrap().contains("no method"), "{error}");
}

#[test]
fn a_lock_is_held_by_one_and_says_by_whom() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    assert_eq!(one.call("lock.get", json!({ "name": "a.b" })).unwrap(), json!({ "name": "a.b", "holder": null, "waiters": [] }));
    let held = one.call("lock.acquire", json!({ "name": "a.b", "label": "importer", "lease_ms": 2_000 })).unwrap();
    assert_eq!((&held["lease"], &held["lease_ms"]), (&json!("l_1"), &json!(2_000)));
    assert!(held["remaining_ms"].as_u64().unwrap() <= 2_000 && held["waited_ms"].is_u64());
    let fence = held["fence"].as_u64().unwrap();

    let check = one.call("lock.check", json!({ "lease": "l_1" })).unwrap();
    assert!(check["held"] == true && check["fence"] == fence && (1..=2_000).contains(&check["remaining_ms"].as_u64().unwrap()));
    assert_eq!(two.refused("lock.check", json!({ "lease": "l_1" })), "not_held");
    assert_eq!(two.refused("lock.release", json!({ "lease": "l_1" })), "not_held");

    for wait in [0, 30] {
        let begun = Instant::now();
        let error = two.call("lock.acquire", json!({ "name": "a.b", "wait_ms": wait })).unwrap_err();
        assert_eq!(kind(&error), "timeout");
        let holder = &error["data"]["holder"];
        assert_eq!(
            (&holder["label"], &holder["pid"], &holder["fence"]),
            (&json!("importer"), &json!(std::process::id()), &json!(fence))
        );
        assert!(!holder["host"].as_str().unwrap().is_empty());
        assert!(begun.elapsed() >= Duration::from_millis(wait));
    }

    let unlabelled = one.call("lock.acquire", json!({ "name": "c" })).unwrap();
    assert!(one.call("lock.get", json!({ "name": "c" })).unwrap()["holder"]["label"].is_null());
    one.call("lock.release", json!({ "lease": unlabelled["lease"] })).unwrap();

    let waiting = two.send("lock.acquire", &json!({ "name": "a.b", "label": "second" }));
    one.await_waiters("a.b", 1);
    let seen = one.call("lock.list", json!({ "prefix": "a" })).unwrap();
    assert_eq!(seen["locks"][0]["holder"]["label"], "importer");
    assert_eq!(seen["locks"][0]["waiters"][0]["label"], "second");
    assert_eq!(one.call("lock.list", json!({ "prefix": "b" })).unwrap(), json!({ "locks": [] }));
    assert_eq!(one.call("lock.release", json!({ "lease": "l_1" })).unwrap(), json!({}));
    let next = two.result(waiting).unwrap();
    assert!(next["fence"].as_u64().unwrap() > fence);
    assert_eq!(one.refused("lock.release", json!({ "lease": "l_1" })), "not_held");
}

#[test]
fn wrong_parameters_are_named() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    for (method, params, param) in [
        ("lock.acquire", json!({}), "name"),
        ("lock.acquire", json!({ "name": "a", "wait": 1 }), "wait"),
        ("lock.acquire", json!({ "name": 1 }), "name"),
        ("lock.acquire", json!({ "name": "a", "wait_ms": -1 }), "wait_ms"),
        ("lock.acquire", json!({ "name": "a", "wait_ms": 1.5 }), "wait_ms"),
        ("lock.acquire", json!({ "name": "a", "lease_ms": 149 }), "lease_ms"),
        ("lock.acquire", json!({ "name": "a", "lease_ms": 86_400_001 }), "lease_ms"),
        ("lock.acquire", json!({ "name": "a", "label": "x".repeat(257) }), "label"),
        ("lock.acquire", json!({ "name": "a", "label": "a\nb" }), "label"),
        ("lock.acquire", json!({ "name": "a b" }), "name"),
        ("lock.acquire", json!({ "name": "" }), "name"),
        ("lock.release", json!({ "lease": 1 }), "lease"),
        ("lock.break", json!({ "name": "a", "fence": "1" }), "fence"),
        ("kv.put", json!({ "key": "a" }), "value"),
        ("kv.put", json!({ "key": "a", "value": "x", "value_b64": "eA==" }), "value_b64"),
        ("kv.put", json!({ "key": "a", "value_b64": "?" }), "value_b64"),
        ("kv.put", json!({ "key": "a", "value": "x", "ttl_ms": 0 }), "ttl_ms"),
        ("cancel", json!({ "id": [1] }), "id"),
        ("ping", json!({ "a": 1 }), "a"),
    ] {
        let error = wire.call(method, params.clone()).unwrap_err();
        assert_eq!(kind(&error), "invalid_params", "{method} {params}");
        assert_eq!(error["data"]["param"], param, "{method} {params}: {error}");
        assert!(error["message"].as_str().unwrap().contains(param), "{error}");
    }
    for (method, params) in [
        ("lock.get", json!({ "name": ".." })),
        ("kv.get", json!({ "key": "a b" })),
        ("kv.put", json!({ "key": "", "value": "" })),
        ("kv.put", json!({ "key": "k", "value": "x".repeat(1 << 20) })),
        ("lock.break", json!({ "name": "*", "fence": 1 })),
    ] {
        assert_eq!(wire.refused(method, params), "invalid_params", "{method}");
    }
    let by_position = json!({ "jsonrpc": "2.0", "id": "p", "method": "lock.get", "params": ["a"] });
    wire.raw(format!("{by_position}\n"));
    assert_eq!(kind(&wire.answer("p")["error"]), "invalid_params");
}

#[test]
fn values_come_back_byte_for_byte() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    assert_eq!(wire.call("kv.get", json!({ "key": "k" })).unwrap(), json!({ "entry": null }));
    let first = wire.call("kv.put", json!({ "key": "k", "value": "zwölf\n" })).unwrap()["revision"].as_u64().unwrap();
    let entry = wire.call("kv.get", json!({ "key": "k" })).unwrap()["entry"].take();
    assert_eq!((&entry["key"], &entry["value"], &entry["revision"]), (&json!("k"), &json!("zwölf\n"), &json!(first)));
    assert_eq!(entry["operation"], "put");
    assert!(entry["created"].as_str().unwrap().ends_with('Z') && entry.get("value_b64").is_none());

    wire.call("kv.put", json!({ "key": "k", "value_b64": "/wA=" })).unwrap();
    let entry = wire.call("kv.get", json!({ "key": "k" })).unwrap()["entry"].take();
    assert!(entry["value_b64"] == "/wA=" && entry.get("value").is_none());
    assert_eq!(wire.call("kv.get", json!({ "key": "k", "revision": first })).unwrap(), json!({ "entry": null }));
    assert!(wire.call("kv.get", json!({ "key": "k", "revision": entry["revision"] })).unwrap()["entry"].is_object());

    // The longest value there can be, at its most awkward: every byte takes six on the wire.
    let long = "\u{1}".repeat((1 << 20) - (8 << 10));
    wire.call("kv.put", json!({ "key": "long", "value_b64": base64(long.as_bytes()) })).unwrap();
    let entry = wire.call("kv.get", json!({ "key": "long" })).unwrap()["entry"].take();
    assert_eq!(entry["value_b64"], base64(long.as_bytes()));

    assert!(wire.call("kv.get", json!({ "key": "k", "bucket": null })).is_ok());
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[test]
fn a_value_with_a_ttl_is_forgotten() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    wire.call("kv.put", json!({ "key": "k", "value": "x", "ttl_ms": 1 })).unwrap();
    let begun = Instant::now();
    while !wire.call("kv.get", json!({ "key": "k" })).unwrap()["entry"].is_null() {
        assert!(begun.elapsed() < daemon_support::PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "rounded up to a whole second: {:?}", begun.elapsed());
}

#[test]
fn a_fenced_write_is_refused_once_the_hold_is_over() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    let (lease, fence) = one.acquire("a");
    let put = |value: &str, lease: &str| json!({ "key": "k", "value": value, "fence_lease": lease });
    assert!(one.call("kv.put", put("1", &lease)).unwrap()["revision"].as_u64().unwrap() > fence);
    assert_eq!(two.refused("kv.put", put("2", &lease)), "not_held");
    assert_eq!(one.refused("kv.put", put("2", "l_77")), "not_held");

    // Broken by an administrator: the hold is lost, and what it writes is refused.
    assert_eq!(two.refused("lock.break", json!({ "name": "a", "fence": fence + 1 })), "conflict");
    assert_eq!(two.call("lock.break", json!({ "name": "a", "fence": fence })).unwrap(), json!({}));
    let error = one.call("kv.put", put("3", &lease)).unwrap_err();
    assert_eq!(kind(&error), "lost");
    assert_eq!(one.notice(), ("lease".to_owned(), json!({ "lease": lease, "state": "lost", "reason": "broken" })));
    let error = one.call("lock.check", json!({ "lease": lease })).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["reason"]), ("lost", &json!("broken")));
    assert_eq!(one.refused("lock.release", json!({ "lease": lease })), "lost");
    assert_eq!(two.call("kv.get", json!({ "key": "k" })).unwrap()["entry"]["value"], "1");
    assert!(two.acquire("a").1 > fence);
}

#[test]
fn a_broken_hold_is_told_without_being_asked() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    let (lease, fence) = one.acquire("a");
    two.call("lock.break", json!({ "name": "a", "fence": fence })).unwrap();
    assert_eq!(one.notice(), ("lease".to_owned(), json!({ "lease": lease, "state": "lost", "reason": "broken" })));
}

#[test]
fn every_line_gets_exactly_one_answer() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":"deep","method":"ping","params":{{"a":{}{}}}}}"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let deeper = "[".repeat(200_000);
    for (line, id, expected) in [
        (&b""[..], Json::Null, "parse_error"),
        (b"   ", Json::Null, "parse_error"),
        (b"hello", Json::Null, "parse_error"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"", Json::Null, "parse_error"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\xfe\"}", Json::Null, "parse_error"),
        (b"\xff", Json::Null, "parse_error"),
        (b"\0", Json::Null, "parse_error"),
        (deeper.as_bytes(), Json::Null, "parse_error"),
        (b"[]", Json::Null, "invalid_request"),
        (br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Json::Null, "invalid_request"),
        (b"1", Json::Null, "invalid_request"),
        (b"\"ping\"", Json::Null, "invalid_request"),
        (b"null", Json::Null, "invalid_request"),
        (b"{}", Json::Null, "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Json::Null, "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, Json::Null, "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, Json::Null, "invalid_request"),
        (br#"{"jsonrpc":2.0,"id":"v","method":"ping"}"#, json!("v"), "invalid_request"),
        (br#"{"id":"none","method":"ping"}"#, json!("none"), "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":"m"}"#, json!("m"), "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":"m","method":null}"#, json!("m"), "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":"r","result":{}}"#, json!("r"), "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":"e","method":"ping","parms":{}}"#, json!("e"), "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":"d","method":"ping","method":"ping"}"#, json!("d"), "invalid_request"),
        (br#"{"jsonrpc":"2.0","id":7,"method":"ping","params":null}"#, json!(7), "invalid_params"),
        (br#"{"jsonrpc":"2.0","id":7,"method":"ping","params":7}"#, json!(7), "invalid_params"),
        (deep.as_bytes(), json!("deep"), "invalid_params"),
        (br#"{"jsonrpc":"2.0","id":"","method":""}"#, json!(""), "method_not_found"),
        (br#"{"jsonrpc":"2.0","id":1.5,"method":"rpc.x"}"#, json!(1.5), "method_not_found"),
    ] {
        wire.raw([line, b"\n"].concat());
        let answer = wire.line().unwrap();
        let text = String::from_utf8_lossy(&line[..line.len().min(100)]);
        assert_eq!((&answer["id"], kind(&answer["error"]).as_str()), (&id, expected), "{text}: {answer}");
    }
    // What JSON leaves open is taken as it comes.
    wire.raw(b" \t{\"params\":{},\"method\":\"p\\u0069ng\",\"id\":\"a\\u0000\",\"jsonrpc\":\"2.0\"} \r\n");
    assert_eq!(wire.answer("a\0")["result"], json!({}));
    assert!(wire.is_quiet(Duration::from_millis(50)), "nothing is answered twice");
}

#[test]
fn a_line_may_come_in_pieces_and_many_at_once() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    for piece in br#"{"jsonrpc":"2.0","id":"slow","method":"ping"}"#.chunks(3) {
        wire.raw(piece);
        std::thread::sleep(Duration::from_millis(1));
    }
    wire.raw(b"\n");
    assert_eq!(wire.answer("slow")["result"], json!({}));
    let many: String = (0..5_000).map(|n| format!("{{\"jsonrpc\":\"2.0\",\"id\":{n},\"method\":\"ping\"}}\n")).collect();
    let mut writer = wire.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, many.as_bytes()).unwrap());
    for n in 0..5_000 {
        assert_eq!(wire.line().unwrap()["id"], n, "pings are answered in order");
    }
    writing.join().unwrap();
}

#[test]
fn a_line_cut_off_by_the_end_is_not_obeyed() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    wire.raw(br#"{"jsonrpc":"2.0","id":1,"method":"kv.put","params":{"key":"k","value":"x"}}"#);
    wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(wire.at_end());
    assert!(daemon.connect().call("kv.get", json!({ "key": "k" })).unwrap()["entry"].is_null());
}

#[test]
fn whoever_closes_one_side_still_gets_the_answers() {
    let daemon = Daemon::start();
    let mut holder = daemon.connect();
    holder.acquire("a");
    let mut wire = daemon.connect();
    let put = wire.send("kv.put", &json!({ "key": "k", "value": "x" }));
    let wait = wire.send("lock.acquire", &json!({ "name": "a" }));
    let get = wire.send("lock.get", &json!({ "name": "a" }));
    wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(wire.result(put).is_ok() && wire.result(get).is_ok());
    assert_eq!(kind(&wire.result(wait).unwrap_err()), "cancelled");
    assert!(wire.at_end());
}

#[test]
fn a_line_too_long_is_answered_and_ends_the_connection() {
    let daemon = Daemon::with(&["--store", "memory:", "--max-line", "4096"]);
    let mut witness = daemon.connect();
    // At the limit: the line is read.
    let mut wire = daemon.connect();
    let line = format!("{:4096}\n", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    wire.raw(&line);
    assert_eq!(wire.answer(1)["result"], json!({}));
    wire.acquire("a");
    wire.raw(format!(" {line}"));
    let refusal = wire.line().unwrap();
    assert_eq!((&refusal["id"], kind(&refusal["error"]).as_str()), (&Json::Null, "invalid_request"));
    assert!(wire.at_end());
    witness.acquire("a");

    // A client that is still writing gets to read why.
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    wire.raw(vec![b'x'; 5 << 20]);
    let refusal = wire.line().unwrap();
    assert_eq!(kind(&refusal["error"]), "invalid_request");
    wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(wire.at_end());
}

#[test]
fn an_answer_too_long_for_a_line_is_refused() {
    let daemon = Daemon::with(&["--store", "memory:", "--max-line", "4096"]);
    let error = daemon.connect().call("rpc.discover", json!({})).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["limit"]), ("limit", &json!("line_bytes")));
}

/// All elements of a list, asked for in pages of `limit`.
fn paged(wire: &mut Wire, method: &str, list: &str, limit: Option<usize>) -> (Vec<String>, usize) {
    let (mut names, mut pages, mut params) = (Vec::new(), 0, json!({ "limit": limit }));
    loop {
        let page = wire.call(method, params.clone()).unwrap();
        let part: Vec<_> = page[list].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        assert!(!part.is_empty() && part.len() <= limit.unwrap_or(usize::MAX), "{page}");
        assert!(page["next"].is_null() || page["next"] == *part.last().unwrap(), "{page}");
        names.extend(part);
        pages += 1;
        if page["next"].is_null() {
            return (names, pages);
        }
        params["after"] = page["next"].clone();
    }
}

#[test]
fn a_list_too_long_for_a_line_comes_in_several() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--max-line", "4096"]);
    let mut wire = daemon.connect();
    let names: Vec<_> = (0..10).map(|n| format!("{n}{}", "x".repeat(400))).collect();
    for name in &names {
        wire.acquire(name);
        wire.call("election.campaign", json!({ "name": name })).unwrap();
        wire.call("member.join", json!({ "group": name })).unwrap();
    }
    for (method, list) in [("lock.list", "locks"), ("election.list", "elections"), ("member.groups", "groups")] {
        let of_clients = |(mut found, pages): (Vec<String>, usize)| {
            found.retain(|name| !name.starts_with("tenure/"));
            (found, pages)
        };
        let (found, pages) = of_clients(paged(&mut wire, method, list, None));
        assert!(found == names && pages > 1, "{method}: {pages}");
        let (found, pages) = of_clients(paged(&mut wire, method, list, Some(1)));
        assert!(found == names && pages >= names.len(), "{method}: {pages}");
        assert_eq!(wire.refused(method, json!({ "limit": 0 })), "invalid_params");
        assert_eq!(wire.refused(method, json!({ "limit": -1 })), "invalid_params");
        // One that is not there is a place all the same.
        let rest = wire.call(method, json!({ "prefix": "9", "after": "8" })).unwrap();
        assert_eq!((rest[list].as_array().unwrap().len(), rest.get("next")), (1, None), "{rest}");
    }
}

#[test]
fn of_a_queue_too_long_for_a_line_the_first_are_told_and_how_many_more_there_are() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--max-line", "4096"]);
    let (mut holder, mut crowd) = (daemon.connect(), daemon.connect());
    holder.acquire("a");
    holder.acquire("b");
    for n in 0..40 {
        crowd.send("lock.acquire", &json!({ "name": "a", "label": format!("{n}") }));
    }
    let begun = std::time::Instant::now();
    loop {
        let lock = holder.call("lock.get", json!({ "name": "a" })).unwrap();
        let told = lock["waiters"].as_array().unwrap().len() as u64;
        let more = lock["more_waiters"].as_u64().unwrap_or(0);
        if told + more == 40 {
            assert!(told > 5 && more > 5, "{lock}");
            let fences: Vec<_> = lock["waiters"].as_array().unwrap().iter().map(|waiter| waiter["fence"].as_u64()).collect();
            assert!(fences.is_sorted(), "not the first of them: {lock}");
            break;
        }
        assert!(begun.elapsed() < daemon_support::PATIENCE, "{lock}");
    }
    let (names, pages) = paged(&mut holder, "lock.list", "locks", None);
    assert_eq!((names, pages), (vec!["a".to_owned(), "b".to_owned()], 2));
}

#[test]
fn notifications_are_obeyed_where_they_can_be_and_never_answered() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    for line in [
        r#"{"jsonrpc":"2.0","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","method":"lock.acquire","params":{"name":"a"}}"#,
        r#"{"jsonrpc":"2.0","method":"kv.put","params":{"key":"k","value":"x"}}"#,
        r#"{"jsonrpc":"2.0","method":"nothing"}"#,
        r#"{"jsonrpc":"2.0","method":"cancel","params":{"id":"nobody"}}"#,
        r#"{"jsonrpc":"2.0","method":"cancel"}"#,
    ] {
        wire.raw(format!("{line}\n"));
    }
    assert_eq!(wire.holder("a"), None);
    assert!(wire.call("kv.get", json!({ "key": "k" })).unwrap()["entry"].is_null());
    let mut holder = daemon.connect();
    holder.acquire("b");
    let waiting = wire.send("lock.acquire", &json!({ "name": "b" }));
    wire.raw(format!("{}\n", json!({ "jsonrpc": "2.0", "method": "cancel", "params": { "id": waiting } })));
    assert_eq!(kind(&wire.result(waiting).unwrap_err()), "cancelled");
    assert!(wire.is_quiet(Duration::from_millis(20)));
}

#[test]
fn an_id_in_flight_cannot_be_used_twice() {
    let daemon = Daemon::start();
    let (mut holder, mut wire) = (daemon.connect(), daemon.connect());
    let (lease, _) = holder.acquire("a");
    let request =
        |method: &str, params: Json| format!("{}\n", json!({ "jsonrpc": "2.0", "id": "x", "method": method, "params": params }));
    wire.raw(request("lock.acquire", json!({ "name": "a" })));
    for (method, params) in [("lock.acquire", json!({ "name": "b" })), ("ping", json!({})), ("kv.get", json!({ "key": "k" }))] {
        wire.raw(request(method, params));
        assert_eq!(kind(&wire.answer("x")["error"]), "invalid_request");
    }
    // Numbers and strings are different ids.
    wire.raw(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lock.acquire\",\"params\":{\"name\":\"n\"}}\n");
    assert_eq!(wire.answer(1)["result"]["lease"], "l_1");
    holder.call("lock.release", json!({ "lease": lease })).unwrap();
    assert_eq!(wire.answer("x")["result"]["lease"], "l_2");
    wire.raw(request("ping", json!({})));
    assert_eq!(wire.answer("x")["result"], json!({}), "free again");
}

#[test]
fn requests_leases_and_connections_are_limited() {
    let daemon = Daemon::with(&["--store", "memory:", "--max-leases", "100", "--max-connections", "3"]);
    let (mut holder, mut wire) = (daemon.connect(), daemon.connect());
    let (lease, _) = holder.acquire("a");
    let leases: Vec<String> = (0..3).map(|n| wire.acquire(&format!("b{n}")).0).collect();
    let waiting: Vec<u64> = (0..64).map(|_| wire.send("lock.acquire", &json!({ "name": "a" }))).collect();
    let error = wire.call("kv.get", json!({ "key": "k" })).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["limit"]), ("limit", &json!("requests")));
    assert!(wire.call("ping", json!({})).is_ok(), "what is answered at once is never in flight");
    assert_eq!(wire.call("status", json!({})).unwrap()["connection"]["requests"], 64);
    for lease in &leases {
        wire.call("lock.release", json!({ "lease": lease })).expect("no limit keeps a lease held");
    }
    assert_eq!(kind(&wire.call("lock.release", json!({ "lease": "l_1" })).unwrap_err()), "limit");
    for id in &waiting {
        assert_eq!(wire.call("cancel", json!({ "id": id })).unwrap(), json!({}));
        assert_eq!(kind(&wire.result(*id).unwrap_err()), "cancelled");
        // The place is free once its answer has been read.
        assert!(wire.call("kv.get", json!({ "key": "k" })).is_ok());
    }
    holder.call("lock.release", json!({ "lease": lease })).unwrap();

    for n in 0..100 {
        wire.acquire(&format!("n{n}"));
    }
    let error = wire.call("lock.acquire", json!({ "name": "one-more" })).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["limit"]), ("limit", &json!("leases")));
    wire.call("lock.release", json!({ "lease": "l_50" })).unwrap();
    wire.acquire("one-more");

    let third = daemon.connect();
    await_connections(&mut holder, 3);
    let mut fourth = daemon.connect();
    let refusal = fourth.line().unwrap();
    assert_eq!((kind(&refusal["error"]).as_str(), &refusal["error"]["data"]["limit"]), ("limit", &json!("connections")));
    assert!(fourth.at_end());
    drop(third);
    await_connections(&mut holder, 2);
    assert!(daemon.connect().call("ping", json!({})).is_ok());
}

fn await_connections(wire: &mut Wire, count: usize) {
    let begun = Instant::now();
    while wire.call("status", json!({})).unwrap()["connections"] != count {
        assert!(begun.elapsed() < daemon_support::PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn lease_lengths_are_shared_and_limited() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    for n in 0..64 {
        wire.call("lock.acquire", json!({ "name": format!("n{n}"), "lease_ms": 60_000 + n })).unwrap();
    }
    assert!(wire.call("lock.acquire", json!({ "name": "same", "lease_ms": 60_000 })).is_ok());
    let error = wire.call("lock.acquire", json!({ "name": "other", "lease_ms": 70_000 })).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["limit"]), ("limit", &json!("lease_lengths")));
    wire.call("lock.release", json!({ "lease": "l_7" })).unwrap();
    assert!(wire.call("lock.acquire", json!({ "name": "other", "lease_ms": 70_000 })).is_ok(), "an idle one makes room");
    let status = wire.call("status", json!({})).unwrap();
    let users: u64 = status["sessions"].as_array().unwrap().iter().map(|session| session["users"].as_u64().unwrap()).sum();
    assert_eq!((users, &status["leases"]), (65, &json!(65)));
}

#[test]
fn waiters_are_served_in_the_order_they_came() {
    let daemon = Daemon::start();
    let mut holder = daemon.connect();
    let (lease, _) = holder.acquire("a");
    let mut waiters: Vec<(Wire, u64)> = Vec::new();
    for n in 0..12 {
        // From different connections and with different leases, which are different sessions.
        let mut wire = daemon.connect();
        let id = wire.send("lock.acquire", &json!({ "name": "a", "label": n.to_string(), "lease_ms": 3_000 + n % 3 }));
        holder.await_waiters("a", n + 1);
        waiters.push((wire, id));
    }
    holder.call("lock.release", json!({ "lease": lease })).unwrap();
    let mut last = 0;
    for (mut wire, id) in waiters {
        let held = wire.result(id).unwrap();
        let fence = held["fence"].as_u64().unwrap();
        assert!(fence > last, "tokens grow in the order of grants");
        assert_eq!(holder.holder("a"), Some(fence));
        last = fence;
        wire.call("lock.release", json!({ "lease": held["lease"] })).unwrap();
    }
}

#[test]
fn damaged_lines_get_one_answer_each() {
    let daemon = Daemon::start();
    let wire = daemon.connect();
    let frames = [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":"abc","method":"kv.get","params":{"key":"some/key"}}"#,
        r#"{"jsonrpc":"2.0","id":-7,"method":"lock.check","params":{"lease":"l_1"}}"#,
        r#"{"jsonrpc":"2.0","id":0.5,"method":"hello","params":{"protocol":[1],"client":"\u00e4\\"}}"#,
        r#"{"jsonrpc":"2.0","method":"cancel","params":{"id":3}}"#,
    ];
    // A generator of its own, so that a failure comes again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let (mut text, mut expected) = (Vec::new(), 0);
    for _ in 0..20_000 {
        let mut line = frames[random(frames.len())].as_bytes().to_vec();
        for _ in 0..random(4) {
            if line.is_empty() {
                break;
            }
            let at = random(line.len());
            match random(4) {
                0 => line[at] = u8::try_from(random(256)).unwrap(),
                1 => drop(line.remove(at)),
                2 => line.insert(at, b"{}[]\",:\\0e-\xff"[random(12)]),
                _ => line.truncate(at + 1),
            }
        }
        line.retain(|byte| *byte != b'\n');
        let is_notification =
            matches!(tenure_sidecar::protocol::frame::Request::parse(&line), Ok(request) if request.id.is_none());
        expected += usize::from(!is_notification);
        text.extend(line);
        text.push(b'\n');
    }
    let mut writer = wire.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &text).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut wire = wire;
    let mut answers = 0;
    while let Some(line) = wire.line() {
        assert!(line.get("result").is_some() != line.get("error").is_some(), "{line}");
        if let Some(error) = line.get("error") {
            kind(error);
        }
        answers += 1;
    }
    writing.join().unwrap();
    assert_eq!(answers, expected);
}
