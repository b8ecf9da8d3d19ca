//! Commits on their way to the writer of a file store.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    Batch, Change, Error, Result, Revision,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// What may wait, in units of [`UNIT`] bytes; a commit waits for room before it is queued.
const ROOM: u32 = 16_384;
const UNIT: usize = 4_096;
/// The most that one group takes, in the same units.
const GROUP: u32 = 2_048;

/// A commit that waits for its outcome.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) answer: oneshot::Sender<Result<Revision>>,
    room: OwnedSemaphorePermit,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) jobs: Vec<Job>,
    /// No more will come.
    pub(super) closing: bool,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: VecDeque<Job>,
    nudged: bool,
    closing: bool,
    stopped: bool,
    /// No group is taken, so that a test decides what comes together.
    #[cfg(test)]
    held: bool,
    /// The writer has dealt with all it took.
    #[cfg(test)]
    idle: bool,
}

impl Inner {
    #[cfg(test)]
    const fn is_held(&self) -> bool {
        self.held && !self.closing
    }

    #[cfg(not(test))]
    const fn is_held(&self) -> bool {
        false
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    ready: Condvar,
    room: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new() -> Arc<Self> {
        let room = Arc::new(Semaphore::new(ROOM as usize));
        Arc::new(Self { inner: Mutex::default(), ready: Condvar::new(), room })
    }

    /// Waits for room and queues `batch`. Once this returned, the batch will be decided even if nobody
    /// waits for the answer.
    pub(super) async fn push(&self, batch: Batch) -> Result<oneshot::Receiver<Result<Revision>>> {
        let stopped = || Error::unavailable("the store is closed: open it again");
        let room = self.room.clone().acquire_many_owned(weight(&batch)).await.map_err(|_| stopped())?;
        let (answer, outcome) = oneshot::channel();
        let mut inner = self.lock();
        if inner.stopped {
            return Err(stopped());
        }
        inner.jobs.push_back(Job { batch, answer, room });
        drop(inner);
        self.ready.notify_one();
        Ok(outcome)
    }

    /// Makes [`take`](Self::take) return even if there is no job.
    pub(super) fn nudge(&self) {
        self.lock().nudged = true;
        self.ready.notify_one();
    }

    /// Lets the writer finish what is queued and end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.ready.notify_one();
    }

    /// Refuses everything, queued or not: there is no writer any more.
    pub(super) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopped = true;
        let left = std::mem::take(&mut inner.jobs);
        drop(inner);
        #[cfg(test)]
        self.ready.notify_all();
        self.room.close();
        drop(left);
    }

    /// Waits for jobs, a nudge or the end, no longer than `patience`, and takes a group of jobs.
    pub(super) fn take(&self, patience: Option<Duration>) -> Taken {
        let until = patience.and_then(|patience| Instant::now().checked_add(patience));
        let mut inner = self.lock();
        #[cfg(test)]
        self.set_idle(&mut inner, true);
        while inner.is_held() || (inner.jobs.is_empty() && !inner.nudged && !inner.closing) {
            inner = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(left) if !inner.is_held() && left.is_zero() => break,
                Some(left) if !inner.is_held() => self.ready.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
                _ => self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
        #[cfg(test)]
        self.set_idle(&mut inner, false);
        let (mut jobs, mut size) = (Vec::new(), 0);
        while size < GROUP
            && let Some(job) = inner.jobs.pop_front()
        {
            size += u32::try_from(job.room.num_permits()).unwrap_or(GROUP);
            jobs.push(job);
        }
        inner.nudged = false;
        Taken { jobs, closing: inner.closing && inner.jobs.is_empty() }
    }

    /// Waits until the writer has dealt with all it was given, and keeps it from taking more.
    #[cfg(test)]
    pub(super) fn hold(&self) {
        let mut inner = self.lock();
        while !inner.stopped && (!inner.idle || !inner.jobs.is_empty()) {
            inner = self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.held = true;
    }

    /// Ends [`hold`](Self::hold).
    #[cfg(test)]
    pub(super) fn let_go(&self) {
        self.lock().held = false;
        self.ready.notify_all();
    }

    #[cfg(test)]
    fn set_idle(&self, inner: &mut Inner, idle: bool) {
        inner.idle = idle;
        self.ready.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(batch: &Batch) -> u32 {
    let size = |change: &Change| match change {
        Change::Put(value, _) => value.len(),
        Change::Delete { note, .. } => note.len(),
        Change::Purge { .. } => 0,
    };
    let bytes: usize = batch.ops.iter().map(|op| 128 + size(&op.change)).sum();
    u32::try_from(bytes / UNIT + 1).map_or(ROOM, |weight| weight.min(ROOM))
}
