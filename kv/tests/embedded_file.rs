//! The store in a file: what survives, what is refused, and what is said about it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embedded_support;

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use embedded_support::{Hands, key, next, next_entry, ttl};
use futures::{FutureExt, StreamExt};
use tenure_kv::{Entry, Error, Event, Expect, File, FileOptions, KeyRange, Op, Revision, Since, State, Store, StoreExt, Sync};

async fn open(path: &Path) -> tenure_kv::Result<File> {
    File::open(path, FileOptions::default()).await
}

/// Everything the store has, tombstones included.
async fn content(store: &File) -> Vec<Entry> {
    let mut events = store.watch(KeyRange::All, Since::Current).await.unwrap();
    let mut all = Vec::new();
    while let Some(Ok(Event::Entry(entry))) = events.next().await {
        all.push(entry);
    }
    all
}

#[tokio::test]
async fn a_store_comes_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/store");
    let store = open(&path).await.unwrap();
    assert_eq!(store.info().url, format!("file:{}", path.display()));
    store.put(&key("a"), "1").await.unwrap();
    store.put(&key("b"), vec![7; 100_000]).await.unwrap();
    store.commit(Op::delete(key("a")).note("why").into()).await.unwrap();
    store.commit(Op::purge(key("c")).ttl(ttl(60)).into()).await.unwrap();
    let before = content(&store).await;
    assert_eq!(before.len(), 3);
    drop(store);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(directory.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
    let store = open(&path).await.unwrap();
    assert_eq!(content(&store).await, before);
    assert_eq!(store.put(&key("d"), "").await.unwrap(), Revision::new(5));
}

#[tokio::test]
async fn revisions_are_not_reused_when_the_last_writes_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let clock = Hands::new();
    for round in 0..3 {
        let store = File::open_with_clock(&path, FileOptions::default(), Arc::new(clock.clone())).await.unwrap();
        let mut events = store.watch(KeyRange::All, Since::Now).await.unwrap();
        let first = round * 3 + 1;
        assert_eq!(store.commit(Op::put(key("x"), "").ttl(ttl(1)).into()).await.unwrap(), Revision::new(first));
        assert_eq!(store.commit(Op::delete(key("y")).ttl(ttl(1)).into()).await.unwrap(), Revision::new(first + 1));
        for _ in 0..3 {
            next(&mut events).await;
        }
        clock.forward(Duration::from_secs(1));
        assert_eq!(next_entry(&mut events).await, ("x".into(), first + 2, State::Expired));
        assert_eq!(store.entries(&[key("x"), key("y")]).await.unwrap(), [None, None]);
    }
}

#[tokio::test]
async fn ttls_are_counted_afresh_from_the_opening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let clock = Hands::new();
    let open = || File::open_with_clock(&path, FileOptions::default(), Arc::new(clock.clone()));
    let store = open().await.unwrap();
    store.commit(Op::put(key("x"), "").ttl(ttl(10)).into()).await.unwrap();
    store.commit(Op::delete(key("y")).ttl(ttl(10)).into()).await.unwrap();
    clock.forward(Duration::from_secs(9));
    drop(store);
    let store = open().await.unwrap();
    let mut events = store.watch(KeyRange::All, Since::Now).await.unwrap();
    assert_eq!(next(&mut events).await, Event::CaughtUp);
    clock.forward(Duration::from_secs(9));
    assert!(store.entries(&[key("x"), key("y")]).await.unwrap().iter().all(Option::is_some));
    clock.forward(Duration::from_secs(1));
    assert_eq!(next_entry(&mut events).await, ("x".into(), 3, State::Expired));
    assert!(store.commit(Op::put(key("y"), "").if_at(Revision::ZERO).into()).await.is_ok());
}

#[tokio::test]
async fn commits_that_nobody_waits_for_are_applied_whole_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store")).await.unwrap();
    let mut events = store.watch(KeyRange::All, Since::Now).await.unwrap();
    assert_eq!(next(&mut events).await, Event::CaughtUp);
    for n in 0..50 {
        let batch = [Op::put(key(format!("a.{n}")), ""), Op::put(key(format!("b.{n}")), "")].into_iter().collect();
        assert!(store.commit(batch).now_or_never().is_none());
    }
    for n in 0..50 {
        assert_eq!(next_entry(&mut events).await, (format!("a.{n}"), 2 * n + 1, State::Live("".into())));
        assert_eq!(next_entry(&mut events).await, (format!("b.{n}"), 2 * n + 2, State::Live("".into())));
    }
}

