//! `kv.*` in buckets that are named, on stores that have none: each is a range of its own, so that a program that was
//! written for NATS works.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::Duration,
};

use daemon_support::{Daemon, Wire};
use serde_json::{Value as Json, json};

fn event(wire: &mut Wire) -> Json {
    let (method, mut params) = wire.notice();
    assert_eq!(method, "event", "{params}");
    params.as_object_mut().unwrap().remove("subscription");
    params
}

fn revision(wire: &mut Wire, method: &str, params: Json) -> u64 {
    wire.call(method, params).unwrap()["revision"].as_u64().unwrap()
}

fn value(wire: &mut Wire, bucket: Option<&str>) -> Json {
    wire.call("kv.get", json!({ "key": "k", "bucket": bucket })).unwrap()["entry"]["value"].clone()
}

#[test]
fn a_bucket_in_memory_is_apart_from_all_others() {
    all_methods(&Daemon::start());
}

#[test]
fn a_bucket_in_a_file_is_apart_from_all_others_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("file:{}", directory.path().join("t.db").display());
    let daemon = Daemon::in_directory(directory, &["--store", &store]);
    all_methods(&daemon);
    let daemon = Daemon::in_directory(daemon.kill(), &["--store", &store]);
    assert_eq!(value(&mut daemon.connect(), Some("b")), "kept");
}

fn all_methods(daemon: &Daemon) {
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    let first = revision(&mut wire, "kv.put", json!({ "bucket": "a", "key": "k", "value": "1" }));
    revision(&mut wire, "kv.create", json!({ "bucket": "b", "key": "k", "value": "kept" }));
    assert_eq!(
        (value(&mut wire, Some("a")), value(&mut wire, Some("b")), value(&mut wire, None)),
        (json!("1"), json!("kept"), json!(null))
    );
    assert_eq!(wire.refused("kv.create", json!({ "bucket": "a", "key": "k", "value": "x" })), "conflict");
    let old = json!({ "bucket": "a", "key": "k", "revision": first });
    assert_eq!(wire.call("kv.get", old.clone()).unwrap()["entry"]["key"], "k");

    watcher.call("kv.watch", json!({ "bucket": "a", "prefix": "" })).unwrap();
    assert_eq!(event(&mut watcher), json!({ "kind": "put", "key": "k", "revision": first, "value": "1" }));
    assert_eq!(event(&mut watcher)["kind"], "sync");
    // Neither a bucket whose name goes on, nor the coordination bucket's own range.
    wire.call("kv.put", json!({ "bucket": "a-b", "key": "k", "value": "other" })).unwrap();
    wire.call("kv.put", json!({ "key": "k", "value": "other" })).unwrap();
    let second = revision(&mut wire, "kv.update", json!({ "bucket": "a", "key": "k", "value": "2", "revision": first }));
    assert_eq!(event(&mut watcher), json!({ "kind": "put", "key": "k", "revision": second, "value": "2" }));
    let error = wire.call("kv.update", json!({ "bucket": "a", "key": "k", "value": "3", "revision": first })).unwrap_err();
    assert_eq!((&error["data"]["kind"], &error["data"]["revision"]), (&json!("conflict"), &json!(second)));
    assert!(error["message"].as_str().unwrap().starts_with("k is at"), "{error}");
    assert_eq!(wire.call("kv.get", old).unwrap(), json!({ "entry": null }), "one write is kept");
    let kept = wire.call("kv.history", json!({ "bucket": "a", "key": "k" })).unwrap();
    assert_eq!((kept["entries"].as_array().unwrap().len(), &kept["entries"][0]["value"]), (1, &json!("2")));

    wire.call("kv.put", json!({ "bucket": "a", "key": "j.x", "value": "" })).unwrap();
    assert_eq!(event(&mut watcher)["key"], "j.x");
    assert_eq!(wire.call("kv.keys", json!({ "bucket": "a" })).unwrap(), json!({ "keys": ["j.x", "k"] }));
    assert_eq!(wire.call("kv.keys", json!({ "bucket": "a", "prefix": "j", "after": "j" })).unwrap(), json!({ "keys": ["j.x"] }));
    assert_eq!(wire.call("kv.keys", json!({ "bucket": "empty" })).unwrap(), json!({ "keys": [] }));
    let deleted = revision(&mut wire, "kv.delete", json!({ "bucket": "a", "key": "k", "revision": second }));
    assert_eq!(event(&mut watcher), json!({ "kind": "delete", "key": "k", "revision": deleted }));
    let created = revision(&mut wire, "kv.create", json!({ "bucket": "a", "key": "k", "value": "again", "ttl_ms": 60_000 }));
    // Of two writes that follow each other at once a store that keeps one may tell the last alone.
    assert_eq!(event(&mut watcher)["revision"], created);
    let purged = revision(&mut wire, "kv.purge", json!({ "bucket": "a", "key": "k" }));
    assert_eq!(event(&mut watcher), json!({ "kind": "purge", "key": "k", "revision": purged }));
    watcher.call("kv.watch", json!({ "bucket": "a", "key": "k", "from_revision": created + 1 })).unwrap();
    assert_eq!(event(&mut watcher), json!({ "kind": "purge", "key": "k", "revision": purged }));
}

