//! A live mirror of a key range.

mod feed;
mod mirror;

use std::{fmt, sync::Arc};

use futures::{Stream, stream};
use tenure_kv::{Entry, Key, KeyRange, Revision, Store};
use tokio::sync::watch;

use self::feed::{Feed, Progress, Told};
pub use self::mirror::Snapshot;
use crate::{Error, Result};

/// A live mirror of a key range: a snapshot, then every change in the order of revisions. Of several writes to
/// one key only the last is sure to be seen, so a key that has just been written again may be missing from the
/// state at a revision in between.
///
/// All views of one range that a process has on one store share one watch, and clones are cheap. The last
/// one dropped ends the watch. After an outage the mirror heals by comparing itself with a fresh snapshot, and
/// [`Changes`] says so; until that is done it may still show what has gone. It may lag behind the store;
/// decisions rest on commits.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tenure::View;
/// use tenure_kv::{Key, KeyRange, StoreExt};
///
/// let store = tenure_kv::open("memory:").await?;
/// let view = View::open(&store, KeyRange::new("data.settings.>")?).await?;
/// let key = Key::new("data.settings.colour")?;
/// store.put(&key, "green").await?;
/// let entry = view.wait_until(|now| now.get(&key).cloned()).await?;
/// assert_eq!(entry.value().map(|value| &value[..]), Some(&b"green"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct View {
    feed: Arc<Feed>,
    range: KeyRange,
    // Views of one range are shared as long as they are of one store handle.
    _store: Arc<dyn Store>,
}

/// What [`Changes`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has this value now.
    Put(Entry),
    /// The key has no value any more.
    Gone(Entry),
    /// What was there at the beginning has been told, as it was or as it has become; sent exactly once.
    CaughtUp,
    /// The watch was interrupted and has healed. States in between may have been left out; every key's
    /// latest has been told or follows.
    Gap,
}

impl View {
    /// Opens a view of `range` and waits for its first snapshot.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store is out of reach; [`Error::Invalid`] outside a Tokio runtime.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn open(store: &Arc<dyn Store>, range: KeyRange) -> Result<Self> {
        let view = Self { feed: Feed::of(store, &range)?, range, _store: store.clone() };
        wait(&mut view.feed.cell.progress(), |progress| progress.caught_up).await?;
        Ok(view)
    }

    /// The range.
    pub const fn range(&self) -> &KeyRange {
        &self.range
    }

    /// As [`Snapshot::revision`].
    pub fn revision(&self) -> Revision {
        self.read(Snapshot::revision)
    }

    /// The entry of `key`, if it has a value.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.read(|now| now.get(key).cloned())
    }

    /// The entries that have a value, ascending by revision.
    pub fn entries(&self) -> Vec<Entry> {
        self.read(|now| now.entries().cloned().collect())
    }

    /// Reads several things at one moment. `look` runs under a lock: keep it short, and use nothing of this
    /// view's but the snapshot in it, or it waits for itself.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.feed.cell.kept().snapshot)
    }

    /// What is there now, then [`Change::CaughtUp`], then every change.
    pub fn changes(&self) -> Changes {
        let progress = self.feed.cell.progress();
        let gaps = progress.borrow().gaps;
        let mut kept = self.feed.cell.kept();
        let reader = kept.enter();
        drop(kept);
        Changes { view: self.clone(), reader, gaps, progress }
    }

    /// Waits until `look` finds what it looks for; it is asked now and after changes, as by [`View::read`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store has ended the watch: the bucket is gone or has gone back, or the
    /// store was closed.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn wait_until<T>(&self, mut look: impl FnMut(&Snapshot) -> Option<T>) -> Result<T> {
        let mut progress = self.feed.cell.progress();
        let mut found = None;
        wait(&mut progress, |_| {
            found = self.read(&mut look);
            found.is_some()
        })
        .await?;
        found.ok_or_else(|| ended("the view has ended"))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("range", &self.range).field("revision", &self.revision()).finish_non_exhaustive()
    }
}

/// The changes of a [`View`], in the order of revisions. A slow reader is told the latest of each key and
/// never misses the last.
#[derive(Debug)]
pub struct Changes {
    view: View,
    reader: u64,
    gaps: u64,
    progress: watch::Receiver<Progress>,
}

impl Changes {
    /// The next change.
    ///
    /// # Errors
    /// As [`View::wait_until`]; [`Error::Unavailable`] also for a reader that has not read for so long that what
    /// went meanwhile could not be kept for it: begin anew.
    ///
    /// # Cancel safety
    /// Safe to drop: nothing is taken and forgotten.
    pub async fn next(&mut self) -> Result<Change> {
        loop {
            // Looked at first: what came before the end is told before it.
            let over = self.progress.borrow_and_update().ended.clone();
            if let Some(change) = self.ready() {
                return Ok(change);
            }
            if self.view.feed.cell.kept().has_lost(self.reader) {
                return Err(ended("its changes were not read for too long"));
            }
            if let Some(reason) = over {
                return Err(ended(&reason));
            }
            if self.progress.changed().await.is_err() {
                return Err(ended("the view has ended"));
            }
        }
    }

    /// The next change if there is one already; `None` after an error as well.
    pub fn ready(&mut self) -> Option<Change> {
        let gaps = self.progress.borrow().gaps;
        let mut kept = self.view.feed.cell.kept();
        if kept.has_lost(self.reader) {
            return None;
        }
        if gaps > self.gaps && !kept.is_catching_up(self.reader) {
            self.gaps = gaps;
            return Some(Change::Gap);
        }
        Some(match kept.next(self.reader)? {
            Told::CaughtUp => Change::CaughtUp,
            Told::Entry(entry) if entry.is_live() => Change::Put(entry),
            Told::Entry(entry) => Change::Gone(entry),
        })
    }

    /// The same as a stream; it ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Change>> + Send + 'static {
        stream::unfold(Some(self), |changes| async {
            let mut changes = changes?;
            let next = changes.next().await;
            let rest = next.is_ok().then_some(changes);
            Some((next, rest))
        })
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.view.feed.cell.kept().leave(self.reader);
    }
}

/// Waits until `done`, which is asked again after every change.
async fn wait(progress: &mut watch::Receiver<Progress>, mut done: impl FnMut(&Progress) -> bool) -> Result<()> {
    loop {
        let now = progress.borrow_and_update().clone();
        if done(&now) {
            return Ok(());
        }
        if let Some(reason) = now.ended {
            return Err(ended(&reason));
        }
        if progress.changed().await.is_err() {
            return Err(ended("the view has ended"));
        }
    }
}

fn ended(reason: &str) -> Error {
    Error::Unavailable { message: format!("the view has ended: {reason}"), source: None }
}
