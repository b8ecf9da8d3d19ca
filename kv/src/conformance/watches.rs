//! Watches: where they start, what they tell, and that the last state of a key is never left out.

use std::{collections::HashMap, sync::Arc};

use futures::{FutureExt, StreamExt, stream};
use tokio::task::JoinSet;

use super::{
    reads::{RANGES, TREE},
    support::{Ground, Watched, in_time, invalid, join, last_of_each, marks, noise, ok, spawn},
};
use crate::{Batch, Entry, Event, Key, KeyRange, MAX_VALUE, Op, Revision, Since, State, Store};

/// A watch of what is current tells the last write of every key, tombstones included, then changes.
pub async fn a_watch_starts_with_what_is_there(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let [a, b, c] = ["a", "b", "c"].map(|name| ground.key(name));
    for key in [&a, &b, &c] {
        ground.put(key, "first").await;
    }
    let gone = ground.commit(Op::delete(b.clone()).note("n"), "a delete").await;
    let last = ground.put(&a, "last").await;
    let mut watch = ground.watch(ground.range(), Since::Current).await;
    let told = snapshot(&ground, &mut watch, last).await;
    if !ground.reads_lag() {
        let names: Vec<_> = told.iter().map(|entry| &entry.key).collect();
        assert_eq!(names, [&c, &b, &a], "a watch starts with the last write of each key, by revision");
    }
    let last_states: HashMap<_, _> = told.iter().map(|entry| (&entry.key, (entry.revision, &entry.state))).collect();
    assert_eq!(last_states.get(&a), Some(&(last, &State::Live("last".into()))), "the value written last must be told");
    assert_eq!(last_states.get(&b), Some(&(gone, &State::Deleted("n".into()))), "the tombstone must be told");
    let fresh = ground.put(&ground.key("d"), "x").await;
    let more = watch.until(fresh).await;
    assert_eq!(marks(&more), [(ground.key("d"), fresh)], "after what is there come the changes");
    assert!(watch.is_caught_up(), "CaughtUp comes before the changes");
}

/// The store keeps one entry per key: a watch of the history tells the last writes only.
pub async fn history_is_one(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let [a, b] = ["a", "b"].map(|name| ground.key(name));
    let start = ground.put(&a, "0").await;
    for round in 0..5 {
        ground.put(&a, round.to_string()).await;
        ground.put(&b, round.to_string()).await;
    }
    let value = ground.put(&a, "last").await;
    let tombstone = ground.delete(&b).await;
    for since in [Since::History, Since::Current, Since::After(Revision::ZERO), Since::After(start)] {
        let mut watch = ground.watch(ground.range(), since).await;
        let told = snapshot(&ground, &mut watch, tombstone).await;
        if !ground.reads_lag() {
            assert_eq!(marks(&told), [(a.clone(), value), (b.clone(), tombstone)], "a watch since {since:?} tells other writes");
        }
    }
}

/// A watch after a revision tells what was written later, and nothing of before.
pub async fn a_watch_starts_after_a_revision(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut written = Vec::new();
    for at in 0..8 {
        let key = ground.key(at);
        let revision = if at == 6 { ground.delete(&key).await } else { ground.put(&key, "x").await };
        written.push((key, revision));
    }
    let last = written[7].1;
    let mut watches = Vec::new();
    for at in 0..8 {
        let after = written[at].1;
        let mut watch = ground.watch(ground.range(), Since::After(after)).await;
        if after < last {
            let told = marks(&snapshot(&ground, &mut watch, last).await);
            assert_eq!(told, written[at + 1..], "a watch after {after} tells other writes");
        } else {
            assert_eq!(watch.until_caught_up().await, [], "a watch after the last revision has nothing to catch up on");
        }
        watches.push(watch);
    }
    let fresh = ground.put(&ground.key("fresh"), "x").await;
    for mut watch in watches {
        assert_eq!(marks(&watch.until(fresh).await), [(ground.key("fresh"), fresh)], "then come the changes");
    }
}

/// A watch from now on tells nothing of before.
pub async fn a_watch_starts_now(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    ground.fill("old", 20).await;
    let mut last = ground.delete(&ground.key("old.3")).await;
    for round in 0..10 {
        let mut watch = ground.watch(ground.range(), Since::Now).await;
        let before = last;
        last = ground.put(&ground.key(round), "x").await;
        let told = watch.until(last).await;
        // A replica that is behind may count as new what was acknowledged a moment ago.
        if !ground.reads_lag() {
            assert_eq!(marks(&told), [(ground.key(round), last)], "a watch from now on tells of a write at {before} or before");
        }
        if !watch.is_caught_up() {
            assert_eq!(watch.until_caught_up().await, [], "nothing more was written");
        }
    }
}

