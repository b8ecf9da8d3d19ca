//! A long outage costs a session no more than it can bear.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::poll;
use tenure::{Error, Guard, JoinOptions, Mutex, Result, Session};
use tenure_kv::{
    HandClock, KeyRange, Memory, Revision, Store,
    faults::{Fault, Faults, Faulty, Operation, Partition, Rule},
};

/// Longer than everything here takes by the session's clock.
const LEASE: Duration = Duration::from_secs(600);

/// Moves the clock on, bit by bit, until `done` resolves.
async fn meanwhile<T>(clock: &HandClock, what: &str, done: impl Future<Output = T>) -> T {
    let moving = async {
        loop {
            clock.advance(Duration::from_millis(500));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let done = async {
        tokio::select! {
            done = done => done,
            () = moving => unreachable!("the clock goes on"),
        }
    };
    tokio::time::timeout(Duration::from_secs(30), done).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Locks are given up until no more are begun. The last try, which waits for room, and how many there were.
async fn fill<'a>(
    mutex: &'a Mutex,
    faults: &Faults,
    clock: &HandClock,
) -> (Pin<Box<impl Future<Output = Result<Guard>> + 'a>>, u32) {
    // Each writes a ticket, is not answered and gives up, and the session has to see to its end.
    let mut given_up = 0;
    loop {
        let before = faults.count(Operation::Commit);
        let mut one = Box::pin(mutex.lock());
        assert!(poll!(&mut one).is_pending());
        if faults.count(Operation::Commit) == before {
            return (one, given_up);
        }
        drop(one);
        given_up += 1;
        assert!(given_up < 4_000, "one more is begun whatever is left of the others");
        if given_up % 64 == 0 {
            clock.advance(Duration::from_secs(1));
            // Each is a turn of every task that can go on.
            for _ in 0..32 {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn nothing_new_is_begun_while_too_much_of_what_was_given_up_cannot_be_ended() {
    let (store, faults) = Faulty::new(Arc::new(Memory::new()));
    let clock = HandClock::default();
    let session = Session::builder(store).lease(LEASE).clock(Arc::new(clock.clone())).open().await.unwrap();
    let mutex = session.mutex("l").unwrap();
    faults.partition(Partition::HoldRequests);
    let (held_back, given_up) = fill(&mutex, &faults, &clock).await;
    assert!(given_up > 1_000, "{given_up}");
    let refused = meanwhile(&clock, "a refusal", mutex.lock()).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }) && refused.to_string().contains("still to be ended"), "{refused}");
    // A limit holds there, too; who wrote nothing has nothing to end, and who only tries does not wait.
    let before = faults.count(Operation::Commit);
    let mut stopped = Box::pin(mutex.lock_until(std::future::ready(())));
    assert!(poll!(&mut stopped).is_pending(), "it looks who holds the lock");
    assert_eq!(faults.count(Operation::Commit), before);
    drop(stopped);
    let late = meanwhile(&clock, "the limit", mutex.lock_timeout(Duration::from_secs(2))).await.unwrap_err();
    assert!(matches!(late, Error::NotAcquired { .. }), "{late}");

    drop(held_back);
    faults.heal();
    let guard = meanwhile(&clock, "the lock", mutex.lock()).await.unwrap();
    meanwhile(&clock, "the end of all others", async {
        while !mutex.queue().await.unwrap().waiters.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(guard.is_held());
    guard.release().await.unwrap();
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_campaign_and_a_join_write_nothing_then_and_come_to_their_end_when_the_store_answers_again() {
    let memory = Arc::new(Memory::new());
    let (store, faults) = Faulty::new(memory.clone());
    let clock = HandClock::default();
    let session = Session::builder(store.clone()).lease(LEASE).clock(Arc::new(clock.clone())).open().await.unwrap();
    let other = Session::builder(store).lease(LEASE).clock(Arc::new(clock.clone())).open().await.unwrap();
    let office = other.election("e").unwrap().campaign("first").await.unwrap();
    let (mutex, election, group) = (session.mutex("l").unwrap(), session.election("e").unwrap(), session.group("g").unwrap());
    // Reads are answered.
    let held = faults.add(Rule::new(Fault::HoldBefore).on(Operation::Commit));
    let (held_back, _) = fill(&mutex, &faults, &clock).await;
    drop(held_back);
    for refused in [election.try_campaign("x").await.map(drop), mutex.try_lock().await.map(drop)] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
    }
    let written =
        ["candidate.e", "member.g"].map(|prefix| faults.add(Rule::new(Fault::Count).on(Operation::Commit).under(prefix)));
    let (mut campaign, mut join) = (Box::pin(election.campaign("second")), Box::pin(group.join("m", JoinOptions::default())));
    for _ in 0..8 {
        assert!(poll!(&mut campaign).is_pending() && poll!(&mut join).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(written.map(|rule| rule.hits()), [0, 0]);
    held.clear();
    let both = async { futures::join!(office.resign(), campaign, join) };
    let (resigned, campaigned, joined) = meanwhile(&clock, "the office and the member", both).await;
    resigned.unwrap();
    assert!(campaigned.unwrap().is_leader());
    drop(joined.unwrap());
    meanwhile(&clock, "the end of all that was given up", async {
        while !memory.scan(&KeyRange::new("lock.l.>").unwrap(), Revision::ZERO, 1).await.unwrap().entries.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
