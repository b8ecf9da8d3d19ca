//! The daemon's HTTP listener: who leads, who is there, and how it bears bad clients.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;
mod http_rig;

use std::{
    io::{ErrorKind, Read, Write},
    process::Command,
    time::Duration,
};

use daemon_support::{Wire, wait};
use http_rig::{Events, ask, get, open, start, until};
use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};

fn campaign(wire: &mut Wire, name: &str, value: &str) -> Json {
    let params = json!({ "name": name, "value": value, "label": "a secret of ours" });
    wire.call("election.campaign", params).unwrap()
}

#[test]
fn it_lives_and_is_ready_and_is_for_reading_only() {
    let (_daemon, http) = start(&[]);
    assert_eq!(get(http, "/healthz").json(), json!({ "alive": true }));
    let ready = get(http, "/readyz");
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)), "{ready:?}");
    let nowhere = get(http, "/v2/leader/x");
    assert_eq!((nowhere.status, nowhere.kind().as_str()), (404, "not_found"));
    assert!(nowhere.body.contains("/v1/leader/NAME"), "{nowhere:?}");
    let post = ask(http, "POST /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
    assert_eq!((post.status, post.kind().as_str()), (405, "method_not_allowed"));
    assert!(post.head.contains("allow: get, head"), "{post:?}");
    let head = ask(http, "HEAD /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
    let head = ask(http, "HEAD /v1/leader/x/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
    assert!(head.head.contains("content-type: text/event-stream"), "{head:?}");
    assert_eq!(ask(http, "nonsense\r\n\r\n").status, 400);
}

#[test]
fn a_policy_says_what_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let everybody = "[[allow]]\nuser = \"*\"\nmethods = [\"election\", \"member\"]\n";
    let secret = "[[deny]]\nuser = \"*\"\nmethods = \"election.observe\"\nprefix = \"secret\"\n";
    std::fs::write(&path, format!("{everybody}{secret}")).unwrap();
    let (daemon, http) = start(&["--lease", "60s", "--policy", path.to_str().unwrap()]);
    let mut one = daemon.connect();
    for name in ["web", "other", "secret"] {
        campaign(&mut one, name, "one");
    }
    one.call("member.join", json!({ "group": "web", "id": "a" })).unwrap();
    for path in ["/v1/leader/web", "/v1/leader/other", "/v1/members/web"] {
        until(http, path, 200);
    }
    for path in ["/v1/leader/secret", "/v1/leader/secret/events", "/v1/leader/%73ecret"] {
        let denied = get(http, path);
        assert_eq!((denied.status, denied.kind().as_str()), (403, "denied"), "{path}: {denied:?}");
        assert!(!denied.body.contains("one") && denied.body.contains("http = true"), "{denied:?}");
    }
    let mut events = Events::of(http, "/v1/members/web/events");
    let of_http = "[[allow]]\nhttp = true\nmethods = \"election.observe\"\nprefix = [\"web\", \"secret\"]\n";
    std::fs::write(&path, format!("{everybody}{secret}{of_http}")).unwrap();
    daemon.signal(Signal::SIGHUP);
    for path in ["/v1/leader/other", "/v1/leader/secret", "/v1/members/web", "/v1/members/web/events"] {
        until(http, path, 403);
    }
    assert_eq!(get(http, "/v1/leader/web").status, 200);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(http, path).status, 200, "{path}");
    }
    assert_eq!(events.next().unwrap().0, "join", "what was begun goes on");
}

