//! Groups over the socket: joining, changing, leaving, watching, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use daemon_support::{Client, Daemon, PATIENCE, Wire, kind};
use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};

/// Not a test: the process of [`Client`].
#[test]
#[ignore = "the client process of other tests, started by them"]
fn client_process() {
    let socket = std::env::var("CLIENT_SOCKET").expect("started by another test");
    let mut wire = Wire::connect(Path::new(&socket));
    let lease = join(&mut wire, &std::env::var("CLIENT_LOCK").unwrap(), "process");
    println!("holding: {lease}");
    std::thread::sleep(Duration::from_secs(60));
}

fn join(wire: &mut Wire, group: &str, id: &str) -> String {
    let joined = wire.call("member.join", json!({ "group": group, "id": id })).unwrap();
    joined["lease"].as_str().unwrap().to_owned()
}

fn list(wire: &mut Wire, group: &str) -> Vec<Json> {
    wire.call("member.list", json!({ "group": group })).unwrap()["members"].as_array().unwrap().clone()
}

fn ids(wire: &mut Wire, group: &str) -> Vec<String> {
    list(wire, group).iter().map(|member| member["id"].as_str().unwrap().to_owned()).collect()
}

fn watch(wire: &mut Wire, group: &str) -> String {
    wire.call("member.watch", json!({ "group": group })).unwrap()["subscription"].as_str().unwrap().to_owned()
}

/// The next event, which must be of `subscription`.
fn event(wire: &mut Wire, subscription: &str) -> Json {
    let (method, params) = wire.notice();
    assert_eq!((method.as_str(), &params["subscription"]), ("event", &json!(subscription)), "{params}");
    params
}

#[test]
fn members_join_change_and_leave() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    assert_eq!(list(&mut one, "web"), Vec::<Json>::new());
    let joined = one
        .call(
            "member.join",
            json!({
                "group": "web", "id": "w1", "value": "v", "address": "10.0.0.7:80", "zone": "eu", "weight": 3,
                "metadata": { "version": "1.9" }, "state": "warning", "label": "first", "lease_ms": 60_000
            }),
        )
        .unwrap();
    let (lease, revision) = (joined["lease"].clone(), joined["revision"].as_u64().unwrap());
    assert_eq!((&joined["id"], &joined["lease_ms"]), (&json!("w1"), &json!(60_000)));
    let check = one.call("lock.check", json!({ "lease": lease })).unwrap();
    assert_eq!((&check["held"], &check["fence"]), (&json!(true), &json!(revision)));
    let mut seen = list(&mut two, "web").remove(0);
    assert!(seen["session"].as_str().unwrap().len() > 8 && !seen["host"].as_str().unwrap().is_empty());
    for known in ["session", "host"] {
        seen.as_object_mut().unwrap().remove(known);
    }
    assert_eq!(
        seen,
        json!({
            "id": "w1", "revision": revision, "value": "v", "address": "10.0.0.7:80", "zone": "eu", "weight": 3,
            "metadata": { "version": "1.9" }, "state": "warning", "label": "first", "pid": std::process::id()
        })
    );

    let error = two.call("member.join", json!({ "group": "web", "id": "w1" })).unwrap_err();
    assert_eq!(kind(&error), "conflict");
    assert!(error["message"].as_str().unwrap().contains("w1"), "{error}");
    let unnamed = two.call("member.join", json!({ "group": "web" })).unwrap();
    assert_eq!(list(&mut one, "web").len(), 2);
    assert_eq!(two.call("status", json!({})).unwrap()["members"], 2);
    two.call("member.leave", json!({ "lease": unnamed["lease"] })).unwrap();

    let change = json!({ "lease": lease, "value_b64": "/w==", "zone": null, "weight": 9, "metadata": {}, "state": "draining" });
    let changed = one.call("member.update", change.clone()).unwrap()["revision"].as_u64().unwrap();
    assert!(changed > revision);
    assert_eq!(one.call("member.update", change).unwrap()["revision"], changed, "what changes nothing is not written");
    let seen = list(&mut two, "web").remove(0);
    assert_eq!(
        (&seen["value_b64"], &seen["zone"], &seen["weight"], &seen["metadata"], &seen["state"], &seen["address"]),
        (&json!("/w=="), &json!(null), &json!(9), &json!({}), &json!("draining"), &json!("10.0.0.7:80"))
    );
    assert_eq!(one.call("member.leave", json!({ "lease": lease })).unwrap(), json!({}));
    assert_eq!(list(&mut two, "web"), Vec::<Json>::new());
    assert_eq!(one.refused("member.leave", json!({ "lease": lease })), "not_held");
    assert_eq!(one.refused("member.update", json!({ "lease": lease, "weight": 1 })), "not_held");
    join(&mut two, "web", "w1");
}

