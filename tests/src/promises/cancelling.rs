//! Futures dropped at every point where they wait: nothing is held in the end, and nobody waits a lease.

use std::{cell::RefCell, time::Duration};

use tenure::{Guard, Session, data_key};
use tenure_kv::Op;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    basics::{take, until_no_ticket_is_left},
    line::Line,
    support::{self, Cut, LONG, Must, after_polls, until, within},
};

/// Longer than any wait here, so that nothing is freed by its end.
const LEASE: Duration = Duration::from_secs(30);
/// More polls than any of these futures needs.
const MOST: usize = 200;

/// One who drops futures, and one who then wants the lock.
struct Pair {
    /// Of the fickle one.
    line: Line,
    fickle: Session,
    other: Session,
}

impl Pair {
    async fn new(bed: &Bed) -> Self {
        let (line, fickle) = bed.process(LEASE).await;
        line.slow_down();
        Self { line, fickle, other: bed.session(LEASE).await }
    }

    /// The other is granted the lock at once, and then no ticket is left.
    async fn is_free(&self, when: &str) {
        let mutex = self.other.mutex("cut").must("a lock name");
        let guard = within(Duration::from_secs(1), format!("the lock is free {when}"), mutex.lock()).await.must(when);
        guard.release().await.must("the release");
        until_no_ticket_is_left(self.other.store()).await;
    }

    async fn take(&self) -> Guard {
        take(&self.fickle, "cut").await
    }
}

/// As [`support::at_every_wait`], and afterwards the lock is free for the other each time.
async fn at_every_wait<P, T>(
    pair: &Pair,
    what: &str,
    prepare: impl AsyncFn() -> P,
    go: impl AsyncFn(&P) -> tenure::Result<T>,
    after: impl AsyncFn(P, &str),
) {
    let then = async |prepared: P, when: &str| {
        after(prepared, when).await;
        pair.is_free(when).await;
    };
    support::at_every_wait(what, prepare, go, then).await;
}

/// Acquiring, dropped at every wait while the lock is free.
///
/// # Panics
/// When the promise is broken.
pub async fn acquiring_can_be_dropped_at_every_wait(bed: &Bed) {
    let pair = Pair::new(bed).await;
    let mutex = pair.fickle.mutex("cut").must("a lock name");
    at_every_wait(&pair, "lock()", async || (), async |()| mutex.lock().await, async |(), _| {}).await;
    at_every_wait(&pair, "try_lock()", async || (), async |()| mutex.try_lock().await, async |(), _| {}).await;
    at_every_wait(&pair, "lock_timeout()", async || (), async |()| mutex.lock_timeout(LONG).await, async |(), _| {}).await;
    let until = async |(): &()| mutex.lock_until(std::future::pending()).await;
    at_every_wait(&pair, "lock_until()", async || (), until, async |(), _| {}).await;
}

/// Waiting, dropped at every wait while somebody else holds and then gives back.
///
/// # Panics
/// When the promise is broken.
pub async fn waiting_can_be_dropped_at_every_wait(bed: &Bed) {
    let pair = Pair::new(bed).await;
    let holder = bed.session(LEASE).await;
    let mutex = pair.fickle.mutex("cut").must("a lock name");
    let looks = pair.line.looks();
    for cut in [Cut::Waiting, Cut::Woken] {
        for polls in 0..MOST {
            let guard = take(&holder, "cut").await;
            let when = format!("after a wait was dropped, {polls} polls, {cut:?}");
            let before = looks.hits();
            let waiter = AbortOnDropHandle::new(tokio::spawn({
                let mutex = mutex.clone();
                async move { after_polls(polls, cut, mutex.lock()).await }
            }));
            // The release comes when the waiter is settled, so that it is woken by it at later polls.
            until(LONG, "the waiter is settled or gone", || async {
                let settled = looks.hits() > before && pair.line.is_answered();
                (settled || waiter.is_finished()).then_some(())
            })
            .await;
            guard.release().await.must("the release");
            let outcome = within(LONG, "the waiter is granted or gone", waiter).await.must("the task");
            let done = outcome.map(|outcome| drop(outcome.must("lock()"))).is_some();
            pair.is_free(&when).await;
            if done {
                break;
            }
            assert!(polls + 1 < MOST, "the wait does not end");
        }
    }
}

/// Giving back and fenced writes, dropped at every wait.
///
/// # Panics
/// When the promise is broken.
pub async fn releasing_and_writing_can_be_dropped_at_every_wait(bed: &Bed) {
    let pair = Pair::new(bed).await;
    let taken = async || RefCell::new(Some(pair.take().await));
    let release = async |guard: &RefCell<Option<Guard>>| guard.take().must("the guard").release().await;
    at_every_wait(&pair, "release()", taken, release, async |guard, _| drop(guard)).await;
    let again = async |guard: Mutex<Guard>, when: &str| guard.lock().await.give_up().await.must(when);
    let give_up = async |guard: &Mutex<Guard>| guard.lock().await.give_up().await;
    at_every_wait(&pair, "give_up()", async || Mutex::new(pair.take().await), give_up, again).await;
    let key = data_key("cut").must("a key");
    let write = async |guard: &Guard| guard.commit(Op::put(key.clone(), "x").into()).await;
    let still_held = async |guard: Guard, when: &str| {
        assert!(guard.is_held(), "{when}, the lock is held as before");
        guard.release().await.must(when);
    };
    at_every_wait(&pair, "commit()", async || pair.take().await, write, still_held).await;
}
