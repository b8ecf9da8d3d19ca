//! A daemon whose store is out of reach, loses answers, or takes its session away.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_rig;

use std::time::Instant;

use daemon_rig::{DRAIN, MS, PATIENCE, Rig};
use serde_json::{Value as Json, json};
use tenure::Session;
use tenure_kv::{
    Key, Op,
    faults::{Fault, Operation, Partition, Rule},
};
use tenure_sidecar::{
    CallError, Client, Notices,
    protocol::{Happening, Kind, LockAcquired},
};

async fn acquire(client: &Client, name: &str) -> LockAcquired {
    client.call_as("lock.acquire", json!({ "name": name, "wait_ms": 15_000 })).await.unwrap()
}

async fn refused(client: &Client, method: &str, params: Json) -> Kind {
    let outcome = tokio::time::timeout(PATIENCE, client.call(method, params)).await.unwrap();
    outcome.expect_err(method).kind().unwrap()
}

async fn next(notices: &mut Notices) -> Json {
    let notice = tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().unwrap();
    assert_eq!(notice.method, "lease");
    notice.params
}

fn state(lease: &LockAcquired, state: &str) -> Json {
    json!({ "lease": lease.lease, "state": state })
}

fn lost(lease: &LockAcquired, reason: &str) -> Json {
    json!({ "lease": lease.lease, "state": "lost", "reason": reason })
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_reach_is_unavailable_and_heals() {
    let rig = Rig::new(30_000 * MS, DRAIN);
    let client = rig.connect().await;
    let held = acquire(&client, "held").await;
    rig.faults.partition(Partition::Refuse);
    for (method, params) in [
        ("kv.put", json!({ "key": "k", "value": "x" })),
        ("kv.put", json!({ "key": "k", "value": "x", "fence_lease": held.lease })),
        ("kv.get", json!({ "key": "k" })),
        ("lock.get", json!({ "name": "a" })),
        ("lock.list", json!({})),
        ("lock.acquire", json!({ "name": "a" })),
        ("lock.acquire", json!({ "name": "a", "wait_ms": 0 })),
        ("lock.acquire", json!({ "name": "a", "lease_ms": 777 })),
    ] {
        assert_eq!(refused(&client, method, params.clone()).await, Kind::Unavailable, "{method} {params}");
    }
    // What needs no store is served.
    assert_eq!(client.call("lock.check", json!({ "lease": held.lease })).await.unwrap()["held"], true);
    assert!(client.call("status", json!({})).await.is_ok());
    rig.faults.heal();
    assert!(client.call("kv.put", json!({ "key": "k", "value": "x", "fence_lease": held.lease })).await.is_ok());
    assert!(client.call("lock.acquire", json!({ "name": "a", "lease_ms": 777 })).await.is_ok());
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_an_unknown_outcome() {
    let rig = Rig::new(30_000 * MS, DRAIN);
    let client = rig.connect().await;
    let held = acquire(&client, "a").await;
    for fence in [None, Some(held.lease)] {
        let lost = rig.faults.add(Rule::new(Fault::FailAfter).on(Operation::Commit).under("data.").once());
        let kind = refused(&client, "kv.put", json!({ "key": "k", "value": "x", "fence_lease": fence })).await;
        assert_eq!((kind, lost.hits()), (Kind::UnknownOutcome, 1));
    }
    assert_eq!(client.call("kv.get", json!({ "key": "k" })).await.unwrap()["entry"]["value"], "x");
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_write_does_not_claim_to_have_done_nothing() {
    let rig = Rig::new(30_000 * MS, DRAIN);
    let client = rig.connect().await;
    rig.faults.partition(Partition::HoldAnswers);
    let put = client.call("kv.put", json!({ "key": "k", "value": "x" }));
    let cancel = async {
        // Ids count up from 1: the put is the first call.
        while client.call("cancel", json!({ "id": 1 })).await.is_err() {}
    };
    let (put, ()) = tokio::join!(put, cancel);
    let error = put.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::Cancelled));
    assert_eq!(error.object().unwrap().data["outcome"], "unknown");
    rig.faults.heal();
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_suspect_and_then_restored() {
    let rig = Rig::new(6_000 * MS, DRAIN);
    let client = rig.connect().await;
    let mut notices = client.notices();
    let held = acquire(&client, "a").await;
    rig.faults.partition(Partition::Refuse);
    assert_eq!(next(&mut notices).await, state(&held, "suspect"));
    rig.faults.heal();
    assert_eq!(next(&mut notices).await, state(&held, "restored"));
    assert_eq!(client.call("lock.check", json!({ "lease": held.lease })).await.unwrap()["held"], true);
    assert!(client.call("kv.put", json!({ "key": "k", "value": "x", "fence_lease": held.lease })).await.is_ok());
    // A session that was restored once is no news to a new lease.
    let second = acquire(&client, "b").await;
    client.call("lock.break", json!({ "name": "b", "fence": second.fence })).await.unwrap();
    assert_eq!(next(&mut notices).await, lost(&second, "broken"));
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_cannot_be_renewed_is_lost_and_a_new_one_to_be_had() {
    let rig = Rig::new(2_000 * MS, DRAIN);
    let client = rig.connect().await;
    let mut notices = client.notices();
    let held = acquire(&client, "a").await;
    let begun = Instant::now();
    rig.faults.partition(Partition::Refuse);
    assert_eq!(next(&mut notices).await, state(&held, "suspect"));
    assert_eq!(next(&mut notices).await, lost(&held, "renewal_timeout"));
    assert!(begun.elapsed() < 3_000 * MS, "told when the lease has run out: {:?}", begun.elapsed());
    assert_eq!(refused(&client, "lock.check", json!({ "lease": held.lease })).await, Kind::Lost);
    assert_eq!(refused(&client, "lock.release", json!({ "lease": held.lease })).await, Kind::Lost);
    rig.faults.heal();
    assert_eq!(refused(&client, "kv.put", json!({ "key": "k", "value": "x", "fence_lease": held.lease })).await, Kind::Lost);
    assert!(acquire(&client, "a").await.fence > held.fence);
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_is_told_to_holders_and_replaced() {
    let rig = Rig::new(3_000 * MS, DRAIN);
    let (client, other) = (rig.connect().await, rig.connect().await);
    let mut notices = client.notices();
    let (held, behind) = (acquire(&client, "a").await, acquire(&client, "b").await);
    let waiting = other.call("lock.acquire", json!({ "name": "a" }));
    let depose = async {
        let status = client.call("status", json!({})).await.unwrap();
        let session = Key::new(format!("session.{}", status["sessions"][0]["id"].as_str().unwrap())).unwrap();
        rig.store.commit(Op::purge(session).into()).await.unwrap();
        status["sessions"][0]["id"].clone()
    };
    let (waited, before) = tokio::join!(waiting, depose);
    // The place in the queue went with the session; nothing of the waiter's is lost.
    let error = waited.unwrap_err();
    assert_eq!((error.kind(), error.object().unwrap().retryable()), (Some(Kind::Unavailable), true));
    let mut told = [next(&mut notices).await, next(&mut notices).await];
    told.sort_by_key(|notice| notice["lease"].to_string());
    for (notice, lease) in told.iter().zip([&held, &behind]) {
        assert_eq!((&notice["lease"], &notice["state"]), (&json!(lease.lease), &json!("lost")), "{notice}");
        assert!(["deposed", "expired"].contains(&notice["reason"].as_str().unwrap()), "{notice}");
    }
    acquire(&other, "a").await;
    let status = client.call("status", json!({})).await.unwrap();
    assert_ne!(status["sessions"][0]["id"], before);
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_tells_nothing_older_when_the_session_behind_it_was_lost() {
    let rig = Rig::new(3_000 * MS, DRAIN);
    let client = rig.connect().await;
    let session = Session::builder(rig.store.clone()).lease(60_000 * MS).open().await.unwrap();
    let election = session.election("e").unwrap();
    let first = election.campaign("one").await.unwrap();
    let past = rig.faults.snapshot().await.unwrap();
    first.resign().await.unwrap();
    let second = election.campaign("two").await.unwrap();
    let mut states = client.subscribe("election.observe", json!({ "name": "e" })).await.unwrap();
    let mut told = async || loop {
        match tokio::time::timeout(PATIENCE, states.recv()).await.unwrap().unwrap() {
            Happening::Leader { leader } => return leader.map(|leader| leader.fence),
            Happening::Sync { .. } | Happening::Gap {} => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told().await, Some(second.term().get()));
    // From now on a server answers that is behind, and the session is gone.
    rig.faults.add(Rule::new(Fault::Stale(past)).under("election.e"));
    let status = client.call("status", json!({})).await.unwrap();
    let behind = Key::new(format!("session.{}", status["sessions"][0]["id"].as_str().unwrap())).unwrap();
    rig.store.commit(Op::purge(behind).into()).await.unwrap();
    assert_eq!(told().await, Some(second.term().get()), "told from the past");
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_in_time_though_the_store_hangs() {
    let rig = Rig::new(30_000 * MS, DRAIN);
    let client = rig.connect().await;
    rig.faults.partition(Partition::HoldRequests);
    let begun = Instant::now();
    // No session yet, so the lock was not even tried.
    assert_eq!(refused(&client, "lock.acquire", json!({ "name": "a", "wait_ms": 200 })).await, Kind::Unavailable);
    assert!((200 * MS..8_000 * MS).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    rig.faults.heal();
    acquire(&client, "b").await;
    rig.faults.partition(Partition::HoldRequests);
    let begun = Instant::now();
    assert_eq!(refused(&client, "lock.acquire", json!({ "name": "a", "wait_ms": 200 })).await, Kind::Timeout);
    assert!(begun.elapsed() < 8_000 * MS, "{:?}", begun.elapsed());
    rig.faults.heal();
    // Whatever was on its way holds nothing.
    acquire(&client, "a").await;
    rig.leave().await;
}

/// What a release comes to that is asked for until its outcome is known.
async fn released(client: &Client, held: &LockAcquired) -> Result<Json, CallError> {
    let begun = Instant::now();
    loop {
        let outcome = client.call("lock.release", json!({ "lease": held.lease })).await;
        match outcome.as_ref().err().and_then(CallError::kind) {
            Some(Kind::UnknownOutcome | Kind::Unavailable) if begun.elapsed() < PATIENCE => {}
            _ => return outcome,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_whose_answer_was_lost_is_confirmed_when_it_is_asked_for_again() {
    let rig = Rig::new(1_500 * MS, DRAIN);
    let (client, other) = (rig.connect().await, rig.connect().await);
    let held = acquire(&client, "a").await;
    rig.faults.partition(Partition::HoldAnswers);
    for _ in 0..2 {
        assert_eq!(refused(&client, "lock.release", json!({ "lease": held.lease })).await, Kind::UnknownOutcome);
    }
    // It is given up all the same.
    assert_eq!(refused(&client, "lock.check", json!({ "lease": held.lease })).await, Kind::NotHeld);
    rig.faults.heal();
    assert_eq!(released(&client, &held).await.unwrap(), json!({}));
    assert_eq!(refused(&client, "lock.release", json!({ "lease": held.lease })).await, Kind::NotHeld);
    acquire(&other, "a").await;
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_came_true_unasked_is_still_confirmed() {
    let rig = Rig::new(1_500 * MS, DRAIN);
    let (client, other) = (rig.connect().await, rig.connect().await);
    let held = acquire(&client, "a").await;
    rig.faults.partition(Partition::HoldAnswers);
    assert_eq!(refused(&client, "lock.release", json!({ "lease": held.lease })).await, Kind::UnknownOutcome);
    rig.faults.heal();
    acquire(&other, "a").await;
    assert_eq!(released(&client, &held).await.unwrap(), json!({}));
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_never_reached_the_store_before_the_lease_ended_is_a_loss() {
    let rig = Rig::new(1_500 * MS, DRAIN);
    let (client, other) = (rig.connect().await, rig.connect().await);
    let held = acquire(&client, "a").await;
    rig.faults.partition(Partition::Refuse);
    assert_eq!(refused(&client, "lock.release", json!({ "lease": held.lease })).await, Kind::Unavailable);
    rig.faults.heal();
    for _ in 0..2 {
        let error = released(&client, &held).await.unwrap_err();
        assert_eq!((error.kind(), &error.object().unwrap().data["reason"]), (Some(Kind::Lost), &json!("renewal_timeout")));
    }
    acquire(&other, "a").await;
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_release_goes_on() {
    let rig = Rig::new(30_000 * MS, DRAIN);
    let client = rig.connect().await;
    let held = acquire(&client, "a").await;
    rig.faults.partition(Partition::HoldAnswers);
    let release = client.call("lock.release", json!({ "lease": held.lease }));
    let cancel = async {
        // Ids count up from 1: the release is the second call.
        while client.call("cancel", json!({ "id": 2 })).await.is_err() {}
    };
    let (release, ()) = tokio::join!(release, cancel);
    assert_eq!(release.unwrap_err().kind(), Some(Kind::Cancelled));
    rig.faults.heal();
    assert_eq!(released(&client, &held).await.unwrap(), json!({}));
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gone_client_held_is_released_when_the_store_is_back() {
    let rig = Rig::new(30_000 * MS, DRAIN);
    let (client, next) = (rig.connect().await, rig.connect().await);
    acquire(&client, "a").await;
    rig.faults.partition(Partition::Refuse);
    let before = rig.faults.count(Operation::Commit);
    drop(client);
    let begun = Instant::now();
    while rig.faults.count(Operation::Commit) == before {
        assert!(begun.elapsed() < PATIENCE, "the release was not even tried");
        tokio::time::sleep(MS).await;
    }
    rig.faults.heal();
    acquire(&next, "a").await;
    assert!(begun.elapsed() < 15_000 * MS, "not only when the lease has run out: {:?}", begun.elapsed());
    rig.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_leaves_in_time_though_the_store_hangs() {
    let rig = Rig::new(10_000 * MS, 600 * MS);
    let client = rig.connect().await;
    acquire(&client, "a").await;
    rig.faults.partition(Partition::HoldRequests);
    let put = client.call("kv.put", json!({ "key": "k", "value": "x" }));
    let witness = rig.connect().await;
    let leave = async {
        while witness.call("status", json!({})).await.unwrap()["requests"] != 1 {}
        let begun = Instant::now();
        rig.leave().await;
        begun.elapsed()
    };
    let (put, took) = tokio::join!(put, leave);
    assert!(took < 8_000 * MS, "{took:?}");
    assert!(matches!(put, Err(CallError::Closed)) || put.as_ref().unwrap_err().kind() == Some(Kind::UnknownOutcome), "{put:?}");
}
