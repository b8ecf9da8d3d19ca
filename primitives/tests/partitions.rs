//! Partitions follow their group, and never have two owners.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tenure::{
    Error, Guard, Instance, InstanceState, JoinOptions, Loss, Member, Session,
    partitions::{PartitionEvent, Partitions, PartitionsBuilder, owners},
};
use tenure_kv::{Memory, Store};

const SOON: Duration = Duration::from_secs(20);
const COUNT: u32 = 12;

/// A member and its partitions, in a session of its own.
struct Worker {
    session: Session,
    member: Member,
    partitions: Partitions,
    owned: BTreeMap<u32, Guard>,
    losing: BTreeSet<u32>,
}

impl Worker {
    async fn start(store: &Arc<dyn Store>, id: &str, options: impl Fn(PartitionsBuilder) -> PartitionsBuilder) -> Self {
        let session = Session::builder(store.clone()).lease(Duration::from_millis(600)).open().await.unwrap();
        let member = session.group("workers").unwrap().join(id, JoinOptions::new(Instance::new())).await.unwrap();
        let partitions = options(Partitions::builder(&member, COUNT)).start().await.unwrap();
        Self { session, member, partitions, owned: BTreeMap::new(), losing: BTreeSet::new() }
    }

    /// Takes the next event in, without letting go of anything.
    async fn hear(&mut self) {
        match tokio::time::timeout(SOON, self.partitions.next()).await.unwrap().unwrap() {
            PartitionEvent::Gained { partition, guard } => {
                assert!(guard.is_held());
                self.losing.remove(&partition);
                self.owned.insert(partition, guard);
            }
            PartitionEvent::Losing { partition } => {
                assert!(self.owned.contains_key(&partition), "only what was gained is lost");
                self.losing.insert(partition);
            }
        }
    }

    async fn hear_until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.hear().await;
        }
    }

    /// Lets go of what is to be let go.
    fn comply(&mut self) {
        for partition in std::mem::take(&mut self.losing) {
            self.owned.remove(&partition);
        }
    }

    fn all(&self) -> BTreeSet<u32> {
        self.owned.keys().copied().collect()
    }

    fn assigned(&self) -> BTreeSet<u32> {
        self.partitions.assignment().of(self.member.id()).collect()
    }
}

fn store() -> Arc<dyn Store> {
    Arc::new(Memory::new())
}

fn as_usual(options: PartitionsBuilder) -> PartitionsBuilder {
    options
}

