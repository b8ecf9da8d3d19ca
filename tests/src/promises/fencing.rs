//! Writes under a lock: the store itself refuses them once somebody else holds it.

use std::{sync::Arc, time::Duration};

use tenure::{Error, Loss, Session, data_key};
use tenure_kv::{Batch, HandClock, Key, Op, Revision, Store, StoreExt};

use super::{
    Bed,
    basics::{take, tickets},
    support::{LONG, MS, Must, lost, within},
};

fn put(key: &Key, value: &str) -> Batch {
    Op::put(key.clone(), value.to_owned()).into()
}

/// What stands under `key`, once reads have come to `revision`.
async fn value(store: &Arc<dyn Store>, key: &Key, revision: Revision) -> String {
    let entry = super::support::until(LONG, format!("{key} reads as of {revision}"), || async {
        store.entry(key).await.ok()?.filter(|entry| entry.revision >= revision)
    })
    .await;
    String::from_utf8_lossy(entry.value().must("a value")).into_owned()
}

/// A holder whose clock stands still believes in its lock for ever. The store does not: from the moment
/// somebody else holds the lock, every write of the old holder is refused. No clock is needed for that.
///
/// # Panics
/// When the promise is broken.
pub async fn a_fence_needs_no_clock(bed: &Bed) {
    let lease = 300 * MS;
    let store = bed.store().await;
    let stopped = Session::builder(store.clone()).lease(lease).clock(Arc::new(HandClock::default()));
    let stopped = stopped.open().await.must("a session");
    let key = data_key("fenced/value").must("a key");
    let guard = Arc::new(take(&stopped, "fence").await);
    guard.commit(put(&key, "old")).await.must("the holder writes");
    let ticket = tickets(&store).await.pop().must("the ticket");

    let writing = tokio::spawn({
        let (guard, key) = (guard.clone(), key.clone());
        async move {
            let mut last = Revision::ZERO;
            loop {
                match guard.commit(put(&key, "old")).await {
                    Ok(revision) => last = revision,
                    Err(error) => return (last, error),
                }
                tokio::time::sleep(MS).await;
            }
        }
    });
    let next = bed.session(lease).await;
    let later = take(&next, "fence").await;
    let written = later.commit(put(&key, "new")).await.must("the next holder writes");
    // Raw, as any client of the store could send it.
    let raw = store.commit(Op::put(key.clone(), "stale").fenced(ticket.key, ticket.revision).into()).await;
    assert!(raw.as_ref().is_err_and(tenure_kv::Error::is_conflict), "a stale fence must be refused, but: {raw:?}");
    let (last, error) = within(LONG, "the old holder's writes end", writing).await.must("the task");
    assert!(last < written, "the old holder wrote {last} after {written}");
    assert_eq!(error.loss(), Some(Loss::Deposed), "a stale holder's write must be refused as Lost, but: {error:?}");
    assert_eq!(value(&store, &key, written).await, "new");
    lost(guard.commit(put(&key, "old")).await, "a second write of the old holder");
    assert_eq!(value(&store, &key, written).await, "new");
    assert!(later.token() > guard.token());
    later.release().await.must("the release");
}

/// A precondition of the caller's own that does not hold is a conflict; the lock stays held.
///
/// # Panics
/// When the promise is broken.
pub async fn a_conflict_is_not_a_loss(bed: &Bed) {
    let session = bed.session(Duration::from_secs(10)).await;
    let (one, two) = (data_key("one").must("a key"), data_key("two").must("a key"));
    let guard = take(&session, "conflict").await;
    let first = guard.commit(Op::put(one.clone(), "1").if_absent().into()).await.must("the first write");
    let bad = [
        Batch::from(Op::put(one.clone(), "2").if_absent()),
        Batch::from(Op::put(one.clone(), "2").if_at(Revision::new(first.get() + 100))),
        Batch::new().and(Op::put(two.clone(), "2")).and(Op::put(one.clone(), "2").if_absent()),
    ];
    for batch in bad {
        match guard.commit(batch.clone()).await {
            Err(Error::Conflict { .. }) => {}
            other => panic!("{batch:?} must be a conflict, but: {other:?}"),
        }
        assert!(guard.is_held());
    }
    assert_eq!(session.store().get(&two).await.must("a read"), None, "a batch is applied whole or not at all");
    let second = guard.commit(Op::put(one.clone(), "2").if_at(first).into()).await.must("an update");
    assert_eq!(value(session.store(), &one, second).await, "2");
    guard.release().await.must("the release");
}

/// One fence guards a whole batch, whatever else the batch expects.
///
/// # Panics
/// When the promise is broken.
pub async fn a_batch_is_fenced_as_a_whole(bed: &Bed) {
    let lease = 300 * MS;
    let stopped = Session::builder(bed.store().await).lease(lease).clock(Arc::new(HandClock::default()));
    let stopped = stopped.open().await.must("a session");
    let keys: Vec<Key> = (0..3).map(|n| data_key(&format!("batch/{n}")).must("a key")).collect();
    let guard = take(&stopped, "batch").await;
    let all = |value: &str| keys.iter().map(|key| Op::put(key.clone(), value.to_owned())).collect::<Batch>();
    let at = guard.commit(all("old")).await.must("a batch under the lock");
    let strict = |value: &str| {
        let revisions = [at.get() - 2, at.get() - 1, at.get()].map(Revision::new);
        keys.iter().zip(revisions).map(|(key, at)| Op::put(key.clone(), value.to_owned()).if_at(at)).collect::<Batch>()
    };
    let next = take(&bed.session(lease).await, "batch").await;
    for batch in [all("stale"), strict("stale"), put(&keys[1], "stale"), Op::delete(keys[2].clone()).into()] {
        lost(guard.commit(batch).await, "a stale batch");
    }
    let last = next.commit(strict("new")).await.must("nothing was touched by the stale holder");
    for key in &keys {
        let revision = if *key == keys[2] { last } else { at };
        let read = super::support::until(LONG, "the new value", || async {
            let read = value(next.session().store(), key, revision).await;
            (read != "old").then_some(read)
        });
        assert_eq!(read.await, "new");
    }
    next.release().await.must("the release");
}

/// The keys that locks are made of cannot be written through a guard, and a guard is the only fence.
///
/// # Panics
/// When the promise is broken.
pub async fn a_guard_spares_its_own_keys(bed: &Bed) {
    let session = bed.session(Duration::from_secs(10)).await;
    let guard = take(&session, "spare").await;
    let ticket = tickets(session.store()).await.pop().must("the ticket").key;
    let own = ["meta.epoch", "session.x", "broken.x", "lock.spare.x", "election.x", "member.a.b", ticket.as_str()];
    let data = data_key("x").must("a key");
    let mut bad: Vec<Batch> = own.iter().map(|key| Op::put(Key::new(key).must("a key"), "x").into()).collect();
    bad.push(Batch::new().and(Op::put(data.clone(), "x")).and(Op::delete(ticket.clone())));
    bad.push(Op::put(data.clone(), "x").fenced(ticket, guard.token()).into());
    bad.push(Batch::new());
    for batch in bad {
        match guard.commit(batch.clone()).await {
            Err(Error::Invalid { .. }) => {}
            other => panic!("{batch:?} must be invalid, but: {other:?}"),
        }
    }
    assert_eq!(session.store().get(&data).await.must("a read"), None);
    let closed = guard.commit(put(&data, "x")).await;
    closed.must("a write to a key of one's own");
    session.close().await.must("the close");
    assert_eq!(lost(guard.commit(put(&data, "y")).await, "a write after the close"), Loss::Closed);
}
