//! The store in one file of this machine.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{
    disk::{Disk, Loaded},
    shared::{Shared, Timer},
    state::State,
    writer::Writer,
};
use crate::{
    Batch, Beside, BootClock, Clock, Entry, Error, Event, Info, Key, KeyRange, Notice, Page, Result, Revision, Since, Store,
};

/// A store in one file of this machine, used by one process at a time. Clones share it; with the last of
/// them it is written out and closed, and its watches end.
///
/// It survives `kill -9` at any instant. Reads are answered from memory, so it is meant for what fits there.
/// TTLs are counted afresh when the file is opened: they are garbage collection, and no wall clock is
/// trusted with that.
#[derive(Clone, Debug)]
pub struct File(Arc<Handle>);

/// How a [`File`] store is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOptions {
    /// When acknowledged writes are on disk.
    pub sync: Sync,
}

/// When an acknowledged write is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Before it is acknowledged, and before anybody can read it: nothing acknowledged is lost by a crash
    /// or a power cut. Commits that arrive together share one sync.
    #[default]
    Always,
    /// At most about this long after. A crash of the process, `kill -9` included, or a power cut loses what
    /// was acknowledged since the last sync, which may undo a grant or a release; no revision is ever
    /// given out twice even so. For what can be lost, in exchange for writes at the speed of memory.
    Every(Duration),
}

impl FileOptions {
    /// The URL of the store in the file `path`.
    pub(crate) fn url(self, path: &Path) -> String {
        let shown = path.display().to_string();
        // Two slashes would announce a host.
        let no_host = if shown.starts_with("//") { "//" } else { "" };
        match self.sync {
            Sync::Always => format!("file:{no_host}{shown}"),
            Sync::Every(interval) => format!("file:{no_host}{shown}?sync={}ms", interval.as_millis()),
        }
    }
}

#[derive(Debug)]
struct Handle {
    info: Info,
    // In the order of dropping: the timer before the writer that it nudges.
    timer: Timer,
    writer: Writer,
    shared: Arc<Shared>,
}

impl File {
    /// Opens the store in the file `path`; creates it, and its directory, if missing.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the path cannot be used, is no Tenure store, is damaged or of a newer format;
    /// [`Error::Unavailable`] when another process uses it or there is no space. Nothing is overwritten.
    ///
    /// # Cancel safety
    /// Safe to drop; the file may have been created.
    pub async fn open(path: impl AsRef<Path>, options: FileOptions) -> Result<Self> {
        Self::open_with_clock(path, options, Arc::new(BootClock)).await
    }

    /// As [`open`](Self::open), with TTLs and late syncs that run by `clock`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn open_with_clock(path: impl AsRef<Path>, options: FileOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let path = std::path::absolute(path.as_ref())
            .map_err(|_| Error::invalid("a file store needs a path, such as file:/var/lib/tenure/store"))?;
        let opened = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || Disk::open(&path)).await
        };
        let (disk, loaded) = opened
            .map_err(|error| Error::unavailable(format!("opening {} was cut short", path.display())).caused_by(error))??;
        Self::over(&path, disk, loaded, options, clock)
    }

    /// The store over a disk that was opened, and what it held.
    pub(super) fn over(path: &Path, disk: Disk, loaded: Loaded, options: FileOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut state = State::default();
        let now = clock.now();
        for write in loaded.writes {
            state.install(now, write);
        }
        state.advance_to(loaded.revision);
        let shared = Shared::new(clock, state);
        let writer = Writer::start(path, shared.clone(), disk, options.sync)?;
        let info = Info { url: options.url(path), shared: false, replicas: 1 };
        let store = Self(Arc::new(Handle { info, timer: Timer::default(), writer, shared }));
        store.start_timer();
        Ok(store)
    }

    #[cfg(test)]
    pub(super) fn queue(&self) -> &super::queue::Queue {
        self.0.writer.queue()
    }

    fn start_timer(&self) {
        if !self.0.shared.lacks_timer() {
            return;
        }
        let queue = self.0.writer.queue().clone();
        self.0.timer.start(&self.0.shared, move |_| {
            queue.nudge();
            false
        });
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[async_trait]
impl Store for File {
    fn info(&self) -> &Info {
        &self.0.info
    }

    async fn bucket(&self, name: &str) -> Result<Beside> {
        crate::check_bucket(name).map(|()| Beside::Range)
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.0.shared.entry(key))
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        batch.validate()?;
        self.start_timer();
        let outcome = self.0.writer.queue().push(batch).await?;
        let stopped = |_| Err(Error::unknown(format!("the writer of {} stopped", self.0.info.url)));
        outcome.await.unwrap_or_else(stopped)
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        Ok(self.0.shared.watch(range, since))
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        Ok(self.0.shared.entries(keys))
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        Ok(self.0.shared.scan(range, from, limit))
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        Ok(self.0.shared.follow(key))
    }
}
