//! The contract: three verbs that every store implements, and what is built on them.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};

use crate::{Batch, Beside, Entry, Error, Expect, Key, KeyRange, Op, Result, Revision};

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The latest entry of every key, then changes.
    Current,
    /// Everything the store still has, then changes. The same as `Current` where history is 1.
    History,
    /// Everything the store still has after this revision, then changes.
    After(Revision),
    /// Changes from now on.
    Now,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A write, tombstones included. Revisions never go back within one watch; of several writes to
    /// one key the last is never left out.
    Entry(Entry),
    /// What was there when the watch began has been told; sent exactly once.
    CaughtUp,
    /// The watch was interrupted and is established again. Writes since then may have been left out; the last
    /// to each key was told before or follows.
    Gap,
}

/// What [`Store::follow`] tells about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A committed write to the key.
    Entry(Entry),
    /// A write may have gone unheard for want of time to establish the notices: read the key.
    Recheck,
    /// The store was out of reach and is back: read the key, and count no silence from before.
    Reconnected,
}

/// Part of a range, in the order of revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Live entries, ascending by revision.
    pub entries: Vec<Entry>,
    /// Every live entry of the range from the revision asked for up to this one is in `entries`, and the
    /// reading store had applied at least everything up to here. A page may reach further than its last entry.
    pub through: Revision,
    /// Nothing more lay beyond `through` when the page was read.
    pub complete: bool,
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The URL it was opened from, without secrets.
    pub url: String,
    /// Whether other processes can write to it at the same time.
    pub shared: bool,
    /// How many servers keep a copy; 1 for embedded stores.
    pub replicas: u16,
}

/// A key-value store with revisions and compare-and-set.
///
/// Implementors provide [`info`](Self::info), the three verbs [`entry`](Self::entry),
/// [`commit`](Self::commit) and [`watch`](Self::watch), and [`bucket`](Self::bucket), and override the provided methods where they can
/// do better than the verbs allow.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// What the store says of itself.
    fn info(&self) -> &Info;

    /// The latest entry of `key`, tombstones included while the store keeps them.
    ///
    /// It may lag behind commits acknowledged to others; a commit is the truth. What was acknowledged to this handle a
    /// moment ago shows here and in [`scan`](Self::scan), unless the store has lost it or the servers that answer have
    /// lagged for long.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn entry(&self, key: &Key) -> Result<Option<Entry>>;

    /// Applies all of `batch` or nothing, and returns the revision of its last operation; the
    /// others have the revisions just before it, in order.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Unavailable`] and [`Error::Invalid`] say that nothing was applied;
    /// [`Error::Unknown`] says that everything may have been.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    async fn commit(&self, batch: Batch) -> Result<Revision>;

    /// Watches a range. Established when this returns: no later write is missed.
    ///
    /// The stream heals itself after an outage of the store and ends only with an error or when the
    /// store is closed. It may be left unpolled without harm to the store.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop, before and after it returns.
    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>>;

    /// The ordinary bucket `name` beside this store. It is never created. A store that has none beside it answers
    /// [`Beside::Range`], and one that wraps another what that answers: for a wrapper that forgot it every name would be a
    /// bucket.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `name` is no name of a bucket or is that of this store itself, or the bucket is not one to
    /// write to; [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn bucket(&self, name: &str) -> Result<Beside>;

    /// How often the store has been out of touch so far. A store that one server keeps may have been set back meanwhile,
    /// so what was concluded before from what was *not* there has to be looked at again. A change shows no later than
    /// the first answer after it.
    fn outages(&self) -> u64 {
        0
    }

    /// The latest entries of `keys`, in their order, tombstones included; one round trip where the
    /// store can. Not a snapshot: each entry is as [`entry`](Self::entry) would have it. But of no more than 512 keys all
    /// are as one server has them, one after the other: what shows a write in a bucket that was made anew shows nothing of
    /// the one before.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.entry(key).await?);
        }
        Ok(found)
    }

    /// The live entries of `range` with revisions of at least `from`, ascending by revision, in one
    /// round trip. `limit` (at least 1) bounds the work: a page ends after about as many writes,
    /// tombstones counted, and is then not [`complete`](Page::complete).
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        let mut events = self.watch(range.clone(), Since::Current).await?;
        let mut entries = Vec::new();
        let mut through = Revision::ZERO;
        while let Some(event) = events.next().await {
            match event? {
                Event::CaughtUp => {
                    entries.sort_by_key(|entry: &Entry| entry.revision);
                    let complete = entries.len() <= limit;
                    entries.truncate(limit);
                    if !complete && let Some(last) = entries.last() {
                        through = last.revision;
                    }
                    return Ok(Page { entries, through, complete });
                }
                Event::Gap => {}
                Event::Entry(entry) => {
                    through = through.max(entry.revision);
                    if entry.is_live() && entry.revision >= from {
                        entries.push(entry);
                    }
                }
            }
        }
        Err(Error::unavailable("the store ended the watch"))
    }

    /// Hears of writes to one key soon after they are committed, at the least cost the store has.
    ///
    /// Level-triggered: writes may be merged or missed, the latest is told or a [`Notice::Recheck`]
    /// or [`Notice::Reconnected`] is. Established when this returns, as far as the store can tell: read the key after that.
    /// Nothing is told that was not committed. Expiry by TTL may go untold.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop, before and after it returns.
    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        let events = self.watch(KeyRange::One(key.clone()), Since::Now).await?;
        Ok(events
            .filter_map(|event| async {
                match event {
                    Ok(Event::Entry(entry)) => Some(Notice::Entry(entry)),
                    Ok(Event::CaughtUp) => None,
                    Ok(Event::Gap) => Some(Notice::Reconnected),
                    Err(_) => Some(Notice::Reconnected),
                }
            })
            .boxed())
    }
}

