//! The bytes of a store's file, as redb sees them: tried out first, then written through, frozen in the end.

use std::{
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, StorageBackend};

use super::medium::Medium;

/// What happens to writes.
#[derive(Debug)]
enum Mode {
    /// They are kept in memory, in order, until the file proves sound; the file itself is only read.
    Trial(Vec<Step>),
    /// They go to the file.
    Live,
    /// They are refused, so that a database that is closed or broken leaves the file as its last commit did.
    Frozen,
}

#[derive(Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Len(u64),
    Sync,
}

/// Which kind of call failed. A failed sync is worse than a failed write: what the kernel holds may
/// since differ from what the disk does, and no later sync tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Write,
    Sync,
}

#[derive(Debug)]
struct Inner {
    mode: Mode,
    /// How much of the file counts before the steps of a trial.
    base: u64,
    fault: Option<(Fault, io::Error)>,
}

/// The medium, shared by redb and whoever steers the mode.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    medium: Arc<dyn Medium>,
    inner: Arc<Mutex<Inner>>,
}

impl Backend {
    /// Tries out the first `base` bytes of `medium`.
    pub(super) fn trial(medium: Arc<dyn Medium>, base: u64) -> Self {
        let inner = Inner { mode: Mode::Trial(Vec::new()), base, fault: None };
        Self { medium, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Ends a trial of existing content: what was written goes to the file in its order, and so does all
    /// that follows.
    pub(super) fn go_live(&self) -> Result<(), (Fault, io::Error)> {
        let mut inner = self.lock();
        if let Mode::Trial(steps) = std::mem::replace(&mut inner.mode, Mode::Frozen) {
            for step in steps {
                match step {
                    Step::Write(at, bytes) => self.medium.write(at, &bytes).map_err(|error| (Fault::Write, error))?,
                    Step::Len(len) => self.medium.resize(len).map_err(|error| (Fault::Write, error))?,
                    Step::Sync => self.medium.sync().map_err(|error| (Fault::Sync, error))?,
                }
            }
            inner.mode = Mode::Live;
        }
        Ok(())
    }

    /// Ends a trial that began with nothing. The first page, without which the file counts as empty, is
    /// written last.
    pub(super) fn go_live_as_new(&self, first_page: usize) -> io::Result<()> {
        // A creation that fails anywhere is begun again from nothing.
        let image = self.image()?;
        let (head, body) = image.split_at(first_page.min(image.len()));
        self.medium.resize(image.len() as u64)?;
        self.medium.write(first_page as u64, body)?;
        self.medium.sync()?;
        self.medium.write(0, head)?;
        self.medium.sync()?;
        self.lock().mode = Mode::Live;
        Ok(())
    }

    /// The whole content as the trial has it.
    pub(super) fn image(&self) -> io::Result<Vec<u8>> {
        let len = StorageBackend::len(self)?;
        let mut image = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        StorageBackend::read(self, 0, &mut image)?;
        Ok(image)
    }

    /// Refuses writes from now on.
    pub(super) fn freeze(&self) {
        self.lock().mode = Mode::Frozen;
    }

    /// What failed first, if anything did.
    pub(super) fn take_fault(&self) -> Option<(Fault, io::Error)> {
        self.lock().fault.take()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does it to the file `now`, or keeps the step for `later`.
    fn change(
        &self,
        fault: Fault,
        now: impl FnOnce(&dyn Medium) -> io::Result<()>,
        later: impl FnOnce() -> Step,
    ) -> io::Result<()> {
        let mut inner = self.lock();
        match &mut inner.mode {
            Mode::Trial(steps) => {
                steps.push(later());
                Ok(())
            }
            Mode::Live => now(&*self.medium).inspect_err(|error| {
                let same = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
                inner.fault.get_or_insert((fault, same));
            }),
            Mode::Frozen => Err(io::Error::other("the store is closed")),
        }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let inner = self.lock();
        match &inner.mode {
            Mode::Trial(steps) => {
                let set = steps.iter().rev().find_map(|step| if let Step::Len(len) = step { Some(*len) } else { None });
                Ok(set.unwrap_or(inner.base))
            }
            _ => self.medium.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.lock();
        let Mode::Trial(steps) = &inner.mode else { return self.medium.read(offset, out) };
        let end = inner.base.clamp(offset, offset + out.len() as u64);
        let (old, new) = out.split_at_mut(usize::try_from(end - offset).map_err(io::Error::other)?);
        self.medium.read(offset, old)?;
        new.fill(0);
        for step in steps {
            match step {
                Step::Write(at, bytes) => overlay(offset, out, *at, bytes),
                Step::Len(len) => {
                    let kept = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
                    out[kept..].fill(0);
                }
                Step::Sync => {}
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Fault::Write, |medium| medium.resize(len), || Step::Len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Fault::Sync, |medium| medium.sync(), || Step::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Fault::Write, |medium| medium.write(offset, data), || Step::Write(offset, data.to_vec()))
    }

    // The file is locked by whoever opened it, for longer than one database lasts.
    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

/// Copies onto `out`, which begins at `offset`, what of `bytes`, which begins at `at`, lies in it.
fn overlay(offset: u64, out: &mut [u8], at: u64, bytes: &[u8]) {
    let from = at.max(offset);
    let to = (at + bytes.len() as u64).min(offset + out.len() as u64);
    if from < to {
        // Both differences are below the length of a slice.
        let (target, source) = ((from - offset) as usize, (from - at) as usize);
        let len = (to - from) as usize;
        out[target..target + len].copy_from_slice(&bytes[source..source + len]);
    }
}