/// CaughtUp comes once, whatever the watch starts with, also where there is nothing to tell.
pub async fn a_watch_catches_up_once(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let filled = ground.fill("some", 5).await;
    let last = filled[4].1;
    for (at, since) in
        [Since::Current, Since::History, Since::Now, Since::After(Revision::ZERO), Since::After(last)].into_iter().enumerate()
    {
        let one = ground.key(format_args!("one.{at}"));
        let ranges = [
            ground.like(format_args!("empty.{at}.>")),
            ground.like(format_args!("empty.*.{at}")),
            KeyRange::One(one),
            ground.like("some.>"),
        ];
        for range in ranges {
            let mut watch = ground.watch(range.clone(), since).await;
            let told = watch.until_caught_up().await;
            assert!(told.len() <= filled.len(), "a watch of {range} since {since:?} told {told:?}");
            let key = match &range {
                KeyRange::One(key) => key.clone(),
                other => ok(Key::new(other.to_string().replace('>', "0").replace('*', "x")), "a key of the range"),
            };
            // Rewritten by every round; a watch that caught up twice would be caught by now.
            let end = ground.put(&key, "end").await;
            watch.until(end).await;
        }
    }
}

/// What is written right after a watch returned is told by it.
pub async fn a_watch_is_established_when_it_returns(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    for round in 0..200 {
        let key = ground.key(format_args!("{round}.k"));
        let range = match round % 3 {
            0 => KeyRange::One(key.clone()),
            1 => ground.like(format_args!("{round}.>")),
            _ => ground.like(format_args!("{round}.*")),
        };
        let since = [Since::Now, Since::Current, Since::Now, Since::History][round % 4];
        let mut watch = ground.watch(range, since).await;
        let revision = ground.commit(Op::put(key, "x").if_absent(), "a create").await;
        watch.until(revision).await;
    }
}

/// Deletes and purges are told as what they are, from the start and as they happen.
pub async fn a_watch_shows_tombstones(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let [deleted, purged, noted] = ["deleted", "purged", "noted"].map(|name| ground.key(name));
    let mut live = ground.watch(ground.range(), Since::Now).await;
    for key in [&deleted, &purged, &noted] {
        ground.put(key, "x").await;
    }
    let expected = [
        (ground.delete(&deleted).await, State::Deleted(noise(0))),
        (ground.commit(Op::purge(purged), "a purge").await, State::Purged),
        (ground.commit(Op::delete(noted).note("note"), "a delete with a note").await, State::Deleted("note".into())),
    ];
    let last = expected[2].0;
    let mut later = ground.watch(ground.range(), Since::Current).await;
    for watch in [&mut live, &mut later] {
        let told = watch.until(last).await;
        let tail: Vec<_> = told.iter().rev().take(3).rev().map(|entry| (entry.revision, entry.state.clone())).collect();
        assert_eq!(tail, expected, "a watch must tell the tombstones as they were written");
    }
}

/// A write that was refused is not told.
pub async fn a_watch_shows_only_what_was_committed(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut watch = ground.watch(ground.range(), Since::Now).await;
    let mut committed = Vec::new();
    for round in 0..10 {
        let key = ground.key(format_args!("{round}.k"));
        let revision = ground.commit(Op::put(key.clone(), "good").if_absent(), "a create").await;
        committed.push((key.clone(), revision));
        let fresh = ground.key(format_args!("{round}.fresh"));
        ground.refused(Op::put(key.clone(), "bad").if_absent(), "a second create").await;
        ground.refused(Op::put(key.clone(), "bad").if_at(revision.next()), "an update at a wrong revision").await;
        ground.refused(Op::put(fresh.clone(), "bad").fenced(key.clone(), revision.next()), "a write with a stale fence").await;
        ground.refused(Op::delete(key.clone()).if_absent(), "a delete on condition of absence").await;
        let batch = Batch::new().and(Op::put(fresh.clone(), "bad")).and(Op::put(key, "bad").if_absent());
        ground.refused(batch, "a batch with a create that fails").await;
        invalid(store.commit(Op::put(fresh, noise(MAX_VALUE + 1)).into()).await, "a value over the limit");
    }
    let (_, last) = committed[9];
    let told = watch.until(last).await;
    assert_eq!(marks(&told), committed, "a watch tells what was committed and nothing else");
    let end = ground.put(&ground.key("end"), "x").await;
    assert_eq!(marks(&watch.until(end).await), [(ground.key("end"), end)], "nothing refused may be told late");
}

/// Watches begun while others write tell ascending revisions and the last state of every key.
pub async fn a_watch_among_writers_never_goes_back(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut writers = JoinSet::new();
    for who in 0..4 {
        let ground = ground.clone();
        spawn(&mut writers, async move {
            let mut last = HashMap::new();
            for round in 0..150 {
                let key = ground.key(format_args!("{who}.{}", (round * 5) % 12));
                let op = if round % 4 == 3 { Op::delete(key.clone()) } else { Op::put(key.clone(), round.to_string()) };
                last.insert(key, ground.commit(op, "a write").await);
            }
            last
        });
    }
    let mut watchers = JoinSet::new();
    for at in 0..12 {
        let since = [Since::Current, Since::History, Since::After(Revision::ZERO)][at % 3];
        let mut watch = ground.watch(ground.range(), since).await;
        // The last write of all: when it is told, everything has been.
        let end = ground.key("end");
        spawn(&mut watchers, async move {
            let mut told = Vec::new();
            while told.last().is_none_or(|entry: &Entry| entry.key != end) {
                if let Event::Entry(entry) = watch.next().await {
                    told.push(entry);
                }
            }
            told
        });
        // Spread the starts over the time of the writers.
        let pace = ground.key(format_args!("pace.{at}"));
        ground.put(&pace, "x").await;
    }
    let finals: HashMap<_, _> = join(writers).await.into_iter().flatten().collect();
    ground.put(&ground.key("end"), "end").await;
    for told in join(watchers).await {
        let last = last_of_each(&told);
        for (key, revision) in &finals {
            assert_eq!(last.get(key), Some(revision), "the last write of {key} must be told last");
        }
    }
}