#[test]
fn a_watch_tells_who_is_there_and_every_change() {
    let daemon = Daemon::start();
    let (mut one, mut two, mut watcher) = (daemon.connect(), daemon.connect(), daemon.connect());
    join(&mut one, "web", "w1");
    join(&mut one, "web.eu", "other");
    let watched = watch(&mut watcher, "web");
    let first = event(&mut watcher, &watched);
    assert_eq!((&first["kind"], &first["member"]["id"]), (&json!("join"), &json!("w1")));
    let sync = event(&mut watcher, &watched);
    assert!(sync["kind"] == "sync" && sync["revision"].as_u64() >= first["member"]["revision"].as_u64(), "{sync}");
    let lease = join(&mut two, "web", "w2");
    assert_eq!(event(&mut watcher, &watched)["member"]["id"], "w2");
    two.call("member.update", json!({ "lease": lease, "weight": 7 })).unwrap();
    let update = event(&mut watcher, &watched);
    assert_eq!((&update["kind"], &update["member"]["weight"]), (&json!("update"), &json!(7)));
    two.call("member.leave", json!({ "lease": lease })).unwrap();
    let leave = event(&mut watcher, &watched);
    assert_eq!((&leave["kind"], &leave["id"]), (&json!("leave"), &json!("w2")));
    assert!(leave["revision"].as_u64() > update["member"]["revision"].as_u64(), "{leave}");
    drop(one);
    assert_eq!(event(&mut watcher, &watched)["id"], "w1");
    watcher.call("subscription.cancel", json!({ "subscription": watched })).unwrap();
    join(&mut two, "web", "w3");
    assert!(watcher.is_quiet(Duration::from_millis(100)));
}

#[test]
fn a_killed_clients_member_is_gone_in_milliseconds() {
    let daemon = Daemon::start();
    let mut watcher = daemon.connect();
    let watched = watch(&mut watcher, "web");
    assert_eq!(event(&mut watcher, &watched)["kind"], "sync");
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut client = Client::start(&daemon, "web", "plain");
        client.await_word("holding");
        assert_eq!(event(&mut watcher, &watched)["kind"], "join");
        let begun = Instant::now();
        client.signal(Signal::SIGKILL);
        assert_eq!(event(&mut watcher, &watched)["kind"], "leave");
        best = best.min(begun.elapsed());
    }
    println!("gone after SIGKILL: {best:?}");
    assert!(best < Duration::from_millis(250), "{best:?}");
}

#[test]
fn a_silent_client_leaves_its_group() {
    let daemon = Daemon::start();
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    wire.call("hello", json!({ "protocol": [1], "heartbeat_ms": 300 })).unwrap();
    let lease = join(&mut wire, "web", "w1");
    let watched = watch(&mut watcher, "web");
    while event(&mut watcher, &watched)["kind"] != "sync" {}
    assert_eq!(event(&mut watcher, &watched)["id"], "w1");
    assert_eq!(wire.notice().1, json!({ "lease": lease, "state": "lost", "reason": "client_silent" }));
    join(&mut wire, "web", "w1");
}

