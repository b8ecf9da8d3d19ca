//! What is particular to the store in memory: its watches, its clock and its ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embedded_support;

use std::{sync::Arc, time::Duration};

use embedded_support::{Hands, key, next, next_entry, ttl};
use futures::{FutureExt, StreamExt};
use tenure_kv::{Event, Expect, KeyRange, Memory, Notice, Op, Revision, Since, State, Store, StoreExt};

#[tokio::test]
async fn an_unpolled_watch_keeps_the_last_write_of_each_key_in_order() {
    let store = Memory::new();
    let mut events = store.watch(KeyRange::new("w.>").unwrap(), Since::Now).await.unwrap();
    assert_eq!(next(&mut events).await, Event::CaughtUp);
    for round in 0..100 {
        for name in ["w.b", "w.a", "other"] {
            store.put(&key(name), format!("{round}")).await.unwrap();
        }
    }
    store.delete(&key("w.b"), Expect::Any).await.unwrap();
    assert_eq!(next_entry(&mut events).await, ("w.a".into(), 299, State::Live("99".into())));
    assert_eq!(next_entry(&mut events).await, ("w.b".into(), 301, State::Deleted("".into())));
    assert!(events.next().now_or_never().is_none());
}

#[tokio::test]
async fn caught_up_comes_after_every_key_that_was_there_even_if_written_again() {
    let store = Memory::new();
    for name in ["a", "b", "c"] {
        store.put(&key(name), "old").await.unwrap();
    }
    let mut events = store.watch(KeyRange::All, Since::Current).await.unwrap();
    store.put(&key("a"), "new").await.unwrap();
    store.put(&key("d"), "later").await.unwrap();
    assert_eq!(next_entry(&mut events).await.1, 2);
    assert_eq!(next_entry(&mut events).await.1, 3);
    assert_eq!(next_entry(&mut events).await, ("a".into(), 4, State::Live("new".into())));
    assert_eq!(next(&mut events).await, Event::CaughtUp);
    assert_eq!(next_entry(&mut events).await.0, "d");
}

#[tokio::test]
async fn a_watch_starts_where_it_is_told_to() {
    let store = Memory::new();
    store.put(&key("a"), "1").await.unwrap();
    store.put(&key("b"), "2").await.unwrap();
    store.delete(&key("a"), Expect::Any).await.unwrap();
    for (since, told) in [
        (Since::Current, vec![2, 3]),
        (Since::History, vec![2, 3]),
        (Since::After(Revision::new(2)), vec![3]),
        (Since::Now, vec![]),
    ] {
        let mut events = store.watch(KeyRange::All, since).await.unwrap();
        for revision in told {
            assert_eq!(next_entry(&mut events).await.1, revision, "{since:?}");
        }
        assert_eq!(next(&mut events).await, Event::CaughtUp, "{since:?}");
    }
}

#[tokio::test]
async fn the_timer_tells_watchers_of_an_expiry_and_forgets_tombstones_silently() {
    let clock = Hands::new();
    let store = Memory::with_clock(Arc::new(clock.clone()));
    let mut events = store.watch(KeyRange::All, Since::Now).await.unwrap();
    let mut notices = store.follow(&key("short")).await.unwrap();
    store.commit(Op::put(key("long"), "").ttl(ttl(9)).into()).await.unwrap();
    store.commit(Op::put(key("short"), "").ttl(ttl(2)).into()).await.unwrap();
    store.commit(Op::delete(key("gone")).ttl(ttl(1)).into()).await.unwrap();
    for _ in 0..4 {
        next(&mut events).await;
    }
    assert!(matches!(notices.next().await, Some(Notice::Entry(entry)) if entry.is_live()));
    clock.forward(Duration::from_millis(1999));
    assert!(store.entry(&key("short")).await.unwrap().is_some());
    assert!(store.entry(&key("gone")).await.unwrap().is_none());
    clock.forward(Duration::from_millis(1));
    assert!(store.entry(&key("short")).await.unwrap().is_none());
    assert_eq!(next_entry(&mut events).await, ("short".into(), 4, State::Expired));
    assert!(matches!(notices.next().await, Some(Notice::Entry(entry)) if entry.state == State::Expired));
    clock.forward(Duration::from_secs(7));
    assert_eq!(next_entry(&mut events).await, ("long".into(), 5, State::Expired));
    assert_eq!(store.create(&key("gone"), "back").await.unwrap(), Revision::new(6));
}

#[tokio::test]
async fn a_shorter_ttl_wakes_a_timer_that_sleeps_for_a_longer_one() {
    let store = Memory::new();
    let mut events = store.watch(KeyRange::All, Since::Now).await.unwrap();
    store.commit(Op::put(key("long"), "").ttl(ttl(3600)).into()).await.unwrap();
    tokio::task::yield_now().await;
    store.commit(Op::put(key("short"), "").ttl(ttl(1)).into()).await.unwrap();
    for _ in 0..3 {
        next(&mut events).await;
    }
    assert_eq!(next_entry(&mut events).await, ("short".into(), 3, State::Expired));
}

#[test]
fn the_timer_outlives_the_runtime_it_began_in() {
    let store = Memory::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime().block_on(store.commit(Op::put(key("a"), "").ttl(ttl(3600)).into())).unwrap();
    runtime().block_on(async {
        let mut events = store.watch(KeyRange::One(key("b")), Since::Now).await.unwrap();
        store.commit(Op::put(key("b"), "").ttl(ttl(1)).into()).await.unwrap();
        assert_eq!(next(&mut events).await, Event::CaughtUp);
        assert!(next_entry(&mut events).await.2.is_live());
        assert_eq!(next_entry(&mut events).await.2, State::Expired);
    });
}

#[tokio::test]
async fn a_follower_hears_the_latest_write_to_its_key_only() {
    let store = Memory::new();
    let mut notices = store.follow(&key("a")).await.unwrap();
    assert!(notices.next().now_or_never().is_none());
    store.put(&key("b"), "").await.unwrap();
    store.put(&key("a"), "1").await.unwrap();
    store.put(&key("a"), "2").await.unwrap();
    let Some(Some(Notice::Entry(entry))) = notices.next().now_or_never() else { panic!("no notice") };
    assert_eq!((entry.revision.get(), entry.state), (3, State::Live("2".into())));
    assert!(notices.next().now_or_never().is_none());
}

#[tokio::test]
async fn streams_end_with_the_last_handle() {
    let store = Memory::new();
    let clone = store.clone();
    let mut events = store.watch(KeyRange::All, Since::Now).await.unwrap();
    let mut notices = store.follow(&key("a")).await.unwrap();
    assert_eq!(next(&mut events).await, Event::CaughtUp);
    drop(store);
    assert!(events.next().now_or_never().is_none());
    clone.put(&key("a"), "last").await.unwrap();
    drop(clone);
    assert_eq!(next_entry(&mut events).await.1, 1);
    assert!(events.next().await.is_none());
    assert!(matches!(notices.next().await, Some(Notice::Entry(_))));
    assert!(notices.next().await.is_none());
}

#[tokio::test]
async fn urls_pick_the_store_in_memory() {
    let store = tenure_kv::open("memory:").await.unwrap();
    assert_eq!(store.info().url, "memory:");
    for bad in ["memory:x", "memory://", "", "mem", "http://x"] {
        assert!(tenure_kv::open(bad).await.unwrap_err().is_invalid(), "{bad:?}");
    }
}
