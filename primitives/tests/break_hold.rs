//! An administrator breaks a hold: whoever has it hears of it, whenever it happens.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tenure::{Loss, Session, locks};
use tenure_kv::{
    Batch, Entry, Event, Info, Key, KeyRange, Memory, Notice, Page, Result, Revision, Since, Store,
    faults::{Fault, Faulty, Operation, Rule},
};

/// A store that others can write to, so a new bucket makes grants wait one lease.
#[derive(Debug)]
struct Common(Memory, Info);

#[async_trait]
impl Store for Common {
    fn info(&self) -> &Info {
        &self.1
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
        self.0.follow(key).await
    }
}

async fn open(store: Arc<dyn Store>, ms: u64) -> Session {
    Session::builder(store).lease(Duration::from_millis(ms)).open().await.unwrap()
}

#[tokio::test]
async fn a_hold_that_is_broken_before_it_is_granted_is_not_granted() {
    let memory = Memory::new();
    let info = Info { shared: true, ..memory.info().clone() };
    let store: Arc<dyn Store> = Arc::new(Common(memory, info));
    let session = open(store.clone(), 1_000).await;
    let mutex = session.mutex("x").unwrap();
    let waiting = tokio::spawn(async move { mutex.lock().await });
    let queued = async {
        loop {
            if let Some(holder) = locks::inspect(&*store, "x").await.unwrap().holder {
                return holder;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let holder = tokio::time::timeout(Duration::from_secs(10), queued).await.expect("the ticket did not come");
    locks::break_hold(&*store, "x", holder.token).await.unwrap();
    let loss = waiting.await.unwrap().expect_err("granted although the ticket is gone").loss();
    assert_eq!(loss, Some(Loss::Broken));
}

#[tokio::test]
async fn a_break_is_heard_although_reads_lag() {
    let memory = Memory::new();
    let (store, faults) = Faulty::new(Arc::new(memory.clone()));
    let session = open(store.clone(), 5_000).await;
    let guard = session.mutex("x").unwrap().lock().await.unwrap();
    while faults.streams("broken.") == 0 {
        tokio::task::yield_now().await;
    }
    let before = faults.snapshot().await.unwrap();
    for operation in [Operation::Entries, Operation::Entry] {
        let _ = faults.add(Rule::new(Fault::Stale(before.clone())).on(operation));
    }
    locks::break_hold(&memory, "x", guard.token()).await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(1), guard.lost()).await;
    assert_eq!(lost.expect("the holder was not told"), Loss::Broken);
}

#[tokio::test]
async fn a_break_is_heard_although_the_answer_to_an_earlier_look_is_lost() {
    let memory = Memory::new();
    let (store, faults) = Faulty::new(Arc::new(memory.clone()));
    let session = open(store.clone(), 1_000).await;
    let first = session.mutex("x").unwrap().lock().await.unwrap();
    let second = session.mutex("y").unwrap().lock().await.unwrap();
    while faults.streams("broken.") == 0 {
        tokio::task::yield_now().await;
    }
    let unanswered = faults.add(Rule::new(Fault::HoldAfter).on(Operation::Entries));
    locks::break_hold(&memory, "x", first.token()).await.unwrap();
    assert_eq!(tokio::time::timeout(Duration::from_secs(1), first.lost()).await.expect("not told of the first"), Loss::Broken);
    tokio::time::timeout(Duration::from_secs(5), unanswered.reached(1)).await.expect("nobody looked");
    locks::break_hold(&memory, "y", second.token()).await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(3), second.lost()).await;
    assert_eq!(lost.expect("not told of the second"), Loss::Broken);
}
