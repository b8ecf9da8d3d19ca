//! Ordinary buckets beside the one for coordination: single reads and writes, no batches and no fences.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{Entry, Error, Event, Key, KeyRange, Op, Result, Revision, Since};

/// The longest name of a bucket in bytes.
const MAX_NAME: usize = 200;

/// A bucket of whatever settings, which others may write to as well. It may keep more than the latest write to a key.
#[async_trait]
pub trait Bucket: Debug + Send + Sync + 'static {
    /// The latest entry of `key`, tombstones included while the bucket keeps them. It may lag behind writes that were
    /// acknowledged elsewhere.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the bucket is out of reach, or is not there any more.
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn entry(&self, key: &Key) -> Result<Option<Entry>>;

    /// What was written to `key` at `revision`, if the bucket still keeps it.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn entry_at(&self, key: &Key, revision: Revision) -> Result<Option<Entry>>;

    /// All that the bucket keeps of `key`, oldest first. Ends early with the first entry with which the values have more
    /// than `most` bytes.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn history(&self, key: &Key, most: usize) -> Result<Vec<Entry>>;

    /// The keys of `range` that have a value, in no order.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    ///
    /// # Cancel safety
    /// Safe to drop.
    async fn keys(&self, range: &KeyRange) -> Result<Vec<Key>>;

    /// Applies `op`, which has no fence, and returns its revision. A tombstone stays for the TTL it has at most where the
    /// bucket can forget it without older writes showing again, and for ever otherwise.
    ///
    /// # Errors
    /// As [`Store::commit`](crate::Store::commit); [`Error::Invalid`] also where the bucket's settings do not allow a TTL.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    async fn write(&self, op: Op) -> Result<Revision>;

    /// Watches a range, as [`Store::watch`](crate::Store::watch) does. Of a bucket that keeps more than the latest write
    /// to a key, `After` and `History` tell all of what it keeps.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    ///
    /// # Cancel safety
    /// Safe to drop, before and after it returns.
    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>>;
}

/// What [`Store::bucket`](crate::Store::bucket) finds.
#[derive(Clone, Debug)]
pub enum Beside {
    /// The bucket.
    There(Arc<dyn Bucket>),
    /// There is none of that name: how to make it.
    Missing(String),
    /// This store has no buckets beside it; a range of its own keys can stand for one: [`RangeBucket`](crate::RangeBucket).
    Range,
}

/// Refuses what is no name of a bucket.
///
/// # Errors
/// [`Error::Invalid`], with what a name is made of.
pub fn check_bucket(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(good) {
        let shown: String = name.chars().take(80).collect();
        return Err(Error::invalid(format!("{shown:?} is no bucket name; use letters, digits, - and _")));
    }
    Ok(())
}
