//! What a session knows of its lease and of its bucket, which the holders' tasks ask and the renewal's task moves.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;

#[allow(dead_code, reason = "only a part of the file is used")]
#[path = "../../../primitives/src/session/heights.rs"]
mod heights;
#[allow(dead_code, reason = "only a part of the file is used")]
#[path = "../../../primitives/src/session/validity.rs"]
mod validity;

use self::{heights::Heights, validity::Validity};
use crate::{
    Clock, Loss, Moment, Revision,
    sync::{
        atomic::{AtomicU64, Ordering},
        thread,
    },
};

/// A clock that another thread moves.
#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Moment {
        at(self.0.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, _: Moment) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

fn at(ms: u64) -> Moment {
    Moment::new(Duration::from_millis(ms))
}

/// Whoever has seen the lease past its deadline never sees the hold valid again, whenever the renewal comes.
pub fn a_lease_that_ran_out_stays_so() {
    let (clock, lease) = (Arc::new(Hand::default()), Arc::new(Validity::until(at(100))));
    let renewal = thread::spawn({
        let (clock, lease) = (clock.clone(), lease.clone());
        move || lease.renewed(&*clock, at(300))
    });
    let time = thread::spawn({
        let clock = clock.clone();
        move || clock.0.store(150, Ordering::SeqCst)
    });
    let granted = lease.interruptions();
    let over = lease.remaining_since(&*clock, granted).is_zero();
    let again = lease.remaining_since(&*clock, granted);
    assert!(!over || again.is_zero(), "it had run out, and is valid for {again:?}");
    let late = renewal.join().unwrap();
    time.join().unwrap();
    assert_eq!(lease.interruptions(), u64::from(late));
}

/// Once it is lost nothing makes it valid, and everybody hears the same reason.
pub fn a_lost_lease_stays_lost() {
    let (clock, lease) = (Arc::new(Hand::default()), Arc::new(Validity::until(at(100))));
    let losers = [Loss::Deposed, Loss::Closed].map(|loss| {
        let lease = lease.clone();
        thread::spawn(move || lease.lose(loss))
    });
    lease.renewed(&*clock, at(300));
    if lease.lost().is_some() {
        assert!(lease.remaining(&*clock).is_zero());
    }
    for told in losers.map(|loser| loser.join().unwrap()) {
        assert_eq!(Some(told), lease.lost());
    }
}

/// Answers of the former bucket that come while it turns out to be another one do not make that one look gone back.
pub fn a_former_bucket_says_nothing_of_the_next() {
    let heights = Arc::new(Heights::default());
    assert!(heights.committed(heights.mark(), Revision::new(100)));
    let late = [101, 102].map(|revision| {
        let (heights, sent) = (heights.clone(), heights.mark());
        thread::spawn(move || heights.committed(sent, Revision::new(revision)))
    });
    heights.turn();
    let before = heights.mark();
    assert!(heights.committed(before, Revision::new(4)), "the new bucket has not gone back");
    for late in late {
        assert!(late.join().unwrap(), "the former bucket had not gone back");
    }
    assert!(heights.committed(heights.mark(), Revision::new(5)), "the new bucket has not gone back");
}
