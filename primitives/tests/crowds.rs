//! Crowds of waiters whose watch of the queue fails them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use tenure::Session;
use tenure_kv::{
    Batch, Entry, Event, Info, Key, KeyRange, Memory, Notice, Page, Revision, Since, Store, StoreExt,
    faults::{Fault, Faulty, Operation, Partition, Rule},
};
use tokio::task::JoinSet;

const LOCK: &str = "crowd";
const WAITERS: usize = 12;

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

async fn session(store: Arc<dyn Store>, lease: Duration) -> Session {
    Session::builder(store).lease(lease).open().await.unwrap()
}

async fn tickets(store: &Memory) -> Vec<Entry> {
    store.list(&KeyRange::new("lock.crowd.>").unwrap()).await.unwrap()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// So many waiters of `session` that they are a crowd. Returns when they stand behind the one ticket that is there.
async fn queue_up(memory: &Memory, session: &Session) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..WAITERS {
        let mutex = session.mutex(LOCK).unwrap();
        tasks.spawn(async move { mutex.lock().await.unwrap().release().await.unwrap() });
    }
    until("the queue", async || tickets(memory).await.len() == WAITERS + 1).await;
    tasks
}

async fn all_served(mut tasks: JoinSet<()>) {
    soon("the turn of all", async {
        while let Some(served) = tasks.join_next().await {
            served.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn who_may_not_watch_the_queue_is_served_all_the_same() {
    let memory = Arc::new(Memory::new());
    let (store, faults) = Faulty::new(memory.clone());
    let refused = faults.add(Rule::new(Fault::FailBefore).on(Operation::Watch).under("lock."));
    let session = session(store, Duration::from_secs(30)).await;
    let guard = session.mutex(LOCK).unwrap().lock().await.unwrap();
    let tasks = queue_up(&memory, &session).await;
    guard.release().await.unwrap();
    all_served(tasks).await;
    assert!(refused.hits() > 0, "nobody has tried to watch");
}

#[tokio::test]
async fn a_crowd_hears_of_a_release_that_was_forgotten_while_it_was_cut_off() {
    let memory = Arc::new(Memory::new());
    let (store, faults) = Faulty::new(memory.clone());
    let lease = Duration::from_secs(60);
    let (holder, cut) = (session(memory.clone(), lease).await, session(store, lease).await);
    let guard = holder.mutex(LOCK).unwrap().lock().await.unwrap();
    let ticket = tickets(&memory).await[0].key.clone();
    let tasks = queue_up(&memory, &cut).await;
    until("the crowd's watch", async || faults.streams("lock") > 0).await;
    faults.partition(Partition::Refuse);
    guard.release().await.unwrap();
    until("the end of the tombstone", async || memory.entry(&ticket).await.unwrap().is_none()).await;
    faults.heal();
    all_served(tasks).await;
}

#[tokio::test]
async fn a_crowd_behind_the_dead_is_served_though_the_store_has_an_outage_meanwhile() {
    let memory = Arc::new(Memory::new());
    let (dying, gone) = Faulty::new(memory.clone());
    let (store, faults) = Faulty::new(memory.clone());
    let (holder, waits) = (session(dying, Duration::from_secs(2)).await, session(store, Duration::from_secs(30)).await);
    let _guard = holder.mutex(LOCK).unwrap().lock().await.unwrap();
    let tasks = queue_up(&memory, &waits).await;
    until("the crowd's watch of the holder", async || faults.streams("session") > 0).await;
    gone.partition(Partition::Refuse);
    faults.partition(Partition::Refuse);
    faults.heal();
    all_served(tasks).await;
    assert_eq!(tickets(&memory).await.len(), 0);
}

/// A store whose watches miss ends, or values, while it is deaf.
#[derive(Debug)]
struct Deaf {
    store: Memory,
    deaf: Arc<AtomicBool>,
    to_values: bool,
    /// How many values of tickets watches were told of.
    told: Arc<AtomicUsize>,
    /// How many states watches missed.
    missed: Arc<AtomicUsize>,
}

impl Deaf {
    fn new(deaf: bool, to_values: bool) -> Arc<Self> {
        let deaf = Arc::new(AtomicBool::new(deaf));
        Arc::new(Self { store: Memory::new(), deaf, to_values, told: Arc::default(), missed: Arc::default() })
    }
}

#[async_trait]
impl Store for Deaf {
    fn info(&self) -> &Info {
        self.store.info()
    }
    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.store.bucket(name).await
    }
    async fn entry(&self, key: &Key) -> tenure_kv::Result<Option<Entry>> {
        self.store.entry(key).await
    }
    async fn commit(&self, batch: Batch) -> tenure_kv::Result<Revision> {
        self.store.commit(batch).await
    }
    async fn watch(&self, range: KeyRange, since: Since) -> tenure_kv::Result<BoxStream<'static, tenure_kv::Result<Event>>> {
        let (deaf, to_values) = (self.deaf.clone(), self.to_values);
        let (told, missed) = (self.told.clone(), self.missed.clone());
        let events = self.store.watch(range, since).await?;
        let hears = move |event: &_| {
            let Ok(Event::Entry(entry)) = event else { return std::future::ready(true) };
            let misses = entry.is_live() == to_values && deaf.load(Ordering::SeqCst);
            if misses {
                missed.fetch_add(1, Ordering::SeqCst);
            } else if entry.is_live() && entry.key.under("lock").is_some() {
                told.fetch_add(1, Ordering::SeqCst);
            }
            std::future::ready(!misses)
        };
        Ok(events.filter(hears).boxed())
    }
    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> tenure_kv::Result<Page> {
        self.store.scan(range, from, limit).await
    }
    async fn follow(&self, key: &Key) -> tenure_kv::Result<BoxStream<'static, Notice>> {
        self.store.follow(key).await
    }
}

#[tokio::test]
async fn an_end_that_a_watch_never_tells_holds_a_crowd_up_for_a_lease_at_most() {
    let store = Deaf::new(false, false);
    let lease = Duration::from_secs(1);
    let (holder, waiting) = (session(store.clone(), lease).await, session(store.clone(), lease).await);
    let guard = holder.mutex(LOCK).unwrap().lock().await.unwrap();
    let tasks = queue_up(&store.store, &waiting).await;
    until("the crowd's view", async || store.told.load(Ordering::SeqCst) > WAITERS).await;
    store.deaf.store(true, Ordering::SeqCst);
    guard.release().await.unwrap();
    // Heard by the followers of those who came before there was a crowd.
    until("the end of the holder's ticket", async || tickets(&store.store).await.len() <= WAITERS).await;
    until("what the view misses", async || store.missed.load(Ordering::SeqCst) > 0).await;
    store.deaf.store(false, Ordering::SeqCst);
    all_served(tasks).await;
}

#[tokio::test]
async fn ending_the_tickets_of_the_dead_is_not_tried_without_pause() {
    let memory = Arc::new(Memory::new());
    let (store, faults) = Faulty::new(memory.clone());
    let (theirs, dying) = Faulty::new(memory.clone());
    let (victim, heir) = (session(theirs, Duration::from_millis(300)).await, session(store, Duration::from_secs(30)).await);
    let guard = victim.mutex(LOCK).unwrap().lock().await.unwrap();
    let tasks = queue_up(&memory, &heir).await;
    until("the crowd's watch", async || faults.streams("lock") > 0).await;
    let refused = faults.add(Rule::new(Fault::FailBefore).on(Operation::Commit).under("lock."));
    dying.partition(Partition::HoldRequests);
    soon("the first try", refused.reached(1)).await;
    let before = refused.hits();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tries = refused.hits() - before;
    refused.clear();
    all_served(tasks).await;
    assert!(tries <= 40, "{tries} tries in a second");
    drop(guard);
}

#[tokio::test]
async fn whose_ticket_a_watch_never_tells_does_not_lose_its_place() {
    let store = Deaf::new(true, true);
    let lease = Duration::from_secs(60);
    let (holder, waiting) = (session(store.clone(), lease).await, session(store.clone(), lease).await);
    let guard = holder.mutex(LOCK).unwrap().lock().await.unwrap();
    let tasks = queue_up(&store.store, &waiting).await;
    // All that the crowd's view hears is this end, which is later than every ticket: none seems to be there.
    guard.release().await.unwrap();
    all_served(tasks).await;
    assert!(tickets(&store.store).await.is_empty());
}
