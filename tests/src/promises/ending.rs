//! Ends that are not crashes: a session closed or dropped, a guard dropped.

use std::time::Duration;

use tenure::{Guard, Loss, SessionState, data_key};
use tenure_kv::{Op, faults::Partition};

use super::{
    Bed,
    basics::{take, until_no_ticket_is_left, until_waiting},
    line::Write,
    support::{LONG, MS, Must, loss_now, lost, now, since, until, within},
};

/// Longer than any wait here, so that nothing is freed by its end.
const LEASE: Duration = Duration::from_secs(30);

/// When `close` returns, everything the session held is free for others, and the session knows it.
///
/// # Panics
/// When the promise is broken.
pub async fn closing_frees_everything_at_once(bed: &Bed) {
    let (session, other) = (bed.session(LEASE).await, bed.session(LEASE).await);
    let mut held = Vec::new();
    for name in ["a", "b", "c"] {
        held.push(take(&session, name).await);
    }
    let elsewhere = take(&other, "d").await;
    let mutex = session.mutex("d").must("a lock name");
    let waiting = tokio::spawn({
        let mutex = mutex.clone();
        async move { mutex.lock().await }
    });
    until_waiting(&mutex, 1).await;
    let told = session.lost();
    within(LONG, "the close", session.close()).await.must("the close");
    assert_eq!(session.state(), SessionState::Lost(Loss::Closed));
    for guard in &held {
        assert!(!guard.is_held() && guard.remaining().is_zero());
        assert_eq!(loss_now(guard), Some(Loss::Closed));
        let write = guard.commit(Op::put(data_key("x").must("a key"), "x").into()).await;
        assert_eq!(lost(write, "a write after the close"), Loss::Closed);
    }
    assert_eq!(within(LONG, "the session tells", told).await, Loss::Closed);
    let waited = within(LONG, "the wait ends", waiting).await.must("the task");
    assert_eq!(lost(waited, "a wait of a closed session"), Loss::Closed);
    assert_eq!(lost(mutex.try_lock().await, "a lock of a closed session"), Loss::Closed);
    for guard in held {
        let mutex = other.mutex(guard.name()).must("a lock name");
        let next = within(Duration::from_secs(1), "the lock is free", mutex.lock()).await.must("the lock");
        assert!(next.token() > guard.token());
        assert_eq!(lost(guard.release().await, "a release after the close"), Loss::Closed);
        assert!(next.is_held());
        next.release().await.must("the release");
    }
    elsewhere.release().await.must("the release");
    within(Duration::from_secs(1), "nobody waits for it any more", take(&other, "d")).await.release().await.must("the release");
    session.close().await.must("a second close");
    until_no_ticket_is_left(other.store()).await;
}

/// When `close` has returned, no task of the session is left, not even when the store is out of reach.
///
/// # Panics
/// When the promise is broken.
pub async fn closing_leaves_no_task(bed: &Bed) {
    for cut in [None, Some(Partition::Refuse), Some(Partition::HoldRequests), Some(Partition::HoldAnswers)] {
        let (line, session) = bed.process(300 * MS).await;
        let guard = take(&session, "task").await;
        let mutex = session.mutex("task").must("a lock name");
        drop(tokio::time::timeout(20 * MS, mutex.lock()).await);
        if let Some(cut) = cut {
            line.cut(cut);
        }
        // Both leave something to do for the session's tasks.
        drop((guard, mutex));
        within(Duration::from_secs(2), format!("{cut:?}: the close"), session.close()).await.must("the close");
        drop(session);
        // Every task of a session has its store in hand.
        assert_eq!(line.users(), 0, "{cut:?}: something still uses the store");
    }
}

/// A dropped guard frees its lock within 100 ms.
///
/// # Panics
/// When the promise is broken.
pub async fn a_dropped_guard_frees_its_lock(bed: &Bed) {
    let (session, other) = (bed.session(LEASE).await, bed.session(LEASE).await);
    let mut best = LONG;
    for _ in 0..5 {
        let guard = take(&session, "drop").await;
        let mutex = other.mutex("drop").must("a lock name");
        let waiting = tokio::spawn({
            let mutex = mutex.clone();
            async move { (mutex.lock().await.must("the lock"), now()) }
        });
        until_waiting(&mutex, 1).await;
        let dropped = now();
        drop(guard);
        let (next, granted) = within(LONG, "the next is granted", waiting).await.must("the task");
        best = best.min(granted.saturating_since(dropped));
        next.release().await.must("the release");
    }
    assert!(best <= 100 * MS, "free after {best:?} at best");
    assert!(session.is_held());
}

/// A session lives as long as a clone, a lock or a guard of it does, and then frees what is left at once
/// and leaves no task.
///
/// # Panics
/// When the promise is broken.
pub async fn a_dropped_session_frees_its_locks(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let (line, session) = bed.process(lease).await;
    let other = bed.session(LEASE).await;
    let guard: Guard = take(&session, "drop").await;
    let waiting = other.mutex("drop").must("a lock name");
    drop(session);
    // Past several renewals: without them the hold would be over.
    within(LONG, "renewals go on", line.after(4, Write::Beat)).await;
    assert!(guard.is_held(), "a guard keeps its session alive");
    drop(guard);
    let freed = now();
    let next = within(LONG, "the lock is free", waiting.lock()).await.must("the lock");
    assert!(since(freed) < lease / 2, "free after {:?}", since(freed));
    until(Duration::from_secs(2), "no task is left", || async { (line.users() == 0).then_some(()) }).await;
    next.release().await.must("the release");
}
