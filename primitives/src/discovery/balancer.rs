//! The balancer: a group's live view on one side, picks on the other.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt};
use tenure_kv::{BootClock, Clock, Revision, Store};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{
    aside::Cooling,
    choose,
    picked::Picked,
    sticky::Sticky,
    table::{Slot, Table},
};
use crate::{Error, MemberEvent, MemberRecord, Result, membership, rendezvous, roster::Roster};

/// How [`Balancer::pick`] chooses among the instances that are available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// One after the other.
    RoundRobin,
    /// Any, each as likely.
    Random,
    /// The one with fewer requests under way, of two drawn at random: close to the best there is, and
    /// many clients that choose at once do not all choose the same.
    #[default]
    LeastLoaded,
    /// At random, as likely as it weighs.
    Weighted,
}

/// Options for a [`Balancer`].
#[derive(Clone, Debug)]
pub struct BalancerBuilder {
    strategy: Strategy,
    zone: Option<String>,
    cooling: Cooling,
    sticky_keys: usize,
    clock: Arc<dyn Clock>,
}

impl Default for BalancerBuilder {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            zone: None,
            cooling: Cooling { first: Duration::from_millis(500), longest: Duration::from_secs(30) },
            sticky_keys: 65_536,
            clock: Arc::new(BootClock),
        }
    }
}

impl BalancerBuilder {
    /// How [`Balancer::pick`] chooses; [`Strategy::LeastLoaded`] unless told.
    #[must_use]
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Prefers instances of `zone`; others stand in while none there is available.
    #[must_use]
    pub fn prefer_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// For how long an error keeps an instance away: `first` for the first, twice as long for each that follows
    /// without a success, `longest` at most. 500 ms and 30 s unless told.
    #[must_use]
    pub const fn set_aside_for(mut self, first: Duration, longest: Duration) -> Self {
        self.cooling = Cooling { first, longest };
        self
    }

    /// How many keys [`Balancer::pick_sticky`] remembers at least: 65,536 unless told. It keeps those that were
    /// asked for last, and up to twice as many.
    #[must_use]
    pub const fn sticky_keys(mut self, keys: usize) -> Self {
        self.sticky_keys = keys;
        self
    }

    /// Where time comes from; for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Follows `group`, and returns when everybody who is there is known.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong name and outside a Tokio runtime; [`Error::Unavailable`] when the store is
    /// out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn follow(self, store: &Arc<dyn Store>, group: &str) -> Result<Balancer> {
        let events = membership::watch(store, group).await?;
        self.follow_events(group, events.into_stream()).await
    }

    /// Follows the members that `events` tells of, wherever they come from: the daemon's socket, another discovery
    /// service, a fixed list. Returns at the first [`MemberEvent::CaughtUp`]. After an error, and at the end of the
    /// stream, picks go on among the members known last. `group` is for messages.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside a Tokio runtime; [`Error::Unavailable`] when the stream is over before it has
    /// caught up.
    ///
    /// # Cancel safety
    /// Safe to drop.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use futures::{StreamExt, stream};
    /// use tenure::{Instance, MemberEvent, MemberRecord, discovery::Balancer};
    /// use tenure_kv::Revision;
    ///
    /// let w1 = MemberRecord::new("w1", Revision::new(1), "fixed", Instance::at("10.0.0.7:8080"));
    /// let events = [MemberEvent::Insert(w1), MemberEvent::CaughtUp { revision: Revision::new(1) }];
    /// let events = stream::iter(events.map(Ok)).chain(stream::pending());
    /// let web = Balancer::builder().follow_events("web", events).await?;
    /// assert_eq!(web.pick()?.address(), "10.0.0.7:8080");
    /// # Ok(()) }
    /// ```
    pub async fn follow_events(
        self,
        group: impl Into<String>,
        events: impl Stream<Item = Result<MemberEvent>> + Send + 'static,
    ) -> Result<Balancer> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::invalid("a balancer needs a Tokio runtime"));
        }
        let shared = Arc::new(Shared {
            group: group.into(),
            strategy: self.strategy,
            cooling: self.cooling,
            clock: self.clock,
            zone: self.zone,
            table: RwLock::default(),
            turn: AtomicUsize::new(0),
            sticky: Mutex::new(Sticky::new(self.sticky_keys)),
            progress: watch::Sender::new(Progress::default()),
        });
        let task = AbortOnDropHandle::new(tokio::spawn(shared.clone().listen(events)));
        let mut progress = shared.progress.subscribe();
        let balancer = Balancer { shared, _task: Arc::new(task) };
        let told = progress.wait_for(|progress| progress.caught_up || progress.ended.is_some()).await;
        // A stream that has told all it will ever tell has done its part.
        if let Some(why) = told.ok().filter(|progress| !progress.caught_up).and_then(|progress| progress.ended.clone()) {
            return Err(Error::Unavailable { message: why, source: None });
        }
        Ok(balancer)
    }
}

