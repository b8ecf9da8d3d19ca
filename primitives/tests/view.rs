//! Views: one watch per range, no final state skipped, gaps healed and told.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use tenure::{Change, Changes, View};
use tenure_kv::{
    Expect, Key, KeyRange, Memory, Store, StoreExt,
    faults::{Fault, Faults, Faulty, Operation, Rule},
};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn range() -> KeyRange {
    KeyRange::new("data.>").unwrap()
}

fn faulty(store: Arc<dyn Store>) -> (Arc<dyn Store>, Faults) {
    let (store, faults) = Faulty::new(store);
    (store, faults)
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

async fn next(changes: &mut Changes) -> Change {
    soon("the next change", changes.next()).await.unwrap()
}

fn text(change: &Change) -> String {
    match change {
        Change::Put(entry) => format!("{}={}", entry.key, String::from_utf8_lossy(entry.value().unwrap())),
        Change::Gone(entry) => format!("-{}", entry.key),
        Change::CaughtUp => "caught up".into(),
        Change::Gap => "gap".into(),
    }
}

#[tokio::test]
async fn a_view_shows_what_is_there_and_then_what_changes() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    store.put(&key("data.a"), "1").await.unwrap();
    let view = View::open(&store, range()).await.unwrap();
    assert_eq!(view.get(&key("data.a")).unwrap().value().unwrap(), "1");
    let mut changes = view.changes();
    assert_eq!(text(&next(&mut changes).await), "data.a=1");
    assert_eq!(text(&next(&mut changes).await), "caught up");
    store.put(&key("other"), "x").await.unwrap();
    let revision = store.put(&key("data.b"), "2").await.unwrap();
    assert_eq!(text(&next(&mut changes).await), "data.b=2");
    assert_eq!((view.revision(), view.read(tenure::Snapshot::len)), (revision, 2));
    store.delete(&key("data.a"), Expect::Any).await.unwrap();
    assert_eq!(text(&next(&mut changes).await), "-data.a");
    assert_eq!(view.entries().len(), 1);
}

