//! Writes fenced by a hold of another connection: its lock and its token.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use daemon_support::{Daemon, Wire};
use serde_json::{Value as Json, json};

fn put(lock: &str, fence: u64) -> Json {
    json!({ "key": "total", "value": fence.to_string(), "lock": lock, "fence": fence })
}

fn total(wire: &mut Wire) -> Json {
    wire.call("kv.get", json!({ "key": "total" })).unwrap()["entry"]["value"].take()
}

#[test]
fn whoever_knows_the_token_writes_as_long_as_it_holds() {
    let daemon = Daemon::start();
    let (mut holder, mut child, mut next) = (daemon.connect(), daemon.connect(), daemon.connect());
    let (lease, fence) = holder.acquire("a");
    holder.acquire("b");
    child.call("kv.put", put("a", fence)).unwrap();
    holder.call("kv.put", put("a", fence)).unwrap();
    for (lock, fence) in [("a", fence + 1), ("b", fence), ("c", fence), ("a", 0)] {
        assert_eq!(child.refused("kv.put", put(lock, fence)), "conflict", "{lock} {fence}");
    }
    assert_eq!(total(&mut child), fence.to_string());

    holder.call("lock.release", json!({ "lease": lease })).unwrap();
    assert_eq!(child.refused("kv.put", put("a", fence)), "conflict");
    let later = next.acquire("a").1;
    assert_eq!(child.refused("kv.put", put("a", fence)), "conflict");
    child.call("kv.put", put("a", later)).unwrap();
    child.call("lock.break", json!({ "name": "a", "fence": later })).unwrap();
    assert_eq!(child.refused("kv.put", put("a", later)), "conflict");
    assert_eq!(total(&mut child), later.to_string());

    let last = next.acquire("a").1;
    drop(next);
    let after = holder.acquire("a").1;
    assert_eq!(child.refused("kv.put", put("a", last)), "conflict");
    child.call("kv.put", put("a", after)).unwrap();
}

#[test]
fn one_fence_at_a_time_and_whole() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let (lease, fence) = wire.acquire("a");
    for wrong in [
        json!({ "key": "k", "value": "v", "lock": "a" }),
        json!({ "key": "k", "value": "v", "fence": fence }),
        json!({ "key": "k", "value": "v", "fence_lease": lease, "fence": fence }),
        json!({ "key": "k", "value": "v", "fence_lease": lease, "lock": "a", "fence": fence }),
    ] {
        assert_eq!(wire.refused("kv.put", wrong), "invalid_params");
    }
    assert_eq!(wire.call("kv.get", json!({ "key": "k" })).unwrap()["entry"], json!(null));
}
