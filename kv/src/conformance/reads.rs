//! Reads of several keys: by name, by range, in pages.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;

use super::support::{Ground, conflict, join, marks, ok, poll, spawn};
use crate::{Bytes, Entry, Expect, Key, KeyRange, Op, Page, Revision, State, Store, StoreExt};

/// Entries come in the order of the keys asked for, absent ones as `None`, tombstones as what they are.
pub async fn entries_come_in_the_order_asked_for(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let [live, deleted, purged, absent] = ["live", "deleted", "purged", "absent"].map(|name| ground.key(name));
    let first = ground.put(&live, "x").await;
    let second = ground.commit(Op::delete(deleted.clone()).note("n"), "a delete").await;
    let third = ground.commit(Op::purge(purged.clone()), "a purge").await;
    let expected: HashMap<&Key, (Revision, State)> = HashMap::from([
        (&live, (first, State::Live("x".into()))),
        (&deleted, (second, State::Deleted("n".into()))),
        (&purged, (third, State::Purged)),
    ]);
    let orders: [&[&Key]; 6] = [
        &[],
        &[&absent],
        &[&live, &deleted, &purged, &absent],
        &[&absent, &purged, &absent, &deleted, &live],
        &[&live, &live, &absent, &live],
        &[&purged, &live],
    ];
    for order in orders {
        let keys: Vec<Key> = order.iter().copied().cloned().collect();
        let read = || async {
            let found = ok(store.entries(&keys).await, "a read of several keys");
            assert_eq!(found.len(), keys.len(), "there must be as many answers as keys");
            let complete = found.iter().zip(&keys).all(|(entry, key)| entry.is_some() == expected.contains_key(key));
            (complete || !ground.reads_lag()).then_some(found)
        };
        for (entry, key) in poll("a read of several keys", read).await.into_iter().zip(&keys) {
            let found = entry.map(|entry| (entry.key, entry.revision, entry.state));
            let wanted = expected.get(key).map(|(revision, state)| (key.clone(), *revision, state.clone()));
            assert_eq!(found, wanted, "the answer in the place of {key} is wrong");
        }
    }
}

/// More than a thousand keys can be read at once.
pub async fn entries_of_a_thousand_keys(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut written = ground.fill("k", 1_100).await;
    written.reverse();
    let keys: Vec<_> = written.iter().map(|(key, _)| key.clone()).collect();
    let read = || async {
        let found = ok(store.entries(&keys).await, "a read of many keys");
        (found.iter().all(Option::is_some) || !ground.reads_lag()).then_some(found)
    };
    let found = poll("a read of many keys", read).await;
    assert_eq!(found.len(), written.len(), "there must be as many answers as keys");
    for (entry, (key, revision)) in found.iter().zip(&written) {
        let entry = entry.as_ref().map(|entry| (&entry.key, entry.revision));
        assert_eq!(entry, Some((key, *revision)), "the answer in the place of {key} is wrong");
    }
}

/// A scan gives the live entries from a revision on, ascending, and nothing of an empty range.
pub async fn a_scan_ascends_from_a_revision(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let empty = page(&ground, &ground.like("empty.>"), Revision::ZERO, 100).await;
    assert!(empty.complete && empty.entries.is_empty(), "an empty range must give one empty complete page, not {empty:?}");
    let keys = ["e", "b", "d", "a", "c"].map(|name| ground.key(name));
    for key in &keys {
        ground.put(key, key.as_str().to_owned()).await;
    }
    // Out of the order of names and of first writes: only the last write counts.
    let [e, b, d, a, c] = &keys;
    ground.delete(d).await;
    let mut expected = Vec::new();
    for key in [c, a, e, b] {
        expected.push((key.clone(), ground.put(key, "again").await));
    }
    let last = expected.last().map_or(Revision::ZERO, |mark| mark.1);
    for skip in 0..=expected.len() {
        let from = expected.get(skip).map_or(last.next(), |mark| mark.1);
        let page = page_through(&ground, &ground.range(), from, 100, last).await;
        assert_eq!(marks(&page.entries), expected[skip..], "a scan from {from} gives something else");
        assert!(page.complete, "a scan of few keys with a limit of 100 must be complete");
        let between = page_through(&ground, &ground.range(), from.next(), 100, last).await;
        let rest: Vec<_> = expected.iter().filter(|mark| mark.1 > from).cloned().collect();
        assert_eq!(marks(&between.entries), rest, "a scan from just after {from} gives something else");
    }
    let values = page_through(&ground, &ground.range(), Revision::ZERO, 100, last).await;
    assert!(values.entries.iter().all(|entry| entry.value() == Some(&Bytes::from("again"))), "a scan must show the last values");
}

