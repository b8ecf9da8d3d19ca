//! Where time comes from: one small trait, so that tests can own it.

use std::{fmt, ops::Add, pin::pin, time::Duration};

use futures::future::{BoxFuture, Either, select};

/// A reading of a [`Clock`]: time since an origin that never moves while the machine is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `since` after the clock's origin.
    pub const fn new(since: Duration) -> Self {
        Self(since)
    }

    /// Time since the clock's origin.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to here, or zero when `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// A monotonic clock that keeps counting while the machine sleeps.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Moment;

    /// Resolves at or after `at`. After a suspend it may resolve late: check [`Clock::now`] again.
    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()>;
}

/// Conveniences over [`Clock`]; implemented for every clock and by nobody else.
pub trait ClockExt: Clock {
    /// Resolves when `time` has passed on this clock.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now() + time)
    }

    /// What `future` gives, unless `limit` passes on this clock first. It is asked before the clock is, so one that is
    /// ready at once costs no timer.
    ///
    /// # Errors
    /// [`Elapsed`] when the time was up; `future` was dropped then.
    ///
    /// # Cancel safety
    /// As `future`.
    fn timeout<F: Future + Send>(&self, limit: Duration, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> + Send
    where
        F::Output: Send,
    {
        let late = self.sleep(limit);
        async move {
            match select(pin!(future), late).await {
                Either::Left((output, _)) => Ok(output),
                Either::Right(((), _)) => Err(Elapsed),
            }
        }
    }
}

impl<C: Clock + ?Sized> ClockExt for C {}

/// The time that something was given is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is up")]
pub struct Elapsed;

/// The kernel's boot-time clock (`CLOCK_BOOTTIME`), which counts suspend.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Moment {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Neither field is negative on a boot-time clock.
        Moment(Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or(0)))
    }

    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
        // Tokio's timers stop during a suspend, so sleep in slices: after a resume the deadline is
        // noticed within one slice.
        Box::pin(async move {
            loop {
                let left = at.saturating_since(Self.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(Duration::from_secs(1))).await;
            }
        })
    }
}