#[tokio::test]
async fn a_conflict_within_a_group_is_told_to_the_later_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store")).await.unwrap();
    let (path, value) = (key("contended"), vec![0; 1000]);
    let created = futures::future::join_all((0..100).map(|_| store.create(&path, value.clone()))).await;
    assert_eq!(created.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(created.iter().all(|outcome| outcome.as_ref().map_or_else(Error::is_conflict, |first| *first == Revision::new(1))));
}

#[tokio::test]
async fn a_second_opener_is_refused_and_told_who_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).await.unwrap();
    let error = open(&path).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("this very process"), "{error}");
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    store.put(&key("a"), "").await.unwrap();
    drop(store);
    open(&path).await.unwrap();
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("text"), "precious").unwrap();
    std::fs::write(at("zeros"), vec![0; 3 << 20]).unwrap();
    let foreign = redb::Database::create(at("redb")).unwrap();
    let change = foreign.begin_write().unwrap();
    change.open_table(redb::TableDefinition::<u8, u8>::new("theirs")).unwrap().insert(1, 2).unwrap();
    change.commit().unwrap();
    drop(foreign);
    for name in ["text", "zeros", "redb"] {
        let before = std::fs::read(at(name)).unwrap();
        let error = open(&at(name)).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("not a Tenure store"), "{error}");
        assert!(std::fs::read(at(name)).unwrap() == before, "{name} was changed");
    }
    std::fs::write(at("empty"), "").unwrap();
    open(&at("empty")).await.unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    open(&path).await.unwrap().put(&key("a"), "").await.unwrap();
    let database = redb::Database::create(&path).unwrap();
    let change = database.begin_write().unwrap();
    change.open_table(redb::TableDefinition::<&str, u64>::new("tenure.numbers")).unwrap().insert("format", 2).unwrap();
    change.commit().unwrap();
    drop(database);
    let before = std::fs::read(&path).unwrap();
    let error = open(&path).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("format 2"), "{error}");
    assert!(error.to_string().contains("use a newer Tenure"), "{error}");
    assert!(std::fs::read(&path).unwrap() == before);
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).await.unwrap();
    store.put(&key("a"), vec![b'v'; 3_000]).await.unwrap();
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let value = bytes.windows(100).position(|window| window == [b'v'; 100]).unwrap();
    bytes[value + 50] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = open(&path).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("is damaged"), "{error}");
    assert!(error.to_string().contains("restore a copy"), "{error}");
    assert!(std::fs::read(&path).unwrap() == bytes);
    std::fs::write(&path, &bytes[..bytes.len() / 2 + 1]).unwrap();
    assert!(open(&path).await.unwrap_err().to_string().contains("is damaged"));
}

#[tokio::test]
async fn paths_that_cannot_be_used_are_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("file"), "").unwrap();
    std::os::unix::fs::symlink(at("nowhere/store"), at("dangling")).unwrap();
    for (path, remedy) in [
        (directory.path().to_owned(), "is a directory"),
        (at("file/store"), "name a path"),
        (at("file/deep/store"), "name a path"),
        (at("dangling"), "name a path"),
        (at(&"x".repeat(300)), "shorter path"),
        ("/proc/tenure/store".into(), "name a path"),
        ("/dev/full".into(), "not a regular file"),
    ] {
        let error = open(&path).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains(remedy), "{}: {error}", path.display());
    }
    assert!(open(Path::new("")).await.unwrap_err().is_invalid());
}

#[tokio::test]
async fn a_later_sync_is_said_in_the_url_and_still_writes_everything_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = FileOptions { sync: Sync::Every(Duration::from_secs(3600)) };
    let store = File::open(&path, options).await.unwrap();
    assert!(store.info().url.ends_with("?sync=3600000ms"));
    let first = store.put(&key("a"), "1").await.unwrap();
    store.commit(Op::delete(key("a")).expect(Expect::At(first)).into()).await.unwrap();
    store.put(&key("b"), "2").await.unwrap();
    let before = content(&store).await;
    drop(store);
    let store = open(&path).await.unwrap();
    assert_eq!(content(&store).await, before);
    assert_eq!(store.put(&key("c"), "").await.unwrap(), Revision::new(4));
}
