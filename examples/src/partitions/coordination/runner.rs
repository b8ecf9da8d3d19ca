//! Owning partitions over the daemon's socket, as [`tenure::partitions`] does on a store: all watch the group and come to
//! the same assignment, and a lock for each partition has the last word.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt};
use tenure::{
    InstanceState, MemberEvent,
    partitions::{Assignment, assign},
};
use tenure_kv::Revision;
use tenure_sidecar::{
    CallError, Client, Notices,
    protocol::{Done, LeaseRef, LockAcquire, LockAcquired, LockCheck, MemberJoin, MemberJoined, MemberUpdate, MemberWatchParams},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Owned, Turn};
use crate::stage::{Fault, Nanos, now, socket};

/// How many locks are waited for at the same time, and how many are asked about: a connection has 64 requests in flight.
const WAITS: usize = 32;
const QUESTIONS: usize = 16;
/// How long to wait before a partition is taken again that was let go of without need, or could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// A member of the group that owns what is assigned to it.
#[derive(Debug)]
pub(in super::super) struct Runner {
    client: Arc<Client>,
    notices: Notices,
    lease: String,
    turns: mpsc::Receiver<Turn>,
    plan: watch::Sender<Plan>,
    /// Dropping them ends them.
    _tasks: JoinSet<()>,
}

/// A partition owned. Dropped, it moves on.
#[derive(Debug)]
pub(in super::super) struct Hold {
    token: u64,
    valid_until: Arc<AtomicU64>,
    _over: DropGuard,
}

impl Hold {
    /// The lock's fencing token.
    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// Whether the daemon cannot have given the lock to anybody else yet.
    pub(super) fn is_held(&self) -> bool {
        now() < self.valid_until.load(Ordering::Acquire)
    }
}

impl Runner {
    pub(super) async fn join(
        path: &Path,
        group: &str,
        name: &str,
        partitions: u32,
        lease: Duration,
        grace: Duration,
    ) -> Result<Self, Fault> {
        let client = Arc::new(socket::connect(path, lease).await?);
        let notices = client.notices();
        let member = MemberJoin {
            group: group.to_owned(),
            id: Some(name.to_owned()),
            lease_ms: Some(socket::millis(lease)),
            label: Some(name.to_owned()),
            ..MemberJoin::default()
        };
        let joined: MemberJoined = client.call_as("member.join", member).await?;
        let watch = client.subscribe("member.watch", MemberWatchParams { group: group.to_owned() }).await?;
        let plan = watch::Sender::new(Plan::default());
        let (tell, turns) = mpsc::channel(usize::try_from(partitions)?.saturating_mul(2));
        let (waits, questions) = (Arc::new(Semaphore::new(WAITS)), Arc::new(Semaphore::new(QUESTIONS)));
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(watch.into_members(), partitions, plan.clone()));
        for partition in 0..partitions {
            let tender = Tender {
                partition,
                // The name that Tenure's own partitions use.
                lock: format!("partitions/{group}/{partition}"),
                me: name.to_owned(),
                lease,
                grace,
                client: client.clone(),
                plan: plan.subscribe(),
                waits: waits.clone(),
                questions: questions.clone(),
                tell: tell.clone(),
            };
            tasks.spawn(tender.run());
        }
        Ok(Self { client, notices, lease: joined.lease, turns, plan, _tasks: tasks })
    }

    /// What happens next; `None` when everything was let go of, or the place in the group is lost.
    pub(super) async fn next(&mut self) -> Option<Turn> {
        tokio::select! {
            biased;
            turn = self.turns.recv() => turn,
            _ = socket::lost(&mut self.notices, &self.lease) => None,
        }
    }

    pub(super) async fn drain(&self) -> Result<(), Fault> {
        let state = Some(InstanceState::Draining);
        self.client.call("member.update", MemberUpdate { lease: self.lease.clone(), state, ..MemberUpdate::default() }).await?;
        self.plan.send_modify(|plan| plan.stopping = true);
        Ok(())
    }

    pub(super) async fn leave(self) -> Result<(), Fault> {
        self.client.call_as::<Done>("member.leave", LeaseRef { lease: self.lease.clone() }).await?;
        Ok(())
    }
}

