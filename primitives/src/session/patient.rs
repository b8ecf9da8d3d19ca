//! The store as what a session does for itself uses it: no answer is waited for much longer than a renewal's.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tenure_kv::{
    Batch, Beside, Clock, ClockExt, Entry, Error, Event, Info, Key, KeyRange, Notice, Page, Result, Revision, Since, Store,
};

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

    async fn bucket(&self, name: &str) -> Result<Beside> {
        self.read(self.store.bucket(name)).await
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.read(self.store.entry(key)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        let answer = self.clock.timeout(self.patience, self.store.commit(batch)).await;
        answer.unwrap_or_else(|_| Err(Error::unknown("the store did not answer in time")))
    }

    fn outages(&self) -> u64 {
        self.store.outages()
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tenure_kv::{HandClock, Op};

    use super::*;

    /// A store that takes everything and never answers.
    #[derive(Debug)]
    struct Mute(Info);

    #[async_trait]
    impl Store for Mute {
        fn info(&self) -> &Info {
            &self.0
        }
        async fn bucket(&self, _: &str) -> Result<Beside> {
            pending().await
        }
        async fn entry(&self, _: &Key) -> Result<Option<Entry>> {
            pending().await
        }
        async fn commit(&self, _: Batch) -> Result<Revision> {
            pending().await
        }
        async fn watch(&self, _: KeyRange, _: Since) -> Result<BoxStream<'static, Result<Event>>> {
            pending().await
        }
    }

    #[tokio::test]
    async fn of_a_write_without_an_answer_nothing_is_known_and_a_read_may_be_tried_again() {
        let clock = HandClock::default();
        let store = Mute(Info { url: "mute:".to_owned(), shared: true, replicas: 1 });
        let patient = Patient::new(Arc::new(store), Arc::new(clock.clone()), Duration::from_millis(500));
        let key = Key::new("data.x").unwrap();
        let later = async { clock.advance(Duration::from_millis(500)) };
        let all = async { tokio::join!(patient.entry(&key), patient.commit(Op::purge(key.clone()).into()), later) };
        let (read, write, ()) = tokio::time::timeout(Duration::from_secs(5), all).await.unwrap();
        assert!(read.unwrap_err().is_unavailable());
        assert!(write.unwrap_err().is_unknown());
    }
}
