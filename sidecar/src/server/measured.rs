//! The store as this daemon uses it: every round trip is timed, and the last answer noted.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tenure_kv::{
    Batch, Beside, BootClock, Clock, Entry, Error, Event, Info, Key, KeyRange, Moment, Notice, Page, Result, Revision, Since,
    Store,
};
use tracing::Instrument;

use super::metrics::Trips;

/// Another store, whose round trips are counted.
#[derive(Debug)]
pub(super) struct Measured {
    store: Arc<dyn Store>,
    trips: Trips,
    clock: BootClock,
    /// When it answered last, in milliseconds of the clock.
    answered: AtomicU64,
}

impl Measured {
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        let clock = BootClock;
        // It has just been opened.
        let answered = AtomicU64::new(millis(clock.now()));
        Arc::new(Self { store, trips: Trips::default(), clock, answered })
    }

    pub(super) const fn trips(&self) -> &Trips {
        &self.trips
    }

    pub(super) fn outages_seen(&self) -> u64 {
        self.store.outages()
    }

    /// Since when it has answered nothing.
    pub(super) fn silent_for(&self) -> Duration {
        let answered = Moment::new(Duration::from_millis(self.answered.load(Ordering::Relaxed)));
        self.clock.now().saturating_since(answered)
    }

    async fn trip<T>(&self, name: &'static str, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let asked = Instant::now();
        let span = tracing::debug_span!(target: "tenure::store", "store", otel.name = tracing::field::Empty, operation = name);
        #[cfg(feature = "otlp")]
        span.record("otel.name", name);
        let answer = request.instrument(span).await;
        self.trips.count(name == "commit", asked.elapsed(), answer.as_ref().err());
        // A refusal is an answer as well.
        if answer.as_ref().err().is_none_or(|error| matches!(error, Error::Conflict { .. } | Error::Invalid { .. })) {
            self.answered.store(millis(self.clock.now()), Ordering::Relaxed);
        }
        answer
    }
}

fn millis(moment: Moment) -> u64 {
    super::sessions::millis(moment.since_origin())
}

#[async_trait]
impl Store for Measured {
    fn info(&self) -> &Info {
        self.store.info()
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.trip("entry", self.store.entry(key)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.trip("commit", self.store.commit(batch)).await
    }

    fn outages(&self) -> u64 {
        self.store.outages()
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.trip("watch", self.store.watch(range, since)).await
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        self.trip("entries", self.store.entries(keys)).await
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.trip("scan", self.store.scan(range, from, limit)).await
    }

    async fn bucket(&self, name: &str) -> Result<Beside> {
        self.trip("bucket", self.store.bucket(name)).await
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        self.trip("follow", self.store.follow(key)).await
    }
}
