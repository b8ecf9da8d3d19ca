//! `lock.observe`: who holds a lock and who waits, told as it changes; what it costs the store, and what is said when that
//! is out of reach.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_rig;
mod daemon_support;

use std::time::{Duration, Instant};

use daemon_rig::{DRAIN, MS, Rig};
use daemon_support::{Daemon, PATIENCE, Wire, kind};
use serde_json::{Value as Json, json};
use tenure_kv::faults::Partition;
use tenure_sidecar::{
    Client, Subscription,
    protocol::{Happening, LockAcquired, LockStanding},
};

fn observe(wire: &mut Wire, name: &str) -> String {
    wire.call("lock.observe", json!({ "name": name })).unwrap()["subscription"].as_str().unwrap().to_owned()
}

/// The next event, which must be of `subscription`.
fn event(wire: &mut Wire, subscription: &str) -> Json {
    let (method, params) = wire.notice();
    assert_eq!((method.as_str(), &params["subscription"]), ("event", &json!(subscription)), "{params}");
    params
}

/// Events until one is as `wanted`.
fn await_state(wire: &mut Wire, subscription: &str, wanted: impl Fn(&Json) -> bool) -> Json {
    let begun = Instant::now();
    loop {
        let event = event(wire, subscription);
        assert_eq!(event["kind"], "lock", "{event}");
        if wanted(&event) {
            return event;
        }
        assert!(begun.elapsed() < PATIENCE, "{event} is told last");
    }
}

#[test]
fn observers_are_told_who_holds_who_waits_and_when_nobody_does() {
    let daemon = Daemon::start();
    let (mut one, mut two, mut watcher) = (daemon.connect(), daemon.connect(), daemon.connect());
    let subscription = observe(&mut watcher, "x");
    let first = event(&mut watcher, &subscription);
    assert_eq!(
        (&first["kind"], &first["holder"], &first["waiters"], &first["waiting"]),
        (&json!("lock"), &Json::Null, &json!([]), &json!(0))
    );
    assert_eq!(event(&mut watcher, &subscription)["kind"], "sync");
    let (lease, fence) = one.acquire("x");
    let held = await_state(&mut watcher, &subscription, |event| !event["holder"].is_null());
    assert_eq!(held["holder"]["fence"], fence);
    // What is shown of an owner is what `lock.get` shows.
    assert_eq!(held["holder"], one.call("lock.get", json!({ "name": "x" })).unwrap()["holder"]);
    two.send("lock.acquire", &json!({ "name": "x", "label": "two" }));
    let queue = await_state(&mut watcher, &subscription, |event| event["waiting"] == 1);
    assert_eq!((&queue["waiters"][0]["label"], &queue["holder"]["fence"]), (&json!("two"), &json!(fence)));
    let late = observe(&mut watcher, "x");
    assert_ne!(late, subscription);
    assert_eq!(event(&mut watcher, &late)["waiters"], queue["waiters"]);
    assert_eq!(event(&mut watcher, &late)["kind"], "sync");

    assert_eq!(watcher.call("subscription.cancel", json!({ "subscription": subscription })).unwrap(), json!({}));
    one.call("lock.release", json!({ "lease": lease })).unwrap();
    await_state(&mut watcher, &late, |event| event["holder"]["label"] == "two" && event["waiting"] == 0);
    drop(two);
    await_state(&mut watcher, &late, |event| event["holder"].is_null());
    watcher.call("subscription.cancel", json!({ "subscription": late })).unwrap();
    one.acquire("x");
    assert!(watcher.is_quiet(Duration::from_millis(100)));
    assert_eq!(watcher.call("status", json!({})).unwrap()["subscriptions"], 0);
}

#[test]
fn what_cannot_be_observed_is_refused_by_name() {
    let daemon = Daemon::with(&["--store", "memory:", "--max-subscriptions", "2"]);
    let mut wire = daemon.connect();
    for (params, param) in [
        (json!({}), "name"),
        (json!({ "name": "a b" }), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "x", "prefix": "x" }), "prefix"),
    ] {
        let error = wire.call("lock.observe", params.clone()).unwrap_err();
        assert_eq!((kind(&error).as_str(), &error["data"]["param"]), ("invalid_params", &json!(param)), "{params}");
    }
    observe(&mut wire, "x");
    observe(&mut wire, "x");
    let error = wire.call("lock.observe", json!({ "name": "y" })).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["limit"]), ("limit", &json!("subscriptions")));
}

