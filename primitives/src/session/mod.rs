//! Liveness: one lease, renewed by one task, for everything a process holds.

mod broken;
mod bucket;
mod builder;
mod floors;
mod heights;
mod observer;
mod patient;
mod renewal;
mod renewals;
mod sightings;
mod stuck;
pub(crate) mod timing;
mod traces;
mod validity;
mod withdrawal;
mod witness;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tenure_kv::{Clock, Key, Moment, Revision, Store};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    builder::SessionBuilder,
    renewals::Renewals,
    timing::{MAX_LEASE, MIN_LEASE},
};
pub(crate) use self::{
    floors::{Floor, Floors},
    observer::{Vigil, Wake, Watched},
    stuck::Pauses,
    traces::Traces,
    withdrawal::{Ended, Leaving, why_ended},
};
use self::{sightings::Sightings, stuck::Stuck, validity::Validity, witness::Witness};
use crate::{Election, Group, Loss, Mutex, Result, janitor, mutex::Lines, record::TicketRecord};

/// Whether a session can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Renewed in time.
    Held,
    /// A renewal was not answered, or the deadline has passed. Not lost yet.
    Suspect,
    /// Suspect before; then a renewal succeeded, which proves that nobody was granted in between.
    Restored,
    /// Over for good.
    Lost(Loss),
}

/// A lease on being alive. Cheap to clone; the last clone dropped ends it.
///
/// A session is one key in the bucket, renewed every third of the lease by a task of its own, however
/// many locks it holds. A renewal counts from the moment before it was sent, on a clock that counts
/// suspend; whoever waits for this session may end it only after a longer silence on its own clock.
/// So at no moment do two sessions rely on the same lock, however far a process is paused or cut off.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = tenure_kv::open("memory:").await?;
/// let session = tenure::Session::open(store).await?;
/// let guard = session.mutex("nightly-report")?.lock().await?;
/// println!("holding with fencing token {}", guard.token());
/// guard.release().await?;
/// session.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
    // Tasks hold `inner`; only handles hold this, and the last of them stops the tasks.
    _owner: Arc<Owner>,
}

struct Owner(CancellationToken);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    /// The same store, for what must not wait for a lost answer.
    pub(crate) patient: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) id: String,
    key: Key,
    pub(crate) lease: Duration,
    pub(crate) owner: TicketRecord,
    pub(crate) epoch: String,
    pub(crate) witness: Arc<Witness>,
    pub(crate) validity: Validity,
    known: bucket::Known,
    /// How many outages the store had had when the session was opened.
    outages: u64,
    states: watch::Sender<SessionState>,
    sightings: StdMutex<Sightings>,
    tickets: AtomicU64,
    holds: StdMutex<BTreeMap<Key, Held>>,
    pub(crate) floors: Floors,
    pub(crate) traces: Traces,
    /// After how many outages the session was renewed last: changes where what one server has has to be looked at again.
    outlived: watch::Sender<u64>,
    renewals: Arc<Renewals>,
    /// Renew now.
    hurry: Notify,
    pub(crate) lines: Lines,
    /// The keys of this session's members, and which of them has it.
    seats: StdMutex<HashMap<Key, String>>,
    stuck: Stuck,
    /// It is a candidate for janitor.
    candidate: AtomicBool,
    pub(crate) stop: CancellationToken,
    tasks: TaskTracker,
    runtime: Handle,
}

/// A ticket that somebody waits or holds by.
struct Held {
    ended: Weak<watch::Sender<Option<Loss>>>,
    /// Where it is, once it was granted.
    token: Option<Revision>,
}

impl Session {
    /// Opens a session with the store's default lease: 5 s, or 15 s where several servers keep copies.
    ///
    /// # Errors
    /// As [`SessionBuilder::open`].
    ///
    /// # Cancel safety
    /// As [`SessionBuilder::open`].
    pub async fn open(store: Arc<dyn Store>) -> Result<Self> {
        Self::builder(store).open().await
    }

