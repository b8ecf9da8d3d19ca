//! Notices of one key: the latest write is heard, or a word to read the key.

use std::{collections::HashMap, sync::Arc};

use futures::{FutureExt, StreamExt, stream};
use tokio::task::JoinSet;

use super::support::{Ground, MakeOp, invalid, join, noise, spawn};
use crate::{Batch, Bytes, MAX_VALUE, Op, State, Store};

/// Puts, updates, deletes with their notes, purges and batches are heard.
pub async fn a_follower_hears_every_kind_of_write(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let (key, guard) = (ground.key("k"), ground.key("guard"));
    let held = ground.put(&guard, "held").await;
    let mut notices = ground.follow(&key).await;
    let steps: [(MakeOp, State); 8] = [
        (|key| Op::put(key, "created").if_absent(), State::Live("created".into())),
        (|key| Op::put(key, "put"), State::Live("put".into())),
        (|key| Op::put(key, ""), State::Live(Bytes::new())),
        (|key| Op::delete(key).note("handed to b"), State::Deleted("handed to b".into())),
        (|key| Op::put(key, "again").if_absent(), State::Live("again".into())),
        (Op::purge, State::Purged),
        (|key| Op::put(key, noise(100_000)), State::Live(noise(100_000))),
        (Op::delete, State::Deleted(Bytes::new())),
    ];
    for (at, (op, state)) in steps.into_iter().enumerate() {
        let op = op(key.clone());
        let revision = match at % 3 {
            0 => ground.commit(op, "a write").await,
            1 => ground.commit(op.fenced(guard.clone(), held), "a fenced write").await,
            _ => ground.commit(Batch::new().and(Op::put(ground.key("beside"), "x")).and(op), "a batch").await,
        };
        let told = notices.hear(revision).await;
        let last = told.last().map(|entry| (entry.revision, entry.state.clone()));
        assert_eq!(last, Some((revision, state)), "a follower must hear of the last write as it was");
    }
}

/// A follower that nobody polled during thousands of writes learns the latest.
pub async fn a_follower_that_slept_learns_the_latest(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    let mut notices = ground.follow(&key).await;
    let ground = &ground;
    stream::iter(0..2_000)
        .map(|at| ground.put(if at % 2 == 0 { &key } else { ground.root() }, noise(100)))
        .buffer_unordered(32)
        .collect::<Vec<_>>()
        .await;
    let last = ground.put(&key, "last").await;
    let told = notices.hear(last).await;
    assert_eq!(told.last().and_then(|entry| entry.value()), Some(&Bytes::from("last")), "the latest write must be heard");
    let next = ground.delete(&key).await;
    notices.hear(next).await;
}

/// A follower of one key hears nothing of the keys around it.
pub async fn a_follower_hears_only_its_key(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("a.b");
    let mut notices = ground.follow(&key).await;
    for name in ["a", "a.b.c", "a.bc", "a.c", "A.b", "b", "a.b.b"] {
        ground.put(&ground.key(name), "x").await;
    }
    let revision = ground.put(&key, "own").await;
    let told = notices.hear(revision).await;
    assert!(told.iter().all(|entry| entry.key == key), "a follower heard of another key: {told:?}");
}

/// A write that was refused is not told.
pub async fn a_follower_hears_only_what_was_committed(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    let mut notices = ground.follow(&key).await;
    let mut committed = HashMap::new();
    for round in 0..20 {
        let value = format!("good {round}");
        let revision = ground.put(&key, value.clone()).await;
        committed.insert(revision, Bytes::from(value));
        ground.refused(Op::put(key.clone(), "bad").if_absent(), "a create of a live key").await;
        ground.refused(Op::put(key.clone(), "bad").if_at(revision.next()), "an update at a wrong revision").await;
        ground.refused(Op::delete(key.clone()).if_at(revision.next()), "a delete at a wrong revision").await;
        ground.refused(Op::put(key.clone(), "bad").fenced(ground.key("absent"), revision), "a write with a stale fence").await;
        let batch = Batch::new().and(Op::put(key.clone(), "bad")).and(Op::put(ground.key("absent"), "bad").if_at(revision));
        ground.refused(batch, "a batch with an update that fails").await;
        invalid(store.commit(Op::put(key.clone(), noise(MAX_VALUE + 1)).into()).await, "a value over the limit");
        if round % 4 == 0 {
            for entry in notices.hear(revision).await {
                assert_eq!(entry.value(), committed.get(&entry.revision), "a follower heard what was not committed");
            }
        }
    }
    let last = ground.put(&key, "last").await;
    committed.insert(last, "last".into());
    for entry in notices.hear(last).await {
        assert_eq!(entry.value(), committed.get(&entry.revision), "a follower heard what was not committed");
    }
}

/// Many followers of one key, and followers of many keys, all hear.
pub async fn every_follower_hears(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let shared = ground.key("shared");
    let mut waiting = Vec::new();
    for at in 0..60 {
        waiting.push((ground.follow(&shared).await, shared.clone()));
        let own = ground.key(format_args!("own.{at}"));
        waiting.push((ground.follow(&own).await, own));
    }
    let mut written = HashMap::new();
    for at in 0..60 {
        let own = ground.key(format_args!("own.{at}"));
        written.insert(own.clone(), ground.put(&own, "x").await);
    }
    written.insert(shared.clone(), ground.put(&shared, "x").await);
    let mut tasks = JoinSet::new();
    for (mut notices, key) in waiting {
        let revision = written[&key];
        spawn(&mut tasks, async move { notices.hear(revision).await });
    }
    join(tasks).await;
}

/// More than a thousand followers, dropped at every point of their lives, leave nothing behind that hurts.
pub async fn dropped_followers_leave_the_store_well(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    stream::iter(0..1_200)
        .for_each_concurrent(16, |at| {
            let ground = &ground;
            async move {
                let key = ground.key(at % 50);
                match at % 3 {
                    0 => drop(ground.store.follow(&key).now_or_never()),
                    1 => drop(ground.follow(&key).await),
                    _ => drop(ground.follow(&key).await.stream.next().now_or_never()),
                }
            }
        })
        .await;
    let key = ground.key(0);
    let mut notices = ground.follow(&key).await;
    let revision = ground.put(&key, "x").await;
    notices.hear(revision).await;
}
