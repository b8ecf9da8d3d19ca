//! A [`Store`] that misbehaves on command: [`Faulty`] wraps any store, [`Faults`] says what goes wrong.
//!
//! Everything a network and a failing server do to a client can be asked for: a request that is lost,
//! an answer that is lost after the write was applied, a write that lands long after its caller gave up,
//! reads from a replica that is behind, a partition, a watch that is cut. What is told stays within the
//! contract of [`Store`]: a faulty store is a store, only an unlucky one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> tenure_kv::Result<()> {
//! use tenure_kv::{Key, StoreExt, faults::{Fault, Faulty, Operation, Rule}};
//!
//! let (store, faults) = Faulty::new(tenure_kv::open("memory:").await?);
//! let key = Key::new("lock.a")?;
//! let lost = faults.add(Rule::new(Fault::FailAfter).on(Operation::Commit).under("lock.").once());
//! assert!(store.create(&key, "mine").await.unwrap_err().is_unknown());
//! assert_eq!(lost.hits(), 1);
//! assert!(store.get(&key).await?.is_some(), "it was applied all the same");
//! assert_eq!(faults.count(Operation::Commit), 1);
//! # Ok(()) }
//! ```

mod rules;
mod snapshot;
mod streams;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    rules::{Active, Fault, Operation, Request, Rule},
    snapshot::Snapshot,
};
use self::{
    rules::{Plan, Verdict},
    streams::Line,
};
use crate::{Batch, Beside, Entry, Error, Event, Info, Key, KeyRange, Notice, Page, Result, Revision, Since, Store};

/// How a store is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Requests are answered [`Error::Unavailable`] at once; one already on its way ends as a write of
    /// unknown outcome.
    Refuse,
    /// Requests wait for the end of the partition. A commit lands then, even if its caller has given up.
    HoldRequests,
    /// Requests arrive and commits are applied; the answers wait for the end of the partition.
    HoldAnswers,
}

/// A store that passes everything on to another one, except where its [`Faults`] say otherwise.
///
/// Watches and notices tell nothing during a partition and heal after it, as the contract demands.
pub struct Faulty {
    wire: Wire,
    shared: Arc<Shared>,
}

/// Says what goes wrong in a [`Faulty`] store, and counts what is asked of it. Cheap to clone.
#[derive(Clone)]
pub struct Faults {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
}

struct Shared {
    rules: Mutex<Vec<Active>>,
    random: Mutex<fastrand::Rng>,
    counts: [AtomicU64; Operation::ALL.len()],
    partition: watch::Sender<Option<Partition>>,
    lines: Mutex<Vec<Weak<Line>>>,
    /// The writes that land late: owned here, not by the callers that gave up on them.
    late: TaskTracker,
    end: CancellationToken,
    outages: AtomicU64,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Shared {
    fn plan(&self, request: Request<'_>) -> Plan {
        self.counts[request.operation() as usize].fetch_add(1, Ordering::Relaxed);
        let mut plan = Plan::default();
        let mut random = lock(&self.random);
        for rule in lock(&self.rules).iter() {
            rule.apply(request, &mut random, &mut plan);
        }
        plan
    }

    /// Every watch and follower that is still held by somebody and lies under `prefix`.
    fn lines(&self, prefix: &str) -> Vec<Arc<Line>> {
        let mut lines = lock(&self.lines);
        lines.retain(|line| line.strong_count() > 0);
        lines.iter().filter_map(Weak::upgrade).filter(|line| line.lies_under(prefix)).collect()
    }
}

impl Faulty {
    /// Wraps `store`; nothing goes wrong until the handle says so.
    pub fn new(store: Arc<dyn Store>) -> (Arc<Self>, Faults) {
        Self::seeded(store, 0)
    }

    /// As [`new`](Self::new), with a seed for the rules that apply by chance.
    pub fn seeded(store: Arc<dyn Store>, seed: u64) -> (Arc<Self>, Faults) {
        let (partition, _) = watch::channel(None);
        let late = TaskTracker::new();
        late.close();
        let wire = Wire { store: store.clone(), partition: partition.subscribe() };
        let shared = Arc::new(Shared {
            rules: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            counts: Default::default(),
            partition,
            lines: Mutex::default(),
            late,
            end: CancellationToken::new(),
            outages: AtomicU64::new(0),
        });
        (Arc::new(Self { wire, shared: shared.clone() }), Faults { store, shared })
    }

