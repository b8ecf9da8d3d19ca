//! Keys that are watched over the socket: what was there, what changes, where a watch begins, and who does not read it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::time::{Duration, Instant};

use daemon_support::{Daemon, PATIENCE, Wire, kind};
use serde_json::{Value as Json, json};

fn watch(wire: &mut Wire, params: Json) -> String {
    wire.call("kv.watch", params).unwrap()["subscription"].as_str().unwrap().to_owned()
}

/// The next event, which must be of this subscription, without what every event has.
fn event(wire: &mut Wire, subscription: &str) -> Json {
    let (method, mut params) = wire.notice();
    assert_eq!((method.as_str(), &params["subscription"]), ("event", &json!(subscription)), "{params}");
    params.as_object_mut().unwrap().remove("subscription");
    params
}

fn write(wire: &mut Wire, method: &str, params: Json) -> u64 {
    wire.call(method, params).unwrap()["revision"].as_u64().unwrap()
}

fn put(wire: &mut Wire, key: &str, value: &str) -> u64 {
    write(wire, "kv.put", json!({ "key": key, "value": value }))
}

fn await_subscriptions(wire: &mut Wire, count: usize) {
    let begun = Instant::now();
    while wire.call("status", json!({})).unwrap()["subscriptions"] != count {
        assert!(begun.elapsed() < PATIENCE, "there are never {count} subscriptions");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_there_is_told_and_then_what_happens() {
    let daemon = Daemon::start();
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    let a = put(&mut wire, "k.a", "zoë");
    let b = write(&mut wire, "kv.put", json!({ "key": "kb", "value_b64": "/wA=" }));
    put(&mut wire, "j", "not this one");
    put(&mut wire, "k.gone", "x");
    write(&mut wire, "kv.delete", json!({ "key": "k.gone" }));
    let watched = watch(&mut watcher, json!({ "prefix": "k" }));
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "put", "key": "k.a", "revision": a, "value": "zoë" }));
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "put", "key": "kb", "revision": b, "value_b64": "/wA=" }));
    let sync = event(&mut watcher, &watched);
    assert!(sync["kind"] == "sync" && sync["revision"].as_u64().unwrap() >= b, "{sync}");

    let changed = put(&mut wire, "k.a", "2");
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "put", "key": "k.a", "revision": changed, "value": "2" }));
    // Neither other keys nor what Tenure keeps itself.
    put(&mut wire, "j", "nor now");
    wire.acquire("k");
    wire.call("member.join", json!({ "group": "k", "id": "k" })).unwrap();
    let deleted = write(&mut wire, "kv.delete", json!({ "key": "k.a" }));
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "delete", "key": "k.a", "revision": deleted }));
    let purged = write(&mut wire, "kv.purge", json!({ "key": "kb" }));
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "purge", "key": "kb", "revision": purged }));
}

#[test]
fn one_key_is_watched_alone_and_expires() {
    let daemon = Daemon::start();
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    let watched = watch(&mut watcher, json!({ "key": "k" }));
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "sync" }));
    put(&mut wire, "k.a", "below");
    put(&mut wire, "kk", "beside");
    let short = write(&mut wire, "kv.put", json!({ "key": "k", "value": "", "ttl_ms": 1 }));
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "put", "key": "k", "revision": short, "value": "" }));
    let expired = event(&mut watcher, &watched);
    assert_eq!((&expired["kind"], &expired["key"]), (&json!("expire"), &json!("k")), "{expired}");
    assert!(expired["revision"].as_u64().unwrap() >= short, "{expired}");
}

#[test]
fn a_watch_goes_on_from_a_revision() {
    let daemon = Daemon::start();
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    put(&mut wire, "k.before", "x");
    let second = put(&mut wire, "k.a", "1");
    put(&mut wire, "other", "x");
    let third = put(&mut wire, "k.b", "2");
    let removed = write(&mut wire, "kv.delete", json!({ "key": "k.b" }));
    assert!(removed > third);
    let watched = watch(&mut watcher, json!({ "prefix": "k.", "from_revision": second }));
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "put", "key": "k.a", "revision": second, "value": "1" }));
    // Who goes on from somewhere may know the key.
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "delete", "key": "k.b", "revision": removed }));
    assert_eq!(event(&mut watcher, &watched)["kind"], "sync");
    let later = watch(&mut wire, json!({ "prefix": "k.", "from_revision": removed + 1 }));
    assert_eq!(event(&mut wire, &later)["kind"], "sync");
    let last = put(&mut wire, "k.c", "3");
    let told = json!({ "kind": "put", "key": "k.c", "revision": last, "value": "3" });
    assert_eq!((event(&mut wire, &later), event(&mut watcher, &watched)), (told.clone(), told));
    let all = watch(&mut wire, json!({ "key": "k.before", "from_revision": 0 }));
    assert_eq!(event(&mut wire, &all)["kind"], "put");
}

#[test]
fn updates_only_begins_with_sync() {
    let daemon = Daemon::start();
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    put(&mut wire, "k", "old");
    let watched = watch(&mut watcher, json!({ "prefix": "", "updates_only": true }));
    assert_eq!(event(&mut watcher, &watched)["kind"], "sync");
    let revision = put(&mut wire, "k", "new");
    assert_eq!(event(&mut watcher, &watched), json!({ "kind": "put", "key": "k", "revision": revision, "value": "new" }));
}