/// What a worker goes by.
#[derive(Debug, Default)]
struct Plan {
    /// Who should own what, once the group has been seen.
    assignment: Option<Assignment>,
    /// Everything is to be let go.
    stopping: bool,
}

/// What to do about one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Own,
    /// It is nobody's: whoever has it keeps it.
    Keep,
    LetGo,
}

impl Plan {
    fn wish(&self, me: &str, partition: u32) -> Wish {
        if self.stopping {
            return Wish::LetGo;
        }
        match self.assignment.as_ref().and_then(|assignment| assignment.owner(partition)) {
            Some(owner) if **owner == *me => Wish::Own,
            Some(_) => Wish::LetGo,
            None => Wish::Keep,
        }
    }
}

/// Those who can be assigned something, as the group's events tell.
#[derive(Debug, Default)]
struct Passing {
    weights: BTreeMap<String, u32>,
    revision: Revision,
    caught_up: bool,
}

impl Passing {
    fn apply(&mut self, event: MemberEvent) {
        let revision = match event {
            MemberEvent::Insert(member) | MemberEvent::Update(member) => {
                if member.instance.state == InstanceState::Passing {
                    self.weights.insert(member.id, member.instance.weight);
                } else {
                    self.weights.remove(&member.id);
                }
                member.revision
            }
            MemberEvent::Remove { id, revision } => {
                self.weights.remove(&id);
                revision
            }
            MemberEvent::CaughtUp { revision } => {
                self.caught_up = true;
                revision
            }
            _ => return,
        };
        self.revision = self.revision.max(revision);
    }

    /// `None` until everybody is known.
    fn assignment(&self, partitions: u32) -> Option<Assignment> {
        let members = self.weights.iter().map(|(id, weight)| (id.as_str(), *weight));
        self.caught_up.then(|| assign(partitions, self.revision, members))
    }
}

/// Keeps the plan up to date with the group.
async fn follow(events: impl Stream<Item = tenure::Result<MemberEvent>>, partitions: u32, plan: watch::Sender<Plan>) {
    let mut events = std::pin::pin!(events);
    let mut passing = Passing::default();
    while let Some(Ok(event)) = events.next().await {
        passing.apply(event);
        let assignment = passing.assignment(partitions);
        plan.send_modify(|plan| plan.assignment = assignment);
    }
    // Who cannot see the group any more does not know what is its own.
    plan.send_modify(|plan| plan.stopping = true);
}

/// Who tends one partition.
struct Tender {
    partition: u32,
    lock: String,
    me: String,
    lease: Duration,
    grace: Duration,
    client: Arc<Client>,
    plan: watch::Receiver<Plan>,
    waits: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    tell: mpsc::Sender<Turn>,
}

