//! A long outage costs a session no more than it can bear.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use futures::poll;
use tenure::{Error, Session};
use tenure_kv::{
    HandClock, Memory,
    faults::{Faulty, Operation, Partition},
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

#[tokio::test]
async fn nothing_new_is_begun_while_too_much_of_what_was_given_up_cannot_be_ended() {
    let (store, faults) = Faulty::new(Arc::new(Memory::new()));
    let clock = HandClock::default();
    let session = Session::builder(store).lease(LEASE).clock(Arc::new(clock.clone())).open().await.unwrap();
    let mutex = session.mutex("l").unwrap();
    faults.partition(Partition::HoldRequests);
    // Each writes a ticket, is not answered and gives up, and the session has to see to its end.
    let mut given_up = 0;
    let held_back = loop {
        let before = faults.count(Operation::Commit);
        let mut one = Box::pin(mutex.lock());
        assert!(poll!(&mut one).is_pending());
        if faults.count(Operation::Commit) == before {
            break one;
        }
        drop(one);
        given_up += 1;
        assert!(given_up < 4_000, "one more is begun whatever is left of the others");
        if given_up % 64 == 0 {
            clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(given_up > 1_000, "{given_up}");
    let refused = meanwhile(&clock, "a refusal", mutex.lock()).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }) && refused.to_string().contains("still to be ended"), "{refused}");
    // A limit holds there, too, and nothing is left behind by who wrote nothing.
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
