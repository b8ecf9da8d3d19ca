//! A range of a store's keys as a bucket of its own.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};

use crate::{Bucket, Entry, Error, Event, Key, KeyRange, Op, Result, Revision, Since, Store};

/// How many keys are read at once from a server, where a page is copied.
const PAGE: usize = 512;
/// How many are from this process, where each page goes through all keys.
const OWN_PAGE: usize = 16_384;

/// The keys under one key of a store, without what they have in common. It keeps the latest write to each.
#[derive(Debug)]
pub struct RangeBucket {
    store: Arc<dyn Store>,
    parent: Key,
}

impl RangeBucket {
    /// The keys under `parent`.
    pub const fn new(store: Arc<dyn Store>, parent: Key) -> Self {
        Self { store, parent }
    }

    fn range(&self, range: &KeyRange) -> Result<KeyRange> {
        KeyRange::new(format!("{}.{range}", self.parent))
    }

    async fn entry_of(&self, key: &Key) -> Result<Option<Entry>> {
        let found = self.store.entry(&self.parent.child(key)?).await?;
        Ok(found.map(|entry| Entry { key: key.clone(), ..entry }))
    }
}

fn inner(parent: &Key, key: &Key) -> Option<Key> {
    Key::new(key.under(parent.as_str())?).ok()
}

#[async_trait]
impl Bucket for RangeBucket {
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.entry_of(key).await
    }

    async fn entry_at(&self, key: &Key, revision: Revision) -> Result<Option<Entry>> {
        Ok(self.entry_of(key).await?.filter(|entry| entry.revision == revision))
    }

    async fn history(&self, key: &Key, _most: usize) -> Result<Vec<Entry>> {
        Ok(self.entry_of(key).await?.into_iter().collect())
    }

    async fn keys(&self, range: &KeyRange) -> Result<Vec<Key>> {
        let range = self.range(range)?;
        let mut keys = Vec::new();
        let mut from = Revision::ZERO;
        let most = if self.store.info().shared { PAGE } else { OWN_PAGE };
        loop {
            // Values are let go page by page.
            let page = self.store.scan(&range, from, most).await?;
            keys.extend(page.entries.iter().filter_map(|entry| inner(&self.parent, &entry.key)));
            if page.complete {
                return Ok(keys);
            }
            from = page.through.next();
            // A store of this process may have answered without a wait.
            tokio::task::yield_now().await;
        }
    }

    async fn write(&self, op: Op) -> Result<Revision> {
        if op.fence.is_some() {
            return Err(Error::invalid("a fence works in the coordination bucket only"));
        }
        let key = op.key.clone();
        let op = Op { key: self.parent.child(&key)?, ..op };
        self.store.commit(op.into()).await.map_err(|error| match error {
            Error::Conflict { revision, .. } => Error::conflict(&key, revision),
            other => other,
        })
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        let events = self.store.watch(self.range(&range)?, since).await?;
        let parent = self.parent.clone();
        let shown = move |event| match event {
            Ok(Event::Entry(entry)) => inner(&parent, &entry.key).map(|key| Ok(Event::Entry(Entry { key, ..entry }))),
            other => Some(other),
        };
        Ok(events.filter_map(move |event| std::future::ready(shown(event))).boxed())
    }
}