#[test]
fn checks_move_a_member_and_a_critical_one_leaves() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--min-check-interval", "20ms"]);
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let watched = watch(&mut watcher, "web");
    assert_eq!(event(&mut watcher, &watched)["kind"], "sync");
    let tcp = format!("tcp:{}", server.local_addr().unwrap());
    wire.call(
        "member.join",
        json!({
            "group": "web", "id": "w1", "leave_when_critical_ms": 50,
            "checks": [{ "check": tcp, "interval_ms": 20, "timeout_ms": 5_000, "rise": 1, "fall": 1, "initially": "warning" }]
        }),
    )
    .unwrap();
    // The first look may come before the first write.
    loop {
        let event = event(&mut watcher, &watched);
        if event["member"]["state"] == "passing" {
            break;
        }
        assert_eq!(event["member"]["state"], "warning", "{event}");
    }
    drop(server);
    assert_eq!(event(&mut watcher, &watched)["member"]["state"], "critical");
    assert_eq!(event(&mut watcher, &watched)["kind"], "leave");
    assert_eq!(wire.notice().1, json!({ "lease": "l_1", "state": "lost", "reason": "critical" }));
    assert_eq!(wire.refused("member.update", json!({ "lease": "l_1", "weight": 2 })), "lost");
}

#[test]
fn heartbeats_of_the_application_keep_a_member_passing() {
    let daemon = Daemon::start();
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    let watched = watch(&mut watcher, "web");
    let checks = json!([{ "check": "heartbeat:0.3" }]);
    wire.call("member.join", json!({ "group": "web", "id": "w1", "checks": checks })).unwrap();
    while event(&mut watcher, &watched)["kind"] != "join" {}
    while event(&mut watcher, &watched)["member"]["state"] != "critical" {}
    assert_eq!(wire.call("member.beat", json!({ "lease": "l_1" })).unwrap(), json!({}));
    assert_eq!(event(&mut watcher, &watched)["member"]["state"], "passing");
}

#[test]
fn a_slow_reader_loses_its_watch_and_nothing_else() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--stall", "300ms"]);
    let (mut wire, mut slow, mut quick) = (daemon.connect(), daemon.connect(), daemon.connect());
    let held = slow.acquire("a").0;
    let watched = watch(&mut slow, "web");
    let followed = watch(&mut quick, "web");
    let value = "x".repeat(60_000);
    assert_eq!(event(&mut quick, &followed)["kind"], "sync");
    // One reads as it comes; the other does not read at all.
    let mut leases = Vec::new();
    for n in 0..60 {
        let joined = wire.call("member.join", json!({ "group": "web", "id": format!("w{n}"), "value": value })).unwrap();
        leases.push(joined["lease"].clone());
        assert_eq!(event(&mut quick, &followed)["member"]["id"], format!("w{n}"));
    }
    quick.call("subscription.cancel", json!({ "subscription": followed })).unwrap();
    let begun = Instant::now();
    while wire.call("status", json!({})).unwrap()["subscriptions"] != 0 {
        assert!(begun.elapsed() < PATIENCE, "the watch of the slow reader goes on");
        let weight = 1 + u32::try_from(begun.elapsed().as_millis()).unwrap();
        wire.call("member.update", json!({ "lease": leases[0], "weight": weight })).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let last = loop {
        let event = event(&mut slow, &watched);
        if event["kind"] == "end" {
            break event;
        }
    };
    assert_eq!(last["reason"], "slow_reader");
    assert_eq!(slow.call("lock.check", json!({ "lease": held })).unwrap()["held"], true);
    let again = watch(&mut slow, "web");
    let mut here = 0;
    while event(&mut slow, &again)["kind"] != "sync" {
        here += 1;
    }
    assert_eq!(here, 60);
    assert_eq!(quick.call("ping", json!({})).unwrap(), json!({}));
}

#[test]
fn lease_notices_overtake_events_that_wait() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--stall", "60s"]);
    let (mut wire, mut slow) = (daemon.connect(), daemon.connect());
    let (lease, fence) = slow.acquire("a");
    watch(&mut slow, "web");
    let value = "x".repeat(60_000);
    for n in 0..60 {
        wire.call("member.join", json!({ "group": "web", "id": format!("w{n}"), "value": value })).unwrap();
    }
    wire.call("lock.break", json!({ "name": "a", "fence": fence })).unwrap();
    let begun = Instant::now();
    while wire.call("status", json!({})).unwrap()["leases"] != 60 {
        assert!(begun.elapsed() < PATIENCE);
    }
    let before = std::iter::from_fn(|| slow.line()).take_while(|line| line["method"] != "lease").count();
    assert!(before < 30, "{before} events came before the notice that {lease} is lost");
}