    /// Options for a session in `store`.
    pub fn builder(store: Arc<dyn Store>) -> SessionBuilder {
        SessionBuilder::new(store)
    }

    /// The session's id, random and never used again.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The length of the lease.
    pub fn lease(&self) -> Duration {
        self.inner.lease
    }

    /// The id of this incarnation of the bucket. Fencing tokens grow within one epoch.
    pub fn epoch(&self) -> &str {
        &self.inner.epoch
    }

    /// The store it lives in.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The state now.
    pub fn state(&self) -> SessionState {
        *self.inner.states.borrow()
    }

    /// The state now and every later one; a slow reader sees the latest.
    pub fn states(&self) -> watch::Receiver<SessionState> {
        self.inner.states.subscribe()
    }

    /// Whether the lease is valid at this moment. True means that nobody else can have been granted
    /// what this session holds.
    pub fn is_held(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// How long the lease is valid if no renewal succeeds from now on; zero when it is not.
    pub fn remaining(&self) -> Duration {
        self.inner.validity.remaining(&*self.inner.clock)
    }

    /// How long ago the last renewal that is known to have been applied was sent.
    pub fn renewed_ago(&self) -> Duration {
        // The deadline is so long after that renewal was sent.
        let validity = timing::validity(self.inner.lease);
        (self.inner.clock.now() + validity).saturating_since(self.inner.validity.deadline())
    }

    /// Resolves when the session is lost.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub fn lost(&self) -> impl Future<Output = Loss> + Send + 'static {
        self.inner.lost()
    }

    /// The lock called `name`: letters, digits, `-`, `/`, `_`, `=`, and single dots between tokens.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the name breaks these rules.
    pub fn mutex(&self, name: &str) -> Result<Mutex> {
        Mutex::new(self, name)
    }

    /// The election called `name`, named like a lock.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the name breaks the rules of [`Session::mutex`].
    pub fn election(&self, name: &str) -> Result<Election> {
        Election::new(self, name)
    }

    /// The group called `name`, named like a lock.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the name breaks the rules of [`Session::mutex`].
    pub fn group(&self, name: &str) -> Result<Group> {
        Group::new(self, name, janitor::start)
    }

    /// Ends the session: everything it holds is invalid at once, and free for others when this returns.
    ///
    /// # Errors
    /// None today; a store that is out of reach frees everything when the lease has run out.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the end.
    pub async fn close(&self) -> Result<()> {
        self.inner.lose(Loss::Closed);
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        Ok(())
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// A handle for the session's own tasks, which does not keep it open.
    pub(crate) fn unowned(inner: Arc<Inner>) -> Self {
        Self { inner, _owner: Arc::new(Owner(CancellationToken::new())) }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.inner.id).field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn lost(self: &Arc<Self>) -> impl Future<Output = Loss> + Send + 'static {
        let mut states = self.states.subscribe();
        // The sender must outlive the wait.
        let inner = self.clone();
        async move {
            loop {
                if let SessionState::Lost(loss) = *states.borrow_and_update() {
                    return loss;
                }
                if states.changed().await.is_err() {
                    return inner.validity.lost().unwrap_or(Loss::Closed);
                }
            }
        }
    }

    pub(crate) fn lose(&self, loss: Loss) {
        let loss = self.validity.lose(loss);
        self.states.send_if_modified(|state| {
            let news = !matches!(state, SessionState::Lost(_));
            if news {
                *state = SessionState::Lost(loss);
                if loss != Loss::Closed {
                    tracing::warn!(session = %self.id, %loss, "session lost");
                }
            }
            news
        });
    }

    /// The store was out of reach, or the deadline has passed.
    fn suspect(&self) {
        locked(&self.sightings).clear();
        self.states.send_if_modified(|state| {
            let news = matches!(state, SessionState::Held | SessionState::Restored);
            if news {
                *state = SessionState::Suspect;
            }
            news
        });
    }

