//! What leaders, members and those who watch them live through when the daemon's store is out of reach, and what
//! watching costs the store.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_rig;

use std::{collections::BTreeMap, time::Instant};

use daemon_rig::{DRAIN, MS, PATIENCE, Rig};
use serde_json::json;
use tenure_kv::{Key, StoreExt, faults::Partition};
use tenure_sidecar::{
    Client, Subscription,
    protocol::{ElectionCampaigned, Happening, Kind, LeaseState, MemberJoined},
};

async fn elected(client: &Client, name: &str) -> ElectionCampaigned {
    client.call_as("election.campaign", json!({ "name": name, "wait_ms": 15_000 })).await.unwrap()
}

async fn next(subscription: &mut Subscription) -> Happening {
    tokio::time::timeout(PATIENCE, subscription.recv()).await.expect("no event came").expect("the subscription is over")
}

/// The next event tells that `fence` leads, or nobody.
async fn leads(subscription: &mut Subscription, fence: Option<u64>) {
    match next(subscription).await {
        Happening::Leader { leader } => assert_eq!(leader.map(|leader| leader.fence), fence),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_the_same_shares_one_watch_of_the_store() {
    let rig = Rig::new(60_000 * MS, DRAIN);
    let joiner = rig.connect().await;
    let first: MemberJoined = joiner.call_as("member.join", json!({ "group": "g", "id": "w0" })).await.unwrap();
    let led = elected(&joiner, "e").await;
    let mut connections = Vec::new();
    let mut watching = Vec::new();
    for n in 0..5 {
        let client = rig.connect().await;
        let mut members = client.subscribe("member.watch", json!({ "group": "g" })).await.unwrap();
        let mut leaders = client.subscribe("election.observe", json!({ "name": "e" })).await.unwrap();
        assert!(matches!(next(&mut members).await, Happening::Join { member } if member.id == first.id));
        assert!(matches!(next(&mut members).await, Happening::Sync { .. }));
        leads(&mut leaders, Some(led.fence)).await;
        assert!(matches!(next(&mut leaders).await, Happening::Sync { .. }));
        assert_eq!((rig.faults.streams("member.g."), rig.faults.streams("election.e")), (1, 1), "after connection {n}");
        connections.push(client);
        watching.push((members, leaders));
    }
    joiner.call("member.join", json!({ "group": "g", "id": "w1" })).await.unwrap();
    joiner.call("election.resign", json!({ "lease": led.lease })).await.unwrap();
    for (members, leaders) in &mut watching {
        assert!(matches!(next(members).await, Happening::Join { member } if member.id == "w1"));
        leads(leaders, None).await;
    }
    drop((watching, connections));
    let begun = Instant::now();
    while (rig.faults.streams("member.g."), rig.faults.streams("election.e")) != (0, 0) {
        assert!(begun.elapsed() < PATIENCE, "a watch outlives those who watch");
        tokio::time::sleep(MS).await;
    }
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_a_gap_to_observers_and_a_pause_to_the_leader() {
    let rig = Rig::new(1_000 * MS, DRAIN);
    let (client, watcher) = (rig.connect().await, rig.connect().await);
    let mut notices = client.notices();
    let led = elected(&client, "e").await;
    let mut leaders = watcher.subscribe("election.observe", json!({ "name": "e" })).await.unwrap();
    leads(&mut leaders, Some(led.fence)).await;
    assert!(matches!(next(&mut leaders).await, Happening::Sync { .. }));
    rig.faults.partition(Partition::Refuse);
    assert_eq!(next(&mut leaders).await, Happening::Gap {});
    let suspect = tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().unwrap().lease().unwrap();
    assert_eq!((suspect.lease.as_str(), suspect.state), (led.lease.as_str(), LeaseState::Suspect));
    let error = watcher.call("election.leader", json!({ "name": "e" })).await.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::Unavailable));
    let mut lost = watcher.subscribe("member.watch", json!({ "group": "g" })).await.unwrap();
    assert_eq!(next(&mut lost).await, Happening::End { reason: "unavailable".to_owned() });
    assert_eq!(lost.recv().await, None);
    // Past the lease: nobody relies on it, and nobody has taken it.
    let begun = Instant::now();
    while client.call("lock.check", json!({ "lease": led.lease })).await.unwrap()["held"] == true {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(10 * MS).await;
    }
    rig.faults.heal();
    let restored = tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().unwrap().lease().unwrap();
    assert_eq!((restored.lease.as_str(), restored.state), (led.lease.as_str(), LeaseState::Restored));
    leads(&mut leaders, Some(led.fence)).await;
    assert_eq!(client.call("lock.check", json!({ "lease": led.lease })).await.unwrap()["held"], true);
    client.call("kv.put", json!({ "key": "k", "value": "x", "fence_lease": led.lease })).await.unwrap();
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resignation_that_is_not_answered_is_never_called_done() {
    let rig = Rig::new(1_000 * MS, DRAIN);
    let client = rig.connect().await;
    let led = elected(&client, "e").await;
    rig.faults.partition(Partition::HoldAnswers);
    let resign = json!({ "lease": led.lease });
    let error = client.call("election.resign", resign.clone()).await.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::UnknownOutcome), "{error}");
    let error = client.call("election.resign", resign).await.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::UnknownOutcome), "{error}");
    rig.faults.heal();
    let later = elected(&client, "e").await;
    assert!(later.fence > led.fence);
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gone_client_led_and_was_is_given_up_when_the_store_is_back() {
    let rig = Rig::new(60_000 * MS, DRAIN);
    let (client, other) = (rig.connect().await, rig.connect().await);
    elected(&client, "e").await;
    client.call("member.join", json!({ "group": "g", "id": "w1" })).await.unwrap();
    rig.faults.partition(Partition::Refuse);
    drop(client);
    let begun = Instant::now();
    while other.call("status", json!({})).await.unwrap()["connections"] != 1 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(MS).await;
        if begun.elapsed() > 300 * MS {
            rig.faults.heal();
        }
    }
    rig.faults.heal();
    elected(&other, "e").await;
    let begun = Instant::now();
    while other.call("member.list", json!({ "group": "g" })).await.unwrap()["members"] != json!([]) {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(MS).await;
    }
    rig.leave().await;
}