#[test]
fn a_list_longer_than_a_line_comes_in_parts() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--max-line", "8192"]);
    let mut wire = daemon.connect();
    for n in 0..100 {
        join(&mut wire, "web", &format!("w{n:03}"));
    }
    let (mut ids, mut after, mut parts) = (Vec::new(), None, 0);
    loop {
        let mut params = json!({ "group": "web" });
        if let Some(after) = after {
            params["after"] = after;
        }
        let part = wire.call("member.list", params).unwrap();
        parts += 1;
        ids.extend(part["members"].as_array().unwrap().iter().map(|member| member["id"].as_str().unwrap().to_owned()));
        match part.get("next") {
            Some(next) => after = Some(next.clone()),
            None => break,
        }
    }
    assert_eq!(ids, (0..100).map(|n| format!("w{n:03}")).collect::<Vec<_>>());
    assert!(parts > 1, "{parts}");
}

#[test]
fn a_leaving_daemon_leaves_its_groups() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("file:{}", directory.path().join("store.db").display());
    let mut daemon = Daemon::with(&["--store", &store, "--lease", "60s", "--drain", "500ms"]);
    let mut wire = daemon.connect();
    let lease = join(&mut wire, "web", "w1");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(wire.notice().0, "goaway");
    assert_eq!(wire.refused("member.join", json!({ "group": "web", "id": "w2" })), "unavailable");
    assert_eq!(wire.notice().1, json!({ "lease": lease, "state": "lost", "reason": "closed" }));
    assert_eq!(daemon.wait().code(), Some(0));
    let next = Daemon::with(&["--store", &store, "--lease", "60s"]);
    assert_eq!(ids(&mut next.connect(), "web"), Vec::<String>::new());
}

#[test]
fn what_a_killed_daemon_left_is_removed_though_nobody_joins() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("file:{}", directory.path().join("store.db").display());
    let arguments = ["--store", &store, "--lease", "500ms"];
    let doomed = Daemon::with(&arguments);
    let mut wire = doomed.connect();
    join(&mut wire, "web", "w1");
    doomed.kill();
    let daemon = Daemon::with(&arguments);
    let mut watcher = daemon.connect();
    let watched = watch(&mut watcher, "web");
    let joined = event(&mut watcher, &watched);
    assert_eq!((&joined["kind"], &joined["member"]["id"]), (&json!("join"), &json!("w1")));
    while event(&mut watcher, &watched)["kind"] != "leave" {}
    assert_eq!(list(&mut watcher, "web"), Vec::<Json>::new());
}

#[test]
fn records_that_something_else_wrote_are_passed_over_and_counted() {
    use tenure_kv::{Key, StoreExt};
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().join("store.db").display());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = tenure_kv::open(&url).await.unwrap();
        store.put(&Key::new("member.web.alien").unwrap(), "not one of ours").await.unwrap();
    });
    let daemon = Daemon::with(&["--store", &url, "--lease", "60s"]);
    let mut wire = daemon.connect();
    let watched = watch(&mut wire, "web");
    assert_eq!(event(&mut wire, &watched)["kind"], "sync");
    join(&mut wire, "web", "w1");
    assert_eq!(event(&mut wire, &watched)["member"]["id"], "w1");
    let listed = wire.call("member.list", json!({ "group": "web" })).unwrap();
    assert_eq!((&listed["unreadable"], listed["members"].as_array().unwrap().len()), (&json!(1), 1));
    assert!(listed["revision"].as_u64() >= listed["members"][0]["revision"].as_u64());
    assert_eq!(wire.refused("member.join", json!({ "group": "web", "id": "alien" })), "conflict");
}

