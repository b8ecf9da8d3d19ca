//! A daemon that looks again in place of going to sleep, for a short time and only while somebody waits for its store.
//!
//! An idle core wakes slowly, that of a virtual machine above all, and each round trip to a store on the same machine costs such
//! a wake. Who looks again is the worker thread that waits for events anyway: among them is an eventfd which, heard, is written
//! to again, so that the next wait returns at once with whatever else has come. No task is run for that, hence the scheduler
//! wakes no other worker, and as only one waits for events at a time, only one looks.

mod patience;

use std::{
    io,
    num::NonZero,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use futures::future::poll_fn;
use rustix::event::{EventfdFlags, eventfd};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
};

use self::patience::Patience;

#[derive(Debug)]
pub(super) struct Busy {
    patience: Mutex<Patience>,
    /// Whether the eventfd has been written to, and will be heard.
    ringing: AtomicBool,
    looks: AtomicU64,
    bell: AsyncFd<OwnedFd>,
}

/// What hears the eventfd.
#[derive(Debug)]
struct Ear(Weak<Busy>);

impl Busy {
    /// Absent where it is of no use: without a budget, on a single processor, and without a runtime.
    pub(super) fn new(budget: Duration) -> Option<Arc<Self>> {
        let alone = available_parallelism().map_or(1, NonZero::get) < 2;
        if budget.is_zero() || alone || Handle::try_current().is_err() {
            return None;
        }
        let made = Self::with_bell(budget);
        made.inspect_err(|error| tracing::warn!(%error, "busy_poll has no effect: there is no eventfd to be had")).ok()
    }

    fn with_bell(budget: Duration) -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        #[allow(deprecated, reason = "what replaces it is unsafe for descriptors in general; an OwnedFd keeps its own open")]
        let bell = AsyncFd::with_interest(bell, Interest::READABLE)?;
        let patience = Mutex::new(Patience::new(budget, Instant::now()));
        let busy = Arc::new(Self { patience, ringing: AtomicBool::new(false), looks: AtomicU64::new(0), bell });
        busy.listen(&Waker::from(Arc::new(Ear(Arc::downgrade(&busy)))));
        Ok(busy)
    }

    fn patience(&self) -> MutexGuard<'_, Patience> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it has looked again.
    pub(super) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// A client asks for something.
    pub(super) fn asked(&self, now: Instant) {
        self.patience().asked(now);
    }

    /// Has `ear` hear the next time that the eventfd is written to. It is never read: each time is an event of its own.
    fn listen(&self, ear: &Waker) {
        let mut context = Context::from_waker(ear);
        while let Poll::Ready(Ok(mut heard)) = self.bell.poll_read_ready(&mut context) {
            heard.clear_ready();
        }
    }

    /// Has whoever waits for events look, if that is worth it at the moment.
    fn look(&self) {
        if self.patience().looks(Instant::now()) && !self.ringing.swap(true, Ordering::SeqCst) {
            self.ring();
        }
    }

    fn ring(&self) {
        if rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).is_err() {
            self.ringing.store(false, Ordering::SeqCst);
        }
    }
}

impl Wake for Ear {
    fn wake(self: Arc<Self>) {
        let Some(busy) = self.0.upgrade() else { return };
        busy.listen(&Waker::from(self));
        busy.looks.fetch_add(1, Ordering::Relaxed);
        if busy.patience().looks(Instant::now()) {
            return busy.ring();
        }
        busy.ringing.store(false, Ordering::SeqCst);
        // There may be a reason since the look above.
        busy.look();
    }
}

/// An answer of the store that is waited for.
#[derive(Debug)]
struct Wait<'a> {
    busy: &'a Busy,
    asked: Instant,
    answered: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.busy.patience().ended(now, now - self.asked, self.answered);
    }
}

/// Awaits what the store was `asked`.
pub(super) async fn answer<T>(busy: Option<&Busy>, asked: Instant, request: impl Future<Output = T>) -> T {
    let Some(busy) = busy else { return request.await };
    let mut request = std::pin::pin!(request);
    let mut wait = None;
    poll_fn(|context| {
        let polled = request.as_mut().poll(context);
        if polled.is_ready() {
            wait.as_mut().into_iter().for_each(|wait: &mut Wait<'_>| wait.answered = true);
        } else if wait.is_none() {
            // Only what is not answered at once: a store in memory is not waited for.
            busy.patience().sent(Instant::now());
            wait = Some(Wait { busy, asked, answered: false });
            busy.look();
        }
        polled
    })
    .await
}
