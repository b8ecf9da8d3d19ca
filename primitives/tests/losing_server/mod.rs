//! A server that loses its last writes, and others that go on there.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tenure::{Session, SessionBuilder};
use tenure_kv::{
    Batch, Entry, Event, Info, Key, KeyRange, Memory, Notice, Page, Result, Revision, Since, State, Store, StoreExt,
};
use tokio::sync::watch;

pub(crate) const LONG: Duration = Duration::from_secs(20);
pub(crate) const LEASE: Duration = Duration::from_millis(1_500);

/// A server that can lose its last writes.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) memory: RwLock<Memory>,
    /// Everything committed.
    pub(crate) log: Mutex<Vec<Batch>>,
    pub(crate) outages: AtomicU64,
    /// The next commit is lost.
    pub(crate) mute: AtomicBool,
    info: Info,
    /// Moves with each set-back.
    pasts: watch::Sender<()>,
    me: Weak<Self>,
}

impl Server {
    /// One server, or several that are all set back at once.
    pub(crate) fn of(replicas: u16) -> Arc<Self> {
        Self::with(Info { replicas, ..Memory::new().info().clone() })
    }

    pub(crate) fn with(info: Info) -> Arc<Self> {
        let memory = Memory::new();
        Arc::new_cyclic(|me| Self {
            memory: RwLock::new(memory),
            log: Mutex::default(),
            outages: AtomicU64::new(0),
            mute: AtomicBool::new(false),
            info,
            pasts: watch::Sender::new(()),
            me: me.clone(),
        })
    }

    pub(crate) fn now(&self) -> Memory {
        self.memory.read().unwrap().clone()
    }

    /// A moment to go back to.
    pub(crate) fn moment(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// Loses all that was written after `moment`, and returns how far that had got.
    pub(crate) async fn go_back(&self, moment: usize) -> Revision {
        let last = self.height().await;
        let memory = Memory::new();
        let kept: Vec<Batch> = self.log.lock().unwrap().drain(..).take(moment).collect();
        for batch in &kept {
            memory.commit(batch.clone()).await.unwrap();
        }
        *self.log.lock().unwrap() = kept;
        *self.memory.write().unwrap() = memory;
        self.pasts.send_replace(());
        self.outages.fetch_add(1, Ordering::AcqRel);
        assert!(self.height().await < last, "there was nothing to lose");
        last
    }

    /// Others write on until the revisions are where they had been, before those who were there are heard again.
    pub(crate) async fn overtake(&self, last: Revision) {
        while self.height().await <= last {}
    }

    pub(crate) async fn lose_what_came_after(&self, moment: usize) {
        let last = self.go_back(moment).await;
        self.overtake(last).await;
    }

    /// Writes, and returns where.
    pub(crate) async fn height(&self) -> Revision {
        self.put(&Key::new("data.other").unwrap(), "x").await.unwrap()
    }
}

#[async_trait]
impl Store for Server {
    fn info(&self) -> &Info {
        &self.info
    }
    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.now().bucket(name).await
    }
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.now().entry(key).await
    }
    async fn commit(&self, batch: Batch) -> Result<Revision> {
        if self.mute.swap(false, Ordering::AcqRel) {
            return Err(tenure_kv::Error::unknown("nobody answers"));
        }
        let revision = self.now().commit(batch.clone()).await?;
        self.log.lock().unwrap().push(batch);
        Ok(revision)
    }
    fn outages(&self) -> u64 {
        self.outages.load(Ordering::Acquire)
    }
    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        let events = self.now().watch(range.clone(), since).await?;
        if self.info.replicas <= 1 {
            // Where one server keeps the bucket a watch notices that, and ends.
            let mut pasts = self.pasts.subscribe();
            return Ok(events.take_until(async move { pasts.changed().await }).boxed());
        }
        let watched = Watched {
            server: self.me.upgrade().unwrap(),
            pasts: self.pasts.subscribe(),
            range,
            events,
            told: Revision::ZERO,
            live: HashSet::new(),
            unseen: HashSet::new(),
            gone: VecDeque::new(),
            caught_up: false,
        };
        Ok(stream::unfold(watched, |mut watched| async move { watched.next().await.map(|event| (event, watched)) }).boxed())
    }
    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.now().scan(range, from, limit).await
    }
    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        let notices = self.now().follow(key).await?;
        if self.info.replicas <= 1 {
            return Ok(notices);
        }
        let followed = (self.me.upgrade().unwrap(), self.pasts.subscribe(), key.clone(), notices);
        Ok(stream::unfold(followed, |(server, mut pasts, key, mut notices)| async move {
            let notice = tokio::select! {
                biased;
                _ = pasts.changed() => {
                    notices = server.now().follow(&key).await.unwrap();
                    Notice::Reconnected
                }
                notice = notices.next() => notice?,
            };
            Some((notice, (server, pasts, key, notices)))
        })
        .boxed())
    }
}

/// A watch of several servers, which goes on after they were set back from where it was.
struct Watched {
    server: Arc<Server>,
    pasts: watch::Receiver<()>,
    range: KeyRange,
    events: BoxStream<'static, Result<Event>>,
    /// How far it had come; what is below is taken for known.
    told: Revision,
    live: HashSet<Key>,
    /// What was live and was not told of again since.
    unseen: HashSet<Key>,
    gone: VecDeque<Key>,
    caught_up: bool,
}

impl Watched {
    async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(key) = self.gone.pop_front() {
                self.live.remove(&key);
                let entry = Entry { key, revision: self.told, state: State::Expired, created: SystemTime::now() };
                return Some(Ok(Event::Entry(entry)));
            }
            tokio::select! {
                biased;
                _ = self.pasts.changed() => {
                    self.events = self.server.now().watch(self.range.clone(), Since::Current).await.unwrap();
                    self.unseen = self.live.clone();
                    return Some(Ok(Event::Gap));
                }
                event = self.events.next() => match event? {
                    Ok(Event::Entry(entry)) => {
                        self.unseen.remove(&entry.key);
                        if entry.revision > self.told {
                            self.told = entry.revision;
                            if entry.is_live() { self.live.insert(entry.key.clone()) } else { self.live.remove(&entry.key) };
                            return Some(Ok(Event::Entry(entry)));
                        }
                    }
                    Ok(Event::CaughtUp) => {
                        self.gone.extend(self.unseen.drain());
                        if !std::mem::replace(&mut self.caught_up, true) {
                            return Some(Ok(Event::CaughtUp));
                        }
                    }
                    event => return Some(event),
                }
            }
        }
    }
}

/// Another process's handle of the same server.
#[derive(Debug)]
pub(crate) struct Other(Arc<Server>);

#[async_trait]
impl Store for Other {
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
        self.0.follow(key).await
    }
}

pub(crate) fn builder(server: &Arc<Server>) -> SessionBuilder {
    Session::builder(server.clone()).lease(LEASE)
}

pub(crate) async fn other(server: &Arc<Server>) -> Session {
    Session::builder(Arc::new(Other(server.clone()))).lease(LEASE).open().await.unwrap()
}

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}
