//! The store as what a session does for itself uses it: no answer is waited for much longer than a renewal's.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tenure_kv::{Batch, Clock, ClockExt, Entry, Error, Event, Info, Key, KeyRange, Notice, Page, Result, Revision, Since, Store};

/// A store whose requests count as unanswered after a while. One whose answer was lost would else hold up whoever
/// waits for it for as long as the store itself is patient, which may be many leases.
#[derive(Debug)]
pub(super) struct Patient {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    patience: Duration,
}

impl Patient {
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, patience: Duration) -> Self {
        Self { store, clock, patience }
    }

    async fn read<T: Send>(&self, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let answer = self.clock.timeout(self.patience, request).await;
        answer.unwrap_or_else(|_| Err(Error::unavailable("the store did not answer in time")))
    }
}

#[async_trait]
impl Store for Patient {
    fn info(&self) -> &Info {
        self.store.info()
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.read(self.store.entry(key)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        let answer = self.clock.timeout(self.patience, self.store.commit(batch)).await;
        answer.unwrap_or_else(|_| Err(Error::unknown("the store did not answer in time")))
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.read(self.store.watch(range, since)).await
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        self.read(self.store.entries(keys)).await
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.read(self.store.scan(range, from, limit)).await
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        self.read(self.store.follow(key)).await
    }
}
