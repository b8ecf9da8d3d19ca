//! What a process that died while many waited in it has left in a queue.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{future::Future, sync::Arc, time::Duration};

use tenure::{Error, Session};
use tenure_kv::{
    Entry, Key, KeyRange, Memory, StoreExt,
    faults::{Faults, Faulty, Operation, Partition},
};
use tokio::task::JoinSet;

const LOCK: &str = "q";
const LEASE: Duration = Duration::from_millis(1_500);
/// Tickets that each of the dead leaves.
const LEFT: usize = 60;

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

async fn tickets(store: &Memory) -> Vec<Entry> {
    store.list(&KeyRange::new("lock.q.>").unwrap()).await.unwrap()
}

/// Cut off for good, and to everybody else they are dead.
struct Dead {
    _waiting: JoinSet<()>,
    _sessions: Vec<Session>,
    _wires: Vec<Faults>,
}

/// Two processes take turns in queueing up, and die.
async fn die(memory: &Arc<Memory>) -> Dead {
    let mut waiting = JoinSet::new();
    let (mut sessions, mut wires) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (store, faults) = Faulty::new(memory.clone());
        sessions.push(Session::builder(store).lease(LEASE).open().await.unwrap());
        wires.push(faults);
    }
    let before = tickets(memory).await.len();
    for n in 1..=2 * LEFT {
        let mutex = sessions[n % 2].mutex(LOCK).unwrap();
        waiting.spawn(async move {
            if let Ok(guard) = mutex.lock().await {
                guard.lost().await;
            }
        });
        soon("a ticket", async {
            while tickets(memory).await.len() < before + n {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
    wires.iter().for_each(|wire| wire.partition(Partition::Refuse));
    Dead { _waiting: waiting, _sessions: sessions, _wires: wires }
}

async fn next(memory: &Arc<Memory>) -> (Session, Faults) {
    let (store, faults) = Faulty::new(memory.clone());
    (Session::builder(store).lease(Duration::from_secs(30)).open().await.unwrap(), faults)
}

fn requests(faults: &Faults) -> u64 {
    [Operation::Scan, Operation::Entry, Operation::Entries, Operation::Commit].map(|what| faults.count(what)).iter().sum()
}

/// What asked after each ticket by itself would have needed a search and an end for each, one after the other.
fn few_searches(faults: &Faults) {
    let (searches, all) = (faults.count(Operation::Scan), requests(faults));
    assert!(searches < LEFT as u64 / 2, "{searches} searches");
    // One end for each, and little more.
    assert!(all < 3 * LEFT as u64, "{all} requests");
}

#[tokio::test]
async fn who_waits_behind_the_dead_ends_what_they_left_together() {
    let memory = Arc::new(Memory::new());
    let _dead = die(&memory).await;
    let (session, faults) = next(&memory).await;
    let guard = soon("the lock", session.mutex(LOCK).unwrap().lock()).await.unwrap();
    assert_eq!(tickets(&memory).await.len(), 1, "the dead are out of the way");
    few_searches(&faults);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn who_only_tries_ends_what_the_dead_left_together() {
    let memory = Arc::new(Memory::new());
    let _dead = die(&memory).await;
    let (session, faults) = next(&memory).await;
    let mutex = session.mutex(LOCK).unwrap();
    let guard = soon("the lock", async {
        loop {
            match mutex.try_lock().await {
                Ok(guard) => return guard,
                // Nobody is dead before the silence has lasted.
                Err(Error::NotAcquired { .. }) => tokio::time::sleep(LEASE).await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    assert_eq!(tickets(&memory).await.len(), 1, "the dead are out of the way");
    few_searches(&faults);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn nobody_alive_is_passed_over_with_the_dead() {
    let memory = Arc::new(Memory::new());
    let (holder, _) = next(&memory).await;
    let guard = holder.mutex(LOCK).unwrap().lock().await.unwrap();
    let token = guard.token();
    let _first = die(&memory).await;
    let (between, _) = next(&memory).await;
    let mutex = between.mutex(LOCK).unwrap();
    let patient = tokio::spawn(async move { mutex.lock().await });
    soon("its ticket", async {
        while tickets(&memory).await.len() < 2 * LEFT + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let _second = die(&memory).await;
    let (last, _) = next(&memory).await;
    let mutex = last.mutex(LOCK).unwrap();
    let waiting = tokio::spawn(async move { mutex.lock().await });
    soon("the end of what the dead left", async {
        while tickets(&memory).await.len() != 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let left = tickets(&memory).await;
    assert_eq!(left[0].revision, token);
    assert!(left[1].key.as_str().contains(between.id()) && left[2].key.as_str().contains(last.id()), "{left:?}");
    assert!(guard.is_held() && !patient.is_finished() && !waiting.is_finished());
    let key = Key::new("data.x").unwrap();
    guard.commit(tenure_kv::Op::put(key, "mine").into()).await.unwrap();
    guard.release().await.unwrap();
    soon("the lock", patient).await.unwrap().unwrap().release().await.unwrap();
    soon("the lock", waiting).await.unwrap().unwrap().release().await.unwrap();
}