    /// A read: its request, the read itself, its answer, each with what goes wrong there.
    async fn read<T>(&self, plan: Plan, what: &str, read: impl Future<Output = Result<T>>) -> Result<T> {
        self.wire.clone().arrive(&plan).await?;
        let answer = match plan.verdict {
            Verdict::FailBefore | Verdict::Lose => Err(Error::unavailable(format!("{what} failed before it was sent"))),
            Verdict::FailAfter => {
                read.await?;
                Err(Error::unavailable(format!("the answer to {what} was lost")))
            }
            Verdict::Pass => read.await,
        };
        match self.wire.clone().answer(&plan).await {
            Ok(()) => answer,
            Err(error) => Err(error),
        }
    }
}

impl Faults {
    /// Puts a rule into force. Rules are tried in the order they were added: their delays add up, and
    /// the first one that fails the request or makes it stale decides its end.
    pub fn add(&self, rule: Rule) -> Active {
        let active = Active::new(rule);
        lock(&self.shared.rules).push(active.clone());
        active
    }

    /// Takes every rule out of force; what they held goes on.
    pub fn clear(&self) {
        for rule in std::mem::take(&mut *lock(&self.shared.rules)) {
            rule.clear();
        }
    }

    /// Cuts the store off.
    pub fn partition(&self, partition: Partition) {
        self.shared.partition.send_replace(Some(partition));
    }

    /// Ends the partition: what was held goes on, watches and followers reconnect.
    pub fn heal(&self) {
        if self.shared.partition.send_replace(None).is_some() {
            self.cut("");
        }
    }

    /// Cuts every watch and follower under `prefix` and returns how many there were. They heal by
    /// themselves: a watch tells the last states of what it missed, a follower [`Notice::Reconnected`].
    pub fn cut(&self, prefix: &str) -> usize {
        self.shared.outages.fetch_add(1, Ordering::AcqRel);
        let lines = self.shared.lines(prefix);
        lines.iter().for_each(|line| line.cut());
        lines.len()
    }

    /// Ends every watch under `prefix` with [`Error::Unavailable`] and returns how many there were.
    pub fn end_watches(&self, prefix: &str) -> usize {
        let lines: Vec<_> = self.shared.lines(prefix).into_iter().filter(|line| line.operation == Operation::Watch).collect();
        lines.iter().for_each(|line| line.end());
        lines.len()
    }

    /// Lets every watch and follower that now is under `prefix` tell nothing until [`resume`](Self::resume);
    /// returns how many there are.
    pub fn pause(&self, prefix: &str) -> usize {
        let lines = self.shared.lines(prefix);
        lines.iter().for_each(|line| line.pause(true));
        lines.len()
    }

    /// Lets the watches and followers under `prefix` tell what they have kept back.
    pub fn resume(&self, prefix: &str) {
        self.shared.lines(prefix).iter().for_each(|line| line.pause(false));
    }

    /// How many watches and followers under `prefix` somebody holds.
    pub fn streams(&self, prefix: &str) -> usize {
        self.shared.lines(prefix).len()
    }

    /// How many requests of this kind were made, those that failed included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.shared.counts[operation as usize].load(Ordering::Relaxed)
    }

    /// How many requests of any kind were made.
    pub fn requests(&self) -> u64 {
        Operation::ALL.iter().map(|operation| self.count(*operation)).sum()
    }

    /// What the wrapped store holds now, for [`Fault::Stale`].
    ///
    /// # Errors
    /// As [`Store::watch`].
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::of(&*self.store).await
    }

    /// Resolves when no write is on its way any more. Clear the rules that hold writes, and heal the
    /// partition, first.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn settle(&self) {
        self.shared.late.wait().await;
    }
}

/// The way to the wrapped store.
#[derive(Clone)]
struct Wire {
    store: Arc<dyn Store>,
    partition: watch::Receiver<Option<Partition>>,
}

impl Wire {
    /// The request arrives, late or not at all.
    async fn arrive(&mut self, plan: &Plan) -> Result<()> {
        plan.before.wait().await;
        loop {
            match *self.partition.borrow_and_update() {
                None | Some(Partition::HoldAnswers) => return Ok(()),
                Some(Partition::Refuse) => return Err(Error::unavailable("the store is cut off")),
                Some(Partition::HoldRequests) => {}
            }
            changed(&mut self.partition).await;
        }
    }

