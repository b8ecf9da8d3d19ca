//! Partitions of a group: never two owners, and owned again after every change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tenure::{
    Guard, Instance, Member, Session,
    partitions::{PartitionEvent, Partitions, assign},
};
use tenure_kv::{Revision, faults::Partition};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    line::Line,
    support::{LONG, MS, Must, until, within},
};

const PARTITIONS: u32 = 8;

/// Who owns what, as all workers together believe.
#[derive(Debug, Default)]
struct Ledger {
    owners: HashMap<u32, (String, Guard)>,
    tokens: HashMap<u32, Revision>,
    violations: Vec<String>,
}

type Shared = Arc<Mutex<Ledger>>;

impl Ledger {
    fn gained(&mut self, partition: u32, id: &str, guard: Guard) {
        if self.tokens.insert(partition, guard.token()).is_some_and(|before| before >= guard.token()) {
            self.violations.push(format!("the token of partition {partition} did not grow"));
        }
        // Asked of the former owner's own clock, so that it counts what that one may rely on, not when it was run.
        if let Some((before, old)) = self.owners.insert(partition, (id.to_owned(), guard))
            && old.is_held()
        {
            self.violations.push(format!("{id} gained partition {partition} while {before} held it"));
        }
    }

    fn losing(&mut self, partition: u32, id: &str) {
        if self.owners.get(&partition).is_some_and(|(owner, _)| owner == id) {
            self.owners.remove(&partition);
        }
    }
}

/// A process that shares the partitions.
struct Worker {
    line: Line,
    session: Session,
    member: Member,
    task: AbortOnDropHandle<()>,
    stop: tokio::sync::mpsc::Sender<()>,
}

async fn worker(bed: &Bed, id: &'static str, lease: Duration, shared: &Shared) -> Worker {
    let (line, session) = bed.process(lease).await;
    let member = session.group("sharing").must("a group").join(id, Instance::new()).await.must("a member");
    let mut partitions = Partitions::builder(&member, PARTITIONS).start().await.must("partitions");
    let (stop, mut stopped) = tokio::sync::mpsc::channel(1);
    let shared = shared.clone();
    let task = tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = partitions.next() => event,
                Some(()) = stopped.recv() => {
                    partitions.stop();
                    continue;
                }
            };
            let mut ledger = shared.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Some(PartitionEvent::Gained { partition, guard }) => ledger.gained(partition, id, guard),
                Some(PartitionEvent::Losing { partition }) => ledger.losing(partition, id),
                None => return,
            }
        }
    });
    Worker { line, session, member, task: AbortOnDropHandle::new(task), stop }
}

/// Waits until every partition is held by whom it should be.
async fn settle(shared: &Shared, ids: &[&str], when: &str) {
    let wanted = assign(PARTITIONS, Revision::ZERO, ids.iter().map(|id| (*id, 1)));
    until(LONG, format!("{when}: every partition is held by whom it should be"), || async {
        let ledger = shared.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(ledger.violations, Vec::<String>::new(), "{when}");
        let settled = wanted.iter().all(|(partition, owner)| {
            let holder = ledger.owners.get(&partition);
            holder.is_some_and(|(id, guard)| owner.is_some_and(|owner| **owner == **id) && guard.is_held())
        });
        settled.then_some(())
    })
    .await;
}

/// A partition never has two owners while members join, drain and die, and after each change it is held by the
/// member that it is assigned to.
///
/// # Panics
/// When the promise is broken.
pub async fn a_partition_never_has_two_owners(bed: &Bed) {
    let lease = if bed.is_replicated() { 1_500 * MS } else { 400 * MS };
    let shared = Shared::default();
    let a = worker(bed, "a", lease, &shared).await;
    let b = worker(bed, "b", lease, &shared).await;
    settle(&shared, &["a", "b"], "two have joined").await;
    let c = worker(bed, "c", lease, &shared).await;
    settle(&shared, &["a", "b", "c"], "a third has joined").await;

    b.stop.send(()).await.must("b is told");
    b.member.set_state(tenure::InstanceState::Draining).await.must("b drains");
    within(LONG, "b lets go of everything", b.task).await.must("b's task");
    settle(&shared, &["a", "c"], "one has drained").await;
    b.session.close().await.must("b closes");

    a.line.cut(Partition::HoldRequests);
    settle(&shared, &["c"], "one is cut off").await;
    a.line.mend();
    a.session.close().await.must("a closes");
    c.session.close().await.must("c closes");
    within(LONG, "the events end with the session", c.task).await.must("c's task");
}
