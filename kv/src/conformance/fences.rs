//! Fences: a write that is refused once another key has moved.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use tokio::task::JoinSet;

use super::support::{Ground, MakeOp, conflict, join, poll, spawn};
use crate::{Batch, Bytes, Key, Op, Revision, State, Store};

/// Every kind of change passes while its fence stands, and does not move the fence.
pub async fn a_fence_that_holds_lets_through(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let (guard, key) = (ground.key("guard"), ground.key("data.k"));
    let held = ground.put(&guard, "held").await;
    let mut last = held;
    let steps = [
        (Op::put(key.clone(), "one"), State::Live("one".into())),
        (Op::put(key.clone(), "two"), State::Live("two".into())),
        (Op::delete(key.clone()).note("n"), State::Deleted("n".into())),
        (Op::purge(key.clone()), State::Purged),
    ];
    for (op, state) in steps {
        let revision = ground.commit(op.fenced(guard.clone(), held), "a write whose fence stands").await;
        assert!(revision > last, "a fenced write after {last} has revision {revision}");
        ground.reads_as(&key, revision, &state).await;
        last = revision;
    }
    ground.still_at(&guard, held, "fenced writes leave their fence").await;
}

/// A fence whose key was rewritten, deleted, purged or never written refuses every kind of change.
pub async fn a_fence_that_moved_refuses(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let (live, buried) = (ground.key("live"), ground.key("buried"));
    let at = ground.put(&live, "x").await;
    let tomb = ground.delete(&buried).await;
    let moves: [(&str, Option<MakeOp>); 5] = [
        ("rewritten", Some(|key| Op::put(key, "new"))),
        ("deleted", Some(Op::delete)),
        ("purged", Some(Op::purge)),
        ("deleted with a note", Some(|key| Op::delete(key).note("note"))),
        ("absent", None),
    ];
    for (how, op) in moves {
        let guard = ground.key(format_args!("guard.{}", how.replace(' ', "-")));
        let stale = match op {
            Some(op) => {
                let stale = ground.put(&guard, "held").await;
                ground.commit(op(guard.clone()), "a move of the fence").await;
                stale
            }
            None => at,
        };
        let fresh = ground.key("fresh");
        for op in [
            Op::put(live.clone(), "y"),
            Op::put(fresh.clone(), "y"),
            Op::put(fresh.clone(), "y").if_absent(),
            Op::delete(live.clone()),
            Op::purge(live.clone()),
            Op::put(buried.clone(), "y"),
        ] {
            let what = format!("{op:?} whose fence is {how}");
            ground.refused(op.fenced(guard.clone(), stale), what).await;
        }
    }
    ground.still_at(&live, at, "writes with stale fences change nothing").await;
    ground.still_at(&buried, tomb, "writes with stale fences change nothing").await;
    ground.never_written(&ground.key("fresh"), "writes with stale fences change nothing").await;
    let later = ground.key("later");
    let held = ground.put(&later, "held").await;
    let ahead = Op::put(live.clone(), "y").fenced(later, held.next());
    ground.refused(ahead, "a write whose fence is not there yet").await;
}

/// A fenced write with an expectation needs both.
pub async fn a_fence_stands_beside_an_expectation(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let (guard, key) = (ground.key("guard"), ground.key("k"));
    let stale = ground.put(&guard, "held once").await;
    let held = ground.put(&guard, "held").await;
    let create = |fence| Op::put(key.clone(), "one").if_absent().fenced(guard.clone(), fence);
    ground.refused(create(stale), "a create with a stale fence").await;
    let first = ground.commit(create(held), "a create with a good fence").await;
    ground.refused(create(held), "a second create with a good fence").await;
    ground.refused(create(stale), "a second create with a stale fence").await;

    let update = |at, fence| Op::put(key.clone(), "two").if_at(at).fenced(guard.clone(), fence);
    ground.refused(update(first, stale), "an update with a stale fence").await;
    ground.refused(update(first.next(), held), "an update at a wrong revision with a good fence").await;
    let second = ground.commit(update(first, held), "an update with a good fence").await;
    ground.reads_as(&key, second, &State::Live("two".into())).await;

    let delete = |at, fence| Op::delete(key.clone()).if_at(at).fenced(guard.clone(), fence);
    ground.refused(delete(second, stale), "a delete with a stale fence").await;
    ground.refused(delete(first, held), "a delete at a former revision with a good fence").await;
    let gone = ground.commit(delete(second, held), "a delete with a good fence").await;
    ground.reads_as(&key, gone, &State::Deleted(Bytes::new())).await;
    ground.commit(create(held), "a create over the tombstone with a good fence").await;
    ground.still_at(&guard, held, "fenced writes leave their fence").await;
}

