//! Sharing a number of partitions among the members of a group.
//!
//! [`assign`] says who should own what: a function of the members, so all who see the same group agree.
//! [`Partitions`] makes it so. Each partition is a lock, so at no moment do two members own one, however much
//! their views of the group differ: a partition moves when its owner has let go, or is dead.

mod assign;
mod plan;
mod tend;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tenure_kv::Store;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::assign::{Assignment, assign};
use self::{plan::Plan, tend::Tender};
use crate::{
    Error, Guard, Holder, MAX_NAME, Member, MemberWatch, Mutex, Result, Session, locks, membership, roster::Roster,
    session::timing,
};

/// The most partitions that a group can have.
pub const MAX_PARTITIONS: u32 = 16_384;

/// What happens to the partitions of a member.
#[derive(Debug)]
#[must_use = "a partition is let go of when its guard is dropped"]
pub enum PartitionEvent {
    /// A partition is owned from now on, for as long as the guard lives and [is held](Guard::is_held).
    Gained {
        /// Which.
        partition: u32,
        /// The hold, with the fencing token for what is written in the partition's name. Releasing or dropping
        /// it lets the partition go; while it is still this member's it is then gained again a little later.
        guard: Guard,
    },
    /// A partition should move to another member. Finish, and release or drop its guard: the other waits for
    /// it. When the grace is over the guard is lost, and the partition moves.
    Losing {
        /// Which.
        partition: u32,
    },
}

/// Options for [`Partitions`].
#[derive(Clone, Debug)]
#[must_use]
pub struct PartitionsBuilder {
    session: Session,
    group: String,
    id: String,
    partitions: u32,
    grace: Duration,
    at_once: usize,
}

/// Owns the partitions of a group that are assigned to one member.
///
/// Members that are draining, critical or in maintenance are assigned nothing, and those that warn only while
/// nobody passes; what they own moves to others. While nobody can be assigned anything everybody keeps what they have.
/// Every member of the group should run this, with the same number of partitions.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tenure::{Instance, Session, partitions::{PartitionEvent, Partitions}};
///
/// let store = tenure_kv::open("memory:").await?;
/// let session = Session::open(store).await?;
/// let member = session.group("workers")?.join("w1", Instance::new()).await?;
/// let mut partitions = Partitions::builder(&member, 4).start().await?;
/// let mut owned = std::collections::HashMap::new();
/// while let Some(event) = partitions.next().await {
///     match event {
///         PartitionEvent::Gained { partition, guard } => drop(owned.insert(partition, guard)),
///         PartitionEvent::Losing { partition } => drop(owned.remove(&partition)),
///     }
///     if owned.len() == 4 {
///         // The end of this example: lets go of everything.
///         partitions.stop();
///     }
/// }
/// assert!(owned.is_empty());
/// session.close().await?;
/// # Ok(()) }
/// ```
#[must_use = "partitions are tended only as long as this lives"]
pub struct Partitions {
    events: mpsc::Receiver<PartitionEvent>,
    plan: watch::Sender<Plan>,
    group: String,
    store: Arc<dyn Store>,
    _stop: DropGuard,
}

impl Partitions {
    /// Options for owning partitions `0..partitions` of the group of `member`, in its name.
    pub fn builder(member: &Member, partitions: u32) -> PartitionsBuilder {
        PartitionsBuilder {
            session: member.session().clone(),
            group: member.group().to_owned(),
            id: member.id().to_owned(),
            partitions,
            grace: Duration::from_secs(10),
            at_once: 64,
        }
    }

    /// The next event; `None` when all is over: after [`Partitions::stop`], when everything has been let go, or when
    /// the session is lost.
    ///
    /// # Cancel safety
    /// Safe to drop: no event is lost.
    pub async fn next(&mut self) -> Option<PartitionEvent> {
        self.events.recv().await
    }

    /// Begins to let go of everything: [`PartitionEvent::Losing`] is told for all that is owned, and nothing is
    /// gained any more. Others gain it if they are assigned it, so leave the group or drain first.
    pub fn stop(&self) {
        self.plan.send_modify(|plan| plan.stopping = true);
    }

    /// Who should own what, as this member sees the group now.
    pub fn assignment(&self) -> Assignment {
        self.plan.borrow().assignment.clone().unwrap_or_default()
    }

    /// Who owns what now: as [`owners`].
    ///
    /// # Errors
    /// As [`owners`].
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn owners(&self) -> Result<BTreeMap<u32, Holder>> {
        owners(&*self.store, &self.group).await
    }
}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitions").field("group", &self.group).finish_non_exhaustive()
    }
}

impl PartitionsBuilder {
    /// How long a partition that should move may still be held; 10 s unless told.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How many partitions are waited for at the same time, at least 1; 64 unless told. One that is waited for
    /// costs the store what a waiter for a lock does.
    pub const fn at_once(mut self, at_once: usize) -> Self {
        self.at_once = at_once;
        self
    }

