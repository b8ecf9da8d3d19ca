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
    Batch, Beside, BootClock, Bucket, Clock, Entry, Error, Event, Info, Key, KeyRange, Moment, Notice, Op, Page, Result,
    Revision, Since, Store,
};
use tracing::Instrument;

use super::{
    busy::{self, Busy},
    metrics::{Trip, Trips},
};

/// Another store, whose round trips are counted, and those of the buckets beside it.
#[derive(Debug)]
pub(super) struct Measured {
    store: Arc<dyn Store>,
    meter: Arc<Meter>,
}

/// A bucket beside the store. Its answers say nothing of the store.
#[derive(Debug)]
struct MeasuredBucket {
    bucket: Arc<dyn Bucket>,
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct Meter {
    trips: Trips,
    clock: BootClock,
    /// When the store answered last, in milliseconds of the clock.
    answered: AtomicU64,
    busy: Option<Arc<Busy>>,
}

impl Measured {
    pub(super) fn new(store: Arc<dyn Store>, busy: Option<Arc<Busy>>) -> Arc<Self> {
        let clock = BootClock;
        // It has just been opened.
        let answered = AtomicU64::new(millis(clock.now()));
        Arc::new(Self { store, meter: Arc::new(Meter { trips: Trips::default(), clock, answered, busy }) })
    }

    pub(super) fn trips(&self) -> &Trips {
        &self.meter.trips
    }

    pub(super) fn outages_seen(&self) -> u64 {
        self.store.outages()
    }

    /// Since when it has answered nothing.
    pub(super) fn silent_for(&self) -> Duration {
        let answered = Moment::new(Duration::from_millis(self.meter.answered.load(Ordering::Relaxed)));
        self.meter.clock.now().saturating_since(answered)
    }

    async fn trip<T>(&self, name: &'static str, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let kind = if name == "commit" { Trip::Commit } else { Trip::Read };
        let answer = self.meter.trip(kind, name, request).await;
        // A refusal is an answer as well.
        if answer.as_ref().err().is_none_or(|error| matches!(error, Error::Conflict { .. } | Error::Invalid { .. })) {
            self.meter.answered.store(millis(self.meter.clock.now()), Ordering::Relaxed);
        }
        answer
    }
}

impl Meter {
    async fn trip<T>(&self, kind: Trip, name: &'static str, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let asked = Instant::now();
        let span = tracing::debug_span!(target: "tenure::store", "store", otel.name = tracing::field::Empty, operation = name);
        #[cfg(feature = "otlp")]
        span.record("otel.name", name);
        let answer = busy::answer(self.busy.as_deref(), asked, request.instrument(span)).await;
        self.trips.count(kind, asked.elapsed(), answer.as_ref().err());
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
        let found = self.trip("bucket", self.store.bucket(name)).await?;
        Ok(match found {
            Beside::There(bucket) => Beside::There(Arc::new(MeasuredBucket { bucket, meter: self.meter.clone() })),
            // A range is read and written through this.
            other => other,
        })
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        self.trip("follow", self.store.follow(key)).await
    }
}

#[async_trait]
impl Bucket for MeasuredBucket {
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.meter.trip(Trip::BucketRead, "bucket_entry", self.bucket.entry(key)).await
    }

    async fn entry_at(&self, key: &Key, revision: Revision) -> Result<Option<Entry>> {
        self.meter.trip(Trip::BucketRead, "bucket_entry_at", self.bucket.entry_at(key, revision)).await
    }

    async fn history(&self, key: &Key, most: usize) -> Result<Vec<Entry>> {
        self.meter.trip(Trip::BucketRead, "bucket_history", self.bucket.history(key, most)).await
    }

    async fn keys(&self, range: &KeyRange) -> Result<Vec<Key>> {
        self.meter.trip(Trip::BucketRead, "bucket_keys", self.bucket.keys(range)).await
    }

    async fn write(&self, op: Op) -> Result<Revision> {
        self.meter.trip(Trip::BucketWrite, "bucket_write", self.bucket.write(op)).await
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.meter.trip(Trip::BucketRead, "bucket_watch", self.bucket.watch(range, since)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store with a bucket beside it, which is kept elsewhere.
    #[derive(Debug)]
    struct Neighbour(Arc<dyn Store>);

    #[async_trait]
    impl Store for Neighbour {
        fn info(&self) -> &Info {
            self.0.info()
        }

        async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
            self.0.entry(key).await
        }

        async fn commit(&self, batch: Batch) -> Result<Revision> {
            self.0.commit(batch).await
        }

        async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
            self.0.watch(range, since).await
        }

        async fn bucket(&self, _: &str) -> Result<Beside> {
            let elsewhere: Arc<dyn Store> = Arc::new(tenure_kv::Memory::new());
            Ok(Beside::There(Arc::new(tenure_kv::RangeBucket::new(elsewhere, Key::new("data")?))))
        }
    }

    #[tokio::test]
    async fn what_a_bucket_beside_the_store_is_asked_counts_as_that() {
        let measured = Measured::new(Arc::new(Neighbour(Arc::new(tenure_kv::Memory::new()))), None);
        let Beside::There(bucket) = measured.bucket("b").await.unwrap() else { panic!("there is none") };
        let counts = || Trip::ALL.map(|trip| measured.trips().counted(trip));
        assert_eq!(counts(), [1, 0, 0, 0], "it was looked for in the store");
        let key = Key::new("k").unwrap();
        let at = bucket.write(Op::put(key.clone(), "x")).await.unwrap();
        bucket.write(Op::put(key.clone(), "y").if_absent()).await.unwrap_err();
        assert_eq!(counts(), [1, 0, 0, 2]);
        bucket.entry(&key).await.unwrap();
        bucket.entry_at(&key, at).await.unwrap();
        bucket.history(&key, 1).await.unwrap();
        bucket.keys(&KeyRange::All).await.unwrap();
        drop(bucket.watch(KeyRange::All, Since::Now).await.unwrap());
        assert_eq!(counts(), [1, 0, 5, 2]);
    }
}