/// One stale fence in a batch refuses all of it, wherever it stands; fences that hold let it through.
pub async fn a_fence_guards_its_whole_batch(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let (one, two) = (ground.key("guard.one"), ground.key("guard.two"));
    let stale = ground.put(&one, "once").await;
    let held = ground.put(&one, "held").await;
    let other = ground.put(&two, "held").await;
    let keys = ["a", "b", "c"].map(|name| ground.key(name));
    let batch = |fences: [Option<(&Key, Revision)>; 3]| -> Batch {
        keys.iter()
            .zip(fences)
            .map(|(key, fence)| {
                let op = Op::put(key.clone(), "x").if_absent();
                match fence {
                    Some((guard, at)) => op.fenced(guard.clone(), at),
                    None => op,
                }
            })
            .collect()
    };
    let (bad, good, also) = (Some((&one, stale)), Some((&one, held)), Some((&two, other)));
    for place in 0..3 {
        for rest in [None, also] {
            let mut fences = [rest; 3];
            fences[place] = bad;
            ground.refused(batch(fences), format!("a batch with a stale fence at place {place}")).await;
        }
    }
    ground.refused(batch([bad; 3]), "a batch of nothing but stale fences").await;
    ground.refused(batch([good, bad, good]), "a batch that contradicts itself about one fence").await;
    for key in &keys {
        ground.never_written(key, "batches with stale fences write nothing").await;
        ground.delete(key).await;
    }
    for fences in [[good, None, None], [None, good, None], [None, None, good], [good; 3], [good, also, None]] {
        let last = ground.commit(batch(fences), "a batch whose fences stand").await;
        for (key, back) in keys.iter().zip((0..3).rev()) {
            ground.reads_as(key, Revision::new(last.get() - back), &State::Live("x".into())).await;
            ground.delete(key).await;
        }
    }
    ground.still_at(&one, held, "fenced batches leave their fence").await;
}

/// Fenced writers race a release: once the fence moved at some revision, no fenced write has a later one.
pub async fn no_fenced_write_lands_after_the_fence_moved(store: &Arc<dyn Store>) {
    const ROUNDS: usize = 60;
    const WRITERS: usize = 4;
    let ground = Ground::new(store);
    for round in 0..ROUNDS {
        let guard = ground.key(format_args!("guard.{round}"));
        let held = ground.put(&guard, "held").await;
        let race = Arc::new(Race { guard: guard.clone(), held, passed: AtomicUsize::new(0), moved: OnceLock::new() });
        let mut tasks = JoinSet::new();
        for who in 0..WRITERS {
            spawn(&mut tasks, write_until_refused(ground.clone(), race.clone(), format!("{round}.{who}"), who % 2 == 1));
        }
        // Let some writes through first, so that the release falls among them.
        let among = || async { (race.passed.load(Ordering::Relaxed) > round % 5).then_some(()) };
        poll("a fenced write whose fence stands", among).await;
        let release = match round % 3 {
            0 => Op::delete(guard).if_at(held),
            1 => Op::put(guard, "moved").if_at(held),
            _ => Op::purge(guard),
        };
        let moved = ground.commit(release, "the release").await;
        race.moved.get_or_init(|| moved);
        for (key, last) in join(tasks).await {
            let Some(last) = last else { continue };
            assert!(last < moved, "the fence moved at {moved}, yet a fenced write passed at {last}");
            let entry = ground.read(&key, last).await;
            assert!(entry.revision < moved, "the fence moved at {moved}, yet a fenced write stands at {}", entry.revision);
        }
    }
}

struct Race {
    guard: Key,
    held: Revision,
    passed: AtomicUsize,
    /// Where the fence moved to, once that is known.
    moved: OnceLock<Revision>,
}

/// Writes one key behind the fence until it is refused; returns the key and its last revision.
async fn write_until_refused(ground: Ground, race: Arc<Race>, name: String, in_batches: bool) -> (Key, Option<Revision>) {
    let (key, beside) = (ground.key(format_args!("data.{name}")), ground.key(format_args!("beside.{name}")));
    let mut last = None;
    for turn in 0.. {
        let op = Op::put(key.clone(), turn.to_string()).fenced(race.guard.clone(), race.held);
        // A batch begins with an operation that has no fence.
        let batch = if in_batches { Batch::new().and(Op::put(beside.clone(), "x")).and(op) } else { op.into() };
        match ground.store.commit(batch).await {
            Ok(revision) => {
                if let Some(moved) = race.moved.get() {
                    assert!(revision < *moved, "the fence moved at {moved}, yet a fenced write passed at {revision}");
                }
                last = Some(revision);
                race.passed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.is_unknown() => {}
            other => {
                conflict(other, "a fenced write after the fence moved");
                break;
            }
        }
        tokio::task::yield_now().await;
    }
    (key, last)
}