impl Tender {
    /// Takes the lock when the partition is ours and gives it up when it is not, until all is to be let go.
    async fn run(mut self) {
        loop {
            let plan = self.plan.wait_for(|plan| plan.stopping || plan.wish(&self.me, self.partition) == Wish::Own).await;
            if plan.is_ok_and(|plan| !plan.stopping) {
                match self.take().await {
                    Ok(None) => continue,
                    Ok(Some(lease)) => self.keep(lease).await,
                    Err(CallError::Closed) => return,
                    // The store was out of reach.
                    Err(_) => {}
                }
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    _ = self.plan.wait_for(|plan| plan.wish(&self.me, self.partition) != Wish::Own) => {}
                }
            } else {
                return;
            }
        }
    }

    /// Waits for the lock as long as it should be ours.
    async fn take(&mut self) -> Result<Option<LockAcquired>, CallError> {
        let Ok(_permit) = self.waits.acquire().await else { return Ok(None) };
        let params = LockAcquire {
            name: self.lock.clone(),
            lease_ms: Some(socket::millis(self.lease)),
            label: Some(self.me.clone()),
            wait_ms: None,
        };
        tokio::select! {
            biased;
            acquired = self.client.call_as("lock.acquire", params) => acquired.map(Some),
            // The client takes the request back, and the lock with it if it was granted by then.
            _ = self.plan.wait_for(|plan| plan.wish(&self.me, self.partition) != Wish::Own) => Ok(None),
        }
    }

    /// Hands the partition to the worker, and returns when it is let go of or lost.
    async fn keep(&mut self, LockAcquired { lease, fence: token, .. }: LockAcquired) {
        let (partition, over, valid_until) = (self.partition, CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let hold = Hold { token, valid_until: valid_until.clone(), _over: over.clone().drop_guard() };
        // The grant may be old by now.
        if self.is_ours(&lease, &valid_until).await
            && self.tell.send(Turn::Gained { partition, hold: Owned::Socket(hold) }).await.is_ok()
        {
            let (me, tell, grace) = (&self.me, &self.tell, self.grace);
            let losing = async {
                let mut plan = self.plan.clone();
                let _ = plan.wait_for(|plan| plan.wish(me, partition) == Wish::LetGo).await;
                let _ = tell.send(Turn::Losing { partition }).await;
                sleep(grace).await;
            };
            let checks = async {
                loop {
                    sleep(self.lease / 4).await;
                    if !self.is_ours(&lease, &valid_until).await {
                        return;
                    }
                }
            };
            tokio::select! {
                () = over.cancelled() => {}
                () = losing => {}
                () = checks => {}
            }
        }
        if !over.is_cancelled() {
            valid_until.store(0, Ordering::Release);
            // Who has just looked writes before anybody else can.
            sleep(self.lease / 20).await;
        }
        let Ok(_permit) = self.questions.acquire().await else { return };
        // If it is not released it was lost, or goes with the connection.
        let _ = self.client.call_as::<Done>("lock.release", LeaseRef { lease }).await;
    }

    /// Asks the daemon whether the lock is held, and for how long at least; false when it is lost.
    async fn is_ours(&self, lease: &str, valid_until: &AtomicU64) -> bool {
        let Ok(_permit) = self.questions.acquire().await else { return false };
        let asked = now();
        match self.client.call_as::<LockCheck>("lock.check", LeaseRef { lease: lease.to_owned() }).await {
            Ok(LockCheck { held: true, remaining_ms, .. }) => {
                // It waits for our heartbeat from when it last heard of us, which is after we asked.
                let valid = Duration::from_millis(remaining_ms).min(socket::heartbeat(self.lease));
                valid_until.store(asked.saturating_add(nanos(valid)), Ordering::Release);
                true
            }
            // Renewals are late; the hold may be restored.
            Ok(_) => true,
            Err(_) => false,
        }
    }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests {
    use tenure::{Instance, MemberRecord};

    use super::*;

    fn member(id: &str, revision: u64, state: InstanceState) -> MemberEvent {
        MemberEvent::Update(MemberRecord::new(id, Revision::new(revision), "s", Instance::new().state(state)))
    }

    fn wishes(passing: &Passing) -> Vec<Wish> {
        let plan = Plan { assignment: passing.assignment(32), stopping: false };
        (0..32).map(|partition| plan.wish("a", partition)).collect()
    }

    #[test]
    fn what_is_assigned_is_owned_once_the_group_is_seen() {
        let mut passing = Passing::default();
        passing.apply(member("a", 1, InstanceState::Passing));
        assert_eq!(wishes(&passing), [Wish::Keep; 32], "not everybody is known");
        passing.apply(MemberEvent::CaughtUp { revision: Revision::new(1) });
        assert_eq!(wishes(&passing), [Wish::Own; 32]);
        passing.apply(member("b", 2, InstanceState::Passing));
        let both = wishes(&passing);
        assert!(both.contains(&Wish::Own) && both.contains(&Wish::LetGo));
        passing.apply(member("a", 3, InstanceState::Draining));
        assert_eq!(wishes(&passing), [Wish::LetGo; 32]);
        passing.apply(MemberEvent::Remove { id: "b".into(), revision: Revision::new(4) });
        assert_eq!(wishes(&passing), [Wish::Keep; 32], "nobody else can have it");
        assert_eq!(passing.assignment(32).unwrap().revision(), Revision::new(4));
    }

    #[test]
    fn who_stops_lets_go_of_everything() {
        let mut passing = Passing::default();
        passing.apply(member("a", 1, InstanceState::Passing));
        passing.apply(MemberEvent::CaughtUp { revision: Revision::new(1) });
        let plan = Plan { assignment: passing.assignment(4), stopping: true };
        assert_eq!(plan.wish("a", 0), Wish::LetGo);
    }
}