/// Whatever the limit, pages follow each other without hole or overlap.
pub async fn pages_leave_no_hole(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut live: HashMap<_, _> = ground.fill("k", 37).await.into_iter().collect();
    let mut last = Revision::ZERO;
    for at in [3, 30, 11, 36, 0] {
        let key = ground.key(format_args!("k.{at}"));
        ground.delete(&key).await;
        live.remove(&key);
    }
    for at in [7, 35, 20] {
        let key = ground.key(format_args!("k.{at}"));
        last = ground.put(&key, "again").await;
        live.insert(key, last);
    }
    let mut expected: Vec<_> = live.into_iter().collect();
    expected.sort_by_key(|mark| mark.1);
    for limit in [1_000, 37, 33, 32, 31, 10, 3, 2, 1] {
        let listed = marks(&listing(&ground, &ground.range(), limit, last).await);
        assert_eq!(listed, expected, "pages of {limit} do not add up to the range");
    }
}

/// Keys nobody touches are all reached, however much is written between the pages.
pub async fn pages_leave_no_hole_under_writes(store: &Arc<dyn Store>) {
    const HOT: usize = 20;
    let ground = Ground::new(store);
    let hot = ground.fill("hot", HOT).await;
    let stable = ground.fill("stable", 150).await;
    let last = stable.last().map_or(Revision::ZERO, |mark| mark.1);
    let mut tasks = JoinSet::new();
    for who in 0..3 {
        let ground = ground.clone();
        spawn(&mut tasks, async move {
            for round in 0..200 {
                let hot = ground.key(format_args!("hot.{}", (who * 7 + round) % HOT));
                ground.put(&hot, "hotter").await;
                let passing = ground.key(format_args!("passing.{who}.{}", round % 5));
                if round % 2 == 0 {
                    ground.put(&passing, "x").await
                } else {
                    ground.delete(&passing).await
                };
                // Slower than the pages, which could else chase the end of the range for ever.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    let mut rounds = 0;
    let mut finished = Vec::new();
    loop {
        let limit = [7, 40, 1_000][rounds % 3];
        let listed = listing(&ground, &ground.range(), limit, last).await;
        let found: HashSet<_> = marks(&listed).into_iter().collect();
        let missing: Vec<_> = stable.iter().filter(|mark| !found.contains(mark)).collect();
        assert!(missing.is_empty(), "pages of {limit} leave out {} untouched keys, such as {:?}", missing.len(), missing.first());
        // A later page by a replica that is behind an earlier one may miss what moved in between.
        if !ground.reads_lag() {
            let missing: Vec<_> = hot.iter().filter(|(key, _)| !listed.iter().any(|entry| entry.key == *key)).collect();
            assert!(missing.is_empty(), "pages of {limit} leave out {missing:?}, which were there all the time");
        }
        rounds += 1;
        while let Some(done) = tasks.try_join_next() {
            finished.push(done);
        }
        if tasks.is_empty() {
            break;
        }
    }
    for done in finished {
        if let Err(error) = done {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// A scan that has come as far as a write shows it, and everything that was written before it.
pub async fn a_scan_that_reaches_a_write_shows_it(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut tasks = JoinSet::new();
    for who in 0..4 {
        let ground = ground.clone();
        spawn(&mut tasks, async move {
            let mut reads = Vec::new();
            for round in 0..25 {
                let key = ground.key(format_args!("{who}.{round}"));
                let own = ground.commit(Op::put(key.clone(), "x").if_absent(), "a create").await;
                let page = page_through(&ground, &ground.range(), Revision::ZERO, 1_000, own).await;
                reads.push((key, own, marks(&page.entries)));
            }
            reads
        });
    }
    let reads: Vec<_> = join(tasks).await.into_iter().flatten().collect();
    for (_, own, seen) in &reads {
        for (key, revision, _) in reads.iter().filter(|read| read.1 <= *own) {
            assert!(
                seen.contains(&(key.clone(), *revision)),
                "a scan that reaches revision {own} does not show {key}, written at {revision}"
            );
        }
    }
}

/// A scan that has come as far as a delete no longer shows the key, and a rewritten key only once.
pub async fn a_scan_that_reaches_a_delete_hides_it(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let range = ground.range();
    for round in 0..20 {
        let (key, other) = (ground.key(format_args!("{round}.k")), ground.key(format_args!("{round}.other")));
        ground.put(&key, "x").await;
        ground.put(&other, "x").await;
        let rewritten = ground.put(&other, "y").await;
        let page = page_through(&ground, &range, Revision::ZERO, 1_000, rewritten).await;
        let shown: Vec<_> = page.entries.iter().filter(|entry| entry.key == other).map(|entry| entry.revision).collect();
        assert_eq!(shown, [rewritten], "a scan that reaches the rewrite of {other} must show it once");
        let op = if round % 2 == 0 { Op::delete(key.clone()) } else { Op::purge(key.clone()) };
        let gone = ground.commit(op, "a delete").await;
        let page = page_through(&ground, &range, Revision::ZERO, 1_000, gone).await;
        assert!(page.entries.iter().all(|entry| entry.key != key), "a scan that reaches the delete at {gone} still shows {key}");
        assert!(page.entries.iter().any(|entry| entry.key == other), "a scan after a delete lost another key");
    }
}

/// Three thousand keys are listed in pages, also among all keys of the store.
pub async fn thousands_of_keys_are_listed(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let written = ground.fill("k", 3_000).await;
    let last = written.last().map_or(Revision::ZERO, |mark| mark.1);
    for range in [ground.range(), KeyRange::All] {
        for limit in [256, 5_000] {
            let mut listed = marks(&listing(&ground, &range, limit, last).await);
            listed.retain(|(key, _)| ground.range().contains(key));
            assert!(listed == written, "pages of {limit} of {range} give {} of {} keys, or others", listed.len(), written.len());
        }
    }
    listed_as(&ground, &ground.range(), &written).await;
}

/// A range of thousands of tombstones and few values gives the values and comes to an end.
pub async fn thousands_of_tombstones_are_passed_over(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let keys: Vec<_> = ground.fill("k", 1_500).await.into_iter().map(|mark| mark.0).collect();
    let (live, dead): (Vec<_>, Vec<_>) = keys.into_iter().enumerate().partition(|(at, _)| at % 100 == 50);
    let dead: Vec<_> = dead.into_iter().map(|(_, key)| key).collect();
    let buried = ground.in_batches(&dead, |key| Op::delete(key.clone())).await;
    let live: HashSet<_> = live.into_iter().map(|(_, key)| key).collect();
    let last = buried.last().map_or(Revision::ZERO, |mark| mark.1);
    for limit in [50, 400, 10_000] {
        let listed = listing(&ground, &ground.range(), limit, last).await;
        let found: HashSet<_> = listed.iter().map(|entry| entry.key.clone()).collect();
        assert!(found == live, "pages of {limit} give {} keys where {} are live", found.len(), live.len());
    }
}

/// Scans and lists of one key, a subtree, a pattern and everything keep to what they name.
pub async fn a_scan_keeps_to_its_range(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut written = Vec::new();
    for name in TREE {
        let key = ground.key(name);
        let revision = ground.put(&key, name).await;
        written.push((key, revision));
    }
    let last = written.last().map_or(Revision::ZERO, |mark| mark.1);
    for pattern in RANGES {
        let range = ground.like(pattern);
        let expected: Vec<_> = written.iter().filter(|(key, _)| range.contains(key)).cloned().collect();
        let listed = listing(&ground, &range, 3, Revision::ZERO).await;
        assert!(listed.iter().all(|entry| range.contains(&entry.key)), "a scan of {range} gives keys outside: {listed:?}");
        listed_as(&ground, &range, &expected).await;
    }
    let everything = listing(&ground, &KeyRange::All, 1_000, last).await;
    let ours: Vec<_> = marks(&everything).into_iter().filter(|(key, _)| ground.range().contains(key)).collect();
    assert_eq!(ours, written, "a scan of all keys must hold every key");
}

/// Names for a behaviour about ranges.
pub(super) const TREE: [&str; 12] = ["a", "a.b", "a.b.c", "a.b.c.d", "a.bc", "a.x.c", "a.x.d", "ab", "ab.c", "b", "b.b.c", "A.b"];
/// Ranges over [`TREE`].
pub(super) const RANGES: [&str; 10] = ["a", "a.b", "a.*", "a.*.c", "*", "*.b", "*.*.c", "a.>", "a.b.>", "nothing.>"];

/// `get`, `put`, `create`, `update`, `delete` and `list` do what their names say.
pub async fn the_conveniences_do_as_they_say(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    assert_eq!(ok(store.get(&key).await, "a get"), None, "an absent key has no value");
    let first = ok(store.create(&key, "one").await, "a create");
    conflict(store.create(&key, "two").await, "a second create");
    let second = ok(store.update(&key, "two", first).await, "an update");
    conflict(store.update(&key, "three", first).await, "an update at a former revision");
    ground.reads_as(&key, second, &State::Live("two".into())).await;
    assert!(
        ok(store.get(&key).await, "a get").is_none_or(|(value, at)| at < second || value == "two"),
        "a get gives another value"
    );
    let third = ok(store.put(&key, "three").await, "a put");
    listed_as(&ground, &ground.range(), &[(key.clone(), third)]).await;
    conflict(store.delete(&key, Expect::At(second)).await, "a delete at a former revision");
    let gone = ok(store.delete(&key, Expect::At(third)).await, "a delete");
    ground.reads_as(&key, gone, &State::Deleted(Bytes::new())).await;
    listed_as(&ground, &ground.range(), &[]).await;
    ok(store.delete(&key, Expect::Any).await, "a delete of a deleted key");
}

/// `list` gives `expected`: at once, or soon where reads lag.
async fn listed_as(ground: &Ground, range: &KeyRange, expected: &[(Key, Revision)]) {
    poll(format!("a list of {range} as expected"), || async {
        let listed = marks(&ok(ground.store.list(range).await, "a list"));
        let same = listed == expected;
        assert!(
            same || ground.reads_lag(),
            "a list of {range} gives {} entries, not the expected {}: {:?}",
            listed.len(),
            expected.len(),
            listed.iter().take(10).collect::<Vec<_>>()
        );
        same.then_some(())
    })
    .await;
}

/// One page, held against the contract.
async fn page(ground: &Ground, range: &KeyRange, from: Revision, limit: usize) -> Page {
    let page = ok(ground.store.scan(range, from, limit).await, format_args!("a scan of {range}"));
    let at = |entry: &Entry| entry.revision;
    assert!(page.entries.iter().all(Entry::is_live), "a scan of {range} gives tombstones: {:?}", page.entries);
    assert!(page.entries.iter().all(|entry| range.contains(&entry.key)), "a scan of {range} gives keys outside");
    assert!(page.entries.windows(2).all(|pair| at(&pair[0]) < at(&pair[1])), "a scan of {range} does not ascend");
    if let (Some(first), Some(last)) = (page.entries.first(), page.entries.last()) {
        assert!(at(first) >= from, "a scan from {from} gives an entry at {}", at(first));
        assert!(at(last) <= page.through, "a page through {} has an entry at {}", page.through, at(last));
    }
    assert!(page.entries.len() <= limit.saturating_mul(2), "a page with a limit of {limit} has {} entries", page.entries.len());
    assert!(
        page.complete || page.through >= from,
        "a page from {from} through {} is not complete and does not advance",
        page.through
    );
    page
}

/// A first page that reaches `at_least`.
async fn page_through(ground: &Ground, range: &KeyRange, from: Revision, limit: usize, at_least: Revision) -> Page {
    poll(format!("a scan of {range} through {at_least}"), || async {
        let page = page(ground, range, from, limit).await;
        (page.through >= at_least).then_some(page)
    })
    .await
}

/// All pages of a listing whose last one reaches `at_least`.
async fn listing(ground: &Ground, range: &KeyRange, limit: usize, at_least: Revision) -> Vec<Entry> {
    poll(format!("a listing of {range} through {at_least}"), || async {
        let mut all: Vec<Entry> = Vec::new();
        let mut from = Revision::ZERO;
        loop {
            let page = page(ground, range, from, limit).await;
            all.extend(page.entries);
            if page.complete {
                return (page.through >= at_least).then_some(all);
            }
            from = page.through.next();
        }
    })
    .await
}
