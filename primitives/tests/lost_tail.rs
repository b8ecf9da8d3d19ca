//! The one server that keeps a bucket loses its last writes, and others write where they stood, before a session that
//! was there writes again: nothing tells it so but that the store was out of touch.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod losing_server;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use tenure::{
    Error, JoinOptions, Loss, Session, SessionState, View,
    partitions::{PartitionEvent, Partitions},
};
use tenure_kv::{
    HandClock, Info, Key, KeyRange, Memory, Op, Revision, Store, StoreExt,
    faults::{Faulty, Partition},
};

use crate::losing_server::{LEASE, LONG, Server, builder, other, soon};

#[tokio::test]
async fn what_was_known_of_a_queue_hides_nobody_who_came_where_it_had_been() {
    let server = Server::of(1);
    let session = builder(&server).lease(LONG).open().await.unwrap();
    let lock = session.mutex("x").unwrap();
    lock.lock().await.unwrap().release().await.unwrap();
    let moment = server.moment();
    for _ in 0..20 {
        lock.lock().await.unwrap().release().await.unwrap();
    }
    let last = server.go_back(moment).await;
    let second = other(&server).await;
    let guard = second.mutex("x").unwrap().lock().await.unwrap();
    assert!(guard.token() < last, "this is not below what is known to be gone");
    server.overtake(last).await;
    let refused = lock.try_lock().await;
    assert!(matches!(refused, Err(Error::NotAcquired { .. })), "two hold it: {refused:?} beside {guard:?}");
    assert!(session.is_held(), "the session has noticed, so this test shows nothing");
    guard.release().await.unwrap();
    soon("the lock", lock.lock()).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn tickets_offices_and_members_that_come_back_under_a_living_session_are_ended() {
    for replicas in [1, 3] {
        let server = Server::of(replicas);
        let session = builder(&server).open().await.unwrap();
        let guard = session.mutex("x").unwrap().lock().await.unwrap();
        let office = session.election("e").unwrap().campaign("me").await.unwrap();
        let member = session.group("g").unwrap().join("m", JoinOptions::default()).await.unwrap();
        let moment = server.moment();
        guard.release().await.unwrap();
        office.resign().await.unwrap();
        member.leave().await.unwrap();
        server.lose_what_came_after(moment).await;
        assert_eq!(session.group("g").unwrap().members().await.unwrap().list.len(), 1, "nothing came back");

        let second = other(&server).await;
        let _guard = soon("the lock", second.mutex("x").unwrap().lock()).await.unwrap();
        let _office = soon("the office", second.election("e").unwrap().campaign("you")).await.unwrap();
        let group = second.group("g").unwrap();
        soon("the member's end", async {
            while !group.members().await.unwrap().list.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert!(session.is_held(), "all that was for the end of the session, so this test shows nothing");
    }
}

#[tokio::test]
async fn what_is_held_is_not_taken_for_a_stray() {
    for replicas in [1, 3] {
        let server = Server::of(replicas);
        let session = builder(&server).open().await.unwrap();
        let guard = session.mutex("x").unwrap().lock().await.unwrap();
        let waits = tokio::spawn({
            let lock = session.mutex("x").unwrap();
            async move { lock.lock().await }
        });
        let office = session.election("e").unwrap().campaign("me").await.unwrap();
        let candidate = tokio::spawn({
            let election = session.election("e").unwrap();
            async move { election.campaign("me too").await }
        });
        let member = session.group("g").unwrap().join("m", JoinOptions::default()).await.unwrap();
        let tickets = KeyRange::new("lock.x.*").unwrap();
        let candidates = KeyRange::new("candidate.e.*").unwrap();
        let waiting =
            || async { server.list(&tickets).await.unwrap().len() == 2 && server.list(&candidates).await.unwrap().len() == 1 };
        soon("the queue", async {
            while !waiting().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let renewed = server.entry(&Key::new(format!("session.{}", session.id())).unwrap()).await.unwrap().unwrap().revision;
        server.outages.fetch_add(1, Ordering::AcqRel);
        // The second renewal from here on comes after the look.
        soon("two renewals", async {
            let key = Key::new(format!("session.{}", session.id())).unwrap();
            let mut last = renewed;
            for _ in 0..3 {
                while server.entry(&key).await.unwrap().unwrap().revision == last {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                last = server.entry(&key).await.unwrap().unwrap().revision;
            }
        })
        .await;
        assert!(waiting().await && guard.is_held() && office.is_leader());
        assert_eq!(session.group("g").unwrap().members().await.unwrap().list.len(), 1);
        guard.release().await.unwrap();
        let _guard = soon("the lock", waits).await.unwrap().unwrap();
        office.resign().await.unwrap();
        let _office = soon("the office", candidate).await.unwrap().unwrap();
        member.leave().await.unwrap();
    }
}

#[tokio::test]
async fn a_session_that_is_set_back_to_an_earlier_renewal_is_lost_at_once() {
    let server = Server::of(1);
    let session = builder(&server).open().await.unwrap();
    let key = Key::new(format!("session.{}", session.id())).unwrap();
    let moment = server.moment();
    let first = server.entry(&key).await.unwrap().unwrap().revision;
    soon("a renewal", async {
        while server.entry(&key).await.unwrap().unwrap().revision == first {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    server.lose_what_came_after(moment).await;
    let begun = std::time::Instant::now();
    assert_eq!(soon("the loss", session.lost()).await, Loss::StoreReset);
    assert!(begun.elapsed() < LEASE, "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_session_past_its_ttl_is_not_restored_by_what_a_server_brings_back() {
    let server = Server::of(1);
    let clock = HandClock::default();
    let session = builder(&server).clock(Arc::new(clock.clone())).open().await.unwrap();
    let key = Key::new(format!("session.{}", session.id())).unwrap();
    let last = server.entry(&key).await.unwrap().unwrap().revision;
    clock.advance(LEASE * 2 + Duration::from_secs(4));
    assert_eq!(soon("the loss", session.lost()).await, Loss::Expired);
    assert_eq!(server.entry(&key).await.unwrap().unwrap().revision, last, "it was written again");
}

#[tokio::test]
async fn an_outage_alone_loses_no_session_however_long_it_lasts() {
    let (store, faults) = Faulty::new(Server::of(1));
    let clock = HandClock::default();
    let session = Session::builder(store).lease(LEASE).clock(Arc::new(clock.clone())).open().await.unwrap();
    faults.partition(Partition::Refuse);
    for _ in 0..40 {
        clock.advance(LEASE / 4);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(session.state(), SessionState::Suspect);
    faults.heal();
    let back = async {
        loop {
            clock.advance(LEASE / 10);
            tokio::time::sleep(Duration::from_millis(5)).await;
            if let SessionState::Lost(loss) = session.state() {
                return loss;
            }
        }
    };
    assert_eq!(soon("the loss", back).await, Loss::Expired);
}

#[tokio::test]
async fn a_leader_and_a_member_go_on_from_what_a_server_has_kept_of_theirs() {
    for replicas in [1, 3] {
        let server = Server::of(replicas);
        let session = builder(&server).open().await.unwrap();
        let office = session.election("e").unwrap().campaign("one").await.unwrap();
        let member = session.group("g").unwrap().join("m", JoinOptions::default()).await.unwrap();
        let moment = server.moment();
        office.proclaim("two").await.unwrap();
        member.set_value("two").await.unwrap();
        server.lose_what_came_after(moment).await;
        let revision = soon("the proclamation", office.proclaim("three")).await.unwrap();
        assert_eq!(server.entry(&Key::new("election.e").unwrap()).await.unwrap().unwrap().revision, revision);
        soon("the update", member.set_value("three")).await.unwrap();
        let there = session.group("g").unwrap().members().await.unwrap().list;
        assert_eq!(there[0].instance.value, "three");
        assert!(office.is_leader());
    }
}

#[tokio::test]
async fn a_release_that_finds_another_bucket_has_not_released() {
    let server = Server::of(1);
    let session = builder(&server).open().await.unwrap();
    let guard = session.mutex("x").unwrap().lock().await.unwrap();
    *server.memory.write().unwrap() = Memory::new();
    server.outages.fetch_add(1, Ordering::AcqRel);
    // It was on its way when the bucket went.
    server.mute.store(true, Ordering::Release);
    let released = soon("the release", guard.release()).await;
    assert!(matches!(released, Err(Error::Lost { .. })), "{released:?}");
}

#[tokio::test]
async fn a_resignation_that_finds_another_bucket_has_not_resigned() {
    let server = Server::of(1);
    let session = builder(&server).open().await.unwrap();
    let office = session.election("e").unwrap().campaign("me").await.unwrap();
    // No outage: its server goes on. The first try is not answered.
    *server.memory.write().unwrap() = Memory::new();
    server.mute.store(true, Ordering::Release);
    let resigned = soon("the resignation", office.resign()).await;
    assert!(matches!(resigned, Err(Error::Lost { loss: Loss::StoreReset, .. })), "{resigned:?}");
}

/// A partition that was taken back is a ticket that its session ended itself, while the application keeps the guard.
#[tokio::test]
async fn what_was_taken_back_is_not_taken_for_lost_after_an_outage() {
    let server = Server::of(1);
    let session = builder(&server).open().await.unwrap();
    let member = session.group("g").unwrap().join("m", JoinOptions::default()).await.unwrap();
    let mut partitions = Partitions::builder(&member, 1).grace(Duration::from_millis(50)).start().await.unwrap();
    let Some(PartitionEvent::Gained { guard, .. }) = soon("the partition", partitions.next()).await else {
        panic!("no partition")
    };
    let (tickets, before) = (KeyRange::new("lock.>").unwrap(), server.list(&KeyRange::new("lock.>").unwrap()).await.unwrap());
    assert_eq!(before.len(), 1, "{before:?}");
    partitions.stop();
    assert_eq!(soon("the loss", guard.lost()).await, Loss::Reassigned);
    soon("the tombstone is forgotten", async {
        while !server.list(&tickets).await.unwrap().is_empty() || server.entry(&before[0].key).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    server.outages.fetch_add(1, Ordering::AcqRel);
    // What is held is looked at after the first renewal.
    let key = Key::new(format!("session.{}", session.id())).unwrap();
    let (mut last, mut renewals) = (server.entry(&key).await.unwrap().unwrap().revision, 0);
    soon("renewals", async {
        while renewals < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = server.entry(&key).await.unwrap().unwrap();
            assert!(now.is_live(), "the session has ended");
            renewals += u32::from(now.revision != last);
            last = now.revision;
        }
    })
    .await;
    assert_eq!(session.lost().now_or_never(), None);
    drop(guard);
}

#[tokio::test]
async fn a_hold_an_office_or_a_member_that_is_gone_is_lost_though_its_session_is_there() {
    for (what, replicas) in [("lock", 1), ("office", 1), ("member", 1), ("lock", 3), ("office", 3), ("member", 3)] {
        let server = Server::of(replicas);
        let session = builder(&server).open().await.unwrap();
        let moment = server.moment();
        let (mut guard, mut office, mut member) = (None, None, None);
        match what {
            "lock" => guard = Some(session.mutex("x").unwrap().lock().await.unwrap()),
            "office" => office = Some(session.election("e").unwrap().campaign("me").await.unwrap()),
            _ => member = Some(session.group("g").unwrap().join("m", JoinOptions::default()).await.unwrap()),
        }
        let last = server.go_back(moment).await;
        let second = other(&server).await;
        let (_lock, _office) = (
            soon("the lock", second.mutex("x").unwrap().lock()).await.unwrap(),
            soon("the office", second.election("e").unwrap().campaign("you")).await.unwrap(),
        );
        server.overtake(last).await;
        if let Some(guard) = guard {
            assert_eq!(soon("the loss of the lock", guard.lost()).await, Loss::StoreReset);
        }
        if let Some(office) = office {
            soon("the loss of the office", office.lost()).await;
            assert!(!office.is_leader());
        }
        if let Some(member) = member {
            assert_eq!(soon("the member's end", member.lost()).await, Loss::StoreReset);
        }
        assert!(second.is_held());
    }
}

#[tokio::test]
async fn an_office_whose_hand_over_is_lost_is_free() {
    for replicas in [1, 3] {
        let server = Server::of(replicas);
        let (first, second) = (builder(&server).open().await.unwrap(), other(&server).await);
        let office = first.election("e").unwrap().campaign("one").await.unwrap();
        let successor = tokio::spawn({
            let election = second.election("e").unwrap();
            async move { election.campaign("two").await }
        });
        let election = first.election("e").unwrap();
        let candidates = async {
            loop {
                if let [candidate] = &election.candidates().await.unwrap()[..] {
                    return candidate.id.clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let candidate = soon("the candidate", candidates).await;
        let moment = server.moment();
        office.transfer(&candidate).await.unwrap();
        let successor = soon("the office", successor).await.unwrap().unwrap();
        // Both sessions are where they were; neither leads there, and one of them does not know.
        server.lose_what_came_after(moment).await;
        let third = other(&server).await;
        let _office = soon("the office", third.election("e").unwrap().campaign("three")).await.unwrap();
        soon("the successor's loss", successor.lost()).await;
        assert!(first.is_held(), "it is free for the end of the session, so this test shows nothing");
    }
}

#[tokio::test]
async fn a_leader_that_only_writes_goes_on_from_what_a_server_has_kept() {
    for replicas in [1, 3] {
        let server = Server::of(replicas);
        let session = builder(&server).open().await.unwrap();
        let office = session.election("e").unwrap().campaign("one").await.unwrap();
        let moment = server.moment();
        office.proclaim("two").await.unwrap();
        server.lose_what_came_after(moment).await;
        let write = || Op::put(Key::new("data.led").unwrap(), "x").into();
        soon("a fenced write", office.commit(write())).await.unwrap();
        assert!(office.is_leader());
    }
}

#[tokio::test]
async fn an_observer_tells_what_is_so_in_a_bucket_that_lost_its_last_writes() {
    let server = Server::of(1);
    let (holder, watcher) = (builder(&server).open().await.unwrap(), builder(&server).lease(LONG).open().await.unwrap());
    let guard = holder.mutex("x").unwrap().lock().await.unwrap();
    let mut states = watcher.mutex("x").unwrap().observe();
    let mut next = async || soon("a state", states.next()).await.unwrap().unwrap().holder.map(|holder| holder.token);
    assert_eq!(next().await, Some(guard.token()));
    let (moment, ended) = (server.moment(), guard.token());
    guard.release().await.unwrap();
    assert_eq!(next().await, None);
    let last = server.go_back(moment).await;
    server.overtake(last).await;
    // The ticket stands in everybody's way again, until its session has looked what came back.
    let again = soon("the lock", watcher.mutex("x").unwrap().lock()).await.unwrap();
    loop {
        match next().await {
            Some(token) if token == again.token() => break,
            told => assert!(told.is_none_or(|token| token == ended), "{told:?}"),
        }
    }
    again.release().await.unwrap();
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_crowd_whose_tickets_went_with_what_was_lost_hears_of_it() {
    let server = Server::of(1);
    let session = builder(&server).lease(LONG).open().await.unwrap();
    let second = other(&server).await;
    let lock = session.mutex("x").unwrap();
    // Nothing of the queue is left, and nobody writes there again.
    let moment = server.moment();
    let _guard = second.mutex("x").unwrap().lock().await.unwrap();
    let waiters: Vec<_> = (0..12)
        .map(|_| {
            let lock = lock.clone();
            tokio::spawn(async move { lock.lock().await })
        })
        .collect();
    let view = View::open(session.store(), KeyRange::new("lock.x.*").unwrap()).await.unwrap();
    let all = view.wait_until(|now| (now.entries().count() == 13).then_some(()));
    soon("the queue", all).await.unwrap();
    drop(view);
    server.lose_what_came_after(moment).await;
    for waiter in waiters {
        soon("the end of a wait", waiter).await.unwrap().expect_err("a ticket that is gone was granted");
    }
}

#[tokio::test]
async fn after_an_outage_no_revision_vouches_for_the_epoch() {
    let server = Server::with(Info { shared: true, ..Memory::new().info().clone() });
    let epoch = Key::new("meta.epoch").unwrap();
    server.put(&epoch, r#"{"id":"one","settled":true}"#).await.unwrap();
    let session = builder(&server).lease(LONG).open().await.unwrap();
    let lock = session.mutex("x").unwrap();
    while server.height().await < Revision::new(40_000) {}
    lock.lock().await.unwrap().release().await.unwrap();
    // Somebody has found that the bucket was set back, and goes on in it under another name.
    server.outages.fetch_add(1, Ordering::AcqRel);
    server.put(&epoch, r#"{"id":"two","settled":true}"#).await.unwrap();
    let error = lock.lock().await.expect_err("granted under the former name");
    assert_eq!(error.loss(), Some(Loss::StoreReset));
}