    /// The answer arrives, late or not at all.
    async fn answer(&mut self, plan: &Plan) -> Result<()> {
        plan.after.wait().await;
        loop {
            match *self.partition.borrow_and_update() {
                None => return Ok(()),
                Some(Partition::Refuse) => return Err(Error::unavailable("the store was cut off before it answered")),
                Some(Partition::HoldRequests | Partition::HoldAnswers) => {}
            }
            changed(&mut self.partition).await;
        }
    }

    async fn commit(mut self, plan: Plan, batch: Batch) -> Result<Revision> {
        self.arrive(&plan).await?;
        let outcome = match plan.verdict {
            Verdict::FailBefore => Err(Error::unavailable("the write failed before it was sent")),
            Verdict::Lose => Err(Error::unknown("the write was lost on its way")),
            Verdict::FailAfter => match self.store.commit(batch).await {
                Ok(_) => Err(Error::unknown("the answer to the write was lost")),
                // A lost refusal looks like any other lost answer.
                Err(error) => Err(Error::unknown("the answer to the write was lost").caused_by(error)),
            },
            Verdict::Pass => self.store.commit(batch).await,
        };
        match self.answer(&plan).await {
            Ok(()) => outcome,
            Err(error) => Err(Error::unknown("the store was cut off before it answered the write").caused_by(error)),
        }
    }
}

#[async_trait]
impl Store for Faulty {
    fn info(&self) -> &Info {
        self.wire.store.info()
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        let plan = self.shared.plan(Request::Entry(key));
        let stale = plan.stale.clone();
        let read = async {
            match stale {
                Some(snapshot) => Ok(snapshot.entry(key)),
                None => self.wire.store.entry(key).await,
            }
        };
        self.read(plan, "a read", read).await
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let plan = self.shared.plan(Request::Entries(keys));
        let stale = plan.stale.clone();
        let read = async {
            match stale {
                Some(snapshot) => Ok(keys.iter().map(|key| snapshot.entry(key)).collect()),
                None => self.wire.store.entries(keys).await,
            }
        };
        self.read(plan, "a read", read).await
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        let plan = self.shared.plan(Request::Scan(range));
        let stale = plan.stale.clone();
        let read = async {
            match stale {
                Some(snapshot) => Ok(snapshot.scan(range, from, limit)),
                None => self.wire.store.scan(range, from, limit).await,
            }
        };
        self.read(plan, "a scan", read).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        let plan = self.shared.plan(Request::Commit(&batch));
        // A client refuses these before it sends anything, so no fault can befall them.
        batch.validate()?;
        let held = *self.shared.partition.borrow() == Some(Partition::HoldRequests);
        let wire = self.wire.clone();
        if plan.before.is_none() && !held {
            return wire.commit(plan, batch).await;
        }
        let (send, receive) = oneshot::channel();
        let end = self.shared.end.clone();
        self.shared.late.spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                // The caller may have given up; the write landed all the same.
                outcome = wire.commit(plan, batch) => drop(send.send(outcome)),
            }
        });
        receive.await.unwrap_or_else(|_| Err(Error::unknown("the store is gone and the write with it, perhaps")))
    }

    fn outages(&self) -> u64 {
        self.wire.store.outages() + self.shared.outages.load(Ordering::Acquire)
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        let plan = self.shared.plan(Request::Watch(&range));
        let open = streams::watch(self.wire.clone(), range.clone(), since);
        let (line, stream) = self.read(plan, "a watch", open).await?;
        lock(&self.shared.lines).push(line);
        Ok(stream)
    }

    async fn bucket(&self, name: &str) -> Result<Beside> {
        self.wire.store.bucket(name).await
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        let plan = self.shared.plan(Request::Follow(key));
        let open = streams::follow(self.wire.clone(), key.clone());
        let (line, stream) = self.read(plan, "a follow", open).await?;
        lock(&self.shared.lines).push(line);
        Ok(stream)
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("store", &self.wire.store).finish_non_exhaustive()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("rules", &*lock(&self.shared.rules)).finish_non_exhaustive()
    }
}

/// Resolves at the next change; never, once nobody can make one.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending().await
    }
}

/// What is guarded here is consistent after every statement, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
