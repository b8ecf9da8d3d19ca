//! Who hears of which write: queues that merge writes to one key, and the table of who listens to what.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::{Stream, task::AtomicWaker};

use super::{shared::Shared, state::prefix};
use crate::{
    Entry, Event, Key, KeyRange, Notice, Result, Revision,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What one listener has not yet read: at most one entry per key, so a listener that nobody polls
/// costs no more than its range has keys, and still ends with the last write.
#[derive(Debug)]
enum Merged {
    /// Of one key.
    One(Option<Entry>),
    /// Of many keys, in the order of revisions.
    Many { order: BTreeMap<Revision, Entry>, latest: HashMap<Key, Revision> },
}

impl Merged {
    /// Adds the newest entry of all, and returns the revision of the unread one it replaces.
    fn push(&mut self, entry: Entry) -> Option<Revision> {
        match self {
            Self::One(slot) => slot.replace(entry).map(|old| old.revision),
            Self::Many { order, latest } => {
                let old = latest.insert(entry.key.clone(), entry.revision);
                if let Some(old) = old {
                    order.remove(&old);
                }
                order.insert(entry.revision, entry);
                old
            }
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        match self {
            Self::One(slot) => slot.take(),
            Self::Many { order, latest } => {
                let (_, entry) = order.pop_first()?;
                latest.remove(&entry.key);
                Some(entry)
            }
        }
    }

    fn first(&self) -> Option<Revision> {
        match self {
            Self::One(slot) => slot.as_ref().map(|entry| entry.revision),
            Self::Many { order, .. } => order.first_key_value().map(|(revision, _)| *revision),
        }
    }
}

#[derive(Debug)]
struct Pending {
    merged: Merged,
    /// `CaughtUp` is told once nothing up to here is unread; `None` when it has been told.
    caught_up: Option<Revision>,
    closed: bool,
}

/// A listener's side of the table.
#[derive(Debug)]
pub(super) struct Queue {
    range: KeyRange,
    pending: Mutex<Pending>,
    waker: AtomicWaker,
}

impl Queue {
    /// A queue that starts with `snapshot`, taken when the store was at `revision`.
    fn new(range: KeyRange, snapshot: Vec<Entry>, revision: Revision) -> Self {
        let mut merged = match range {
            KeyRange::One(_) => Merged::One(None),
            _ => Merged::Many { order: BTreeMap::new(), latest: HashMap::new() },
        };
        for entry in snapshot {
            merged.push(entry);
        }
        let pending = Pending { merged, caught_up: Some(revision), closed: false };
        Self { range, pending: Mutex::new(pending), waker: AtomicWaker::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, entry: Entry, woken: &mut Wakers) {
        let mut pending = self.lock();
        let revision = entry.revision;
        let replaced = pending.merged.push(entry);
        // A key of the snapshot that is written again before it was read must still come before `CaughtUp`.
        if let (Some(old), Some(until)) = (replaced, &mut pending.caught_up)
            && old <= *until
        {
            *until = revision;
        }
        woken.0.extend(self.waker.take());
    }

    fn close(&self, woken: &mut Wakers) {
        self.lock().closed = true;
        woken.0.extend(self.waker.take());
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.waker.register(cx.waker());
        let mut pending = self.lock();
        if let Some(until) = pending.caught_up
            && pending.merged.first().is_none_or(|first| first > until)
        {
            pending.caught_up = None;
            return Poll::Ready(Some(Event::CaughtUp));
        }
        match pending.merged.pop() {
            Some(entry) => Poll::Ready(Some(Event::Entry(entry))),
            None if pending.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// Tasks to wake once the store's lock is released: waking may run foreign code.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Wakers(Vec<Waker>);

impl Wakers {
    pub(super) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// Who listens to what. A write finds its listeners by key and by the key's prefixes, not by asking each.
#[derive(Debug, Default)]
pub(super) struct Hub {
    exact: HashMap<Key, Vec<Arc<Queue>>>,
    prefixed: HashMap<String, Vec<Arc<Queue>>>,
    closed: bool,
}

impl Hub {
    /// Lists a queue for `range`, whose content as of `revision` is `snapshot`.
    pub(super) fn join(&mut self, range: KeyRange, snapshot: Vec<Entry>, revision: Revision) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(range, snapshot, revision));
        if self.closed {
            queue.lock().closed = true;
            return queue;
        }
        match &queue.range {
            KeyRange::One(key) => self.exact.entry(key.clone()).or_default().push(queue.clone()),
            range => self.prefixed.entry(prefix(range)).or_default().push(queue.clone()),
        }
        queue
    }

    pub(super) fn leave(&mut self, queue: &Arc<Queue>) {
        match &queue.range {
            KeyRange::One(key) => {
                if let Some(list) = self.exact.get_mut(key)
                    && strike(list, queue)
                {
                    self.exact.remove(key);
                }
            }
            range => {
                let prefix = prefix(range);
                if let Some(list) = self.prefixed.get_mut(&prefix)
                    && strike(list, queue)
                {
                    self.prefixed.remove(&prefix);
                }
            }
        }
    }

    /// Hands `entry`, newer than every one before it, to whoever listens.
    pub(super) fn tell(&self, entry: &Entry, woken: &mut Wakers) {
        for queue in self.exact.get(&entry.key).into_iter().flatten() {
            queue.push(entry.clone(), woken);
        }
        if self.prefixed.is_empty() {
            return;
        }
        let text = entry.key.as_str();
        let ends = std::iter::once(0).chain(text.match_indices('.').map(|(at, _)| at + 1));
        for queue in ends.filter_map(|end| self.prefixed.get(&text[..end])).flatten() {
            if queue.range.contains(&entry.key) {
                queue.push(entry.clone(), woken);
            }
        }
    }

    /// Ends every stream once it has been read.
    pub(super) fn close(&mut self, woken: &mut Wakers) {
        self.closed = true;
        let lists = self.exact.drain().map(|(_, list)| list).chain(self.prefixed.drain().map(|(_, list)| list));
        lists.flatten().for_each(|queue| queue.close(woken));
    }
}

/// Strikes `queue` off `list` and tells whether nothing is left.
fn strike(list: &mut Vec<Arc<Queue>>, queue: &Arc<Queue>) -> bool {
    if let Some(at) = list.iter().position(|other| Arc::ptr_eq(other, queue)) {
        list.swap_remove(at);
    }
    list.is_empty()
}

/// A stream over a queue; leaves the table when dropped.
#[derive(Debug)]
pub(super) struct Listener {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
}

impl Listener {
    pub(super) const fn new(shared: Arc<Shared>, queue: Arc<Queue>) -> Self {
        Self { shared, queue }
    }

    /// The stream of one key's latest entries.
    pub(super) const fn into_notices(self) -> Follower {
        Follower(self)
    }
}

impl Stream for Listener {
    type Item = Result<Event>;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll(cx).map(|event| event.map(Ok))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.leave(&self.queue);
    }
}

/// A stream over the writes to one key.
#[derive(Debug)]
pub(super) struct Follower(Listener);

impl Stream for Follower {
    type Item = Notice;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        loop {
            match std::task::ready!(self.0.queue.poll(cx)) {
                Some(Event::Entry(entry)) => return Poll::Ready(Some(Notice::Entry(entry))),
                Some(Event::CaughtUp | Event::Gap) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}
