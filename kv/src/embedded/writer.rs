//! The one thread that changes a file store: decides a group of commits, makes it durable, shows it, answers.
//!
//! A group is decided against the state that readers see and against itself. With [`Sync::Always`] it is
//! shown to readers and watchers only when it is on disk, so nobody acts on what a crash could undo; the
//! next group waits for that. With [`Sync::Every`] it is shown and acknowledged at once, and written later.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tokio::sync::oneshot;

#[cfg(test)]
use super::crash::Defect;
use super::{
    disk::{Disk, Failed},
    file::Sync,
    queue::{Job, Queue},
    shared::{Shared, wall_clock},
    state::{Staged, Write},
    watch::Wakers,
};
use crate::{
    Error, Key, Moment, Result, Revision,
    sync::thread::{self, JoinHandle},
};

/// The most TTLs dealt with in one group.
const COLLECT: usize = 1_024;
/// Forgotten tombstones are struck off the disk along with the next write, or when there are this many.
const FORGOTTEN: usize = 4_096;
/// With [`Sync::Every`]: how many revisions may be given out before the disk is told that they are taken,
/// so that a crash cannot give one out twice.
const RESERVE: u64 = 1 << 20;
/// With [`Sync::Every`]: how many keys, or bytes, may wait to be written.
const UNWRITTEN: (usize, usize) = (1 << 16, 64 << 20);
/// How long to wait after a failed attempt to write what is acknowledged already.
const RETRY: Duration = Duration::from_secs(1);

type Answer = (oneshot::Sender<Result<Revision>>, Result<Revision>);

/// Owns the thread; dropping it writes what is queued and joins the thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(path: &Path, shared: Arc<Shared>, disk: Disk, sync: Sync) -> Result<Self> {
        let queue = Queue::new();
        let durable = shared.lock().state.revision();
        let work = Work {
            shared,
            queue: queue.clone(),
            disk,
            sync,
            forgotten: Vec::new(),
            doubtful: Vec::new(),
            later: Later { ceiling: durable, ..Later::default() },
        };
        let thread = thread::Builder::new()
            .name("tenure-file".to_owned())
            .spawn(move || work.run())
            .map_err(|error| Error::unavailable(format!("cannot start a thread to write {}", path.display())).caused_by(error))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    pub(super) const fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
        // Waking a task may drop the last handle right in the thread, which then ends by itself.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the writer of a file store panicked");
        }
    }
}

/// Acknowledged and shown, but not yet on disk.
#[derive(Debug, Default)]
struct Later {
    writes: BTreeMap<Key, Write>,
    bytes: usize,
    /// When to write.
    at: Option<Moment>,
    /// Up to where the disk knows revisions to be taken.
    ceiling: Revision,
    /// The last attempt to write failed.
    failing: bool,
}

#[derive(Debug)]
struct Work {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    disk: Disk,
    sync: Sync,
    /// Tombstones that ran out but are still on disk.
    forgotten: Vec<Key>,
    /// With [`Sync::Always`]: a group that may or may not be on disk.
    doubtful: Vec<Write>,
    later: Later,
}

