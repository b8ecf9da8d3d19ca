//! A bucket that is set back to an earlier state under running sessions.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tenure::{Loss, Session};
use tenure_kv::{
    Batch, Entry, Event, HandClock, Info, Key, KeyRange, Memory, Notice, Op, Page, Result, Revision, Since, Store, StoreExt,
};

/// A store whose whole content can be exchanged.
#[derive(Debug)]
struct Restorable(RwLock<Memory>, Info);

impl Restorable {
    fn now(&self) -> Memory {
        self.0.read().unwrap().clone()
    }
}

#[async_trait]
impl Store for Restorable {
    fn info(&self) -> &Info {
        &self.1
    }
    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.now().bucket(name).await
    }
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.now().entry(key).await
    }
    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.now().commit(batch).await
    }
    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.now().watch(range, since).await
    }
    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.now().scan(range, from, limit).await
    }
    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        self.now().follow(key).await
    }
}

async fn open(store: &Arc<Restorable>, ms: u64) -> Session {
    Session::builder(store.clone()).lease(Duration::from_millis(ms)).open().await.unwrap()
}

/// A backup taken when only the epoch had been written.
async fn backup(store: &Restorable) -> Memory {
    let old = Memory::new();
    let key = Key::new("meta.epoch").unwrap();
    let (value, _) = store.get(&key).await.unwrap().unwrap();
    old.commit(Op::put(key, value).into()).await.unwrap();
    old
}

async fn busy(memory: Memory) -> Arc<Restorable> {
    let info = memory.info().clone();
    let store = Arc::new(Restorable(RwLock::new(memory), info));
    for _ in 0..50 {
        store.put(&Key::new("data.x").unwrap(), "x").await.unwrap();
    }
    store
}

/// Waits for so many renewals of `session`.
async fn renewals(store: &Restorable, session: &Session, count: usize) {
    let key = Key::new(format!("session.{}", session.id())).unwrap();
    let at = async || store.entry(&key).await.unwrap().unwrap().revision;
    let renewed = async {
        for _ in 0..count {
            let last = at().await;
            while at().await == last {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), renewed).await.expect("the renewals did not come");
}

#[tokio::test]
async fn tokens_never_go_back_within_an_epoch() {
    let store = busy(Memory::new()).await;
    let first = open(&store, 300).await;
    let guard = first.mutex("x").unwrap().lock().await.unwrap();
    let (epoch, token) = (first.epoch().to_owned(), guard.token());
    let old = backup(&store).await;
    *store.0.write().unwrap() = old;
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), first.lost()).await.unwrap(), Loss::StoreReset);
    let second = open(&store, 300).await;
    let again = second.mutex("x").unwrap().lock().await.unwrap();
    assert!(again.token() < token, "the test set nothing back");
    assert_ne!(second.epoch(), epoch);
}

#[tokio::test]
async fn a_session_is_not_revived_where_its_tombstone_stands_at_the_revision_of_its_last_renewal() {
    let store = busy(Memory::new()).await;
    let clock = HandClock::default();
    let session = Session::builder(store.clone()).lease(Duration::from_millis(300)).clock(Arc::new(clock.clone()));
    let session = session.open().await.unwrap();
    let key = Key::new(format!("session.{}", session.id())).unwrap();
    let last = store.entry(&key).await.unwrap().unwrap().revision;
    let other = Memory::new();
    while other.put(&Key::new("data.x").unwrap(), "x").await.unwrap().next() < last {}
    let tombstone = other.commit(Op::purge(key.clone()).if_absent().into()).await.unwrap();
    assert_eq!(tombstone, last, "the test has made no coincidence");
    *store.0.write().unwrap() = other;
    clock.advance(Duration::from_millis(400));
    let lost = tokio::time::timeout(Duration::from_secs(5), session.lost()).await;
    assert_eq!(lost.expect("the session goes on"), Loss::Deposed);
    assert_eq!(store.entry(&key).await.unwrap().unwrap().revision, last, "it was written again");
}

