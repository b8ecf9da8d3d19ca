//! Batches: all or nothing, at consecutive revisions.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures::FutureExt;
use tokio::task::JoinSet;

use super::support::{Ground, invalid, join, noise, ok, spawn};
use crate::{Batch, Expect, Key, MAX_BATCH, MAX_VALUE, Op, Revision, Since, State, Store};

/// The operations of a batch have consecutive revisions in their order; the last one is returned.
pub async fn a_batch_has_consecutive_revisions(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let keys = ["z", "a", "m", "b"].map(|name| ground.key(name));
    let [put, delete, purge, create] = &keys;
    let before = ground.put(delete, "to be deleted").await;
    let batch = Batch::new()
        .and(Op::put(put.clone(), "put"))
        .and(Op::delete(delete.clone()).if_at(before).note("note"))
        .and(Op::purge(purge.clone()))
        .and(Op::put(create.clone(), noise(1_000)).if_absent());
    let last = ground.commit(batch, "a batch of every kind of change").await;
    assert!(last.get() >= before.get() + 4, "four operations after {before} cannot end at {last}");
    let states = [State::Live("put".into()), State::Deleted("note".into()), State::Purged, State::Live(noise(1_000))];
    for ((key, state), back) in keys.iter().zip(&states).zip((0..4).rev()) {
        ground.reads_as(key, Revision::new(last.get() - back), state).await;
    }
    let next = ground.put(&ground.key("next"), "x").await;
    assert!(next > last, "a write after a batch that ended at {last} has revision {next}");
    let one = ground.commit(Batch::new().and(Op::put(put.clone(), "alone")), "a batch of one").await;
    ground.reads_as(put, one, &State::Live("alone".into())).await;
}

/// One operation that may not pass, wherever it stands and whatever it lacks, stops the whole batch.
pub async fn a_batch_is_all_or_nothing(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let live = ground.key("live");
    let at = ground.put(&live, "x").await;
    let fresh = ["a", "b", "c"].map(|name| ground.key(name));
    let bad: [(&str, Op); 5] = [
        ("a create of a live key", Op::put(live.clone(), "y").if_absent()),
        ("an update at a wrong revision", Op::put(live.clone(), "y").if_at(at.next())),
        ("a delete at a wrong revision", Op::delete(live.clone()).if_at(at.next())),
        ("a purge of a live key on condition of absence", Op::purge(live.clone()).expect(Expect::Absent)),
        ("an update of an absent key", Op::put(ground.key("absent"), "y").if_at(at)),
    ];
    for (what, op) in bad {
        for place in 0..=fresh.len() {
            let mut ops: Vec<_> = fresh.iter().map(|key| Op::put(key.clone(), "half").if_absent()).collect();
            ops.insert(place, op.clone());
            let batch: Batch = ops.into_iter().collect();
            ground.refused(batch, format!("a batch with {what} at place {place}")).await;
        }
    }
    for key in fresh.iter().chain([&ground.key("absent")]) {
        ground.never_written(key, "refused batches write nothing").await;
    }
    ground.still_at(&live, at, "refused batches write nothing").await;
}

/// What every store refuses without asking: empty, too long, a key twice, a fence on a changed key.
pub async fn malformed_batches_are_refused(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let (a, b) = (ground.key("a"), ground.key("b"));
    invalid(store.commit(Batch::new()).await, "an empty batch");
    let twice = Batch::new().and(Op::put(a.clone(), "1")).and(Op::put(b.clone(), "2")).and(Op::delete(a.clone()));
    invalid(store.commit(twice).await, "a batch that changes a key twice");
    let long: Batch = (0..=MAX_BATCH).map(|at| Op::put(ground.key(at), "x")).collect();
    invalid(store.commit(long).await, "a batch over the limit");
    let full: Batch = (0..MAX_BATCH).map(|at| Op::put(ground.key(at), "x").fenced(b.clone(), Revision::ZERO)).collect();
    invalid(store.commit(full).await, "a batch over the limit, its fence counted in");
    let large = Batch::new().and(Op::put(a.clone(), "x")).and(Op::put(b.clone(), noise(MAX_VALUE + 1)));
    invalid(store.commit(large).await, "a batch with a value over the limit");
    let own = Op::put(a.clone(), "x").fenced(a.clone(), Revision::ZERO);
    invalid(store.commit(own.into()).await, "an operation fenced by its own key");
    let mutual = Batch::new().and(Op::put(a.clone(), "x").fenced(b.clone(), Revision::ZERO)).and(Op::put(b.clone(), "x"));
    invalid(store.commit(mutual).await, "an operation fenced by a key of its batch");
    for key in [a, b, ground.key(0), ground.key(MAX_BATCH)] {
        ground.never_written(&key, "malformed batches write nothing").await;
    }
}