#[test]
fn an_observer_that_reads_late_is_told_the_last_state_of_a_long_queue() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--stall", "60s"]);
    let (mut holder, mut late) = (daemon.connect(), daemon.connect());
    let (lease, fence) = holder.acquire("x");
    let subscription = observe(&mut late, "x");
    let label = "x".repeat(200);
    let mut waiters: Vec<Wire> = (0..10).map(|_| daemon.connect()).collect();
    for (n, waiter) in waiters.iter_mut().enumerate() {
        for k in 0..50 {
            waiter.send("lock.acquire", &json!({ "name": "x", "label": format!("{label} {n} {k}") }));
        }
    }
    let full = |count: u64| move |event: &Json| event["waiting"] == count;
    let last = await_state_after_sync(&mut late, &subscription, full(500));
    assert_eq!(last["holder"]["fence"], fence);
    let shown = last["waiters"].as_array().unwrap();
    assert_eq!(shown.len(), tenure::LockState::SHOWN);
    let fences: Vec<u64> = shown.iter().map(|waiter| waiter["fence"].as_u64().unwrap()).collect();
    assert!(fences.is_sorted() && fences[0] > fence, "{fences:?}");
    // All of them go, and nobody reads meanwhile.
    drop(waiters);
    holder.call("lock.release", json!({ "lease": lease })).unwrap();
    let begun = Instant::now();
    while holder.call("lock.get", json!({ "name": "x" })).unwrap()["holder"] != Json::Null {
        assert!(begun.elapsed() < PATIENCE, "the queue does not end");
        std::thread::sleep(MS);
    }
    await_state(&mut late, &subscription, |event| event["holder"].is_null() && event["waiting"] == 0);
    assert!(late.is_quiet(Duration::from_millis(50)));
}

fn await_state_after_sync(wire: &mut Wire, subscription: &str, wanted: impl Fn(&Json) -> bool) -> Json {
    let begun = Instant::now();
    loop {
        let event = event(wire, subscription);
        if event["kind"] == "lock" && wanted(&event) {
            return event;
        }
        assert!(begun.elapsed() < PATIENCE, "{event} is told last");
    }
}

async fn next(subscription: &mut Subscription) -> Happening {
    tokio::time::timeout(PATIENCE, subscription.recv()).await.expect("no event came").expect("the subscription is over")
}

async fn state(subscription: &mut Subscription) -> LockStanding {
    match next(subscription).await {
        Happening::Lock(state) => state,
        other => panic!("{other:?}"),
    }
}

async fn acquired(client: &Client, name: &str) -> LockAcquired {
    client.call_as("lock.acquire", json!({ "name": name })).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_observes_the_same_lock_shares_one_watch_of_the_store() {
    let rig = Rig::new(60_000 * MS, DRAIN);
    let holder = rig.connect().await;
    let held = acquired(&holder, "x").await;
    let mut watching = Vec::new();
    for n in 0..5 {
        let client = rig.connect().await;
        let mut states = client.subscribe("lock.observe", json!({ "name": "x" })).await.unwrap();
        assert_eq!(state(&mut states).await.holder.map(|holder| holder.fence), Some(held.fence));
        assert_eq!(next(&mut states).await, Happening::Sync { revision: None });
        assert_eq!(rig.faults.streams("lock.x."), 1, "after connection {n}");
        watching.push((client, states));
    }
    let before = rig.faults.requests();
    holder.call("lock.release", json!({ "lease": held.lease })).await.unwrap();
    for (_, states) in &mut watching {
        assert_eq!(state(states).await, LockStanding::default());
    }
    // The release itself, and nothing for any of those who are told.
    let asked = rig.faults.requests() - before;
    assert!(asked <= 4, "{asked} requests");
    drop(watching);
    let begun = Instant::now();
    while rig.faults.streams("lock.x.") != 0 {
        assert!(begun.elapsed() < PATIENCE, "a watch outlives those who watch");
        tokio::time::sleep(MS).await;
    }
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_a_gap_and_the_state_is_told_afterwards() {
    let rig = Rig::new(600 * MS, DRAIN);
    let (holder, watcher) = (rig.connect().await, rig.connect().await);
    let held: LockAcquired = holder.call_as("lock.acquire", json!({ "name": "x", "lease_ms": 60_000 })).await.unwrap();
    let mut states = watcher.subscribe("lock.observe", json!({ "name": "x" })).await.unwrap();
    let before = state(&mut states).await;
    assert_eq!(next(&mut states).await, Happening::Sync { revision: None });
    rig.faults.partition(Partition::Refuse);
    assert_eq!(next(&mut states).await, Happening::Gap {});
    rig.faults.heal();
    assert_eq!(state(&mut states).await, before);
    // One that cannot be told at the beginning comes when the store is there.
    rig.faults.partition(Partition::Refuse);
    let mut later = watcher.subscribe("lock.observe", json!({ "name": "y" })).await.unwrap();
    assert_eq!(next(&mut states).await, Happening::Gap {});
    rig.faults.heal();
    assert_eq!(state(&mut states).await, before);
    assert_eq!(state(&mut later).await, LockStanding::default());
    holder.call("lock.release", json!({ "lease": held.lease })).await.unwrap();
    assert_eq!(state(&mut states).await, LockStanding::default());
    rig.leave.cancel();
    assert_eq!(next(&mut states).await, Happening::End { reason: "leaving".to_owned() });
}
