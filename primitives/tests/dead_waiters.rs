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

async fn until(memory: &Memory, what: &str, done: impl Fn(&[Entry]) -> bool) {
    soon(what, async {
        while !done(&tickets(memory).await) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

fn is_of(ticket: &Entry, session: &Session) -> bool {
    ticket.key.as_str().contains(session.id())
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
    for n in 1..=2 * LEFT {
        let mutex = sessions[n % 2].mutex(LOCK).unwrap();
        waiting.spawn(async move {
            if let Ok(guard) = mutex.lock().await {
                guard.lost().await;
            }
        });
        let theirs = |ticket: &&Entry| sessions.iter().any(|session| is_of(ticket, session));
        until(memory, "a ticket", |tickets| tickets.iter().filter(theirs).count() == n).await;
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
    until(&memory, "its ticket", |tickets| tickets.iter().any(|ticket| is_of(ticket, &between))).await;
    let _second = die(&memory).await;
    let (last, _) = next(&memory).await;
    let mutex = last.mutex(LOCK).unwrap();
    let waiting = tokio::spawn(async move { mutex.lock().await });
    until(&memory, "the end of what the dead left", |tickets| tickets.len() == 3).await;
    let left = tickets(&memory).await;
    assert_eq!(left[0].revision, token);
    assert!(is_of(&left[1], &between) && is_of(&left[2], &last), "{left:?}");
    assert!(guard.is_held() && !patient.is_finished() && !waiting.is_finished());
    let key = Key::new("data.x").unwrap();
    guard.commit(tenure_kv::Op::put(key, "mine").into()).await.unwrap();
    guard.release().await.unwrap();
    soon("the lock", patient).await.unwrap().unwrap().release().await.unwrap();
    soon("the lock", waiting).await.unwrap().unwrap().release().await.unwrap();
}