#[test]
fn what_is_wrong_with_a_bucket_is_said() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let (lease, fence) = wire.acquire("a");
    for (params, param) in [
        (json!({ "fence_lease": lease }), "fence_lease"),
        (json!({ "fence": fence, "lock": "a" }), "fence"),
        (json!({ "election": "e" }), "election"),
    ] {
        let mut write = json!({ "bucket": "b", "key": "k", "value": "v" });
        write.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        let error = wire.call("kv.put", write).unwrap_err();
        assert_eq!((&error["data"]["kind"], &error["data"]["param"]), (&json!("invalid_params"), &json!(param)), "{error}");
        assert!(error["message"].as_str().unwrap().contains("leave out"), "{error}");
    }
    assert_eq!(wire.call("kv.keys", json!({ "bucket": "b" })).unwrap(), json!({ "keys": [] }));
    for name in ["", "a.b", "a b", "*", ">", "a/b", &"x".repeat(201)] {
        for method in ["kv.get", "kv.watch", "kv.delete", "kv.history"] {
            let error = wire.call(method, json!({ "bucket": name, "key": "k" })).unwrap_err();
            assert_eq!(
                (&error["data"]["kind"], &error["data"]["param"]),
                (&json!("invalid_params"), &json!("bucket")),
                "{error}"
            );
        }
    }
    assert_eq!(wire.refused("kv.watch", json!({ "bucket": "b", "key": "a b" })), "invalid_params");
    assert_eq!(wire.refused("kv.watch", json!({ "bucket": "b" })), "invalid_params");
    assert_eq!(wire.call("status", json!({})).unwrap()["subscriptions"], 0);
    let hello = wire.call("hello", json!({ "protocol": [1] })).unwrap();
    assert!(hello["capabilities"].as_array().unwrap().contains(&json!("buckets")));
}

#[test]
fn whoever_hangs_up_while_a_watch_begins_leaves_none() {
    let daemon = Daemon::start();
    for n in 0..50 {
        let mut wire = daemon.connect();
        let watch =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "kv.watch", "params": { "bucket": format!("b{n}"), "prefix": "" } });
        // In one piece with the end, so that there is nobody any more once the bucket is open.
        wire.stream.write_all(format!("{watch}\n").as_bytes()).unwrap();
        wire.stream.shutdown(Shutdown::Write).unwrap();
        wire.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        wire.stream.read_to_end(&mut Vec::new()).expect("the connection ends");
    }
    let status = daemon.connect().call("status", json!({})).unwrap();
    assert_eq!((&status["subscriptions"], &status["requests"]), (&json!(0), &json!(0)), "{status}");
}