/// The next event is a value of `key`, written at `revision`.
async fn is_put(subscription: &mut Subscription, wanted: &str, at: u64) {
    match next(subscription).await {
        Happening::Put { key, revision, .. } => assert_eq!((key.as_str(), revision), (wanted, at)),
        other => panic!("{other:?} instead of {wanted} at {at}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_keys_outlives_an_outage_with_a_gap() {
    let rig = Rig::new(60_000 * MS, DRAIN);
    let client = rig.connect().await;
    let (a, b) = (Key::new("data.k.a").unwrap(), Key::new("data.k.b").unwrap());
    let first = rig.store.put(&a, "1").await.unwrap();
    let second = rig.store.put(&b, "1").await.unwrap();
    let mut keys = client.subscribe("kv.watch", json!({ "prefix": "k." })).await.unwrap();
    is_put(&mut keys, "k.a", first.get()).await;
    is_put(&mut keys, "k.b", second.get()).await;
    assert_eq!(next(&mut keys).await, Happening::Sync { revision: Some(second.get()) });
    rig.faults.partition(Partition::Refuse);
    // Nothing of it is heard before it is cut, at the end of the partition.
    assert_eq!(rig.faults.pause("data."), 1);
    let lost = client.subscribe("kv.watch", json!({ "key": "k.a" })).await;
    assert_eq!(next(&mut lost.unwrap()).await, Happening::End { reason: "unavailable".to_owned() });
    // What others do meanwhile.
    rig.store.put(&a, "2").await.unwrap();
    let last = rig.store.put(&a, "3").await.unwrap();
    let deleted = rig.store.delete(&b, tenure_kv::Expect::Any).await.unwrap();
    rig.faults.heal();
    rig.faults.resume("data.");
    assert_eq!((next(&mut keys).await, keys.resume_revision()), (Happening::Gap {}, Some(second.get() + 1)));
    is_put(&mut keys, "k.a", last.get()).await;
    assert_eq!(next(&mut keys).await, Happening::Delete { key: "k.b".to_owned(), revision: deleted.get() });
    let later = rig.store.put(&b, "4").await.unwrap();
    is_put(&mut keys, "k.b", later.get()).await;
    assert_eq!(rig.faults.end_watches("data."), 1);
    assert_eq!(next(&mut keys).await, Happening::End { reason: "unavailable".to_owned() });
    assert_eq!(keys.recv().await, None);
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_keys_comes_to_the_last_states_however_often_it_is_cut() {
    let rig = Rig::new(60_000 * MS, DRAIN);
    let client = rig.connect().await;
    let mut keys = client.subscribe("kv.watch", json!({ "prefix": "k." })).await.unwrap();
    let (store, faults) = (rig.store.clone(), rig.faults.clone());
    let writing = tokio::spawn(async move {
        let mut dice = fastrand::Rng::with_seed(7);
        for n in 1..=4_000 {
            let key = Key::new(format!("data.k.{}", dice.u8(..20))).unwrap();
            match dice.u8(..3) {
                0 => drop(store.delete(&key, tenure_kv::Expect::Any).await.unwrap()),
                _ => drop(store.put(&key, n.to_string()).await.unwrap()),
            }
            if n % 100 == 0 {
                faults.cut("data.");
            }
            tokio::task::yield_now().await;
        }
        let there = store.list(&tenure_kv::KeyRange::new("data.k.>").unwrap()).await.unwrap();
        there.iter().map(|entry| (entry.key.as_str()["data.".len()..].to_owned(), entry.revision.get())).collect()
    });
    let mut wanted: Option<BTreeMap<String, u64>> = None;
    let (mut writing, mut known, mut last, mut gaps) = (std::pin::pin!(writing), BTreeMap::new(), 0, 0);
    while wanted.as_ref() != Some(&known) {
        let what = tokio::select! {
            there = &mut writing, if wanted.is_none() => {
                wanted = Some(there.unwrap());
                continue;
            }
            what = next(&mut keys) => what,
        };
        let at = match what {
            Happening::Put { key, revision, .. } => {
                known.insert(key, revision);
                revision
            }
            Happening::Delete { key, revision } | Happening::Expire { key, revision } => {
                known.remove(&key);
                revision
            }
            Happening::Gap {} => {
                gaps += 1;
                continue;
            }
            Happening::Sync { .. } => continue,
            other => panic!("{other:?}"),
        };
        assert!(at >= last, "{at} after {last}");
        last = at;
    }
    assert!(gaps > 0);
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_watches_of_keys_once_nobody_wants_them() {
    let rig = Rig::new(60_000 * MS, DRAIN);
    let (client, other) = (rig.connect().await, rig.connect().await);
    let mut watching = Vec::new();
    for n in 0..5 {
        let mut keys = client.subscribe("kv.watch", json!({ "key": format!("k{n}") })).await.unwrap();
        assert!(matches!(next(&mut keys).await, Happening::Sync { .. }));
        watching.push(keys);
    }
    assert_eq!(rig.faults.streams("data."), 5);
    watching.truncate(3);
    await_streams(&rig, 3).await;
    drop(client);
    await_streams(&rig, 0).await;
    assert_eq!(other.call("status", json!({})).await.unwrap()["subscriptions"], 0);
    rig.leave().await;
}

async fn await_streams(rig: &Rig, count: usize) {
    let begun = Instant::now();
    while rig.faults.streams("data.") != count {
        assert!(begun.elapsed() < PATIENCE, "{} watches instead of {count}", rig.faults.streams("data."));
        tokio::time::sleep(MS).await;
    }
}
