//! Groups in one process: joining, changing, following, leaving.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use tenure::{
    Check, Error, Instance, InstanceState, JoinOptions, Loss, MemberEvent, MemberWatch, Session,
    membership::{self, MAX_ID},
};
use tenure_kv::{Expect, Key, Memory, Store, StoreExt, faults::Faulty};

const LONG: Duration = Duration::from_secs(20);

async fn session(store: &Arc<dyn Store>) -> Session {
    Session::builder(store.clone()).label("test").open().await.unwrap()
}

fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::new())
}

async fn next(watch: &mut MemberWatch) -> MemberEvent {
    tokio::time::timeout(LONG, watch.next()).await.expect("an event in time").unwrap()
}

#[tokio::test]
async fn a_group_is_joined_changed_followed_and_left() {
    let store = memory();
    let (ours, theirs) = (session(&store).await, session(&store).await);
    let mut watch = membership::watch(&store, "web").await.unwrap();
    assert!(matches!(next(&mut watch).await, MemberEvent::CaughtUp { .. }));

    let member = ours.group("web").unwrap().join("w1", Instance::at("a:1").zone("z").value("v")).await.unwrap();
    let MemberEvent::Insert(record) = next(&mut watch).await else { panic!("an insert") };
    assert_eq!((record.id.as_str(), record.revision, record.session.as_str()), ("w1", member.revision(), ours.id()));
    assert_eq!((record.instance, record.label.as_deref()), (member.instance(), Some("test")));

    let web = theirs.group("web").unwrap();
    let refused = web.join("w1", Instance::new()).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Conflict { message, .. } if message.contains("w1") && message.contains(ours.id())),
        "{refused}"
    );
    let second = web.join("w2", Instance::new()).await.unwrap();
    assert!(matches!(next(&mut watch).await, MemberEvent::Insert(record) if record.id == "w2"));

    let before = member.revision();
    let revision = member.update(|instance| instance.weight = 7).await.unwrap();
    assert!(revision > before && revision == member.revision());
    assert!(
        matches!(next(&mut watch).await, MemberEvent::Update(record) if record.instance.weight == 7 && record.revision == revision)
    );
    assert_eq!(member.update(|_| {}).await.unwrap(), revision, "nothing changed, nothing is written");

    let members = web.members().await.unwrap();
    let ids: Vec<_> = members.list.iter().map(|member| member.id.as_str()).collect();
    assert_eq!((ids, members.unreadable, members.revision), (vec!["w1", "w2"], 0, revision));

    second.leave().await.unwrap();
    assert!(matches!(next(&mut watch).await, MemberEvent::Remove { id, .. } if id == "w2"));
    assert_eq!(second.lost().await, Loss::Closed);
    assert_eq!(second.set_value("x").await.unwrap_err().loss(), Some(Loss::Closed));
    second.leave().await.unwrap();

    drop(member);
    assert!(matches!(next(&mut watch).await, MemberEvent::Remove { id, .. } if id == "w1"));
    let again = ours.group("web").unwrap().join("w1", Instance::new()).await.unwrap();
    ours.close().await.unwrap();
    assert_eq!(again.lost().await, Loss::Closed);
    assert!(membership::members(&*store, "web").await.unwrap().list.is_empty());
}

#[tokio::test]
async fn an_id_dropped_is_free_for_its_own_session_at_once() {
    let store = memory();
    let session = session(&store).await;
    let group = session.group("web").unwrap();
    for round in 0..20 {
        let member = group.join("w1", Instance::new().value(format!("{round}"))).await.unwrap();
        let twice = group.join("w1", Instance::new()).await.unwrap_err();
        let told = format!("process {} on ", std::process::id());
        assert!(matches!(&twice, Error::Conflict { message, .. } if message.contains(&told)), "{twice}");
        drop(member);
    }
    session.close().await.unwrap();
    assert!(membership::members(&*store, "web").await.unwrap().list.is_empty());
}

