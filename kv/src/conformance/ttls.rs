//! Times to live. A commit tells whether a key is gone for certain, so these behaviours ask by commits.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::support::{Ground, MakeOp, conflict, ok, poll};
use crate::{Batch, Key, Op, Revision, Store, StoreExt, Ttl};

/// How much a store's clock may differ from the caller's over a few seconds.
const SLACK: Duration = Duration::from_millis(100);

/// A value is there until its TTL has run and gone soon after; then the key can be created.
pub async fn a_value_lives_as_long_as_its_ttl(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let (key, read) = (ground.key("k"), ground.key("read"));
    let ttl = seconds(2);
    let sent = Instant::now();
    ground.commit(Op::put(key.clone(), "x").ttl(ttl), "a put with a TTL").await;
    let seen = ground.commit(Op::put(read.clone(), "x").if_absent().ttl(ttl), "a create with a TTL").await;
    gone("a value", sent, ttl, || passes(&ground, Op::put(key.clone(), "y").if_absent())).await;
    poll("a read that no longer finds the value", || async {
        let entry = ok(store.entry(&read).await, "a read");
        entry.is_none_or(|entry| !entry.is_live() && entry.revision >= seen).then_some(())
    })
    .await;
    let listed = poll("a list without the value", || async {
        let listed = ok(store.list(&ground.range()).await, "a list");
        listed.iter().all(|entry| entry.key != read).then_some(listed)
    })
    .await;
    assert!(listed.iter().all(|entry| entry.key == key), "only the key created anew is left, not {listed:?}");
}

/// A rewrite with a TTL counts from the rewrite.
pub async fn a_rewrite_renews_the_ttl(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let ttl = seconds(2);
    for attempt in 0..5 {
        let key = ground.key(attempt);
        let first = ground.commit(Op::put(key.clone(), "x").ttl(ttl), "a put with a TTL").await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let sent = Instant::now();
        let renewal = store.commit(Op::put(key.clone(), "y").if_at(first).ttl(ttl).into()).await;
        if renewal.as_ref().is_err_and(|error| error.is_conflict()) {
            // The machine stood still for the rest of the first TTL: try again.
            continue;
        }
        ok(renewal, "a renewal of a value");
        gone("a renewed value", sent, ttl, || passes(&ground, Op::put(key.clone(), "z").if_absent())).await;
        return;
    }
    panic!("five values in a row were gone 1.2 s into a TTL of 2 s");
}

/// A rewrite without a TTL stays, whatever TTL the value before it had.
pub async fn a_rewrite_without_ttl_stays(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let (value, tombstone) = (ground.key("value"), ground.key("tombstone"));
    ground.commit(Op::put(value.clone(), "x").ttl(Ttl::MIN), "a put with a TTL").await;
    ground.commit(Op::put(tombstone.clone(), "x").ttl(Ttl::MIN), "a put with a TTL").await;
    let kept = ground.put(&value, "y").await;
    let buried = ground.delete(&tombstone).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    ground.still_at(&value, kept, "its last write has no TTL").await;
    ground.still_at(&tombstone, buried, "its tombstone has no TTL").await;
}

/// A tombstone with a TTL stays for it and is then forgotten: the key is as if never written.
pub async fn a_tombstone_is_forgotten_after_its_ttl(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    tokio::join!(forgotten(&ground, "delete", Op::delete), forgotten(&ground, "purge", Op::purge));
}

async fn forgotten(ground: &Ground, name: &str, bury: MakeOp) {
    let key = ground.key(name);
    let value = ground.put(&key, "x").await;
    let sent = Instant::now();
    ground.commit(bury(key.clone()).if_at(value).ttl(Ttl::MIN), "a tombstone with a TTL").await;
    let first = || passes(ground, Op::put(key.clone(), "y").if_at(Revision::ZERO));
    gone("a tombstone", sent, Ttl::MIN, first).await;
    ground.refused(Op::put(key.clone(), "z").if_absent(), "a create of a key written anew").await;

    let read = ground.key(format_args!("{name}.read"));
    ground.put(&read, "x").await;
    ground.commit(bury(read.clone()).ttl(Ttl::MIN), "a tombstone with a TTL").await;
    poll("a read that no longer finds the tombstone", || async {
        ok(ground.store.entry(&read).await, "a read").is_none().then_some(())
    })
    .await;
    ground.commit(Op::put(read, "y").if_absent(), "a create of a key that was forgotten").await;
}

/// A fence on a value that expired refuses, for good.
pub async fn an_expired_fence_refuses(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let guard = ground.key("guard");
    let sent = Instant::now();
    let held = ground.commit(Op::put(guard.clone(), "held").ttl(Ttl::MIN), "a put with a TTL").await;
    let write = || async {
        let op = Op::put(ground.key("data"), "x").fenced(guard.clone(), held);
        match store.commit(op.into()).await {
            Ok(_) => false,
            other => {
                conflict(other, "a write whose fence expired");
                true
            }
        }
    };
    gone("a fence", sent, Ttl::MIN, write).await;
    for _ in 0..5 {
        assert!(write().await, "a fenced write passed after the fence had expired");
    }
}

/// Each operation of a batch has its own TTL.
pub async fn ttls_in_a_batch_are_each_their_own(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let [short, long, none, tomb] = ["short", "long", "none", "tomb"].map(|name| ground.key(name));
    let batch = Batch::new()
        .and(Op::put(long.clone(), "x").ttl(seconds(600)))
        .and(Op::put(short.clone(), "x").ttl(Ttl::MIN))
        .and(Op::delete(tomb.clone()).ttl(Ttl::MIN))
        .and(Op::put(none.clone(), "x"));
    let sent = Instant::now();
    let last = ground.commit(batch, "a batch with TTLs").await;
    let first = |key: &Key| Op::put(key.clone(), "y").if_at(Revision::ZERO);
    gone("a value", sent, Ttl::MIN, || passes(&ground, first(&short))).await;
    gone("a tombstone", sent, Ttl::MIN, || passes(&ground, first(&tomb))).await;
    ground.still_at(&none, last, "it has no TTL").await;
    ground.still_at(&long, Revision::new(last.get() - 3), "its TTL is ten minutes").await;
}

fn seconds(count: u32) -> Ttl {
    ok(Ttl::from_secs(count), "a TTL")
}

/// Whether `op` passes; it may be refused as a conflict.
async fn passes(ground: &Ground, op: Op) -> bool {
    match ground.store.commit(op.into()).await {
        Ok(_) => true,
        other => {
            conflict(other, "a write to a key that is still there");
            false
        }
    }
}

/// Asks until `is_gone`, which must not come before `ttl` has run since the write was `sent`.
async fn gone<F: Future<Output = bool>>(what: &str, sent: Instant, ttl: Ttl, is_gone: impl Fn() -> F) {
    // Patience counts from the end of the TTL.
    let patient_until = sent + ttl.as_duration() + super::support::patience();
    loop {
        if is_gone().await {
            // Read after the answer: a machine that stands still cannot make the value seem short-lived.
            let lived = sent.elapsed();
            assert!(lived + SLACK >= ttl.as_duration(), "{what} with a TTL of {:?} was gone after {lived:?}", ttl.as_duration());
            return;
        }
        assert!(
            Instant::now() < patient_until,
            "{what} with a TTL of {:?} was still there after {:?}",
            ttl.as_duration(),
            sent.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
