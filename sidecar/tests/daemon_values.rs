//! Keys and values over the socket: written, created, updated, removed and listed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use daemon_support::{Daemon, Wire};
use serde_json::{Value as Json, json};

fn revision(answer: &Json) -> u64 {
    answer["revision"].as_u64().unwrap()
}

fn value(wire: &mut Wire, key: &str) -> Json {
    wire.call("kv.get", json!({ "key": key })).unwrap()["entry"]["value"].take()
}

/// What `kv.history` shows of a key: the operation, and its revision.
fn latest(wire: &mut Wire, key: &str) -> (String, u64) {
    let history = wire.call("kv.history", json!({ "key": key })).unwrap();
    let entry = history["entries"].as_array().unwrap().last().unwrap();
    (entry["operation"].as_str().unwrap().to_owned(), revision(entry))
}

#[test]
fn a_value_is_created_once_and_updated_where_it_is_known() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let first = revision(&wire.call("kv.create", json!({ "key": "k", "value": "1" })).unwrap());
    assert_eq!(wire.refused("kv.create", json!({ "key": "k", "value": "2" })), "conflict");
    assert_eq!(wire.refused("kv.update", json!({ "key": "k", "value": "2", "revision": first + 1 })), "conflict");
    let second = revision(&wire.call("kv.update", json!({ "key": "k", "value": "2", "revision": first })).unwrap());
    assert_eq!(wire.refused("kv.update", json!({ "key": "k", "value": "3", "revision": first })), "conflict");
    assert_eq!(value(&mut wire, "k"), "2");
    assert_eq!(latest(&mut wire, "k"), ("put".to_owned(), second));
    assert_eq!(wire.refused("kv.update", json!({ "key": "none", "value": "1", "revision": second })), "conflict");
}

#[test]
fn what_is_removed_leaves_a_tombstone_and_may_be_created_again() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    for (method, operation) in [("kv.delete", "delete"), ("kv.purge", "purge")] {
        let first = revision(&wire.call("kv.create", json!({ "key": "k", "value": "1" })).unwrap());
        assert_eq!(wire.refused(method, json!({ "key": "k", "revision": first - 1 })), "conflict");
        let removed = revision(&wire.call(method, json!({ "key": "k", "revision": first })).unwrap());
        assert_eq!(value(&mut wire, "k"), json!(null));
        assert_eq!(latest(&mut wire, "k"), (operation.to_owned(), removed));
        assert_eq!(wire.call("kv.get", json!({ "key": "k", "revision": removed })).unwrap()["entry"], json!(null));
    }
    assert_eq!(wire.call("kv.history", json!({ "key": "never" })).unwrap()["entries"], json!([]));
    // Whatever is there, or is not.
    wire.call("kv.delete", json!({ "key": "never" })).unwrap();
}

#[test]
fn keys_are_listed_sorted_and_page_by_page() {
    let daemon = Daemon::with(&["--store", "memory:", "--max-line", "65536"]);
    let mut wire = daemon.connect();
    let long = "x".repeat(200);
    for n in (0..700).rev() {
        wire.call("kv.put", json!({ "key": format!("many.{n:03}.{long}"), "value": "v" })).unwrap();
    }
    wire.call("kv.put", json!({ "key": "other", "value": "v" })).unwrap();
    wire.call("kv.delete", json!({ "key": format!("many.007.{long}") })).unwrap();
    let (mut listed, mut after, mut pages) = (Vec::new(), json!(null), 0);
    loop {
        let mut params = json!({ "prefix": "many." });
        if !after.is_null() {
            params["after"] = after;
        }
        let page = wire.call("kv.keys", params).unwrap();
        listed.extend(page["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()));
        pages += 1;
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    let wanted: Vec<String> = (0..700).filter(|n| *n != 7).map(|n| format!("many.{n:03}.{long}")).collect();
    assert_eq!(listed, wanted);
    assert!(pages > 2, "{pages} pages");
    // Locks and sessions are not keys of applications.
    wire.acquire("a");
    assert_eq!(wire.call("kv.keys", json!({ "prefix": "o" })).unwrap(), json!({ "keys": ["other"] }));
}

#[test]
fn removals_are_fenced_like_writes() {
    let daemon = Daemon::start();
    let (mut holder, mut other) = (daemon.connect(), daemon.connect());
    let (lease, fence) = holder.acquire("a");
    holder.call("kv.create", json!({ "key": "k", "value": "1", "fence_lease": lease })).unwrap();
    other.call("kv.delete", json!({ "key": "k", "lock": "a", "fence": fence })).unwrap();
    assert_eq!(other.refused("kv.purge", json!({ "key": "k", "lock": "b", "fence": fence })), "conflict");
    holder.call("lock.release", json!({ "lease": lease })).unwrap();
    assert_eq!(holder.refused("kv.delete", json!({ "key": "k", "fence_lease": lease })), "not_held");
    assert_eq!(other.refused("kv.create", json!({ "key": "k", "value": "2", "lock": "a", "fence": fence })), "conflict");
    assert_eq!(value(&mut other, "k"), json!(null));
}

#[test]
fn wrong_parameters_are_named() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    for (method, params, word) in [
        ("kv.create", json!({ "key": "k" }), "value"),
        ("kv.create", json!({ "key": "k", "value": "v", "revision": 1 }), "revision"),
        ("kv.create", json!({ "key": "k", "value": "v", "ttl_ms": 0 }), "kv.create: ttl_ms"),
        ("kv.update", json!({ "key": "k", "value": "v" }), "revision"),
        ("kv.delete", json!({ "key": "k", "fence": 1 }), "kv.delete: fence_lease"),
        ("kv.delete", json!({ "key": "a b" }), "a b"),
        ("kv.keys", json!({ "key": "k" }), "key"),
    ] {
        let error = wire.call(method, params.clone()).unwrap_err();
        assert!(error["message"].as_str().unwrap().contains(word), "{method} {params}: {error}");
        assert_eq!(error["data"]["kind"], "invalid_params", "{method} {params}: {error}");
    }
}
