//! Watches of a bucket: where they begin, and that the last write to a key is never left out.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Tested, ground::Ground};
use crate::{
    KeyRange, Op, Revision, Since, State,
    conformance::support::{join, last_of_each, marks, spawn},
};

/// The latest write to each key, then changes.
pub async fn a_watch_begins_with_what_is_there(tested: &Tested) {
    let ground = Ground::new(tested);
    let [a, b] = ["a", "b"].map(|name| ground.key(name));
    ground.put(&a, "first").await;
    let other = ground.put(&b, "x").await;
    let last = ground.put(&a, "last").await;
    ground.read(&a, last).await;
    let mut watch = ground.watch(ground.range(), Since::Current).await;
    let told = ground.told(&mut watch, last).await;
    if ground.reads_lag() {
        assert_eq!(last_of_each(&told), HashMap::from([(b, other), (a, last)]), "the last write to each key is told");
    } else {
        assert_eq!(marks(&told), [(b, other), (a, last)], "the last write to each key is told, in their order");
    }
    let fresh = ground.put(&ground.key("c"), "x").await;
    assert_eq!(marks(&watch.until(fresh).await), [(ground.key("c"), fresh)], "after what is there come the changes");
}

/// All that the bucket keeps, or the last writes where that is more than the bucket keeps.
pub async fn a_watch_of_the_past_tells_what_is_kept(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    let mut wrote = Vec::new();
    for number in 0..tested.history + 2 {
        wrote.push(ground.put(&key, number.to_string()).await);
    }
    let (last, kept) = (wrote[wrote.len() - 1], &wrote[wrote.len() - tested.history..]);
    ground.read(&key, last).await;
    for since in [Since::History, Since::After(Revision::ZERO)] {
        let mut watch = ground.watch(ground.range(), since).await;
        let told: Vec<_> = ground.told(&mut watch, last).await.into_iter().map(|entry| entry.revision).collect();
        assert!(told.ends_with(kept), "a watch since {since:?} tells {told:?}, and {kept:?} are kept");
        assert!(ground.reads_lag() || told == kept, "a watch since {since:?} tells {told:?}, and {kept:?} are kept");
    }
}

/// What was written later, and nothing of before.
pub async fn a_watch_begins_after_a_revision(tested: &Tested) {
    let ground = Ground::new(tested);
    let [a, b, c] = ["a", "b", "c"].map(|name| ground.key(name));
    ground.put(&a, "x").await;
    let from = ground.put(&b, "x").await;
    let next = ground.put(&c, "x").await;
    let last = ground.put(&a, "y").await;
    ground.read(&a, last).await;
    let mut watch = ground.watch(ground.range(), Since::After(from)).await;
    assert_eq!(marks(&ground.told(&mut watch, last).await), [(c, next), (a, last)], "a watch after {from}");
    let mut end = ground.watch(ground.range(), Since::After(last)).await;
    let fresh = ground.put(&b, "y").await;
    assert_eq!(marks(&end.until(fresh).await), [(b, fresh)], "a watch after the last revision tells what comes");
}

/// Nothing of what is there, and everything that is written once it has returned.
pub async fn a_watch_begins_now(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    for round in 0..10 {
        let before = ground.put(&key, "before").await;
        ground.read(&key, before).await;
        let mut watch = ground.watch(ground.range(), Since::Now).await;
        let at = ground.put(&key, round.to_string()).await;
        let told = watch.until(at).await;
        let seen = marks(&told);
        // Of several servers the one that tells may be behind.
        assert!(seen == [(key.clone(), at)] || (ground.reads_lag() && seen.ends_with(&[(key.clone(), at)])), "{seen:?}");
        assert!(watch.is_caught_up(), "CaughtUp comes before the changes");
    }
}

/// Removals are told for what they are.
pub async fn a_watch_tells_tombstones(tested: &Tested) {
    let ground = Ground::new(tested);
    let [a, b] = ["a", "b"].map(|name| ground.key(name));
    let mut watch = ground.watch(ground.range(), Since::Now).await;
    ground.put(&a, "x").await;
    let deleted = ground.write(Op::delete(a.clone()), "a delete").await;
    ground.put(&b, "x").await;
    let purged = ground.write(Op::purge(b.clone()), "a purge").await;
    let told: HashMap<_, _> = watch.until(purged).await.into_iter().map(|entry| (entry.revision, entry.state)).collect();
    assert_eq!(told.get(&deleted), Some(&State::Deleted(Bytes::new())), "the delete is told");
    assert_eq!(told.get(&purged), Some(&State::Purged), "the purge is told");
}

/// One key, what is below a key, and patterns.
pub async fn a_watch_keeps_to_its_range_in_a_bucket(tested: &Tested) {
    let ground = Ground::new(tested);
    let [a, ax, axy, ab] = ["a", "a.x", "a.x.y", "ab"].map(|name| ground.key(name));
    let ranges = [
        (KeyRange::One(a.clone()), vec![&a]),
        (KeyRange::Under(a.clone()), vec![&ax, &axy]),
        (ground.like("*"), vec![&a, &ab]),
        (ground.like("*.x"), vec![&ax]),
    ];
    let mut watches = Vec::new();
    for (range, wanted) in ranges {
        watches.push((ground.watch(range.clone(), Since::Now).await, range, wanted));
    }
    let mut at = HashMap::new();
    for key in [&a, &ax, &axy, &ab] {
        at.insert(key, ground.put(key, "x").await);
    }
    for (mut watch, range, wanted) in watches {
        let last = wanted.iter().filter_map(|key| at.get(key)).max().copied().unwrap_or(Revision::ZERO);
        let told = watch.until(last).await;
        let told: Vec<_> = told.iter().map(|entry| &entry.key).collect();
        assert_eq!(told, wanted, "a watch of {range}");
    }
}

/// However many write meanwhile, the last write to each key is told.
pub async fn a_watch_among_writers_tells_the_last_writes(tested: &Tested) {
    let ground = Ground::new(tested);
    let mut watch = ground.watch(ground.range(), Since::Current).await;
    let mut tasks = JoinSet::new();
    for writer in 0..4 {
        let ground = ground.clone();
        spawn(&mut tasks, async move {
            let key = ground.key(writer);
            let mut last = Revision::ZERO;
            for number in 0..25 {
                last = ground.put(&key, number.to_string()).await;
            }
            (key, last)
        });
    }
    let wanted: HashMap<_, _> = join(tasks).await.into_iter().collect();
    let last = wanted.values().max().copied().unwrap_or(Revision::ZERO);
    assert_eq!(last_of_each(&watch.until(last).await), wanted);
}