    /// A renewal that was `sent`, or looked for, after so many `outages` stands at `revision`.
    fn renewed(&self, outages: u64, revision: Revision, sent: Moment) {
        self.known.renewed(sent);
        let late = self.validity.renewed(&*self.clock, sent + timing::validity(self.lease));
        if late {
            locked(&self.sightings).clear();
        }
        locked(&self.sightings).saw(outages, revision, self.clock.now());
        self.states.send_if_modified(|state| {
            let news = state.is_suspect() || (late && matches!(state, SessionState::Held | SessionState::Restored));
            if news {
                *state = SessionState::Restored;
            }
            news
        });
    }

    /// Since when at the latest whoever wrote `revision` last has written nothing, if this is the same bucket still:
    /// see [`is_same_bucket`](Self::is_same_bucket) before that is acted on.
    pub(crate) fn silent_since(&self, revision: Revision) -> Option<Moment> {
        locked(&self.sightings).silent_since(self.store.outages(), revision)
    }

    pub(crate) fn next_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn holding(&self, ticket: &Key, ended: &Arc<watch::Sender<Option<Loss>>>) {
        locked(&self.holds).insert(ticket.clone(), Held { ended: Arc::downgrade(ended), token: None });
    }

    /// The ticket was granted.
    pub(crate) fn granted(&self, ticket: &Key, token: Revision) {
        if let Some(held) = locked(&self.holds).get_mut(ticket) {
            held.token = Some(token);
        }
    }

    /// Its holder is about to end the ticket: from here on it may be gone, and its tombstone forgotten.
    pub(crate) fn giving_up(&self, ticket: &Key) {
        if let Some(held) = locked(&self.holds).get_mut(ticket) {
            held.token = None;
        }
    }

    /// The ticket was granted, and its holder has not begun to give it up.
    pub(crate) fn is_granted(&self, ticket: &Key) -> bool {
        locked(&self.holds).get(ticket).is_some_and(|held| held.token.is_some())
    }

    /// The tickets that were granted, and where they are.
    pub(crate) fn granted_tickets(&self) -> Vec<(Key, Revision)> {
        locked(&self.holds).iter().filter_map(|(ticket, held)| Some((ticket.clone(), held.token?))).collect()
    }

    pub(crate) fn let_go(&self, ticket: &Key) {
        locked(&self.holds).remove(ticket);
    }

    /// Changes after each outage of the one server that keeps the bucket, once a renewal has shown that the session lives.
    pub(crate) fn outlived(&self) -> watch::Receiver<u64> {
        self.outlived.subscribe()
    }

    /// Takes the place of the member `key` for `who`. False when another member of this session has it.
    pub(crate) fn take_seat(&self, key: &Key, who: &str) -> bool {
        let mut seats = locked(&self.seats);
        let free = !seats.contains_key(key);
        if free {
            seats.insert(key.clone(), who.to_owned());
        }
        free
    }

    pub(crate) fn give_up_seat(&self, key: &Key, who: &str) {
        let mut seats = locked(&self.seats);
        if seats.get(key).is_some_and(|known| known == who) {
            seats.remove(key);
        }
    }

    /// True the first time it is asked.
    pub(crate) fn becomes_candidate(&self) -> bool {
        !self.candidate.swap(true, Ordering::Relaxed)
    }

    /// The state now and every later one.
    pub(crate) fn states(&self) -> watch::Receiver<SessionState> {
        self.states.subscribe()
    }

    fn held_tickets(&self) -> Vec<Key> {
        locked(&self.holds).keys().cloned().collect()
    }

    pub(crate) fn end_hold(&self, ticket: &Key, loss: Loss) {
        if let Some(ended) = locked(&self.holds).remove(ticket).and_then(|held| held.ended.upgrade()) {
            ended.send_if_modified(|slot| {
                let news = slot.is_none();
                slot.get_or_insert(loss);
                news
            });
        }
    }

    /// Runs `task` under the session's ownership: joined when the session is closed.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("id", &self.id).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
