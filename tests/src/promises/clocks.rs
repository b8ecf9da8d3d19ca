//! Clocks that differ in rate and origin, jump, or stand still: leases are measured on each one's own.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture, future::join_all};
use tenure::{Loss, OnLoss, Session, SessionState};
use tenure_kv::{BootClock, Clock, HandClock, Moment, faults::Partition};

use super::{
    Bed,
    basics::take,
    crashing::successor,
    support::{LONG, MS, Must, loss_now, lost, now, until, within},
};

/// A clock that runs at another rate than the machine's and began at another time.
#[derive(Clone, Debug)]
pub(super) struct Skewed {
    begun: Moment,
    origin: Duration,
    rate: f64,
}

impl Skewed {
    pub(super) fn new(origin: Duration, rate: f64) -> Arc<Self> {
        Arc::new(Self { begun: now(), origin, rate })
    }
}

impl Clock for Skewed {
    fn now(&self) -> Moment {
        Moment::new(self.origin + now().saturating_since(self.begun).mul_f64(self.rate))
    }

    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        async move {
            loop {
                let left = at.saturating_since(clock.now());
                if left.is_zero() {
                    return;
                }
                BootClock.sleep_until(now() + left.div_f64(clock.rate) + Duration::from_nanos(1)).await;
            }
        }
        .boxed()
    }
}

/// A holder whose clock is 1% slow is invalid before an observer whose clock is right grants to the next,
/// though their clocks began a day apart.
///
/// # Panics
/// When the promise is broken.
pub async fn a_slow_clock_does_not_outlast_its_lease(bed: &Bed) {
    let leases: &[u64] = if bed.is_replicated() { &[1_000] } else { &[150, 300, 1_000] };
    let day = Duration::from_secs(86_400);
    join_all(leases.iter().flat_map(|ms| [(*ms, Duration::ZERO, day), (*ms, day, Duration::ZERO)]).map(
        |(ms, slow, fast)| async move {
            let lease = Duration::from_millis(ms);
            let line = bed.line().await;
            let builder = Session::builder(line.store.clone()).lease(lease).clock(Skewed::new(slow, 0.99));
            let holder = builder.open().await.must("a session");
            let builder = Session::builder(bed.store().await).lease(lease).clock(Skewed::new(fast, 1.0));
            let other = builder.open().await.must("a session");
            let guard = Arc::new(take(&holder, &format!("slow-{ms}-{}", slow.as_secs())).await);
            let next = successor(other, guard.clone()).await;
            line.cut(Partition::HoldRequests);
            // That the holder knows is asserted at the grant.
            within(LONG, "the next is granted", next).await.must("the task").0.release().await.must("the release");
        },
    ))
    .await;
}

/// An observer whose clock is 1% fast deposes nobody who renews.
///
/// # Panics
/// When the promise is broken.
pub async fn a_fast_clock_deposes_nobody_who_renews(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let builder = Session::builder(bed.store().await).lease(lease).clock(Skewed::new(Duration::ZERO, 0.995));
    let holder = builder.open().await.must("a session");
    let builder = Session::builder(bed.store().await).lease(lease).clock(Skewed::new(Duration::from_secs(3_600), 1.005));
    let other = builder.open().await.must("a session");
    let guard = take(&holder, "fast").await;
    let mutex = other.mutex("fast").must("a lock name");
    let outcome = mutex.lock_timeout(lease * 5 / 2).await;
    assert!(matches!(outcome, Err(tenure::Error::NotAcquired { .. })), "granted beside a holder that renews: {outcome:?}");
    assert!(guard.is_held() && loss_now(&guard).is_none());
}

/// A clock that has moved past the deadline ends the hold at the next look, before any task has run: so it
/// is after a suspend, which the clock counts.
///
/// # Panics
/// When the promise is broken.
pub async fn a_suspend_is_noticed_at_the_first_look(bed: &Bed) {
    let lease = Duration::from_secs(10);
    let clock = HandClock::default();
    let line = bed.line().await;
    let builder = Session::builder(line.store.clone()).lease(lease).clock(Arc::new(clock.clone()));
    let session = builder.open().await.must("a session");
    let strict = take(&session, "strict").await;
    let proven = session.mutex("proven").must("a lock name").on_loss(OnLoss::WhenProven).lock().await.must("the lock");
    clock.advance(lease / 4);
    assert!(strict.is_held() && strict.remaining() < lease, "a quarter of the lease is no loss");
    // No renewal comes through until it has been looked at.
    line.cut(Partition::HoldRequests);
    clock.advance(lease);
    let seen = (session.is_held(), strict.is_held(), proven.is_held(), loss_now(&strict), loss_now(&proven));
    assert_eq!(seen, (false, false, false, Some(Loss::Deadline), None));
    line.mend();
    until(LONG, "the session is restored", || async { (session.state() == SessionState::Restored).then_some(()) }).await;
    assert!(proven.is_held() && !strict.is_held());
    proven.release().await.must("the release");
    assert_eq!(lost(strict.release().await, "the release of what was lost"), Loss::Deadline);
}

/// The time a hold has left is counted down by its own clock alone, from before the session was announced.
///
/// # Panics
/// When the promise is broken.
pub async fn time_left_is_counted_by_the_own_clock(bed: &Bed) {
    let lease = Duration::from_secs(10);
    let clock = HandClock::default();
    let builder = Session::builder(bed.store().await).lease(lease).clock(Arc::new(clock.clone()));
    let session = builder.open().await.must("a session");
    let guard = take(&session, "left").await;
    let first = guard.remaining();
    assert!(first < lease && first > lease * 9 / 10, "{first:?}");
    tokio::time::sleep(20 * MS).await;
    assert_eq!(guard.remaining(), first, "other clocks do not count");
    clock.advance(Duration::from_secs(1));
    assert_eq!(guard.remaining(), first - Duration::from_secs(1));
    guard.release().await.must("the release");
}
