//! A simulated process: a runtime of its own that runs only when it is told to, until there is nothing left to do.

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};

use tokio::runtime::{Builder, Runtime};

/// Dropping it is its crash: nothing of it runs any more.
pub(crate) struct Process {
    runtime: Runtime,
    idle: Arc<Idle>,
}

/// Learns from the runtime that no task can go on.
#[derive(Default)]
struct Idle {
    parked: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Idle {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// `seed` decides what the runtime leaves to chance.
    pub(crate) fn new(seed: u64) -> io::Result<Self> {
        let idle = Arc::new(Idle::default());
        let seen = idle.clone();
        let mut builder = Builder::new_current_thread();
        builder.on_thread_park(move || {
            seen.parked.store(true, Ordering::Relaxed);
            if let Some(waker) = seen.waiting().take() {
                waker.wake();
            }
        });
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
        let _ = seed;
        Ok(Self { runtime: builder.build()?, idle })
    }

    /// Starts a task of it.
    pub(crate) fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }

    /// Runs its tasks until all of them wait.
    pub(crate) fn run(&self) {
        self.idle.parked.store(false, Ordering::Relaxed);
        self.runtime.block_on(poll_fn(|cx| {
            if self.idle.parked.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            *self.idle.waiting() = Some(cx.waker().clone());
            Poll::Pending
        }));
    }
}