#[test]
fn wrong_parameters_are_named() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let lease = join(&mut wire, "web", "w1");
    let long = |n: usize| "x".repeat(n + 1);
    let with = |field: &str, wrong: Json| {
        let mut params = json!({ "group": "web", "id": "w2" });
        params[field] = wrong;
        params
    };
    let check = |check: Json| with("checks", json!([check]));
    let many: Vec<Json> = (0..17).map(|_| json!({ "check": "heartbeat:1" })).collect();
    for (method, params, param) in [
        ("member.join", json!({}), "group"),
        ("member.join", json!({ "group": "a b" }), "group"),
        ("member.join", json!({ "group": "" }), "group"),
        ("member.join", json!({ "group": long(tenure::MAX_NAME) }), "group"),
        ("member.join", with("adress", json!("x")), "adress"),
        ("member.join", with("id", json!("a.b")), "id"),
        ("member.join", with("id", json!("")), "id"),
        ("member.join", with("id", json!("a b")), "id"),
        ("member.join", with("id", json!(long(256))), "id"),
        ("member.join", with("value", json!(long(64 << 10))), "value"),
        ("member.join", with("value_b64", json!("?")), "value_b64"),
        ("member.join", with("address", json!("")), "address"),
        ("member.join", with("address", json!(long(1_024))), "address"),
        ("member.join", with("zone", json!("a\nb")), "zone"),
        ("member.join", with("weight", json!(0)), "weight"),
        ("member.join", with("weight", json!(70_000)), "weight"),
        ("member.join", with("weight", json!(-1)), "weight"),
        ("member.join", with("metadata", json!({ "": "x" })), "metadata"),
        ("member.join", with("metadata", json!({ "k": long(32 << 10) })), "metadata"),
        ("member.join", with("metadata", json!("x")), "metadata"),
        ("member.join", with("state", json!("fine")), "state"),
        ("member.join", with("label", json!("a\nb")), "label"),
        ("member.join", with("lease_ms", json!(1)), "lease_ms"),
        ("member.join", with("leave_when_critical_ms", json!("x")), "leave_when_critical_ms"),
        ("member.join", with("checks", json!(many)), "checks"),
        ("member.join", check(json!({ "check": "ftp:x" })), "checks"),
        ("member.join", check(json!({ "check": "tcp:nowhere" })), "checks"),
        ("member.join", check(json!({ "check": "heartbeat:0" })), "checks"),
        ("member.join", check(json!({ "check": "tcp:a:1", "rise": 0 })), "checks"),
        ("member.join", check(json!({ "check": "tcp:a:1", "interval_ms": 999 })), "checks"),
        ("member.join", check(json!({ "check": "http://a/", "interval_ms": 999 })), "checks"),
        ("member.join", check(json!({ "check": "tcp:a:1", "initially": "draining" })), "checks"),
        ("member.join", check(json!({ "check": "heartbeat:1", "interval_ms": 20 })), "checks"),
        ("member.join", check(json!({ "check": "tcp:a:1", "every": 1 })), "every"),
        ("member.update", json!({ "lease": lease, "group": "web" }), "group"),
        ("member.update", json!({ "lease": lease, "weight": 0 }), "weight"),
        ("member.update", json!({ "lease": lease, "value": long(64 << 10) }), "value"),
        ("member.update", json!({ "lease": lease, "address": 1 }), "address"),
        ("member.update", json!({ "lease": lease, "state": "x" }), "state"),
        ("member.leave", json!({ "id": "w1" }), "id"),
        ("member.beat", json!({ "lease": 1 }), "lease"),
        ("member.list", json!({ "group": "a b" }), "group"),
        ("member.list", json!({ "group": "web", "from": 1 }), "from"),
        ("member.watch", json!({ "group": "*" }), "group"),
        ("member.watch", json!({ "group": "web", "id": "w1" }), "id"),
        ("kv.put", json!({ "key": "k", "value": "x", "fence_lease": lease }), "fence_lease"),
    ] {
        let error = wire.call(method, params.clone()).unwrap_err();
        let short: String = params.to_string().chars().take(80).collect();
        assert_eq!(kind(&error), "invalid_params", "{method} {short}: {error}");
        assert_eq!(error["data"]["param"], param, "{method} {short}: {error}");
    }
    assert_eq!(ids(&mut wire, "web"), ["w1"]);
    assert_eq!(list(&mut wire, "web")[0]["weight"], 1);
}