#[tokio::test]
async fn changes_from_many_tasks_are_all_written_and_merged() {
    let store = memory();
    let session = session(&store).await;
    let member = session.group("web").unwrap().join("w1", Instance::new()).await.unwrap();
    let first = member.revision();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let member = member.clone();
            tokio::spawn(async move { member.update(|instance| *instance = instance.clone().with(format!("k{n}"), "v")).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let members = membership::members(&*store, "web").await.unwrap();
    assert_eq!(members.list[0].instance.metadata.len(), 64);
    assert!(member.revision().get() - first.get() < 64, "changes in quick succession are merged");
}

#[tokio::test]
async fn an_unreadable_record_is_passed_over_and_counted() {
    let store = memory();
    let session = session(&store).await;
    let group = session.group("web").unwrap();
    let key = Key::new("member.web.odd").unwrap();
    store.put(&key, "not a record").await.unwrap();
    let mut watch = group.watch().await.unwrap();
    let _member = group.join("w1", Instance::new()).await.unwrap();
    loop {
        match next(&mut watch).await {
            MemberEvent::Insert(record) => {
                assert_eq!(record.id, "w1");
                break;
            }
            MemberEvent::CaughtUp { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(watch.unreadable(), 1);
    assert_eq!(group.members().await.unwrap().unreadable, 1);
    let refused = group.join("odd", Instance::new()).await.unwrap_err();
    assert!(matches!(&refused, Error::Conflict { message, .. } if message.contains("cannot read")), "{refused}");
}

#[tokio::test]
async fn unreadable_records_that_went_while_a_watch_was_down_are_not_counted() {
    let (faulty, faults) = Faulty::new(memory());
    let store: Arc<dyn Store> = faulty;
    let key = Key::new("member.web.odd").unwrap();
    store.put(&key, "not a record").await.unwrap();
    let mut watch = membership::watch(&store, "web").await.unwrap();
    assert!(matches!(next(&mut watch).await, MemberEvent::CaughtUp { .. }));
    assert_eq!(watch.unreadable(), 1);
    assert_eq!(faults.end_watches("member"), 1);
    store.delete(&key, Expect::Any).await.unwrap();
    let _member = session(&store).await.group("web").unwrap().join("w1", Instance::new()).await.unwrap();
    assert!(matches!(next(&mut watch).await, MemberEvent::Insert(_)));
    assert_eq!(watch.unreadable(), 0);
}

#[tokio::test]
async fn wrong_input_is_refused_by_the_fields_name() {
    let store = memory();
    let session = session(&store).await;
    let group = session.group("web").unwrap();
    let check = Check::heartbeat(Duration::ZERO);
    for (field, outcome) in [
        ("group", session.group("a b").err()),
        ("id", group.join("a.b", Instance::new()).await.err()),
        ("id", group.join(&"x".repeat(MAX_ID + 1), Instance::new()).await.err()),
        ("weight", group.join("w", Instance::new().weight(0)).await.err()),
        ("value", group.join("w", Instance::new().value(vec![0; 1 << 20])).await.err()),
        ("check", group.join("w", JoinOptions::new(Instance::new()).check(check)).await.err()),
        ("label", group.join("w", JoinOptions::new(Instance::new()).label("")).await.err()),
    ] {
        let error = outcome.expect(field);
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(field), "{field}: {error}");
    }
    let member = group.join("w", Instance::new()).await.unwrap();
    let error = member.update(|instance| instance.weight = 0).await.unwrap_err();
    assert!(error.to_string().contains("weight") && member.instance().weight == 1, "{error}");
    assert_eq!(membership::members(&*store, "web").await.unwrap().list.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_move_a_member_and_leave_maintenance_alone() {
    let clock = Arc::new(tokio_clock::Paused::new());
    let store = memory();
    let session = Session::builder(store.clone()).clock(clock).open().await.unwrap();
    let group = session.group("web").unwrap();
    let ttl = Duration::from_secs(3);
    let options = JoinOptions::new(Instance::new()).check(Check::heartbeat(ttl)).leave_when_critical_for(ttl * 4);
    let member = group.join("w1", options).await.unwrap();
    let shown = || async { group.members().await.unwrap().list.first().map(|member| member.instance.state) };
    for _ in 0..4 {
        tokio::time::sleep(ttl * 2 / 3).await;
        member.beat();
        assert_eq!(shown().await, Some(InstanceState::Passing));
    }
    tokio::time::sleep(ttl * 3 / 2).await;
    assert_eq!((shown().await, member.state()), (Some(InstanceState::Critical), InstanceState::Critical));
    member.beat();
    tokio::time::sleep(ttl / 3).await;
    assert_eq!(shown().await, Some(InstanceState::Passing));

    member.set_state(InstanceState::Maintenance).await.unwrap();
    tokio::time::sleep(ttl * 20).await;
    assert_eq!(shown().await, Some(InstanceState::Maintenance), "checks do not matter");
    member.set_state(InstanceState::Passing).await.unwrap();
    assert_eq!(shown().await, Some(InstanceState::Critical), "what the check says since counts at once");
    tokio::time::sleep(ttl * 3).await;
    assert!(shown().await.is_some(), "not critical for long enough");
    assert_eq!(tokio::time::timeout(LONG, member.lost()).await.unwrap(), Loss::Critical);
    tokio::time::sleep(ttl).await;
    assert_eq!(shown().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_may_be_missed_as_often_as_it_says_from_the_join_on() {
    let clock = Arc::new(tokio_clock::Paused::new());
    let session = Session::builder(memory()).clock(clock).open().await.unwrap();
    let ttl = Duration::from_secs(3);
    let check = Check::heartbeat(ttl).fall(2);
    let member = session.group("web").unwrap().join("w1", JoinOptions::new(Instance::new()).check(check)).await.unwrap();
    for beats in [false, true] {
        if beats {
            member.beat();
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(ttl * 3 / 2).await;
        assert_eq!(member.state(), InstanceState::Passing, "one was missed");
        tokio::time::sleep(ttl).await;
        assert_eq!(member.state(), InstanceState::Critical, "two were missed");
    }
    // One that joins as not well has everything to prove.
    let check = Check::heartbeat(ttl).initially(InstanceState::Critical);
    let member = session.group("web").unwrap().join("w2", JoinOptions::new(Instance::new()).check(check)).await.unwrap();
    assert_eq!(member.state(), InstanceState::Critical);
    member.beat();
    tokio::time::sleep(ttl / 2).await;
    assert_eq!(member.state(), InstanceState::Passing);
}

mod tokio_clock {
    //! A clock that goes with Tokio's paused time.

    use std::time::Duration;

    use futures::future::BoxFuture;
    use tenure_kv::{Clock, Moment};
    use tokio::time::Instant;

    #[derive(Debug)]
    pub(super) struct Paused(Instant);

    impl Paused {
        pub(super) fn new() -> Self {
            Self(Instant::now())
        }
    }

    impl Clock for Paused {
        fn now(&self) -> Moment {
            Moment::new(self.0.elapsed() + Duration::from_secs(1))
        }

        fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
            Box::pin(tokio::time::sleep(at.saturating_since(self.now())))
        }
    }
}