#[tokio::test]
async fn a_partition_moves_when_its_owner_lets_go_and_not_before() {
    let store = store();
    let mut a = Worker::start(&store, "a", as_usual).await;
    a.hear_until(|a| a.owned.len() == 12).await;
    let tokens: BTreeMap<u32, _> = a.owned.iter().map(|(n, guard)| (*n, guard.token())).collect();

    let mut b = Worker::start(&store, "b", as_usual).await;
    let moving = b.assigned();
    assert!(!moving.is_empty() && moving.len() < 12);
    a.hear_until(|a| a.losing == moving).await;
    // The newcomer stands in line for what it should have, and has nothing.
    tokio::time::timeout(SOON, async {
        for partition in &moving {
            while a.session.mutex(&format!("partitions/workers/{partition}")).unwrap().queue().await.unwrap().waiters.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    })
    .await
    .unwrap();
    assert!(b.owned.is_empty() && a.owned.values().all(Guard::is_held));
    let held = owners(&*store, "workers").await.unwrap();
    assert!(held.len() == 12 && held.values().all(|holder| holder.label.as_deref() == Some("a")));

    a.comply();
    b.hear_until(|b| b.all() == moving).await;
    for (partition, guard) in &b.owned {
        assert!(guard.token() > tokens[partition], "fencing tokens grow from owner to owner");
    }
    for (partition, guard) in &a.owned {
        assert!(guard.is_held() && guard.token() == tokens[partition], "what stays is not touched");
    }
    let held = b.partitions.owners().await.unwrap();
    for (partition, holder) in &held {
        assert_eq!(holder.label.as_deref(), Some(if moving.contains(partition) { "b" } else { "a" }));
    }

    // And back, when the newcomer leaves.
    b.member.leave().await.unwrap();
    b.hear_until(|b| b.losing == moving).await;
    b.comply();
    a.hear_until(|a| a.owned.len() == 12).await;
    a.session.close().await.unwrap();
    b.session.close().await.unwrap();
}

#[tokio::test]
async fn who_does_not_let_go_in_time_is_made_to_and_told_before() {
    let store = store();
    let mut a = Worker::start(&store, "a", |options| options.grace(Duration::from_millis(50))).await;
    a.hear_until(|a| a.owned.len() == 12).await;
    let mut b = Worker::start(&store, "b", as_usual).await;
    let moving = b.assigned();
    b.hear_until(|b| {
        for (partition, guard) in &b.owned {
            assert!(guard.is_held() && !a.owned[partition].is_held(), "two owners of {partition}");
        }
        b.all() == moving
    })
    .await;
    for (partition, guard) in &a.owned {
        assert_eq!(guard.is_held(), !moving.contains(partition));
        if moving.contains(partition) {
            assert_eq!(guard.lost().await, Loss::Reassigned);
        }
    }
    a.hear_until(|a| a.losing == moving).await;
    a.comply();
    assert!(b.owned.values().all(Guard::is_held), "a late release frees nothing of the next owner's");
    a.session.close().await.unwrap();
    b.session.close().await.unwrap();
}

#[tokio::test]
async fn what_an_ended_session_owned_moves() {
    let store = store();
    let mut a = Worker::start(&store, "a", as_usual).await;
    a.hear_until(|a| a.owned.len() == 12).await;
    let mut b = Worker::start(&store, "b", as_usual).await;
    a.hear_until(|a| a.losing == b.assigned()).await;
    a.comply();
    b.hear_until(|b| b.all() == b.assigned()).await;
    let kept = a.all();
    // Its session ends, and its member with it.
    a.session.close().await.unwrap();
    a.member.leave().await.ok();
    for guard in a.owned.values() {
        assert!(!guard.is_held());
    }
    assert!(!kept.is_empty());
    tokio::time::timeout(SOON, async { while a.partitions.next().await.is_some() {} }).await.unwrap();
    let gone = tenure::membership::members(&*store, "workers").await.unwrap();
    if gone.list.iter().any(|member| member.id == "a") {
        // What the janitor does.
        let key = tenure_kv::Key::new("member.workers.a").unwrap();
        tenure_kv::StoreExt::delete(&*store, &key, tenure_kv::Expect::Any).await.unwrap();
    }
    b.hear_until(|b| b.owned.len() == 12).await;
    b.session.close().await.unwrap();
}

#[tokio::test]
async fn a_draining_member_hands_over_and_keeps_what_nobody_can_take() {
    let store = store();
    let mut a = Worker::start(&store, "a", as_usual).await;
    a.hear_until(|a| a.owned.len() == 12).await;
    a.member.set_state(InstanceState::Draining).await.unwrap();
    let mut b = Worker::start(&store, "b", as_usual).await;
    assert_eq!(b.assigned().len(), 12);
    a.hear_until(|a| a.losing.len() == 12).await;
    a.comply();
    b.hear_until(|b| b.owned.len() == 12).await;
    let revision = b.member.set_state(InstanceState::Maintenance).await.unwrap();
    tokio::time::timeout(SOON, async {
        while b.partitions.assignment().revision() < revision {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(b.assigned().is_empty());
    a.member.set_state(InstanceState::Passing).await.unwrap();
    // Had anything been lost while nobody could take it, it would have been told before.
    b.hear_until(|b| b.losing.len() == 12).await;
    assert!(b.owned.values().all(Guard::is_held));
    b.comply();
    a.hear_until(|a| a.owned.len() == 12).await;
    a.session.close().await.unwrap();
    b.session.close().await.unwrap();
}

#[tokio::test]
async fn stopping_lets_go_of_everything_and_ends_the_events() {
    let store = store();
    let mut a = Worker::start(&store, "a", as_usual).await;
    a.hear_until(|a| a.owned.len() == 12).await;
    a.partitions.stop();
    a.hear_until(|a| a.losing.len() == 12).await;
    assert!(a.owned.values().all(Guard::is_held), "there is time to finish");
    a.comply();
    assert!(tokio::time::timeout(SOON, a.partitions.next()).await.unwrap().is_none());
    tokio::time::timeout(SOON, async {
        while !owners(&*store, "workers").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    a.session.close().await.unwrap();
}

#[tokio::test]
async fn what_is_let_go_of_without_need_is_gained_again() {
    let store = store();
    let mut a = Worker::start(&store, "a", as_usual).await;
    a.hear_until(|a| a.owned.len() == 12).await;
    let dropped = a.owned.remove(&3).unwrap().token();
    a.hear_until(|a| a.owned.len() == 12).await;
    assert!(a.owned[&3].token() > dropped);
    a.session.close().await.unwrap();
    assert!(tokio::time::timeout(SOON, a.partitions.next()).await.unwrap().is_none(), "the session is lost");
}

#[tokio::test]
async fn a_ticket_broken_while_it_waits_costs_a_turn_and_not_the_partition() {
    let store = store();
    let other = Session::open(store.clone()).await.unwrap();
    let blocking = other.mutex("partitions/workers/3").unwrap().lock().await.unwrap();
    let mut a = Worker::start(&store, "a", as_usual).await;
    a.hear_until(|a| a.owned.len() == 11).await;
    let tickets = tenure_kv::KeyRange::new("lock.partitions/workers/3.*").unwrap();
    let waiting = tokio::time::timeout(SOON, async {
        loop {
            let found = tenure_kv::StoreExt::list(&*store, &tickets).await.unwrap();
            match found.into_iter().find(|ticket| ticket.revision != blocking.token()) {
                Some(ticket) => return ticket.key,
                None => tokio::task::yield_now().await,
            }
        }
    });
    // As an operator does who breaks one hold after the other: the second is granted and has not heard of it yet.
    tenure_kv::StoreExt::delete(&*store, &waiting.await.unwrap(), tenure_kv::Expect::Any).await.unwrap();
    tenure::locks::break_hold(&*store, "partitions/workers/3", blocking.token()).await.unwrap();
    a.hear_until(|a| a.owned.len() == 12).await;
    a.session.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test]
async fn few_waits_at_once_still_take_all() {
    let store = store();
    let mut a = Worker::start(&store, "a", |options| options.at_once(1)).await;
    a.hear_until(|a| a.owned.len() == 12).await;
    let mut b = Worker::start(&store, "b", |options| options.at_once(1)).await;
    let moving = b.assigned();
    a.hear_until(|a| a.losing == moving).await;
    let waiting = || async {
        let mut waiting = 0;
        for partition in &moving {
            waiting += a.session.mutex(&format!("partitions/workers/{partition}")).unwrap().queue().await.unwrap().waiters.len();
        }
        waiting
    };
    tokio::time::timeout(SOON, async {
        while waiting().await == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(waiting().await, 1, "{} are to be moved", moving.len());
    a.comply();
    b.hear_until(|b| b.all() == moving).await;
    a.session.close().await.unwrap();
    b.session.close().await.unwrap();
}

#[tokio::test]
async fn wrong_numbers_are_refused() {
    let session = Session::open(store()).await.unwrap();
    let member = session.group("workers").unwrap().join("a", Instance::new()).await.unwrap();
    for count in [0, 16_385] {
        let error = Partitions::builder(&member, count).start().await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("partitions"), "{error}");
    }
    let long = session.group(&"g".repeat(tenure::MAX_NAME)).unwrap().join("a", Instance::new()).await.unwrap();
    let error = Partitions::builder(&long, 4).start().await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("group name"), "{error}");
    session.close().await.unwrap();
}