#[tokio::test]
async fn views_of_a_range_share_one_watch_and_the_last_ends_it() {
    let (store, faults) = faulty(Arc::new(Memory::new()));
    let views = futures::future::join_all((0..50).map(|_| View::open(&store, range()))).await;
    let before = faults.requests();
    let more = View::open(&store, range()).await.unwrap();
    assert_eq!(faults.requests(), before, "a view of a range that is mirrored already asks nothing");
    assert_eq!(faults.streams("data"), 1);
    drop(views);
    assert_eq!(faults.streams("data"), 1);
    drop(more);
    soon("the end of the watch", async {
        while faults.streams("data") > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    View::open(&store, range()).await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_gets_the_last_state_of_every_key_in_order() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let view = View::open(&store, range()).await.unwrap();
    let mut changes = view.changes();
    assert_eq!(next(&mut changes).await, Change::CaughtUp);
    let mut expected = BTreeMap::new();
    for n in 0..2_000_u32 {
        let name = key(&format!("data.k{}", n % 37));
        if n % 5 == 3 {
            if expected.remove(&name).is_some() {
                store.delete(&name, Expect::Any).await.unwrap();
            }
        } else {
            store.put(&name, n.to_string()).await.unwrap();
            expected.insert(name, n.to_string());
        }
    }
    let end = store.put(&key("data.end"), "").await.unwrap();
    view.wait_until(|now| (now.revision() >= end).then_some(())).await.unwrap();
    let (mut told, mut last, mut count) = (BTreeMap::new(), tenure_kv::Revision::ZERO, 0);
    loop {
        count += 1;
        match next(&mut changes).await {
            Change::Put(entry) | Change::Gone(entry) if entry.revision < last => panic!("{entry:?} after {last}"),
            Change::Put(entry) if entry.key == key("data.end") => break,
            Change::Put(entry) => {
                last = entry.revision;
                told.insert(entry.key.clone(), String::from_utf8(entry.value().unwrap().to_vec()).unwrap());
            }
            Change::Gone(entry) => {
                last = entry.revision;
                told.remove(&entry.key);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, expected);
    assert!(count <= 40, "{count} changes for 38 keys");
}

#[tokio::test]
async fn caught_up_comes_after_every_key_that_was_there_even_if_written_again() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    for name in ["data.a", "data.b", "data.c"] {
        store.put(&key(name), "1").await.unwrap();
    }
    let view = View::open(&store, range()).await.unwrap();
    let mut changes = view.changes();
    assert_eq!(text(&next(&mut changes).await), "data.a=1");
    store.put(&key("data.a"), "2").await.unwrap();
    store.put(&key("data.new"), "1").await.unwrap();
    store.delete(&key("data.c"), Expect::Any).await.unwrap();
    let end = store.put(&key("data.b"), "2").await.unwrap();
    view.wait_until(|now| (now.revision() >= end).then_some(())).await.unwrap();
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "caught up") {
        told.push(text(&next(&mut changes).await));
    }
    assert_eq!(told, ["data.a=2", "data.new=1", "-data.c", "data.b=2", "caught up"]);
}

#[tokio::test]
async fn a_gap_heals_and_is_told() {
    let memory = Arc::new(Memory::new());
    let (store, faults) = faulty(memory.clone());
    memory.put(&key("data.a"), "1").await.unwrap();
    memory.put(&key("data.b"), "1").await.unwrap();
    let view = View::open(&store, range()).await.unwrap();
    let mut changes = view.changes();
    for expected in ["data.a=1", "data.b=1", "caught up"] {
        assert_eq!(text(&next(&mut changes).await), expected);
    }
    assert_eq!(faults.pause("data"), 1);
    memory.put(&key("data.a"), "2").await.unwrap();
    memory.put(&key("data.a"), "3").await.unwrap();
    memory.delete(&key("data.b"), Expect::Any).await.unwrap();
    faults.cut("data");
    faults.resume("data");
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(text(&next(&mut changes).await));
    }
    told.sort();
    assert_eq!(told, ["-data.b", "data.a=3", "gap"]);
}

#[tokio::test]
async fn a_watch_that_ends_is_told_to_everybody_and_the_next_view_is_fresh() {
    let (store, faults) = faulty(Arc::new(Memory::new()));
    let view = View::open(&store, range()).await.unwrap();
    let mut changes = view.changes();
    assert_eq!(next(&mut changes).await, Change::CaughtUp);
    let waiting = tokio::spawn({
        let view = view.clone();
        async move { view.wait_until(|_| None::<()>).await }
    });
    faults.end_watches("data");
    assert!(matches!(soon("the end", changes.next()).await, Err(tenure::Error::Unavailable { .. })));
    assert!(soon("the end", waiting).await.unwrap().is_err());
    store.put(&key("data.a"), "1").await.unwrap();
    let fresh = View::open(&store, range()).await.unwrap();
    assert!(fresh.get(&key("data.a")).is_some());
}

#[tokio::test]
async fn opening_a_view_of_a_store_out_of_reach_fails_and_can_be_tried_again() {
    let (store, faults) = faulty(Arc::new(Memory::new()));
    let refused = faults.add(Rule::new(Fault::FailBefore).on(Operation::Watch));
    assert!(matches!(View::open(&store, range()).await, Err(tenure::Error::Unavailable { .. })));
    refused.clear();
    View::open(&store, range()).await.unwrap();
}

#[tokio::test]
async fn a_reader_that_has_stopped_reading_is_given_up_and_holds_nothing() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let view = View::open(&store, range()).await.unwrap();
    let (mut stuck, mut lively) = (view.changes(), view.changes());
    for changes in [&mut stuck, &mut lively] {
        assert_eq!(next(changes).await, Change::CaughtUp);
    }
    for round in 0..75 {
        let keys: Vec<_> = (0..1_000).map(|n| key(&format!("data.{round}-{n}"))).collect();
        store.commit(keys.iter().map(|key| tenure_kv::Op::put(key.clone(), "")).collect()).await.unwrap();
        for _ in &keys {
            assert!(matches!(next(&mut lively).await, Change::Put(_)));
        }
        store.commit(keys.iter().map(|key| tenure_kv::Op::delete(key.clone())).collect()).await.unwrap();
        for _ in &keys {
            assert!(matches!(next(&mut lively).await, Change::Gone(_)));
        }
    }
    assert!(matches!(soon("the end", stuck.next()).await, Err(tenure::Error::Unavailable { .. })));
    store.put(&key("data.last"), "1").await.unwrap();
    assert_eq!(text(&next(&mut lively).await), "data.last=1");
}