/// Refuses jobs when the thread is gone, however it went.
struct Stop(Arc<Queue>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Work {
    fn run(mut self) {
        let _stop = Stop(self.queue.clone());
        loop {
            let taken = self.queue.take(self.later.at.map(|at| at.saturating_since(self.shared.now())));
            self.group(taken.jobs);
            if self.later.at.is_some_and(|at| at <= self.shared.now()) || self.later.is_large() {
                self.flush_or_warn(self.reserve());
            }
            if taken.closing {
                return self.finish();
            }
        }
    }

    /// Decides `jobs` one after the other, and answers them together.
    fn group(&mut self, jobs: Vec<Job>) {
        if let Err(error) = self.mend() {
            let refuse = |job: Job| reply(job.answer, Err(Error::unavailable(error.to_string())));
            return jobs.into_iter().for_each(refuse);
        }
        let (writes, answers) = self.decide(jobs);
        let Some(last) = writes.last().map(|write| write.entry.revision) else {
            if self.forgotten.len() >= FORGOTTEN && self.sync == Sync::Always {
                let ceiling = self.shared.lock().state.revision();
                self.write_now(&[], ceiling).unwrap_or_else(|failed| warn(&failed));
            }
            return answers.into_iter().for_each(|(answer, outcome)| reply(answer, outcome));
        };
        #[cfg(test)]
        if self.sync == Sync::Always && self.disk.has(Defect::ShowsBeforeSync) {
            self.show(writes.clone());
        }
        let outcome = match self.sync {
            Sync::Always => self.write_now(&writes, last),
            // The reserve is on disk before a revision beyond the last one is given out.
            Sync::Every(_) if last > self.later.ceiling => self.flush(Revision::new(last.get() + RESERVE)),
            Sync::Every(_) => Ok(()),
        };
        match outcome {
            Ok(()) => {
                if let Sync::Every(interval) = self.sync {
                    self.later.extend(&writes, self.shared.now() + interval);
                }
                self.show(writes);
                answers.into_iter().for_each(|(answer, outcome)| reply(answer, outcome));
            }
            Err(failed) => {
                #[cfg(test)]
                let failed = if self.disk.has(Defect::DeniesDoubt) { Failed::NotWritten(failed.into_error()) } else { failed };
                warn(&failed);
                if let (Sync::Always, Failed::Doubtful(_)) = (self.sync, &failed) {
                    self.doubtful = writes;
                }
                answers.into_iter().for_each(|(answer, decided)| reply(answer, Err(failed.after(&decided, self.sync))));
            }
        }
    }

    /// Decides without showing anything, except that tombstones are forgotten.
    fn decide(&mut self, jobs: Vec<Job>) -> (Vec<Write>, Vec<Answer>) {
        let now = self.shared.now();
        let mut inner = self.shared.lock();
        let due = inner.state.due(now, COLLECT);
        for key in &due.forgotten {
            self.later.forget(key);
        }
        self.forgotten.extend(due.forgotten);
        let mut staged = Staged::on(&inner.state, now, wall_clock());
        staged.expire(due.expired);
        let answers = jobs.into_iter().map(|job| (job.answer, staged.apply(job.batch))).collect();
        (staged.into_writes(), answers)
    }

    fn write_now(&mut self, writes: &[Write], ceiling: Revision) -> Result<(), Failed> {
        #[cfg(test)]
        if let (true, Some(write)) = (self.disk.has(Defect::WritesInHalves), writes.first()) {
            self.disk.write([], [write], write.entry.revision)?;
        }
        self.disk.write(&self.forgotten, writes, ceiling)?;
        self.forgotten.clear();
        Ok(())
    }

    /// Lets readers and listeners see `writes`.
    fn show(&self, writes: Vec<Write>) {
        #[cfg(test)]
        if self.disk.has(Defect::ShowsBeforeSync)
            && self.shared.lock().state.revision() >= writes.last().map_or(Revision::ZERO, |last| last.entry.revision)
        {
            return;
        }
        let now = self.shared.now();
        let mut woken = Wakers::default();
        let mut inner = self.shared.lock();
        for write in &writes {
            inner.state.install(now, write.clone());
        }
        inner.tell(&writes, &mut woken);
        // Whoever commits sees to it that there is a timer task.
        let _ = self.shared.plan(&mut inner);
        drop(inner);
        woken.wake();
    }

    /// Makes good an earlier failure, if there was one: nothing is decided before that.
    fn mend(&mut self) -> Result<()> {
        if self.disk.is_open() && self.doubtful.is_empty() && !self.later.failing {
            return Ok(());
        }
        let on_disk = self.disk.recover()?;
        let doubtful = std::mem::take(&mut self.doubtful);
        if doubtful.last().is_some_and(|last| last.entry.revision <= on_disk) {
            self.show(doubtful);
            // It struck them off too, and may have written some of these keys anew.
            self.forgotten.clear();
        }
        if self.later.failing {
            self.flush(self.reserve()).map_err(Failed::into_error)?;
        }
        Ok(())
    }

    fn reserve(&self) -> Revision {
        Revision::new(self.shared.lock().state.revision().get() + RESERVE)
    }

    /// Writes what was acknowledged before it was on disk.
    fn flush(&mut self, ceiling: Revision) -> Result<(), Failed> {
        let reserved = ceiling;
        #[cfg(test)]
        let reserved = if self.disk.has(Defect::KeepsNoReserve) { self.shared.lock().state.revision() } else { reserved };
        #[cfg(test)]
        if self.disk.has(Defect::FlushesHalf) {
            self.later.writes.pop_first();
        }
        match self.disk.write(&self.forgotten, self.later.writes.values(), reserved) {
            Ok(()) => {
                self.forgotten.clear();
                self.later = Later { ceiling, ..Later::default() };
                Ok(())
            }
            Err(failed) => {
                self.later.failing = true;
                self.later.at = Some(self.shared.now() + RETRY);
                Err(failed)
            }
        }
    }

    fn flush_or_warn(&mut self, ceiling: Revision) {
        let flushed = match self.disk.recover() {
            Ok(_) => self.flush(ceiling).map_err(Failed::into_error),
            Err(error) => {
                self.later.at = Some(self.shared.now() + RETRY);
                Err(error)
            }
        };
        if let Err(error) = flushed {
            tracing::warn!(%error, keys = self.later.writes.len(), "acknowledged writes are not on disk yet");
        }
    }

    fn finish(mut self) {
        let revision = self.shared.lock().state.revision();
        if self.sync != Sync::Always {
            self.flush_or_warn(revision);
        }
        if self.doubtful.is_empty()
            && !self.later.failing
            && let Err(failed) = self.disk.close(revision)
        {
            warn(&failed);
        }
    }
}

impl Later {
    fn extend(&mut self, writes: &[Write], at: Moment) {
        for write in writes {
            self.bytes += write.entry.value().map_or(0, |value| value.len());
            self.writes.insert(write.entry.key.clone(), write.clone());
        }
        self.at.get_or_insert(at);
    }

    fn forget(&mut self, key: &Key) {
        self.writes.remove(key);
    }

    fn is_large(&self) -> bool {
        !self.failing && (self.writes.len() >= UNWRITTEN.0 || self.bytes >= UNWRITTEN.1)
    }
}

impl Failed {
    /// What to answer to a commit that was decided in the group that failed.
    fn after(&self, decided: &Result<Revision>, sync: Sync) -> Error {
        match (self, decided, sync) {
            (Self::Doubtful(error), Ok(_), Sync::Always) => Error::unknown(error.to_string()),
            // Refused, or not even tried: not applied in any case.
            (Self::Doubtful(error) | Self::NotWritten(error), ..) => Error::unavailable(error.to_string()),
        }
    }

    fn into_error(self) -> Error {
        let (Self::NotWritten(error) | Self::Doubtful(error)) = self;
        error
    }
}

fn warn(failed: &Failed) {
    let (Failed::NotWritten(error) | Failed::Doubtful(error)) = failed;
    tracing::warn!(%error, "a write to the store's file failed");
}

/// Whoever asked may be gone; the outcome stands.
fn reply(answer: oneshot::Sender<Result<Revision>>, outcome: Result<Revision>) {
    drop(answer.send(outcome));
}