#[test]
fn a_load_balancer_finds_the_leader() {
    let (daemon, http) = start(&["--lease", "60s"]);
    let nobody = get(http, "/v1/leader/a%2Fb");
    assert_eq!((nobody.status, nobody.kind().as_str()), (503, "no_leader"), "{nobody:?}");
    let mut one = daemon.connect();
    let elected = campaign(&mut one, "a/b", "10.0.0.7:80");
    let led = until(http, "/v1/leader/a%2Fb", 200);
    let page = led.json();
    assert_eq!((&page["name"], &page["leader"]["value"]), (&json!("a/b"), &json!("10.0.0.7:80")));
    assert_eq!(page["leader"]["fence"], elected["fence"]);
    assert!(page["age_ms"].as_u64().unwrap() < 60_000, "{page}");
    for hidden in ["secret", "session", "host", "pid", "candidate", "label"] {
        assert!(!led.body.contains(hidden), "{hidden} is shown: {led:?}");
    }
    let query = |query: &str| get(http, &format!("/v1/leader/a%2Fb?{query}"));
    assert_eq!(query("value=10.0.0.7:80").status, 200);
    assert_eq!(query("id=10.0.0.7%3A80&max_age_ms=60000").status, 200);
    let other = query("value=10.0.0.8:80");
    assert_eq!((other.status, other.kind().as_str()), (503, "not_leader"));
    assert_eq!(query("valeu=x").status, 400);
    assert_eq!(get(http, "/v1/leader/a..b").status, 400);
    assert_eq!(get(http, &format!("/v1/leader/{}", "x".repeat(600))).status, 400);
    one.call("election.resign", json!({ "lease": elected["lease"] })).unwrap();
    assert_eq!(until(http, "/v1/leader/a%2Fb", 503).kind(), "no_leader");
}

#[test]
fn the_age_grows_and_a_reader_may_want_it_fresher() {
    let (daemon, http) = start(&["--lease", "2s"]);
    let mut one = daemon.connect();
    // A leader with a lease that is much longer is looked at just as often.
    let params = json!({ "name": "e", "value": "x", "lease_ms": 600_000 });
    one.call("election.campaign", params).unwrap();
    until(http, "/v1/leader/e", 200);
    let stale = until(http, "/v1/leader/e?max_age_ms=100", 503);
    assert_eq!(stale.kind(), "stale");
    assert!(stale.json()["age_ms"].as_u64().unwrap() >= 100, "{stale:?}");
    // It is looked at again and again.
    until(http, "/v1/leader/e?max_age_ms=100", 200);
}

#[test]
fn events_are_those_of_the_socket() {
    let (mut daemon, http) = start(&["--lease", "60s", "--drain", "200ms"]);
    let mut one = daemon.connect();
    let mut led = Events::of(http, "/v1/leader/e/events");
    assert_eq!(led.next().unwrap(), ("leader".into(), json!({ "kind": "leader", "leader": null })));
    assert_eq!(led.next().unwrap(), ("sync".into(), json!({ "kind": "sync" })));
    let elected = campaign(&mut one, "e", "x");
    let (kind, event) = led.next().unwrap();
    assert_eq!((kind.as_str(), &event["leader"]["fence"]), ("leader", &elected["fence"]));
    assert!(event["leader"].get("label").is_none() && event["leader"].get("host").is_none(), "{event}");

    let mut group = Events::of(http, "/v1/members/g/events");
    assert_eq!(group.next().unwrap().0, "sync");
    let params = json!({ "group": "g", "id": "m", "value": "v", "address": "h:1", "label": "secret" });
    let joined = one.call("member.join", params).unwrap();
    let (kind, event) = group.next().unwrap();
    assert_eq!((kind.as_str(), &event["member"]["address"]), ("join", &json!("h:1")));
    assert!(event["member"].get("label").is_none() && event["member"].get("session").is_none(), "{event}");
    let listed = until(http, "/v1/members/g", 200).json();
    assert_eq!((&listed["members"][0]["id"], &listed["members"][0]["value"]), (&json!("m"), &json!("v")), "{listed}");
    one.call("member.leave", json!({ "lease": joined["lease"] })).unwrap();
    assert_eq!(group.next().unwrap().0, "leave");

    daemon.signal(Signal::SIGTERM);
    assert_eq!(led.next().unwrap(), ("end".into(), json!({ "kind": "end", "reason": "leaving" })));
    assert_eq!(led.next(), None);
    assert!(wait(&mut daemon.child).success());
}

