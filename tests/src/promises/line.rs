//! A bucket as one process reaches it: requests are counted, can go wrong, and are given up on after a
//! while, as every client of a network does.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tenure_kv::{
    Batch, Change, Entry, Error, Event, Info, Key, KeyRange, Moment, Notice, Page, Result, Revision, Since, Store,
    faults::{Active, Fault, Faults, Faulty, Operation, Partition, Request, Rule},
};

use super::support::{LONG, MS, now, until};

/// What a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Write {
    /// A ticket is put into a lock's queue.
    Ticket,
    /// A ticket is ended.
    End,
    /// A member's record is written.
    Join,
    /// A member's record is removed.
    Leave,
    /// The key of an election is written: won, or with what is proclaimed.
    Elect,
    /// The key of an election is ended.
    Resign,
    /// An office is handed to a candidate.
    Transfer,
    /// A candidate is listed.
    List,
    /// A candidate is listed no more.
    Unlist,
    /// A session is announced or renewed.
    Beat,
    /// A session is ended.
    Death,
}

impl Write {
    pub(super) const ALL: [Self; 11] = [
        Self::Ticket,
        Self::End,
        Self::Join,
        Self::Leave,
        Self::Elect,
        Self::Resign,
        Self::Transfer,
        Self::List,
        Self::Unlist,
        Self::Beat,
        Self::Death,
    ];

    fn of(request: &Request<'_>) -> Option<Self> {
        let Request::Commit(batch) = request else { return None };
        let op = batch.ops.first()?;
        match (op.key.tokens().next()?, matches!(op.change, Change::Put(..))) {
            ("lock", true) => Some(Self::Ticket),
            ("lock", false) => Some(Self::End),
            ("member", true) => Some(Self::Join),
            ("member", false) => Some(Self::Leave),
            ("election", true) => Some(Self::Elect),
            ("election", false) => Some(Self::Resign),
            ("candidate", true) => Some(Self::List),
            ("candidate", false) if batch.ops.len() > 1 => Some(Self::Transfer),
            ("candidate", false) => Some(Self::Unlist),
            ("session", true) => Some(Self::Beat),
            ("session", false) => Some(Self::Death),
            _ => None,
        }
    }

    fn rule(self, fault: Fault) -> Rule {
        Rule::new(fault).on(Operation::Commit).when(move |request| Self::of(request) == Some(self))
    }
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// Not applied, and said so.
    Refused,
    /// Not applied, and nobody knows.
    Vanishes,
    /// Applied, but the answer is lost, which shows after this long.
    Unanswered(Duration),
    /// Applied, and answered this much later.
    Slow(Duration),
    /// Given up on, and applied when [`Line::land`] is called.
    Late,
}

/// What has been asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// Every request but the renewals.
    pub(super) besides_beats: u64,
    pub(super) beats: u64,
    pub(super) reads: u64,
}