#[tokio::test]
async fn one_proof_that_the_bucket_went_back_ends_every_session_of_the_process() {
    let store = busy(Memory::new()).await;
    let (slow, quick) = (open(&store, 20_000).await, open(&store, 300).await);
    let guard = slow.mutex("x").unwrap().lock().await.unwrap();
    let old = backup(&store).await;
    *store.0.write().unwrap() = old;
    quick.lost().await;
    let begun = std::time::Instant::now();
    let new = open(&store, 300).await;
    let lost = tokio::time::timeout(Duration::from_secs(2), guard.lost()).await;
    assert_eq!(lost.expect("the slow session has not heard of it"), Loss::StoreReset);
    // Others may have leases as long as ours were, and nobody told them.
    let early = new.mutex("x").unwrap().lock_timeout(Duration::from_secs(1)).await;
    assert!(early.is_err() && begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn revisions_of_a_former_bucket_prove_no_silence_in_the_next() {
    let store = busy(Memory::new()).await;
    let first = open(&store, 300).await;
    // Its own renewals tell since when others that are below have been silent.
    renewals(&store, &first, 6).await;
    let next = Memory::new();
    let second = Session::builder(Arc::new(next.clone())).lease(Duration::from_millis(300)).open().await.unwrap();
    let guard = second.mutex("x").unwrap().lock().await.unwrap();
    *store.0.write().unwrap() = next.clone();
    let _ = first.mutex("x").unwrap().try_lock().await;
    let key = Key::new(format!("session.{}", second.id())).unwrap();
    assert!(next.entry(&key).await.unwrap().unwrap().is_live(), "it was ended, though it had just been opened");
    guard.release().await.unwrap();
}

/// A session whose bucket was made anew and has come further since than the session saw of the former one. It will not
/// renew for seconds.
async fn overtaken(replicas: u16, epoch: Option<&str>) -> Session {
    let (one, next) = (Memory::new(), Memory::new());
    let info = Info { shared: true, replicas, ..one.info().clone() };
    // Settled, or nothing would be granted there yet.
    one.put(&Key::new("meta.epoch").unwrap(), r#"{"id":"one","settled":true}"#).await.unwrap();
    if let Some(epoch) = epoch {
        next.put(&Key::new("meta.epoch").unwrap(), format!(r#"{{"id":"{epoch}","settled":true}}"#)).await.unwrap();
    }
    while next.put(&Key::new("data.x").unwrap(), "x").await.unwrap() < Revision::new(500) {}
    let store = Arc::new(Restorable(RwLock::new(one), info));
    let session = Session::builder(store.clone()).lease(Duration::from_secs(60)).open().await.unwrap();
    *store.0.write().unwrap() = next;
    // No server takes 500 writes in no time, and that is relied on.
    tokio::time::sleep(Duration::from_millis(5)).await;
    session
}

#[tokio::test]
async fn nothing_is_granted_in_a_bucket_made_anew_that_has_come_further_than_was_seen() {
    for (replicas, epoch) in [(1, None), (1, Some("another")), (3, None), (3, Some("another"))] {
        let session = overtaken(replicas, epoch).await;
        let error = session.mutex("x").unwrap().lock().await.expect_err("granted in another bucket");
        assert_eq!(error.loss(), Some(Loss::StoreReset), "{error}");
        let session = overtaken(replicas, epoch).await;
        let error = session.mutex("x").unwrap().try_lock().await.expect_err("granted in another bucket");
        assert_eq!(error.loss(), Some(Loss::StoreReset), "{error}");
        let session = overtaken(replicas, epoch).await;
        let error = session.election("x").unwrap().campaign("").await.expect_err("leads in another bucket");
        assert_eq!(error.loss(), Some(Loss::StoreReset), "{error}");
        let session = overtaken(replicas, epoch).await;
        let error = session.election("x").unwrap().try_campaign("").await.expect_err("leads in another bucket");
        assert_eq!(error.loss(), Some(Loss::StoreReset), "{error}");
    }
    // The same in the bucket that it was opened in, so that it is not the test that loses.
    for replicas in [1, 3] {
        let session = overtaken(replicas, Some("one")).await;
        assert!(session.mutex("x").unwrap().lock().await.is_ok());
        assert!(session.election("x").unwrap().campaign("").await.is_ok());
    }
}