/// Chooses an instance of a group for each request, without I/O. Cheap to clone; clones share everything.
///
/// Only instances that pass are chosen, or, while none does, those that warn: never one that is critical,
/// draining or in maintenance. An instance that a request failed on ([`Picked::failed`]) is set aside for a
/// while; while all are, the one that failed longest ago is used.
///
/// One task follows the group for all clones, and ends with the last of them. If the store ends the watch for good
/// (its bucket is gone), or the events end, picks go on among the members known last.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tenure::{Instance, Session, discovery::{Balancer, Strategy}};
///
/// let store = tenure_kv::open("memory:").await?;
/// let web = Balancer::builder().strategy(Strategy::RoundRobin).prefer_zone("eu-1a").follow(&store, "web").await?;
///
/// let session = Session::open(store).await?;
/// let member = session.group("web")?.join("w1", Instance::at("10.0.0.7:8080").zone("eu-1a")).await?;
/// let picked = web.wait_pick(Duration::from_secs(5)).await?;
/// println!("asking {}", picked.address());
/// picked.succeeded();
/// # member.leave().await?; session.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Balancer {
    shared: Arc<Shared>,
    // Only handles hold this; the last of them ends the task.
    _task: Arc<AbortOnDropHandle<()>>,
}

pub(super) struct Shared {
    group: String,
    strategy: Strategy,
    pub(super) cooling: Cooling,
    pub(super) clock: Arc<dyn Clock>,
    zone: Option<String>,
    table: RwLock<Arc<Table>>,
    turn: AtomicUsize,
    sticky: Mutex<Sticky>,
    progress: watch::Sender<Progress>,
}

/// How far the group's events have been taken in.
#[derive(Clone, Debug, Default)]
struct Progress {
    revision: Revision,
    caught_up: bool,
    /// Why nothing more will come.
    ended: Option<String>,
}

impl Balancer {
    /// A balancer that chooses by [`Strategy::LeastLoaded`] among the members of `group`.
    ///
    /// # Errors
    /// As [`BalancerBuilder::follow`].
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn follow(store: &Arc<dyn Store>, group: &str) -> Result<Self> {
        Self::builder().follow(store, group).await
    }

    /// Options for a balancer.
    pub fn builder() -> BalancerBuilder {
        BalancerBuilder::default()
    }

    /// An instance for a request, by the balancer's [`Strategy`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when nobody is available.
    pub fn pick(&self) -> Result<Picked> {
        self.pick_from(|shared, slots| {
            let any = |count: usize| fastrand::usize(..count);
            match shared.strategy {
                Strategy::RoundRobin => choose::in_turn(slots.len(), shared.turn.fetch_add(1, Ordering::Relaxed)),
                Strategy::Random => choose::at_random(slots.len(), any),
                Strategy::LeastLoaded => {
                    let load = |place: usize| slots.get(place).map_or(0, |slot: &Slot| slot.track.in_flight());
                    choose::less_loaded_of_two(slots.len(), load, any)
                }
                Strategy::Weighted => {
                    let weights = slots.iter().map(|slot| slot.member.instance.weight);
                    choose::by_weight(weights, |total| fastrand::u64(..total))
                }
            }
        })
    }

    /// The instance that owns `key` by rendezvous hashing, as likely as it weighs: all who know the same instances
    /// and have had no errors agree on it, and a change of one instance moves no more keys than it must.
    ///
    /// # Errors
    /// As [`Balancer::pick`].
    pub fn pick_for(&self, key: impl AsRef<[u8]>) -> Result<Picked> {
        self.pick_from(|_, slots| {
            let candidates = slots.iter().map(|slot| (&*slot.member.id, slot.member.instance.weight));
            rendezvous::owner(rendezvous::hash(key.as_ref()), candidates).unwrap_or(0)
        })
    }