/// The way of one process to the bucket. Clones are the same way.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) store: Arc<dyn Store>,
    pub(super) faults: Faults,
    client: Arc<Client>,
    far_end: Arc<FarEnd>,
    counters: [Active; Write::ALL.len()],
    fates: Arc<Mutex<Vec<Active>>>,
    before: Arc<Mutex<Asked>>,
    beats: Arc<Mutex<Vec<Moment>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// A line to `store`.
    pub(super) fn to(store: Arc<dyn Store>) -> Self {
        let far_end = Arc::new(FarEnd { info: store.info().clone(), store: Mutex::new(store) });
        let (faulty, faults) = Faulty::new(far_end.clone());
        let beats = Arc::<Mutex<Vec<Moment>>>::default();
        let noted = beats.clone();
        faults.add(Rule::new(Fault::Count).on(Operation::Commit).when(move |request| {
            if Write::of(request) == Some(Write::Beat) {
                locked(&noted).push(now());
            }
            false
        }));
        let counters = Write::ALL.map(|write| faults.add(write.rule(Fault::Count)));
        let client = Arc::new(Client { faulty, patience: Mutex::new(Duration::from_secs(5)), open: AtomicUsize::new(0) });
        Self { store: client.clone(), faults, client, far_end, counters, fates: Arc::default(), before: Arc::default(), beats }
    }

    /// Nothing passes any more until [`mend`](Self::mend).
    pub(super) fn cut(&self, partition: Partition) {
        self.faults.partition(partition);
    }

    pub(super) fn mend(&self) {
        self.faults.heal();
    }

    /// Leads to another store from now on.
    pub(super) fn lead_to(&self, store: Arc<dyn Store>) {
        *locked(&self.far_end.store) = store;
        self.faults.cut("");
    }

    /// Requests are given up on after this long; 5 s unless told.
    pub(super) fn give_up_after(&self, patience: Duration) {
        *locked(&self.client.patience) = patience;
    }

    /// The next `times` writes of this kind come to this.
    pub(super) fn fate(&self, write: Write, times: u64, fate: Fate) {
        let faults = match fate {
            Fate::Refused => vec![Fault::FailBefore],
            Fate::Vanishes => vec![Fault::Lose],
            Fate::Slow(after) => vec![Fault::DelayAfter(after)],
            Fate::Unanswered(after) => vec![Fault::DelayAfter(after), Fault::FailAfter],
            Fate::Late => {
                self.give_up_after(100 * MS);
                vec![Fault::HoldBefore]
            }
        };
        let rules = faults.into_iter().map(|fault| self.faults.add(write.rule(fault).times(times)));
        locked(&self.fates).extend(rules);
    }

    /// No write has a fate any more; those held back are applied. Returns when they are.
    pub(super) async fn land(&self) {
        for rule in std::mem::take(&mut *locked(&self.fates)) {
            rule.clear();
        }
        self.give_up_after(Duration::from_secs(5));
        self.faults.settle().await;
    }

    /// Every request takes a moment on its way there and on its way back.
    pub(super) fn slow_down(&self) {
        self.faults.add(Rule::new(Fault::DelayBefore(MS)));
        self.faults.add(Rule::new(Fault::DelayAfter(MS)));
    }

    /// Counts the writes of this kind from now on.
    pub(super) fn count(&self, write: Write) -> Active {
        self.faults.add(write.rule(Fault::Count))
    }

    /// Resolves when `count` more writes of this kind have been asked for.
    pub(super) async fn after(&self, count: u64, write: Write) {
        self.count(write).reached(count).await;
    }

    /// Whether all that was asked for has been answered, or given up.
    pub(super) fn is_answered(&self) -> bool {
        self.client.open.load(Ordering::SeqCst) == 0
    }

    /// Resolves when the next renewal has been answered.
    pub(super) async fn renewed(&self) {
        self.after(1, Write::Beat).await;
        until(LONG, "the renewal is answered", || async { self.is_answered().then_some(()) }).await;
    }

    /// Counts the looks at who is waited for. One who waits then asks for nothing more, until it is told something.
    pub(super) fn looks(&self) -> Active {
        self.faults.add(Rule::new(Fault::Count).on(Operation::Entries).under("session."))
    }

    /// What has been asked for since the last call.
    pub(super) fn take_asked(&self) -> Asked {
        let beats = Write::ALL.iter().zip(&self.counters).find(|(write, _)| **write == Write::Beat).map_or(0, |(_, c)| c.hits());
        let reads = [Operation::Entry, Operation::Entries, Operation::Scan].map(|operation| self.faults.count(operation));
        let sum = Asked { besides_beats: self.faults.requests() - beats, beats, reads: reads.iter().sum() };
        let before = std::mem::replace(&mut *locked(&self.before), sum);
        Asked {
            besides_beats: sum.besides_beats - before.besides_beats,
            beats: sum.beats - before.beats,
            reads: sum.reads - before.reads,
        }
    }

    /// When the announcement and the renewals came by on their way to the store.
    pub(super) fn beats(&self) -> Vec<Moment> {
        locked(&self.beats).clone()
    }

    /// How many others use the store of this line.
    pub(super) fn users(&self) -> usize {
        // This line has it twice.
        Arc::strong_count(&self.client) - 2
    }
}

/// A client that gives up.
struct Client {
    faulty: Arc<Faulty>,
    patience: Mutex<Duration>,
    /// How many requests wait for their answer.
    open: AtomicUsize,
}

/// One more request waits, until this is dropped.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn new(open: &'a AtomicUsize) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Client {
    async fn ask<T>(&self, answer: impl Future<Output = Result<T>>, given_up: Error) -> Result<T> {
        let _open = Open::new(&self.open);
        let patience = *locked(&self.patience);
        tokio::time::timeout(patience, answer).await.unwrap_or(Err(given_up))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faulty.fmt(f)
    }
}

fn unanswered_read() -> Error {
    Error::unavailable("a read was not answered")
}

#[async_trait]
impl Store for Client {
    fn info(&self) -> &Info {
        self.faulty.info()
    }

    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.ask(self.faulty.bucket(name), unanswered_read()).await
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.ask(self.faulty.entry(key), unanswered_read()).await
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        self.ask(self.faulty.entries(keys), unanswered_read()).await
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.ask(self.faulty.scan(range, from, limit), unanswered_read()).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.ask(self.faulty.commit(batch), Error::unknown("a write was not answered")).await
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.ask(self.faulty.watch(range, since), unanswered_read()).await
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        self.ask(self.faulty.follow(key), unanswered_read()).await
    }
}

/// Where a line ends, which can be somewhere else tomorrow.
#[derive(Debug)]
struct FarEnd {
    info: Info,
    store: Mutex<Arc<dyn Store>>,
}

impl FarEnd {
    fn now(&self) -> Arc<dyn Store> {
        locked(&self.store).clone()
    }
}

#[async_trait]
impl Store for FarEnd {
    fn info(&self) -> &Info {
        &self.info
    }

    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.now().bucket(name).await
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.now().entry(key).await
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        self.now().entries(keys).await
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        self.now().scan(range, from, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.now().commit(batch).await
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.now().watch(range, since).await
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        self.now().follow(key).await
    }
}