#[test]
fn nothing_is_told_after_a_watch_is_cancelled() {
    let daemon = Daemon::start();
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    let watched = watch(&mut watcher, json!({ "prefix": "k" }));
    let other = watch(&mut watcher, json!({ "key": "k" }));
    assert_eq!(watcher.notice().1["kind"], "sync");
    assert_eq!(watcher.notice().1["kind"], "sync");
    for n in 0..50 {
        put(&mut wire, &format!("k.{n}"), "x");
    }
    watcher.call("subscription.cancel", json!({ "subscription": watched })).unwrap();
    watcher.notices.clear();
    put(&mut wire, "k.more", "x");
    put(&mut wire, "k", "x");
    assert_eq!(event(&mut watcher, &other)["key"], "k");
    assert_eq!(watcher.refused("subscription.cancel", json!({ "subscription": watched })), "not_found");
    drop(watcher);
    await_subscriptions(&mut wire, 0);
}

/// What a client that did not read finds: the keys that were told, and the `gap` and the `end` after them.
fn rest(wire: &mut Wire, subscription: &str) -> (Vec<(String, u64)>, Json, Json) {
    let mut told = Vec::new();
    loop {
        let event = event(wire, subscription);
        match event["kind"].as_str().unwrap() {
            "put" => told.push((event["key"].as_str().unwrap().to_owned(), event["revision"].as_u64().unwrap())),
            "sync" => {}
            "gap" => return (told, event, self::event(wire, subscription)),
            _ => panic!("{event}"),
        }
    }
}

#[test]
fn who_does_not_read_loses_the_watch_and_can_go_on_from_there() {
    // The one ends since its client takes too long, the other since too much came meanwhile.
    for (stall, values) in [("300ms", 60), ("60s", 200)] {
        let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--stall", stall]);
        let (mut wire, mut slow) = (daemon.connect(), daemon.connect());
        let (lease, fence) = slow.acquire("a");
        let kept = slow.acquire("b").0;
        let watched = watch(&mut slow, json!({ "prefix": "k." }));
        let value = "x".repeat(60_000);
        let written: Vec<(String, u64)> = (0..values)
            .map(|n| {
                let key = format!("k.{n:03}");
                let revision = put(&mut wire, &key, &value);
                (key, revision)
            })
            .collect();
        await_subscriptions(&mut wire, 0);
        // What is to be said of leases overtakes the events that wait.
        wire.call("lock.break", json!({ "name": "a", "fence": fence })).unwrap();
        let begun = Instant::now();
        while wire.call("status", json!({})).unwrap()["leases"] != 1 {
            assert!(begun.elapsed() < PATIENCE);
        }
        let mut before = Vec::new();
        let notice = loop {
            let line = slow.line().unwrap();
            if line["method"] == "lease" {
                break line;
            }
            before.push(line);
        };
        assert_eq!(notice["params"], json!({ "lease": lease, "state": "lost", "reason": "broken" }));
        assert!(before.len() < 30, "{} events came before the notice", before.len());
        slow.notices.extend(before);

        let (mut told, gap, end) = rest(&mut slow, &watched);
        assert_eq!(end, json!({ "kind": "end", "reason": "slow_reader" }), "{stall}");
        assert!(!told.is_empty() && told.len() < written.len(), "{stall}: {} of {values}", told.len());
        assert_eq!(gap, json!({ "kind": "gap", "resume_revision": told.last().unwrap().1 + 1 }));
        assert_eq!(slow.call("lock.check", json!({ "lease": kept })).unwrap()["held"], true);

        let again = watch(&mut slow, json!({ "prefix": "k.", "from_revision": gap["resume_revision"] }));
        loop {
            let event = event(&mut slow, &again);
            if event["kind"] == "sync" {
                break;
            }
            told.push((event["key"].as_str().unwrap().to_owned(), event["revision"].as_u64().unwrap()));
        }
        assert_eq!(told, written, "{stall}: nothing is left out and nothing told twice");
    }
}

#[test]
fn a_long_beginning_is_read_at_the_pace_of_its_reader() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--stall", "60s"]);
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    let value = "x".repeat(60_000);
    for n in 0..200 {
        put(&mut wire, &format!("k.{n:03}"), &value);
    }
    let watched = watch(&mut watcher, json!({ "prefix": "k." }));
    // Nobody reads meanwhile, and there is more than is kept for who is waited for.
    for n in 0..300 {
        put(&mut wire, &format!("j.{n}"), "x");
    }
    assert_eq!(wire.call("status", json!({})).unwrap()["subscriptions"], 1);
    for n in 0..200 {
        assert_eq!(event(&mut watcher, &watched)["key"], format!("k.{n:03}"));
    }
    assert_eq!(event(&mut watcher, &watched)["kind"], "sync");
    assert_eq!(wire.call("status", json!({})).unwrap()["subscriptions"], 1);
}

#[test]
fn wrong_watches_are_refused_by_name() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    for (params, param) in [
        (json!({}), "key"),
        (json!({ "key": "k", "prefix": "k" }), "prefix"),
        (json!({ "key": "a b" }), "key"),
        (json!({ "prefix": "a b" }), "prefix"),
        (json!({ "key": "k", "from_revision": -1 }), "from_revision"),
        (json!({ "key": "k", "from_revision": 1, "updates_only": true }), "updates_only"),
        (json!({ "key": "k", "updates_only": 1 }), "updates_only"),
        (json!({ "key": "k", "since": 1 }), "since"),
    ] {
        let error = wire.call("kv.watch", params.clone()).unwrap_err();
        assert_eq!((kind(&error).as_str(), &error["data"]["param"]), ("invalid_params", &json!(param)), "{params}: {error}");
    }
    assert_eq!(wire.call("status", json!({})).unwrap()["subscriptions"], 0);
}

#[test]
fn a_leaving_daemon_says_so_to_who_watches() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let watched = watch(&mut wire, json!({ "key": "k" }));
    assert_eq!(event(&mut wire, &watched)["kind"], "sync");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(wire.notice().0, "goaway");
    assert_eq!(event(&mut wire, &watched), json!({ "kind": "end", "reason": "leaving" }));
    assert!(wire.at_end());
}
