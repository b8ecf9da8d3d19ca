//! What a member is told of its changes, where the store refuses them or its answer is lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use futures::{poll, stream::BoxStream};
use tenure::{Error, Group, Instance, InstanceState, JoinOptions, Session};
use tenure_kv::{
    Batch, Change, Clock, Entry, Event, HandClock, Info, Key, KeyRange, Memory, Moment, Op, Result, Revision, Since, Store,
    faults::{Fault, Faulty, Operation, Rule},
};

/// As a server whose largest message is small.
#[derive(Debug)]
struct Small(Memory);

const MOST: usize = 2_000;

#[async_trait]
impl Store for Small {
    fn info(&self) -> &Info {
        self.0.info()
    }
    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.0.bucket(name).await
    }
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.0.entry(key).await
    }
    async fn commit(&self, batch: Batch) -> Result<Revision> {
        if batch.ops.iter().any(|op| matches!(&op.change, Change::Put(value, _) if value.len() > MOST)) {
            return Err(tenure_kv::Error::invalid("the value is larger than the server takes"));
        }
        self.0.commit(batch).await
    }
    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.0.watch(range, since).await
    }
}

async fn group() -> Group {
    let session = Session::open(Arc::new(Small(Memory::new()))).await.unwrap();
    session.group("web").unwrap()
}

fn is_refused(outcome: &tenure::Result<Revision>) -> bool {
    matches!(outcome, Err(Error::Invalid { message }) if message.contains("than the server takes"))
}

#[tokio::test]
async fn what_the_store_refuses_does_not_stand_in_the_way_of_what_comes_later() {
    let group = group().await;
    let member = group.join("w1", JoinOptions::default()).await.unwrap();
    let refused = member.set_value("x".repeat(MOST)).await;
    assert!(is_refused(&refused), "{refused:?}");
    assert!(member.instance().value.is_empty(), "nothing is changed");
    member.set_state(InstanceState::Draining).await.unwrap();
    let shown = group.members().await.unwrap().list.remove(0).instance;
    assert_eq!((shown.state, shown.value.len()), (InstanceState::Draining, 0));
    let refused = member.set_value("x".repeat(MOST)).await;
    assert!(is_refused(&refused), "{refused:?}");
    member.set_value("y").await.unwrap();
    assert_eq!(group.members().await.unwrap().list[0].instance.value, "y");
}

#[tokio::test]
async fn what_was_written_and_what_was_refused_are_told_apart() {
    let group = group().await;
    let member = group.join("w1", JoinOptions::default()).await.unwrap();
    let mut small = Box::pin(member.set_value("small"));
    assert!(poll!(&mut small).is_pending());
    // Written, and nobody has asked yet.
    let written = async {
        while group.members().await.unwrap().list[0].instance.value != "small" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
    let refused = member.set_value("x".repeat(MOST)).await;
    assert!(is_refused(&refused), "{refused:?}");
    small.await.unwrap();
}

#[tokio::test]
async fn a_change_taken_back_before_it_was_answered_is_not_what_others_see() {
    let (store, faults) = Faulty::new(Arc::new(Memory::new()));
    let session = Session::open(store.clone()).await.unwrap();
    let group = session.group("web").unwrap();
    let member = group.join("w1", Instance::new().value("first")).await.unwrap();
    let lost = faults.add(Rule::new(Fault::FailAfter).on(Operation::Commit).under("member.").once());
    let mut second = Box::pin(member.set_value("second"));
    tokio::select! {
        biased;
        outcome = &mut second => panic!("{outcome:?}"),
        () = lost.reached(1) => {}
    }
    let (second, first) = futures::join!(second, member.set_value("first"));
    second.unwrap();
    first.unwrap();
    assert_eq!(group.members().await.unwrap().list[0].instance.value, "first");
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_join_that_was_removed_before_it_was_answered_is_not_told_as_never_written() {
    for before in [false, true] {
        let memory = Memory::new();
        let (store, faults) = Faulty::new(Arc::new(memory.clone()));
        let session = Session::open(store.clone()).await.unwrap();
        let group = session.group("web").unwrap();
        if before {
            group.join("w1", JoinOptions::default()).await.unwrap().leave().await.unwrap();
        }
        let key = Key::new("member.web.w1").unwrap();
        let lost = faults.add(Rule::new(Fault::FailAfter).on(Operation::Commit).under("member.").once());
        let asked = faults.add(Rule::new(Fault::HoldBefore).on(Operation::Commit).under("member.").skip(1));
        let removing = async {
            lost.reached(1).await;
            asked.reached(1).await;
            // As a janitor does that saw the session die.
            memory.commit(Op::purge(key.clone()).into()).await.unwrap();
            faults.add(Rule::new(Fault::FailBefore).on(Operation::Entry).under("member.").skip(u64::from(before)));
            asked.clear();
        };
        let joining = async { tokio::join!(group.join("w1", JoinOptions::default()), removing).0 };
        let joined = tokio::time::timeout(Duration::from_secs(10), joining).await.unwrap();
        assert!(matches!(joined, Err(Error::Unknown { .. })), "{before}: {joined:?}");
    }
}

/// A store that becomes another one, as a bucket does that is deleted and made anew; there nobody renews.
#[derive(Debug)]
struct Anew(Memory, OnceLock<Memory>);

impl Anew {
    fn now(&self) -> &Memory {
        self.1.get().unwrap_or(&self.0)
    }
}

#[async_trait]
impl Store for Anew {
    fn info(&self) -> &Info {
        self.0.info()
    }
    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        self.now().bucket(name).await
    }
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.now().entry(key).await
    }
    async fn commit(&self, batch: Batch) -> Result<Revision> {
        if self.1.get().is_some() && batch.ops.iter().any(|op| op.key.under("session").is_some()) {
            std::future::pending::<()>().await;
        }
        self.now().commit(batch).await
    }
    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        self.now().watch(range, since).await
    }
}

#[tokio::test]
async fn who_stood_still_touches_nobodys_record_in_a_bucket_made_anew() {
    let lease = Duration::from_secs(15);
    for how in ["update", "leave", "close"] {
        let (anew, clock) = (Arc::new(Anew(Memory::new(), OnceLock::new())), HandClock::default());
        let (store, hand): (Arc<dyn Store>, Arc<dyn Clock>) = (anew.clone(), Arc::new(clock.clone()));
        let one = Session::builder(store).lease(lease).clock(hand).open().await.unwrap();
        let former = one.group("web").unwrap().join("w1", Instance::new()).await.unwrap();
        let memory = Memory::new();
        anew.1.set(memory.clone()).unwrap();
        let two = Session::builder(Arc::new(memory)).lease(lease).open().await.unwrap();
        let web = two.group("web").unwrap();
        let member = web.join("w1", Instance::new()).await.unwrap();
        assert_eq!(member.revision(), former.revision());
        clock.set(Moment::new(lease * 2));

        let soon = Duration::from_millis(300);
        let said = match how {
            "update" => tokio::time::timeout(soon, former.set_value("stale")).await.is_ok_and(|outcome| outcome.is_ok()),
            "leave" => tokio::time::timeout(soon, former.leave()).await.is_ok_and(|outcome| outcome.is_ok()),
            _ => tokio::time::timeout(soon, one.close()).await.is_err() && former.leave().await.is_ok(),
        };
        let list = web.members().await.unwrap().list;
        assert_eq!(list.first().map(|record| record.revision), Some(member.revision()), "after {how}");
        assert!(!said, "{how} was told as done");
    }
}
