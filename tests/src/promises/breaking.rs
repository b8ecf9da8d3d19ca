//! Ending somebody else's hold: that very hold, and its holder hears of it.

use std::time::Duration;

use futures::future::join_all;
use tenure::{Error, Loss, data_key, locks};
use tenure_kv::{Op, Revision, faults::Partition};

use super::{
    Bed,
    basics::{take, until_no_ticket_is_left, until_waiting},
    support::{LONG, MS, Must, loss_now, lost, now, since, within},
};

/// Longer than any wait here, so that nothing is freed by its end.
const LEASE: Duration = Duration::from_secs(30);
/// Within this a holder hears that its hold was broken.
const HEARD: Duration = Duration::from_millis(250);

/// Breaking ends the hold with the given token and no other; its holder hears of it at once and the next
/// is granted.
///
/// # Panics
/// When the promise is broken.
pub async fn a_hold_is_broken_and_hears_of_it(bed: &Bed) {
    let store = bed.store().await;
    let (holder, other) = (bed.session(LEASE).await, bed.session(LEASE).await);
    let mut best = LONG;
    for _ in 0..3 {
        let (guard, kept) = (take(&holder, "break").await, take(&holder, "kept").await);
        let mutex = other.mutex("break").must("a lock name");
        let waiting = tokio::spawn({
            let mutex = mutex.clone();
            async move { mutex.lock().await }
        });
        let queue = until_waiting(&mutex, 1).await;
        // The waiter's token, one too low, one too high: none of them is the hold.
        for wrong in [queue.waiters[0].token, Revision::new(guard.token().get() - 1), guard.token().next()] {
            let left = locks::break_hold(&*store, "break", wrong).await;
            assert!(matches!(left, Err(Error::Conflict { .. })), "breaking {wrong} beside {}: {left:?}", guard.token());
        }
        assert!(guard.is_held() && loss_now(&guard).is_none());
        let broken = now();
        locks::break_hold(&*store, "break", guard.token()).await.must("the hold is broken");
        assert_eq!(within(LONG, "the holder hears of it", guard.lost()).await, Loss::Broken);
        best = best.min(since(broken));
        assert!(!guard.is_held() && kept.is_held(), "only that very hold is broken");
        let write = || Op::put(data_key("x").must("a key"), "x").into();
        assert_eq!(lost(guard.commit(write()).await, "a write of the broken holder"), Loss::Broken);
        let next = within(Duration::from_secs(1), "the next is granted", waiting).await.must("the task").must("the lock");
        assert_eq!(next.token(), queue.waiters[0].token);
        next.commit(write()).await.must("a write of the next");
        let again = locks::break_hold(&*store, "break", guard.token()).await;
        assert!(matches!(again, Err(Error::Conflict { .. })), "a hold that is over: {again:?}");
        assert_eq!(lost(guard.release().await, "the release of the broken hold"), Loss::Broken);
        assert!(next.is_held());
        next.release().await.must("the release");
        kept.release().await.must("the release");
        until_no_ticket_is_left(&store).await;
    }
    assert!(best <= HEARD, "the holder heard after {best:?}");
    let nothing = locks::break_hold(&*store, "break", Revision::new(1)).await;
    assert!(matches!(nothing, Err(Error::Conflict { .. })), "{nothing:?}");
}

/// A holder that was cut off when its hold was broken hears of it when it is back, however late.
///
/// # Panics
/// When the promise is broken.
pub async fn who_was_cut_off_hears_that_its_hold_was_broken(bed: &Bed) {
    let store = &bed.store().await;
    for cut_off in [50 * MS, 1_500 * MS] {
        let tries = join_all((0..3).map(|n| async move {
            let (line, holder) = bed.process(LEASE).await;
            let guard = take(&holder, &format!("away-{n}")).await;
            line.cut(Partition::HoldRequests);
            locks::break_hold(&**store, guard.name(), guard.token()).await.must("the hold is broken");
            // The tombstones of other tickets are forgotten after a second.
            tokio::time::sleep(cut_off).await;
            line.mend();
            let back = now();
            assert_eq!(within(LONG, "the holder hears of it", guard.lost()).await, Loss::Broken);
            let heard = since(back);
            assert_eq!(lost(guard.release().await, "the release of the broken hold"), Loss::Broken);
            heard
        }));
        let heard = tries.await;
        assert!(heard.iter().min().is_some_and(|best| *best <= HEARD), "{cut_off:?}: heard {heard:?} after it was back");
    }
}

/// A hold that was broken before its holder knew that it had been granted is none: the holder hears of the
/// one as soon as of the other.
///
/// # Panics
/// When the promise is broken.
pub async fn a_hold_broken_while_it_is_granted_is_none(bed: &Bed) {
    let store = bed.store().await;
    let (first, last) = (bed.session(LEASE).await, bed.session(LEASE).await);
    for pause in [Duration::ZERO, 1_500 * MS] {
        let (line, second) = bed.process(LEASE).await;
        let guard = take(&first, "grant").await;
        let mutex = second.mutex("grant").must("a lock name");
        let waiting = tokio::spawn({
            let mutex = mutex.clone();
            async move { mutex.lock().await }
        });
        let token = until_waiting(&mutex, 1).await.waiters[0].token;
        // The one that waits does not hear that it is its turn, nor that its turn is over.
        line.cut(Partition::HoldRequests);
        guard.release().await.must("the release");
        super::support::until(LONG, "the hold is broken", || async { locks::break_hold(&*store, "grant", token).await.ok() })
            .await;
        let next = take(&last, "grant").await;
        tokio::time::sleep(pause).await;
        line.mend();
        match within(Duration::from_secs(5), "the broken one hears of it", waiting).await.must("the task") {
            Err(error) => assert_eq!(error.loss(), Some(Loss::Broken), "{error:?}"),
            Ok(granted) => {
                // Both words came at once, and may be heard in either order.
                assert_eq!(within(Duration::from_secs(1), "the broken one hears of it", granted.lost()).await, Loss::Broken);
                assert!(!granted.is_held());
            }
        }
        assert!(next.is_held());
        next.release().await.must("the release");
    }
}