/// A batch of [`MAX_BATCH`] operations passes; so does one less with a fence, unless the fence is stale.
pub async fn a_full_batch_passes(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let guard = ground.key("guard");
    let held = ground.put(&guard, "held").await;
    let keys: Vec<_> = (0..MAX_BATCH).map(|at| ground.key(at)).collect();
    let create = |key: &Key| Op::put(key.clone(), key.as_str().to_owned()).if_absent();
    let fenced = |revision: Revision| -> Batch {
        let (last, others) = keys[1..].split_last().unwrap_or((&guard, &[]));
        others.iter().map(create).chain([create(last).fenced(guard.clone(), revision)]).collect()
    };
    ground.refused(fenced(held.next()), "a full batch with a stale fence on its last operation").await;
    let first = ground.commit(fenced(held), "a full batch with a fence").await;
    let every: Batch = keys.iter().map(|key| Op::delete(key.clone())).collect();
    let last = ground.commit(every, "a full batch").await;
    assert!(last.get() >= first.get() + MAX_BATCH as u64, "{MAX_BATCH} deletes after {first} cannot end at {last}");
    for (back, key) in keys.iter().rev().enumerate().step_by(111) {
        let revision = Revision::new(last.get() - back as u64);
        ground.reads_as(key, revision, &State::Deleted(Bytes::new())).await;
    }
}

/// Batches over the same keys at once: the keys always hold what one batch wrote.
pub async fn concurrent_batches_do_not_mix(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let keys = ["a", "b", "c"].map(|name| ground.key(name));
    let mut watch = ground.watch(ground.range(), Since::Now).await;
    let mut tasks = JoinSet::new();
    for who in 0..8 {
        let (ground, keys) = (ground.clone(), keys.clone());
        spawn(&mut tasks, async move {
            let mut written = Vec::new();
            for round in 0..10 {
                let value = format!("{who}-{round}");
                let batch: Batch = keys.iter().map(|key| Op::put(key.clone(), value.clone())).collect();
                written.push((ground.commit(batch, "one of many batches").await, value));
            }
            written
        });
    }
    let mut written: Vec<_> = join(tasks).await.into_iter().flatten().collect();
    written.sort();
    assert!(written.windows(2).all(|pair| pair[1].0.get() >= pair[0].0.get() + 3), "two batches share revisions: {written:?}");
    let Some((last, value)) = written.last() else { panic!("no batch was written") };
    for (key, back) in keys.iter().zip((0..3).rev()) {
        ground.reads_as(key, Revision::new(last.get() - back), &State::Live(value.clone().into())).await;
    }
    let values: HashMap<Revision, &str> = written.iter().map(|(revision, value)| (*revision, value.as_str())).collect();
    for entry in watch.until(*last).await {
        // The place of the key in the batch tells at which revision its batch ended.
        let back = keys.iter().rev().position(|key| *key == entry.key).unwrap_or_default() as u64;
        let end = Revision::new(entry.revision.get() + back);
        let value = entry.value().map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(value.as_deref(), values.get(&end).copied(), "{} is not what its batch wrote", entry.key);
    }
}

/// A commit whose future is dropped is applied as a whole or not at all, a batch never by half.
pub async fn dropped_commits_are_whole_or_nothing(store: &Arc<dyn Store>) {
    const ROUNDS: usize = 60;
    let ground = Ground::new(store);
    let mut watch = ground.watch(ground.range(), Since::Now).await;
    let parts = |round: usize| ["a", "b", "c"].map(|part| ground.key(format_args!("{round}.{part}")));
    for round in 0..ROUNDS {
        let batch: Batch = parts(round).into_iter().map(|key| Op::put(key, round.to_string()).if_absent()).collect();
        let mut commit = store.commit(batch);
        // Dropped after the first poll, the second, and so on: at a different point of its way each time.
        for _ in 0..=round % 6 {
            if (&mut commit).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let end = ground.put(&ground.key("end"), "end").await;
    let mut told: HashMap<Key, (Revision, Option<Bytes>)> = HashMap::new();
    for entry in watch.until(end).await {
        told.insert(entry.key.clone(), (entry.revision, entry.value().cloned()));
    }
    for round in 0..ROUNDS {
        let keys = parts(round);
        let found: Vec<_> = keys.iter().filter_map(|key| told.get(key)).collect();
        assert!(
            found.is_empty() || found.len() == keys.len(),
            "of a dropped batch of {} operations {} were applied",
            keys.len(),
            found.len()
        );
        assert!(
            found.windows(2).all(|pair| pair[1].0 == pair[0].0.next()),
            "a dropped batch was applied at revisions that are not consecutive: {found:?}"
        );
        let expected = Some(Bytes::from(round.to_string()));
        assert!(found.iter().all(|(_, value)| *value == expected), "a dropped batch wrote something else: {found:?}");
    }
    // The store is as well as before.
    let key = ground.key("after");
    let revision = ground.commit(Op::put(key.clone(), "x").if_absent(), "a create after dropped commits").await;
    assert!(ok(store.entry(&key).await, "a read").is_none_or(|entry| entry.revision == revision), "reads go astray");
}
