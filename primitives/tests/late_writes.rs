//! Writes that land long after their callers gave up on them must not leave a place in a queue behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tenure::Session;
use tenure_kv::{
    Batch, Change, Entry, Error, Event, HandClock, Info, Key, KeyRange, Memory, Notice, Page, Result, Revision, Since, Store,
};

/// A store that says of the first commits that create a ticket that their outcome is unknown, and lands them on command.
#[derive(Debug)]
struct Late {
    store: Memory,
    swallow: Mutex<usize>,
    swallowed: Mutex<Vec<Batch>>,
}

impl Late {
    fn new(store: Memory, count: usize) -> Arc<Self> {
        Arc::new(Self { store, swallow: Mutex::new(count), swallowed: Mutex::default() })
    }

    fn swallows(&self, batch: &Batch) -> bool {
        let [op] = batch.ops.as_slice() else { return false };
        let mut left = self.swallow.lock().unwrap();
        let yes = *left > 0 && op.key.under("lock").is_some() && matches!(op.change, Change::Put(..));
        if yes {
            *left -= 1;
            self.swallowed.lock().unwrap().push(batch.clone());
        }
        yes
    }

    /// Lands what was swallowed; whether the store takes it is its business.
    async fn land(&self) {
        let late: Vec<Batch> = self.swallowed.lock().unwrap().drain(..).collect();
        assert!(!late.is_empty(), "nothing was swallowed");
        for batch in late {
            let _ = self.store.commit(batch).await;
        }
    }

    async fn until_a_tombstone(&self, key: &Key) {
        until("a tombstone", async || self.store.entry(key).await.unwrap().is_some()).await;
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let came = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), came).await.unwrap_or_else(|_| panic!("{what} did not come"));
}

#[async_trait]
impl Store for Late {
    fn info(&self) -> &Info {
        self.store.info()
    }
    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.store.bucket(name).await
    }
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.store.entry(key).await
    }
    async fn commit(&self, batch: Batch) -> Result<Revision> {
        if self.swallows(&batch) {
            return Err(Error::unknown("no answer"));
        }
        self.store.commit(batch).await
    }
    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.store.watch(range, since).await
    }
    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        self.store.entries(keys).await
    }
    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.store.scan(range, from, limit).await
    }
    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        self.store.follow(key).await
    }
}

async fn open(store: &Arc<Late>) -> Session {
    Session::builder(store.clone()).lease(Duration::from_millis(300)).open().await.unwrap()
}

async fn is_free(store: &Arc<Late>) {
    let other = open(store).await;
    let got = other.mutex("x").unwrap().lock_timeout(Duration::from_secs(1)).await;
    got.expect("a ticket was left behind that nobody will ever end").release().await.unwrap();
}

fn first_ticket(session: &Session) -> Key {
    Key::new(format!("lock.x.{}-1", session.id())).unwrap()
}

#[tokio::test]
async fn a_ticket_that_lands_after_its_owner_gave_up_is_refused() {
    let store = Late::new(Memory::new(), 4);
    let session = open(&store).await;
    session.mutex("x").unwrap().lock().await.unwrap().release().await.unwrap();
    store.until_a_tombstone(&first_ticket(&session)).await;
    store.land().await;
    is_free(&store).await;
}

#[tokio::test]
async fn a_ticket_that_lands_after_every_lease_has_passed_is_refused() {
    let clock = HandClock::default();
    let store = Late::new(Memory::with_clock(Arc::new(clock.clone())), 4);
    let session = open(&store).await;
    session.mutex("x").unwrap().lock().await.unwrap().release().await.unwrap();
    store.until_a_tombstone(&first_ticket(&session)).await;
    // The session lives on; only the store's TTLs pass.
    let key = Key::new(format!("session.{}", session.id())).unwrap();
    let at = async || store.entry(&key).await.unwrap().unwrap().revision;
    for _ in 0..10 {
        let last = at().await;
        clock.advance(Duration::from_secs(1));
        until("a renewal", async || at().await != last).await;
    }
    store.land().await;
    is_free(&store).await;
}

#[tokio::test]
async fn a_ticket_that_lands_a_second_time_after_its_release_is_refused() {
    let clock = HandClock::default();
    let store = Late::new(Memory::with_clock(Arc::new(clock.clone())), 1);
    let session = open(&store).await;
    session.mutex("x").unwrap().lock().await.unwrap().release().await.unwrap();
    clock.advance(Duration::from_millis(1_500));
    store.land().await;
    is_free(&store).await;
}
