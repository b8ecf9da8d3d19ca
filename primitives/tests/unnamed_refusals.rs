//! A server does not say which key of a batch stood in the way, and reads may lag. Where it cannot be asked either, nothing is
//! made up: a write that the fence may have refused is not told as a precondition that did not hold.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tenure::{Error, Session};
use tenure_kv::{
    Batch, Beside, Entry, Event, Expect, Info, Key, KeyRange, Memory, Op, Revision, Since, Store, StoreExt,
    faults::{Fault, Faults, Faulty, Operation, Rule},
};

const LEASE: Duration = Duration::from_secs(30);

/// A store that names no key when it refuses.
#[derive(Debug)]
struct Unnamed(Memory);

#[async_trait]
impl Store for Unnamed {
    fn info(&self) -> &Info {
        self.0.info()
    }

    async fn bucket(&self, name: &str) -> tenure_kv::Result<Beside> {
        self.0.bucket(name).await
    }

    async fn entry(&self, key: &Key) -> tenure_kv::Result<Option<Entry>> {
        self.0.entry(key).await
    }

    async fn commit(&self, batch: Batch) -> tenure_kv::Result<Revision> {
        self.0.commit(batch).await.map_err(|error| match error {
            tenure_kv::Error::Conflict { .. } => {
                tenure_kv::Error::Conflict { message: "a precondition does not hold".into(), key: None, revision: None }
            }
            error => error,
        })
    }

    async fn watch(&self, range: KeyRange, since: Since) -> tenure_kv::Result<BoxStream<'static, tenure_kv::Result<Event>>> {
        self.0.watch(range, since).await
    }
}

/// A process on a store that names no key, and the store itself, where `there` is written.
async fn process(lease: Duration) -> (Memory, Session, Faults, Key) {
    let store = Memory::new();
    let (faulty, faults) = Faulty::new(Arc::new(Unnamed(store.clone())));
    let session = Session::builder(faulty as Arc<dyn Store>).lease(lease).open().await.unwrap();
    let there = tenure::data_key("there").unwrap();
    store.put(&there, "1").await.unwrap();
    (store, session, faults, there)
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

#[tokio::test]
async fn what_a_holder_wrote_was_refused_and_its_ticket_cannot_be_asked_after() {
    let (store, session, faults, there) = process(LEASE).await;
    let guard = session.mutex("l").unwrap().lock().await.unwrap();
    let write = |key: &Key| Op::put(key.clone(), "x").if_absent();
    let taken = || within("the write", guard.commit(write(&there).into()));
    let silent = faults.add(Rule::new(Fault::FailBefore).on(Operation::Commit).under("session."));
    assert!(matches!(taken().await, Err(Error::Unavailable { .. })));
    silent.clear();
    assert!(matches!(taken().await, Err(Error::Conflict { key: None, .. })));

    // A read that lags is no proof: it is not asked.
    faults.add(Rule::new(Fault::FailBefore).on(Operation::Entry).under("lock.l").once());
    let ticket = store.list(&KeyRange::new("lock.l.>").unwrap()).await.unwrap().remove(0).key;
    store.delete(&ticket, Expect::Any).await.unwrap();
    let free = tenure::data_key("free").unwrap();
    assert!(matches!(within("the write", guard.commit(write(&free).into())).await, Err(Error::Lost { .. })));
    assert_eq!(store.get(&free).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_leader_wrote_was_refused_and_its_record_cannot_be_written() {
    let (_store, session, faults, there) = process(Duration::from_secs(2)).await;
    let leader = session.election("x").unwrap().campaign("a").await.unwrap();
    let held = faults.add(Rule::new(Fault::HoldBefore).on(Operation::Commit).under("data."));
    let write = || Batch::from(Op::put(there.clone(), "x").if_absent());
    let proclaiming = async {
        held.reached(1).await;
        // It lands, and nothing more is heard of the office as long as the lease lasts.
        faults.add(Rule::new(Fault::FailAfter).on(Operation::Commit).under("election.x").once());
        let lost = faults.add(Rule::new(Fault::Lose).on(Operation::Commit).under("election.x").skip(1));
        let silent = faults.add(Rule::new(Fault::FailBefore).on(Operation::Commit).under("session."));
        let outcome = leader.proclaim("b").await;
        held.clear();
        (outcome, lost, silent)
    };
    let (refused, (unknown, lost, silent)) =
        within("the write", async { tokio::join!(leader.commit(write()), proclaiming) }).await;
    assert!(matches!(unknown, Err(Error::Unknown { .. })), "{unknown:?}");
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    lost.clear();
    silent.clear();
    within("the next renewal", async {
        while !leader.is_leader() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let refused = within("the write", leader.commit(write())).await;
    assert!(matches!(refused, Err(Error::Conflict { key: None, .. })), "{refused:?}");
}
