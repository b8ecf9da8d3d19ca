//! Outages for everybody, notices that are cut, reads that lag: nothing is concluded from what was not seen.

use std::time::Duration;

use futures::future::join_all;
use tenure::OnLoss;
use tenure_kv::faults::{Fault, Operation, Partition, Rule};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    basics::{take, until_no_ticket_is_left, until_waiting},
    support::{LONG, MS, Must, loss_now, until, within},
};

/// When the store was out of reach for everybody, longer than any lease, nobody's silence counts: who holds
/// and renews as soon as it can is restored, and who waits goes on waiting.
///
/// # Panics
/// When the promise is broken.
pub async fn an_outage_for_all_is_held_against_nobody(bed: &Bed) {
    let lease = 600 * MS;
    let each = [("before-1", true, 0), ("before-2", true, 1), ("before-3", true, 2), ("after", false, 0)];
    let each = each.map(|(lock, waits_before, thirds)| async move {
        let (line, holder) = bed.process(lease).await;
        let (other_line, other) = bed.process(lease).await;
        let mutex = holder.mutex(lock).must("a lock name").on_loss(OnLoss::WhenProven);
        let guard = mutex.lock().await.must("the lock");
        let waiting = other.mutex(lock).must("a lock name");
        let wait = || {
            let waiting = waiting.clone();
            AbortOnDropHandle::new(tokio::spawn(async move { waiting.lock().await }))
        };
        let mut waiter = None;
        if waits_before {
            waiter = Some(wait());
            until_waiting(&waiting, 1).await;
        }
        line.cut(Partition::Refuse);
        other_line.cut(Partition::Refuse);
        tokio::time::sleep(lease * 2 + lease / 3 * thirds).await;
        assert!(!guard.is_held(), "{lock}: nobody may rely on a lease that is over");
        // The observer is back a little earlier.
        other_line.mend();
        tokio::time::sleep(30 * MS).await;
        let waiter = waiter.unwrap_or_else(wait);
        until_waiting(&waiting, 1).await;
        tokio::time::sleep(30 * MS).await;
        line.mend();
        until(LONG, format!("{lock}: the holder is restored"), || async {
            assert_eq!(loss_now(&guard), None, "{lock}: an outage for all was held against the holder");
            guard.is_held().then_some(())
        })
        .await;
        assert!(!waiter.is_finished());
        guard.release().await.must("the release");
        within(LONG, "the waiter is granted", waiter).await.must("the task").must("the lock").release().await.must("the release");
    });
    join_all(each).await;
}

/// A waiter whose notices are cut, held back or ended learns all the same that it is its turn, long before a
/// lease is over.
///
/// # Panics
/// When the promise is broken.
pub async fn waiting_outlives_its_notices(bed: &Bed) {
    let lease = Duration::from_secs(30);
    let (line, session) = bed.process(lease).await;
    let holder = bed.session(lease).await;
    let mutex = session.mutex("notices").must("a lock name");
    for round in 0..4 {
        let guard = take(&holder, "notices").await;
        let waiter = AbortOnDropHandle::new(tokio::spawn({
            let mutex = mutex.clone();
            async move { mutex.lock().await }
        }));
        until_waiting(&mutex, 1).await;
        match round {
            0 => assert!(line.faults.cut("") > 0, "the waiter listens"),
            // The release falls into the gap.
            1 => assert!(line.faults.pause("") > 0, "the waiter listens"),
            2 => line.cut(Partition::Refuse),
            _ => line.cut(Partition::HoldAnswers),
        }
        guard.release().await.must("the release");
        match round {
            0 => {}
            1 => {
                line.faults.cut("");
                line.faults.resume("");
            }
            _ => line.mend(),
        }
        let next = within(Duration::from_secs(3), format!("round {round}: the waiter is granted"), waiter).await;
        next.must("the task").must("the lock").release().await.must("the release");
    }
    until_no_ticket_is_left(holder.store()).await;
}

/// Reads that are far behind make nobody a holder: a grant needs a read that shows the own ticket.
///
/// # Panics
/// When the promise is broken.
pub async fn reads_that_lag_grant_nothing(bed: &Bed) {
    let lease = Duration::from_secs(30);
    let (line, session) = bed.process(lease).await;
    let holder = bed.session(lease).await;
    let before = line.faults.snapshot().await.must("a snapshot");
    let guard = take(&holder, "lag").await;
    let stale: Vec<_> = [Operation::Entry, Operation::Entries, Operation::Scan]
        .map(|operation| line.faults.add(Rule::new(Fault::Stale(before.clone())).on(operation)))
        .into();
    let mutex = session.mutex("lag").must("a lock name");
    let tried = within(LONG, "the attempt ends", mutex.lock_timeout(200 * MS)).await;
    assert!(matches!(tried, Err(tenure::Error::NotAcquired { .. })), "granted by a read that lags: {tried:?}");
    let waiter = AbortOnDropHandle::new(tokio::spawn({
        let mutex = mutex.clone();
        async move { mutex.lock().await }
    }));
    until(LONG, "both tickets are there", || async {
        let queue = tenure::locks::inspect(&**holder.store(), "lag").await.ok()?;
        (queue.waiters.len() == 1).then_some(())
    })
    .await;
    tokio::time::sleep(200 * MS).await;
    assert!(!waiter.is_finished() && guard.is_held());
    guard.release().await.must("the release");
    stale.iter().for_each(tenure_kv::faults::Active::clear);
    let next = within(Duration::from_secs(3), "the waiter is granted", waiter).await.must("the task").must("the lock");
    next.release().await.must("the release");
    until_no_ticket_is_left(holder.store()).await;
}