    /// Begins to own what is assigned; returns when the group has been seen, before anything is gained.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number of partitions outside 1 to [`MAX_PARTITIONS`], and for a group whose name is
    /// too long for the names of its partitions; [`Error::Lost`] when the session is lost; [`Error::Unavailable`]
    /// when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn start(self) -> Result<Partitions> {
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            return Err(Error::invalid(format!("{} partitions; use 1 to {MAX_PARTITIONS}", self.partitions)));
        }
        if lock_name(&self.group, MAX_PARTITIONS).len() > MAX_NAME {
            let most = MAX_NAME - lock_name("", MAX_PARTITIONS).len();
            let message = format!("the group name has {} bytes; with partitions the limit is {most}", self.group.len());
            return Err(Error::invalid(message));
        }
        let inner = self.session.inner().clone();
        if let Some(loss) = inner.validity.lost() {
            return Err(Error::lost(loss));
        }
        let watch = membership::watch(self.session.store(), &self.group).await?;
        let mutexes = (0..self.partitions)
            .map(|partition| Ok(self.session.mutex(&lock_name(&self.group, partition))?.with_label(&self.id)))
            .collect::<Result<Vec<Mutex>>>()?;
        // Room for all there is to tell while everybody keeps up.
        let (tell, events) = mpsc::channel(usize::try_from(self.partitions).unwrap_or(1).saturating_mul(2));
        let plan = watch::Sender::new(Plan::default());
        let waits = Arc::new(Semaphore::new(self.at_once.clamp(1, Semaphore::MAX_PERMITS)));
        let tenders = (0..).zip(mutexes).map(|(partition, mutex)| Tender {
            partition,
            mutex,
            me: self.id.clone(),
            plan: plan.subscribe(),
            waits: waits.clone(),
            tell: tell.clone(),
            grace: self.grace,
        });
        let all: FuturesUnordered<_> = tenders.map(Tender::run).collect();
        let stop = CancellationToken::new();
        let (store, group) = (self.session.store().clone(), self.group.clone());
        let follow = follow(self, watch, plan.clone());
        // The session's handles are with the tenders: what is dropped here at the end lets the session go.
        let lost = inner.lost();
        inner.spawn({
            let (stopped, closed, lost) = (stop.clone(), inner.stop.clone(), inner.lost());
            async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = closed.cancelled() => {}
                    _ = lost => {}
                    () = all.collect::<()>() => {}
                    () = follow => {}
                }
            }
        });
        let mut seen = plan.subscribe();
        let partitions = Partitions { events, plan, group, store, _stop: stop.drop_guard() };
        tokio::select! {
            _ = seen.wait_for(|plan| plan.assignment.is_some()) => Ok(partitions),
            loss = lost => Err(Error::lost(loss)),
        }
    }
}

/// Keeps the plan up to date with the group, for as long as it is polled.
async fn follow(options: PartitionsBuilder, mut watch: MemberWatch, plan: watch::Sender<Plan>) {
    let inner = options.session.inner();
    loop {
        let mut roster = Roster::default();
        'told: loop {
            let mut next = watch.next().await;
            // Several changes that are there already make one new plan.
            loop {
                match next {
                    Ok(event) => roster.apply(event),
                    Err(error) => {
                        tracing::warn!(group = %options.group, %error, "the partitions stay where they are; trying again");
                        break 'told;
                    }
                }
                match watch.next().now_or_never() {
                    Some(event) => next = event,
                    None => break,
                }
            }
            if roster.is_caught_up() {
                let next = plan.borrow().after(&roster, options.partitions, &options.id, options.session.id());
                plan.send_if_modified(|plan| {
                    let news = plan.assignment != next.assignment || plan.present != next.present;
                    (plan.assignment, plan.present) = (next.assignment, next.present);
                    news
                });
            }
        }
        watch = loop {
            inner.clock.sleep_until(inner.clock.now() + timing::renewal_interval(inner.lease)).await;
            if let Ok(watch) = membership::watch(options.session.store(), &options.group).await {
                break watch;
            }
        };
    }
}

/// Who owns which partition of `group` now; a partition that is not there has no owner at the moment.
///
/// # Errors
/// [`Error::Unavailable`] when the store is out of reach.
///
/// # Cancel safety
/// Safe to drop.
pub async fn owners(store: &dyn Store, group: &str) -> Result<BTreeMap<u32, Holder>> {
    let prefix = lock_prefix(group);
    let queues = locks::list(store, &prefix).await?;
    let owner = |queue: crate::Queue| Some((queue.name.strip_prefix(&prefix)?.parse().ok()?, queue.holder?));
    Ok(queues.into_iter().filter_map(owner).collect())
}

fn lock_prefix(group: &str) -> String {
    format!("partitions/{group}/")
}

fn lock_name(group: &str, partition: u32) -> String {
    format!("{}{partition}", lock_prefix(group))
}
