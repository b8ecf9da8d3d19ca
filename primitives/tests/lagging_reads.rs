//! Waiting while replicas lag or notices fail: no storm of requests, and nobody waits for ever.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream, stream::BoxStream};
use tenure::Session;
use tenure_kv::{
    Batch, Entry, Event, Info, Key, KeyRange, Memory, Notice, Op, Page, Result, Revision, Since, Store,
    faults::{Fault, Faulty, Operation, Rule},
};

async fn open(store: Arc<dyn Store>, ms: u64) -> Session {
    Session::builder(store).lease(Duration::from_millis(ms)).open().await.unwrap()
}

#[tokio::test]
async fn replicas_that_disagree_are_not_asked_in_a_storm() {
    let memory = Memory::new();
    let holder = open(Arc::new(memory.clone()), 5_000).await;
    let waiter_store = Faulty::new(Arc::new(memory.clone()));
    let (store, faults) = waiter_store;
    let waiter = open(store, 5_000).await;
    let before = faults.snapshot().await.unwrap();
    let guard = holder.mutex("x").unwrap().lock().await.unwrap();
    let stale = faults.add(Rule::new(Fault::Stale(before)).on(Operation::Entries));
    let mutex = waiter.mutex("x").unwrap();
    let waiting = tokio::spawn(async move { mutex.lock().await });
    tokio::time::timeout(Duration::from_secs(10), stale.reached(1)).await.expect("a look at the past");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let requests = faults.requests();
    assert!(requests < 100, "{requests} requests in half a second");
    stale.clear();
    guard.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
}

/// A store whose notices about sessions end at once.
#[derive(Debug)]
struct Mute(Memory);

#[async_trait]
impl Store for Mute {
    fn info(&self) -> &Info {
        self.0.info()
    }
    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.0.bucket(name).await
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
    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.0.scan(range, from, limit).await
    }
    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        if key.under("session").is_some() {
            // Panics when it is polled after its end.
            return Ok(stream::unfold((), |()| async { None }).boxed());
        }
        self.0.follow(key).await
    }
}

#[tokio::test]
async fn a_silent_session_is_deposed_without_notices() {
    let memory = Memory::new();
    let dead = "0123456789abcdef0123456789abcdef";
    let record = r#"{"lease_ms":300,"beat":0,"host":"h","pid":1}"#;
    for (key, value) in [(format!("session.{dead}"), record), (format!("lock.x.{dead}-1"), "{}")] {
        memory.commit(Op::put(Key::new(key).unwrap(), value).into()).await.unwrap();
    }
    let waiter = open(Arc::new(Mute(memory)), 300).await;
    let got = waiter.mutex("x").unwrap().lock_timeout(Duration::from_secs(2)).await;
    got.expect("a dead session was never deposed").release().await.unwrap();
}
