//! One watch for all views of a range in this process, and the task that takes in what it tells.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use tenure_kv::{
    Entry, Event, KeyRange, Since, Store,
    mutants::{self, Mutant},
};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::task::AbortOnDropHandle;

use super::mirror::Snapshot;
use crate::{Error, Result};

/// Events taken in at most before readers are told.
const BURST: usize = 512;

/// What all views of a range share; the last of them dropped ends the watch.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) cell: Arc<Cell>,
    _task: AbortOnDropHandle<()>,
}

/// What the task writes and the views read.
#[derive(Debug, Default)]
pub(super) struct Cell {
    state: Mutex<Kept>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) snapshot: Snapshot,
    readers: HashMap<u64, Reader>,
    next_reader: u64,
}

/// How far a reader of changes has come.
#[derive(Debug)]
struct Reader {
    place: u64,
    /// Until where what was there at its beginning reaches; `None` once that was told.
    until: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) caught_up: bool,
    /// How often the watch was interrupted and has healed.
    pub(super) gaps: u64,
    /// Why the watch is over.
    pub(super) ended: Option<Arc<str>>,
}

struct Known {
    store: Weak<dyn Store>,
    range: KeyRange,
    /// How many outages the store had had when it was started.
    outages: u64,
    feed: Weak<Feed>,
}

static FEEDS: LazyLock<Mutex<Vec<Known>>> = LazyLock::new(Mutex::default);

impl Feed {
    /// The feed of `range`, running already or started now: after an outage of the store, anew. The bucket may have been set
    /// back meanwhile, which a watch of several servers does not notice.
    pub(super) fn of(store: &Arc<dyn Store>, range: &KeyRange) -> Result<Arc<Self>> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(Error::invalid("a view needs a Tokio runtime: open it inside one"));
        };
        let mut all = locked(&FEEDS);
        all.retain(|known| known.feed.strong_count() > 0);
        let same = |known: &&Known| std::ptr::addr_eq(known.store.as_ptr(), Arc::as_ptr(store)) && known.range == *range;
        let outages = store.outages();
        let running = all.iter().find(same).filter(|known| known.outages == outages).and_then(|known| known.feed.upgrade());
        if let Some(feed) = running.filter(|feed| feed.cell.progress.borrow().ended.is_none()) {
            return Ok(feed);
        }
        let cell = Arc::new(Cell::default());
        let task = runtime.spawn(run(End(cell.clone()), store.clone(), range.clone()));
        let feed = Arc::new(Self { cell, _task: AbortOnDropHandle::new(task) });
        all.retain(|known| !same(&known));
        all.push(Known { store: Arc::downgrade(store), range: range.clone(), outages, feed: Arc::downgrade(&feed) });
        Ok(feed)
    }
}

impl Cell {
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        locked(&self.state)
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn end(&self, reason: &str) {
        self.progress.send_if_modified(|progress| {
            let news = progress.ended.is_none();
            progress.ended.get_or_insert_with(|| reason.into());
            news
        });
    }

    fn take(&self, events: impl Iterator<Item = Event>) {
        let (mut caught_up, mut gaps) = (false, 0);
        {
            let mut kept = self.kept();
            for event in events {
                match event {
                    Event::Entry(entry) => kept.apply(entry),
                    Event::CaughtUp => caught_up = true,
                    Event::Gap => gaps += 1,
                }
            }
            kept.bury();
        }
        self.progress.send_modify(|progress| {
            progress.caught_up |= caught_up;
            progress.gaps += gaps;
        });
    }
}

impl Kept {
    fn apply(&mut self, entry: Entry) {
        let Some(moved) = self.snapshot.apply(entry) else { return };
        // A key that was there at a reader's beginning and is written again before it was read must still
        // come before `CaughtUp`.
        for reader in self.readers.values_mut() {
            if let Some(until) = &mut reader.until
                && (reader.place + 1..=*until).contains(&moved)
            {
                *until = self.snapshot.last();
            }
        }
    }

    pub(super) fn enter(&mut self) -> u64 {
        self.next_reader += 1;
        self.readers.insert(self.next_reader, Reader { place: 0, until: Some(self.snapshot.last()) });
        self.next_reader
    }

    /// What `reader` is to be told next; `None` when that is nothing, or it was given up.
    pub(super) fn next(&mut self, reader: u64) -> Option<Told> {
        let reader = self.readers.get_mut(&reader)?;
        let next = self.snapshot.after(reader.place);
        if reader.until.is_some_and(|until| next.is_none_or(|(place, _)| place > until)) {
            reader.until = None;
            return Some(Told::CaughtUp);
        }
        let (place, entry) = next?;
        reader.place = place;
        Some(Told::Entry(entry.clone()))
    }

    pub(super) fn is_catching_up(&self, reader: u64) -> bool {
        self.readers.get(&reader).is_some_and(|reader| reader.until.is_some())
    }

    pub(super) fn leave(&mut self, reader: u64) {
        self.readers.remove(&reader);
        self.bury();
    }

    /// Whether the reader fell so far behind that it was given up.
    pub(super) fn has_lost(&self, reader: u64) -> bool {
        !self.readers.contains_key(&reader)
    }

    fn bury(&mut self) {
        let slowest = self.readers.values().map(|reader| reader.place).min().unwrap_or(u64::MAX);
        self.snapshot.bury(slowest);
        if let Some(place) = self.snapshot.overfull() {
            self.readers.retain(|_, reader| reader.place >= place);
            self.snapshot.bury(place);
        }
    }
}

/// What a reader of changes is told.
pub(super) enum Told {
    Entry(Entry),
    CaughtUp,
}

/// However the task ends, be it with its runtime, the views hear of it.
struct End(Arc<Cell>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end("the view's task was stopped");
    }
}

async fn run(end: End, store: Arc<dyn Store>, range: KeyRange) {
    let cell = &end.0;
    let again = mutants::is_on(Mutant::DroppedGap).then(|| (store.clone(), range.clone()));
    let mut watch: BoxStream<'static, tenure_kv::Result<Event>> = match store.watch(range, Since::Current).await {
        Ok(watch) => watch,
        Err(error) => return cell.end(&error.to_string()),
    };
    // The watch keeps what it needs; the handles of views decide how long the store is in use.
    drop(store);
    loop {
        let mut failed = None;
        let mut events = Vec::new();
        let mut next = watch.next().await;
        loop {
            match next {
                Some(Ok(event)) => events.push(event),
                Some(Err(error)) => failed = Some(error.to_string()),
                None => failed = Some("the store ended the watch".to_owned()),
            }
            if failed.is_some() || events.len() >= BURST {
                break;
            }
            match watch.next().now_or_never() {
                Some(more) => next = more,
                None => break,
            }
        }
        if let Some((store, range)) = again.as_ref().filter(|_| events.contains(&Event::Gap))
            && let Ok(anew) = store.watch(range.clone(), Since::Now).await
        {
            watch = anew;
            continue;
        }
        cell.take(events.into_iter());
        if let Some(reason) = failed {
            return cell.end(&reason);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks panics half-way through a change; a caller's closure only reads.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