#[test]
fn who_is_told_nothing_hears_a_comment_now_and_then() {
    let (_daemon, http) = start(&["--lease", "60s"]);
    let mut stream = open(http);
    write!(stream, "GET /v1/leader/e/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let (mut told, mut part) = (String::new(), [0; 4_096]);
    // Events end with an empty line, and so do comments.
    while !told.contains("\n: still here\n\n") {
        let length = stream.read(&mut part).unwrap();
        assert!(length > 0, "it ended: {told}");
        told.push_str(std::str::from_utf8(&part[..length]).unwrap());
    }
    assert!(told.contains("event: sync\n"), "{told}");
}

#[test]
fn a_daemon_that_leaves_is_not_ready_first() {
    let (mut daemon, http) = start(&["--drain", "20s"]);
    let mut one = daemon.connect();
    let (lease, _) = one.acquire("x");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(until(http, "/readyz", 503).kind(), "draining");
    assert_eq!(get(http, "/healthz").status, 200);
    assert_eq!(http_rig::sample(&get(http, "/metrics").body, "tenure_draining"), 1.0);
    one.call("lock.release", json!({ "lease": lease })).unwrap();
    assert!(wait(&mut daemon.child).success());

    let (mut daemon, http) = start(&["--drain", "0s"]);
    let _idle = open(http);
    daemon.signal(Signal::SIGTERM);
    assert!(wait(&mut daemon.child).success(), "it does not wait where it has no time");
}

#[test]
fn who_does_not_read_is_disconnected_and_nobody_else() {
    let (daemon, http) = start(&["--lease", "60s", "--stall", "300ms"]);
    let mut one = daemon.connect();
    let lease = campaign(&mut one, "e", "x")["lease"].clone();
    let mut slow = open(http);
    write!(slow, "GET /v1/leader/e/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let streams = |http| http_rig::sample(&get(http, "/metrics").body, "tenure_http_connections");
    let begun = std::time::Instant::now();
    let big = "v".repeat(60_000);
    let mut turn = 0;
    // Its own connection, which asks, is one.
    while streams(http) > 1.0 || turn == 0 {
        assert!(begun.elapsed() < daemon_support::PATIENCE, "it is still connected");
        for _ in 0..20 {
            turn += 1;
            one.call("election.proclaim", json!({ "lease": lease, "value": format!("{turn}{big}") })).unwrap();
        }
    }
    // Cut off, and not ended in good order.
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    assert_eq!(get(http, "/v1/leader/e").status, 200);
}

#[test]
fn probes_are_answered_whoever_else_is_there() {
    let (daemon, http) = start(&["--lease", "60s"]);
    let mut streams: Vec<_> = (0..192).map(|_| Events::of(http, "/v1/leader/e/events")).collect();
    let refused = get(http, "/v1/leader/e/events");
    assert_eq!((refused.status, refused.kind().as_str()), (503, "limit"), "{refused:?}");
    // Who says nothing, who does not come to an end, and who has asked and stays: twice as many as there are places left.
    let said: [&[u8]; 3] = [b"", b"GET /healthz HTTP/1.1\r\nx", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"];
    let crowd: Vec<_> = (0..128)
        .map(|number| {
            let mut stream = open(http);
            stream.write_all(said[number % 3]).unwrap();
            stream
        })
        .collect();
    for path in ["/healthz", "/readyz", "/metrics", "/v1/members/g"].repeat(5) {
        assert_eq!(get(http, path).status, 200, "{path}");
    }
    let open = http_rig::sample(&get(http, "/metrics").body, "tenure_http_connections");
    assert!(open > 192.0, "the crowd was not there: {open}");
    // Nor does anybody lose a stream.
    let mut one = daemon.connect();
    campaign(&mut one, "e", "x");
    for stream in &mut streams {
        while stream.next().unwrap().1["leader"]["value"] != "x" {}
    }
    // The time of all others is over in a while.
    for mut stream in crowd {
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn a_client_that_does_not_come_to_the_end_of_its_question_is_closed() {
    let (_daemon, http) = start(&[]);
    let mut slow = open(http);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nx: ").unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let begun = std::time::Instant::now();
    // A byte now and then gives it no more time.
    loop {
        if slow.write_all(b"y").is_err() {
            break;
        }
        match slow.read(&mut [0; 64]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) | Ok(0) => break,
            Ok(_) => {}
        }
        assert!(begun.elapsed() < daemon_support::PATIENCE, "it may go on for ever");
    }
    let big = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    let mut stream = open(http);
    let _ = stream.write_all(big.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn an_address_that_cannot_be_had_is_one_sentence() {
    let (_daemon, http) = start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let run = |address: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenured"));
        command.arg("--socket").arg(directory.path().join("s.sock")).args(["--store", "memory:", "--log", "error"]);
        let output = command.args(["--http", address]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&http.to_string());
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("--http"), "{said}");
    let (code, said) = run("example.org:80");
    assert_eq!((code, said.lines().count()), (Some(64), 1), "{said}");
    assert!(said.contains("9464"), "{said}");
}