/// Conveniences over [`Store`]; implemented for every store and by nobody else.
#[async_trait]
pub trait StoreExt: Store {
    /// The value of `key` and its revision, or `None` when there is no value.
    ///
    /// # Errors
    /// As [`Store::entry`].
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn get(&self, key: &Key) -> Result<Option<(Bytes, Revision)>> {
        Ok(self.entry(key).await?.and_then(|entry| entry.value().cloned().map(|value| (value, entry.revision))))
    }

    /// Stores `value` whatever was there.
    ///
    /// # Errors
    /// As [`Store::commit`].
    ///
    /// # Cancel safety
    /// As [`Store::commit`].
    async fn put(&self, key: &Key, value: impl Into<Bytes> + Send) -> Result<Revision> {
        self.commit(Op::put(key.clone(), value).into()).await
    }

    /// Stores `value` where there is none.
    ///
    /// # Errors
    /// As [`Store::commit`].
    ///
    /// # Cancel safety
    /// As [`Store::commit`].
    async fn create(&self, key: &Key, value: impl Into<Bytes> + Send) -> Result<Revision> {
        self.commit(Op::put(key.clone(), value).if_absent().into()).await
    }

    /// Replaces the write at `revision`.
    ///
    /// # Errors
    /// As [`Store::commit`].
    ///
    /// # Cancel safety
    /// As [`Store::commit`].
    async fn update(&self, key: &Key, value: impl Into<Bytes> + Send, revision: Revision) -> Result<Revision> {
        self.commit(Op::put(key.clone(), value).if_at(revision).into()).await
    }

    /// Deletes `key` if `expect` holds.
    ///
    /// # Errors
    /// As [`Store::commit`].
    ///
    /// # Cancel safety
    /// As [`Store::commit`].
    async fn delete(&self, key: &Key, expect: Expect) -> Result<Revision> {
        self.commit(Op::delete(key.clone()).expect(expect).into()).await
    }

    /// Every live entry of `range`, ascending by revision. Pages, so not one instant: each entry was
    /// live when its page was read.
    ///
    /// # Errors
    /// As [`Store::scan`].
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn list(&self, range: &KeyRange) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let mut from = Revision::ZERO;
        loop {
            let page = self.scan(range, from, 512).await?;
            all.extend(page.entries);
            if page.complete {
                return Ok(all);
            }
            from = page.through.next();
        }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}