/// A watch that nobody polls during thousands of writes still tells the last state of every key.
pub async fn an_unpolled_watch_keeps_the_last_states(store: &Arc<dyn Store>) {
    const WRITES: usize = 5_000;
    let ground = Ground::new(store);
    let before = ground.fill("before", 50).await;
    let mut live = ground.watch(ground.range(), Since::Now).await;
    let mut whole = ground.watch(ground.range(), Since::Current).await;
    let written: Vec<_> = stream::iter(0..WRITES)
        .map(|at| {
            let key = ground.key(format_args!("k.{}", at % 40));
            let op = if at % 9 == 0 { Op::delete(key.clone()) } else { Op::put(key.clone(), noise(200)) };
            let ground = &ground;
            async move { (key, ground.commit(op, "one of thousands of writes").await) }
        })
        .buffer_unordered(32)
        .collect()
        .await;
    let end = ground.put(&ground.key("end"), "end").await;
    let mut finals: HashMap<Key, Revision> = HashMap::new();
    for (key, revision) in written {
        let last = finals.entry(key).or_default();
        *last = revision.max(*last);
    }
    let told = last_of_each(&live.until(end).await);
    for (key, revision) in &finals {
        assert_eq!(told.get(key), Some(revision), "an unpolled watch left out the last write of {key}");
    }
    let told = last_of_each(&whole.until(end).await);
    for (key, revision) in finals.iter().chain(before.iter().map(|mark| (&mark.0, &mark.1))) {
        assert_eq!(told.get(key), Some(revision), "an unpolled watch left out the last write of {key}");
    }
}

/// Watches of one key, a subtree and a pattern tell what lies in them and nothing else.
pub async fn a_watch_keeps_to_its_range(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut watches = Vec::new();
    for pattern in RANGES {
        watches.push(ground.watch(ground.like(pattern), Since::Now).await);
    }
    let mut written = Vec::new();
    for name in TREE {
        let key = ground.key(name);
        let revision = ground.put(&key, name).await;
        written.push((key, revision));
    }
    for (pattern, mut watch) in RANGES.into_iter().zip(watches) {
        let range = ground.like(pattern);
        let expected: Vec<_> = written.iter().filter(|(key, _)| range.contains(key)).cloned().collect();
        let mut late = ground.watch(range.clone(), Since::Current).await;
        if let Some((_, last)) = expected.last() {
            assert_eq!(marks(&watch.until(*last).await), expected, "a watch of {range} tells something else");
            let told = snapshot(&ground, &mut late, *last).await;
            assert_eq!(marks(&told), expected, "a watch of what is in {range} tells something else");
        } else {
            assert_eq!(late.until_caught_up().await, [], "nothing lies in {range}");
        }
    }
    let mut everything = ground.watch(KeyRange::All, Since::Now).await;
    let (key, mut seen) = (ground.key("end"), Vec::new());
    let end = ground.put(&key, "end").await;
    seen.extend(everything.until(end).await);
    assert!(marks(&seen).contains(&(key, end)), "a watch of everything tells every write");
}

/// More than a thousand watches, dropped at every point of their lives, leave nothing behind that hurts.
pub async fn dropped_watches_leave_the_store_well(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    ground.fill("k", 10).await;
    stream::iter(0..1_200)
        .for_each_concurrent(16, |at| {
            let ground = &ground;
            async move {
                let range = if at % 2 == 0 { ground.range() } else { KeyRange::One(ground.key(format_args!("k.{}", at % 10))) };
                let since = if at % 4 < 2 { Since::Current } else { Since::Now };
                match at % 3 {
                    0 => drop(ground.store.watch(range, since).now_or_never()),
                    1 => drop(ground.watch(range, since).await),
                    _ => drop(ground.watch(range, since).await.next().await),
                }
            }
        })
        .await;
    let mut watch = ground.watch(ground.range(), Since::Current).await;
    let key = ground.key("after");
    let revision = ground.commit(Op::put(key, "x").if_absent(), "a create after a thousand dropped watches").await;
    in_time("the watch after a thousand dropped ones", watch.until(revision)).await;
}

/// What a watch starts with, where the last write of it is `last`.
async fn snapshot(ground: &Ground, watch: &mut Watched, last: Revision) -> Vec<Entry> {
    if ground.reads_lag() {
        // A replica that is behind has caught up with less than was acknowledged; the rest follows.
        return watch.until(last).await;
    }
    let told = watch.until_caught_up().await;
    assert_eq!(told.last().map(|entry| entry.revision), Some(last), "everything there comes before CaughtUp");
    told
}
