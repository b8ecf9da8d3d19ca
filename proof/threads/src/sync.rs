//! What the product's modules `sync` give, from the scheduler.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use shuttle::sync::{LockResult, atomic::AtomicBool};
pub(crate) use shuttle::{
    sync::{PoisonError, WaitTimeoutResult, atomic},
    thread,
};

/// Others may go on here.
pub(crate) fn others() {
    if !std::thread::panicking() {
        AtomicBool::new(false).load(atomic::Ordering::SeqCst);
    }
}

/// Shuttle's, after whose release others may go on: what follows it may be a waker or a channel of which the scheduler
/// knows nothing.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        wrapped(self.0.lock(), |guard| MutexGuard(Some(guard)))
    }
}

impl<'a, T> MutexGuard<'a, T> {
    fn into_inner(mut self) -> shuttle::sync::MutexGuard<'a, T> {
        self.0.take().unwrap()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().unwrap()
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.0.take().is_some() {
            others();
        }
    }
}

/// Shuttle's.
#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        wrapped(self.0.wait(guard.into_inner()), |guard| MutexGuard(Some(guard)))
    }

    /// Never times out.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        wrapped(self.0.wait_timeout(guard.into_inner(), patience), |(guard, timed_out)| (MutexGuard(Some(guard)), timed_out))
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}

fn wrapped<A, B>(result: LockResult<A>, wrap: impl FnOnce(A) -> B) -> LockResult<B> {
    match result {
        Ok(guard) => Ok(wrap(guard)),
        Err(poisoned) => Err(PoisonError::new(wrap(poisoned.into_inner()))),
    }
}
