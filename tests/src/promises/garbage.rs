//! What others may leave in the bucket: nothing of it is granted, stops a queue or ends the program.

use std::time::Duration;

use bytes::Bytes;
use tenure::{Error, locks};
use tenure_kv::{Key, Op, StoreExt};

use super::{
    Bed,
    basics::{take, tickets, until_waiting},
    support::{LONG, MS, Must, within},
};

const STRANGER: &str = "00000000000000000000000000000bad";

fn junk() -> Vec<Bytes> {
    ["", "{}", "null", "\"x\"", "{\"lease_ms\":-1}", "{\"host\":7}", "[1,2"]
        .into_iter()
        .map(Bytes::from)
        .chain([Bytes::from_static(&[0xff, 0xfe, 0x00])])
        .collect()
}

/// Keys in a lock's range that are no tickets are passed over.
///
/// # Panics
/// When the promise is broken.
pub async fn foreign_keys_are_passed_over(bed: &Bed) {
    let session = bed.session(Duration::from_secs(10)).await;
    let (store, other) = (session.store().clone(), bed.session(Duration::from_secs(10)).await);
    let foreign = ["lock.odd.x", "lock.odd.x-1", &format!("lock.odd.{STRANGER}"), &format!("lock.odd.{STRANGER}-x"), "lock.odd"];
    for key in foreign {
        for value in junk() {
            store.put(&Key::new(key).must("a key"), value).await.must("a write");
        }
    }
    let mutex = session.mutex("odd").must("a lock name");
    let guard = mutex.try_lock().await.must("foreign keys hold nothing");
    let waiting = {
        let mutex = other.mutex("odd").must("a lock name");
        tokio::spawn(async move { mutex.lock().await })
    };
    let queue = until_waiting(&mutex, 1).await;
    assert_eq!(queue.holder.map(|holder| holder.token), Some(guard.token()));
    guard.release().await.must("the release");
    within(LONG, "the next is granted", waiting).await.must("the task").must("the lock").release().await.must("the release");
    for key in foreign {
        let kept = store.get(&Key::new(key).must("a key")).await.must("a read");
        assert!(kept.is_some(), "{key} is not ours to remove");
    }
}

/// A ticket that says nothing readable stands in the queue like any other, for as long as its session lives;
/// one without a session is removed.
///
/// # Panics
/// When the promise is broken.
pub async fn unreadable_tickets_are_tickets(bed: &Bed) {
    let lease = Duration::from_secs(10);
    let (alive, other) = (bed.session(lease).await, bed.session(lease).await);
    let store = bed.store().await;
    for (n, value) in junk().into_iter().enumerate() {
        let orphan = Key::new(format!("lock.scrawl.{STRANGER}-{n}")).must("a key");
        store.put(&orphan, value).await.must("a write");
    }
    within(Duration::from_secs(2), "tickets without a session hold nothing", take(&other, "scrawl"))
        .await
        .release()
        .await
        .must("the release");
    let owned = Key::new(format!("lock.scrawl.{}-999", alive.id())).must("a key");
    let token = store.put(&owned, "scrawl").await.must("a write");
    let mutex = other.mutex("scrawl").must("a lock name");
    match mutex.lock_timeout(300 * MS).await {
        Err(Error::NotAcquired { holder: Some(holder), .. }) => {
            assert_eq!((holder.token, holder.session.as_str(), holder.pid), (token, alive.id(), 0));
        }
        other => panic!("the ticket of a living session holds, but: {other:?}"),
    }
    locks::break_hold(&*store, "scrawl", token).await.must("even such a hold can be broken");
    within(LONG, "the lock is free", mutex.lock()).await.must("the lock").release().await.must("the release");
}

/// A session whose record cannot be read, and who never renews, is deposed like any other.
///
/// # Panics
/// When the promise is broken.
pub async fn unreadable_sessions_are_deposed(bed: &Bed) {
    let lease = 300 * MS;
    let session = bed.session(lease).await;
    let store = bed.store().await;
    for (n, value) in junk().into_iter().enumerate() {
        let id = format!("{n:032x}");
        store.put(&Key::new(format!("session.{id}")).must("a key"), value).await.must("a write");
        let ticket = Key::new(format!("lock.junk-{n}.{id}-1")).must("a key");
        store.commit(Op::put(ticket, "x").if_absent().into()).await.must("a write");
    }
    let taken = (0..junk().len()).map(|n| {
        let mutex = session.mutex(&format!("junk-{n}")).must("a lock name");
        async move { within(lease * 4, format!("the junk {n} is deposed"), mutex.lock()).await.must("the lock") }
    });
    let guards = futures::future::join_all(taken).await;
    assert!(guards.iter().all(tenure::Guard::is_held));
    drop(guards);
    assert_eq!(locks::list(&*store, "junk-none").await.must("the list"), []);
    session.close().await.must("the close");
    drop(tickets(&store).await);
}