    /// The instance that `key` was sent to before, while it lives and takes requests; else one by
    /// [`Balancer::pick`], which the key is kept to from now on. While the key's instance is set aside for its
    /// errors, others stand in.
    ///
    /// # Errors
    /// As [`Balancer::pick`].
    pub fn pick_sticky(&self, key: impl AsRef<[u8]>) -> Result<Picked> {
        let key = rendezvous::hash(key.as_ref());
        let table = self.shared.table();
        let kept = self.shared.sticky().get(key);
        if let Some(slot) = kept.and_then(|id| table.usable(&id).cloned()) {
            if !slot.track.is_aside(self.shared.clock.now()) {
                return Ok(Picked::new(slot, self.shared.clone()));
            }
            return self.pick();
        }
        let picked = self.pick()?;
        self.shared.sticky().keep(key, picked.member().id.as_str().into());
        Ok(picked)
    }

    /// As [`Balancer::pick`], and waits for at most `limit` until somebody is available.
    ///
    /// # Errors
    /// As [`Balancer::pick`], when the time is over or the store has ended the watch.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn wait_pick(&self, limit: Duration) -> Result<Picked> {
        let clock = &self.shared.clock;
        let mut progress = self.shared.progress.subscribe();
        let deadline = clock.sleep_until(clock.now() + limit);
        tokio::pin!(deadline);
        loop {
            let ended = progress.borrow_and_update().ended.is_some();
            let picked = self.pick();
            if picked.is_ok() || ended {
                return picked;
            }
            tokio::select! {
                _ = progress.changed() => {}
                () = &mut deadline => return self.pick(),
            }
        }
    }

    /// Every change of the group up to here is known.
    pub fn revision(&self) -> Revision {
        self.shared.progress.borrow().revision
    }

    /// Every member of the group, whatever its state, in no order.
    pub fn members(&self) -> Vec<Arc<MemberRecord>> {
        self.shared.table().members().cloned().collect()
    }

    fn pick_from(&self, place: impl FnOnce(&Shared, &[Slot]) -> usize) -> Result<Picked> {
        let table = self.shared.table();
        let slots = table.available(self.shared.clock.now());
        match slots.get(place(&self.shared, &slots)) {
            Some(slot) => Ok(Picked::new(slot.clone(), self.shared.clone())),
            None => Err(nobody(&self.shared.group, &table)),
        }
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("group", &self.shared.group)
            .field("strategy", &self.shared.strategy)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Keeps the table up to date until the events end.
    async fn listen(self: Arc<Self>, events: impl Stream<Item = Result<MemberEvent>> + Send) {
        tokio::pin!(events);
        let mut roster = Roster::default();
        loop {
            let mut next = events.next().await;
            let mut ended = None;
            // What is there already makes one new table.
            for _ in 0..4_096 {
                match next {
                    Some(Ok(event)) => roster.apply(event),
                    Some(Err(error)) => {
                        ended = Some(error.to_string());
                        break;
                    }
                    None => {
                        ended = Some("the events of the group have ended".to_owned());
                        break;
                    }
                }
                match events.next().now_or_never() {
                    Some(event) => next = event,
                    None => break,
                }
            }
            let table = Table::new(self.zone.as_deref(), roster.members(), &self.table());
            *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
            let over = ended.is_some();
            if let Some(why) = &ended {
                tracing::warn!(group = %self.group, %why, "the balancer goes on with the members it knows");
            }
            self.progress.send_replace(Progress { revision: roster.revision(), caught_up: roster.is_caught_up(), ended });
            if over {
                return;
            }
        }
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sticky(&self) -> MutexGuard<'_, Sticky> {
        self.sticky.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nobody could be picked.
fn nobody(group: &str, table: &Table) -> Error {
    let mut states = BTreeMap::<String, usize>::new();
    for member in table.members() {
        *states.entry(member.instance.state.to_string()).or_default() += 1;
    }
    let states: Vec<_> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let message = if states.is_empty() {
        format!("the group {group} has no members")
    } else {
        format!("no member of the group {group} takes requests: {}", states.join(", "))
    };
    Error::Unavailable { message, source: None }
}
