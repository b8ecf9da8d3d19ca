//! Balancers follow their group, and choose as they say.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::stream;
use tenure::{
    Error, Group, Instance, InstanceState, Member, MemberEvent, MemberRecord, Session,
    discovery::{Balancer, Strategy},
};
use tenure_kv::{HandClock, Memory, Revision, Store};

const SOON: Duration = Duration::from_secs(20);

struct Stage {
    store: Arc<dyn Store>,
    session: Session,
    group: Group,
    members: HashMap<&'static str, Member>,
}

impl Stage {
    async fn with(instances: &[(&'static str, Instance)]) -> Self {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let session = Session::open(store.clone()).await.unwrap();
        let group = session.group("web").unwrap();
        let mut stage = Self { store, session, group, members: HashMap::new() };
        for (id, instance) in instances {
            stage.join(id, instance.clone()).await;
        }
        stage
    }

    async fn join(&mut self, id: &'static str, instance: Instance) {
        self.members.insert(id, self.group.join(id, instance).await.unwrap());
    }

    async fn set(&self, balancer: &Balancer, id: &str, state: InstanceState) {
        let revision = self.members[id].set_state(state).await.unwrap();
        reached(balancer, revision).await;
    }
}

/// Waits until `balancer` knows the group as of `revision`.
async fn reached(balancer: &Balancer, revision: tenure_kv::Revision) {
    tokio::time::timeout(SOON, async {
        while balancer.revision() < revision {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

fn plain(ids: &[&'static str]) -> Vec<(&'static str, Instance)> {
    ids.iter().map(|id| (*id, Instance::at(format!("{id}:80")))).collect()
}

fn pick(balancer: &Balancer) -> String {
    balancer.pick().unwrap().member().id.clone()
}

fn counts(picks: usize, mut pick: impl FnMut(usize) -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for n in 0..picks {
        *counts.entry(pick(n)).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_change_of_the_group_is_a_change_of_what_is_picked() {
    let mut stage = Stage::with(&plain(&["a"])).await;
    let balancer = Balancer::builder().strategy(Strategy::RoundRobin).follow(&stage.store, "web").await.unwrap();
    assert_eq!(pick(&balancer), "a");
    stage.join("b", Instance::at("b:80")).await;
    reached(&balancer, stage.members["b"].revision()).await;
    assert_eq!(counts(10, |_| pick(&balancer)), BTreeMap::from([("a".into(), 5), ("b".into(), 5)]));
    stage.set(&balancer, "a", InstanceState::Draining).await;
    assert_eq!(counts(10, |_| pick(&balancer)), BTreeMap::from([("b".into(), 10)]));
    stage.set(&balancer, "b", InstanceState::Maintenance).await;
    let error = balancer.pick().unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("1 draining, 1 maintenance"), "{error}");
    stage.set(&balancer, "a", InstanceState::Warning).await;
    assert_eq!(pick(&balancer), "a", "better than nobody");
    stage.session.close().await.unwrap();
}

#[tokio::test]
async fn a_balancer_follows_events_from_anywhere_and_goes_on_when_they_end() {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let insert = |id: &str, revision| {
        let record = MemberRecord::new(id, Revision::new(revision), "s", Instance::at(format!("{id}:80")));
        tell.send(Ok(MemberEvent::Insert(record))).unwrap();
    };
    insert("a", 1);
    tell.send(Ok(MemberEvent::CaughtUp { revision: Revision::new(1) })).unwrap();
    let events = stream::unfold(told, |mut told| async { told.recv().await.map(|event| (event, told)) });
    let balancer = Balancer::builder().strategy(Strategy::RoundRobin).follow_events("web", events).await.unwrap();
    assert_eq!(pick(&balancer), "a");
    insert("b", 2);
    reached(&balancer, Revision::new(2)).await;
    assert_eq!(counts(10, |_| pick(&balancer)), BTreeMap::from([("a".into(), 5), ("b".into(), 5)]));
    tell.send(Ok(MemberEvent::Remove { id: "a".into(), revision: Revision::new(3) })).unwrap();
    reached(&balancer, Revision::new(3)).await;
    drop(tell);
    assert_eq!(pick(&balancer), "b");

    for early in [vec![], vec![Err(Error::Unavailable { message: "out of reach".into(), source: None })]] {
        let outcome = Balancer::builder().follow_events("web", stream::iter(early)).await;
        assert!(matches!(outcome, Err(Error::Unavailable { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_first_instance_wakes_who_waits_and_a_deadline_ends_the_wait() {
    let mut stage = Stage::with(&[]).await;
    let balancer = Balancer::follow(&stage.store, "web").await.unwrap();
    let error = balancer.wait_pick(Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().contains("has no members"), "{error}");
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let balancer = balancer.clone();
            tokio::spawn(async move { balancer.wait_pick(SOON).await.map(|picked| picked.address().to_owned()) })
        })
        .collect();
    tokio::task::yield_now().await;
    stage.join("a", Instance::at("a:80")).await;
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap(), "a:80");
    }
    stage.session.close().await.unwrap();
}

#[tokio::test]
async fn load_counts_down_when_a_pick_is_dropped() {
    let stage = Stage::with(&plain(&["a", "b"])).await;
    let balancer = Balancer::follow(&stage.store, "web").await.unwrap();
    // Of two the less loaded is chosen always, so they stay level.
    let mut held: Vec<_> = (0..20).map(|_| balancer.pick().unwrap()).collect();
    assert_eq!(counts(20, |n| held[n].member().id.clone()), BTreeMap::from([("a".into(), 10), ("b".into(), 10)]));
    held.retain(|picked| picked.member().id == "b");
    let next: Vec<_> = (0..10).map(|_| balancer.clone().pick().unwrap()).collect();
    assert!(next.iter().all(|picked| picked.member().id == "a"), "clones share the counts");
    assert_eq!(next[9].in_flight(), 10);
    stage.session.close().await.unwrap();
}

#[tokio::test]
async fn weights_share_the_picks() {
    let stage = Stage::with(&[("a", Instance::at("a:80").weight(1)), ("b", Instance::at("b:80").weight(9))]).await;
    let balancer = Balancer::builder().strategy(Strategy::Weighted).follow(&stage.store, "web").await.unwrap();
    let counts = counts(4_000, |_| pick(&balancer));
    assert!(counts["a"].abs_diff(400) < 120, "six standard deviations: {counts:?}");
    stage.session.close().await.unwrap();
}

#[tokio::test]
async fn an_error_sets_aside_for_a_while_and_a_success_brings_back() {
    let stage = Stage::with(&plain(&["a", "b"])).await;
    let clock = HandClock::default();
    let balancer = Balancer::builder()
        .strategy(Strategy::Random)
        .set_aside_for(Duration::from_secs(1), Duration::from_secs(4))
        .clock(Arc::new(clock.clone()))
        .follow(&stage.store, "web")
        .await
        .unwrap();
    let of = |id: &str| std::iter::repeat_with(|| balancer.pick().unwrap()).find(|picked| picked.member().id == id).unwrap();
    of("a").failed();
    assert_eq!(counts(50, |_| pick(&balancer)), BTreeMap::from([("b".into(), 50)]));
    clock.advance(Duration::from_secs(1));
    of("a").failed();
    clock.advance(Duration::from_millis(1_999));
    assert_eq!(counts(50, |_| pick(&balancer)).len(), 1, "for longer from error to error");
    clock.advance(Duration::from_millis(1));
    of("a").succeeded();
    of("a").failed();
    clock.advance(Duration::from_secs(1));
    assert_eq!(counts(50, |_| pick(&balancer)).len(), 2, "after a success it begins anew");
    // Never all at once.
    of("b").failed();
    clock.advance(Duration::from_millis(1));
    of("a").failed();
    assert_eq!(counts(50, |_| pick(&balancer)), BTreeMap::from([("b".into(), 50)]), "the one that failed longest ago");
    balancer.pick().unwrap().succeeded();
    assert_eq!(counts(50, |_| pick(&balancer)), BTreeMap::from([("b".into(), 50)]));
    stage.session.close().await.unwrap();
}

#[tokio::test]
async fn a_sticky_key_keeps_its_instance_while_it_takes_requests() {
    let mut stage = Stage::with(&plain(&["a", "b", "c"])).await;
    let clock = HandClock::default();
    let balancer = Balancer::builder()
        .strategy(Strategy::RoundRobin)
        .clock(Arc::new(clock.clone()))
        .follow(&stage.store, "web")
        .await
        .unwrap();
    let keys: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
    let all = || keys.iter().map(|key| balancer.pick_sticky(key).unwrap().member().id.clone()).collect::<Vec<_>>();
    let first = all();
    assert_eq!(counts(30, |n| first[n].clone()), BTreeMap::from([("a".into(), 10), ("b".into(), 10), ("c".into(), 10)]));
    stage.join("d", Instance::at("d:80")).await;
    reached(&balancer, stage.members["d"].revision()).await;
    stage.set(&balancer, "b", InstanceState::Warning).await;
    assert_eq!(all(), first, "who comes takes nothing, and who warns is alive");
    balancer.pick_sticky(&keys[0]).unwrap().failed();
    assert_ne!(balancer.pick_sticky(&keys[0]).unwrap().member().id, first[0], "others stand in");
    clock.advance(Duration::from_secs(60));
    assert_eq!(all(), first, "and it comes back");
    stage.set(&balancer, "c", InstanceState::Draining).await;
    let moved = all();
    for (is, was) in moved.iter().zip(&first) {
        assert_eq!(is == was, was != "c");
    }
    stage.set(&balancer, "c", InstanceState::Passing).await;
    assert_eq!(all(), moved, "once moved they stay");
    stage.session.close().await.unwrap();
}

#[tokio::test]
async fn all_clients_agree_on_the_owner_of_a_key() {
    let stage = Stage::with(&plain(&["a", "b", "c"])).await;
    let (one, other) =
        (Balancer::follow(&stage.store, "web").await.unwrap(), Balancer::follow(&stage.store, "web").await.unwrap());
    let owners = |balancer: &Balancer| -> Vec<String> {
        (0..60).map(|n| balancer.pick_for(format!("key-{n}")).unwrap().member().id.clone()).collect()
    };
    let before = owners(&one);
    assert_eq!(owners(&other), before);
    assert_eq!(counts(60, |n| before[n].clone()).len(), 3);
    stage.set(&one, "b", InstanceState::Draining).await;
    for (is, was) in owners(&one).iter().zip(&before) {
        assert_eq!(is == was, was != "b", "only its keys move");
    }
    stage.session.close().await.unwrap();
}

#[tokio::test]
async fn the_last_balancer_dropped_ends_its_task_and_its_watch() {
    let stage = Stage::with(&plain(&["a"])).await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let balancer = Balancer::follow(&stage.store, "web").await.unwrap();
    let (clone, picked) = (balancer.clone(), balancer.pick().unwrap());
    drop(balancer);
    assert_eq!(pick(&clone), "a");
    drop(clone);
    tokio::time::timeout(SOON, async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    drop(picked);
    stage.session.close().await.unwrap();
}
