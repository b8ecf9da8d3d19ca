//! The store in a file against processes that are killed and disks that are full.
//!
//! The processes are this test's own binary, started again for the test `child`, which does what the
//! environment says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embedded_support;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use embedded_support::{key, next};
use futures::{FutureExt, StreamExt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tenure_kv::{Batch, Event, KeyRange, Op, Since, StoreExt};

const ROLE: &str = "TENURE_TEST_ROLE";
const URL: &str = "TENURE_TEST_URL";
const WRITERS: u64 = 8;

fn start(role: &str, url: &str) -> Child {
    // A write beyond the size limit is to fail, not to kill: an ignored signal is inherited.
    Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture", "--quiet"])
        .env(ROLE, role)
        .env(URL, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The lines after `mark` that the child says, up to its end.
fn heard(child: &mut Child, mark: &'static str) -> impl Iterator<Item = Vec<u64>> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(move |line| {
        let words = line.strip_prefix(mark)?;
        Some(words.split_whitespace().map(|word| word.parse().unwrap()).collect())
    })
}

#[test]
#[ignore = "started by the other tests as a process to be killed"]
fn child() {
    let Ok(url) = std::env::var(URL) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var(ROLE).unwrap().as_str() {
        "write" => runtime.block_on(write_for_ever(&url)),
        "hold" => runtime.block_on(hold(&url)),
        "open" => runtime.block_on(try_to_open(&url)),
        "fill" => runtime.block_on(fill_the_disk(&url)),
        other => panic!("no role {other}"),
    }
}

/// Writes pairs of keys in one batch each, and says what was acknowledged.
async fn write_for_ever(url: &str) {
    let store = tenure_kv::open(url).await.unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let [a, b] = ["a", "b"].map(|side| key(format!("pair.{writer}.{side}")));
            let start = store.get(&a).await.unwrap();
            let mut n = start.map_or(0, |(value, _)| std::str::from_utf8(&value).unwrap().trim().parse::<u64>().unwrap());
            loop {
                n += 1;
                // Sizes that move pages about.
                let value = format!("{n:<width$}", width = 1 + (n * 37 % 900) as usize);
                let batch = Batch::new().and(Op::put(a.clone(), value.clone())).and(Op::put(b.clone(), value));
                let revision = store.commit(batch).await.unwrap();
                println!("ack {writer} {n} {revision}");
            }
        })
    });
    futures::future::join_all(writers).await;
}

async fn hold(url: &str) {
    let _store = tenure_kv::open(url).await.unwrap();
    println!("held 1");
    std::future::pending().await
}

async fn try_to_open(url: &str) {
    match tenure_kv::open(url).await {
        Ok(_) => println!("opened 1"),
        Err(error) => println!("{} {error}", if error.is_invalid() { "invalid" } else { "other" }),
    }
}

/// What a process says that tries to open the store and ends.
fn tried(url: &str) -> String {
    let child = start("open", url).wait_with_output().unwrap();
    assert!(child.status.success());
    String::from_utf8(child.stdout).unwrap()
}

/// Kills writers on one file again and again, and after each checks what is in it.
async fn kill_rounds(url: &str, rounds: u64, durable: bool) {
    let mut told: HashMap<u64, u64> = HashMap::new();
    let (mut highest, mut acknowledgements) = (0, 0);
    for round in 0..rounds {
        let mut child = start("write", url);
        let pid = rustix::process::Pid::from_child(&child);
        let mut lines = heard(&mut child, "ack ");
        // The first rounds may die before, while or just after the file is created or opened.
        let mut acks = if round < 4 { None } else { lines.next() };
        let chance = RandomState::new().hash_one(round) % if round < 4 { 30 } else { 120 };
        std::thread::sleep(Duration::from_millis(chance));
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        while let Some(ack) = acks.take().or_else(|| lines.next()) {
            let [writer, n, revision] = ack[..] else { continue };
            told.insert(writer, n);
            highest = highest.max(revision);
            acknowledgements += 1;
        }
        child.wait().unwrap();

        let store = tenure_kv::open(url).await.unwrap();
        for writer in 0..WRITERS {
            let pair = store.entries(&["a", "b"].map(|side| key(format!("pair.{writer}.{side}")))).await.unwrap();
            let found = pair.iter().map(|entry| entry.as_ref().map(|entry| (entry.value().unwrap(), entry.revision)));
            let [a, b] = found.collect::<Vec<_>>()[..] else { panic!("two keys were read") };
            let n = match (a, b) {
                (Some((left, first)), Some((right, second))) => {
                    assert_eq!(left, right, "half a batch");
                    assert_eq!(first.next(), second, "half a batch");
                    std::str::from_utf8(left).unwrap().trim().parse().unwrap()
                }
                (None, None) => 0,
                half => panic!("half a batch: {half:?}"),
            };
            let last = told.get(&writer).copied().unwrap_or(0);
            assert!(!durable || n >= last, "writer {writer} was told {last}, the file has {n}");
            assert!(n <= last + 1, "writer {writer} was told {last} and had one more under way, the file has {n}");
            told.insert(writer, n);
        }
        let revision = store.put(&key("after"), "").await.unwrap().get();
        assert!(revision > highest, "revision {revision} was given out before {highest}");
        highest = revision;
    }
    assert!(acknowledgements > rounds / 2, "only {acknowledgements} acknowledgements");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    kill_rounds(&format!("file:{}/store", directory.path().display()), 16, true).await;
}

#[tokio::test]
async fn with_a_later_sync_kill_9_loses_the_latest_but_tears_nothing_and_reuses_no_revision() {
    let directory = tempfile::tempdir().unwrap();
    kill_rounds(&format!("file:{}/store?sync=20ms", directory.path().display()), 10, false).await;
}

#[tokio::test]
async fn another_process_is_refused_and_told_the_pid() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}/store", directory.path().display());
    let mut child = start("hold", &url);
    assert_eq!(heard(&mut child, "held ").next(), Some(vec![1]));
    let error = tenure_kv::open(&url).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains(&format!("in use by process {}", child.id())), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    tenure_kv::open(&url).await.unwrap();
}

#[tokio::test]
async fn another_process_is_refused_while_this_one_writes_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}/store", directory.path().display());
    let store = tenure_kv::open(&url).await.unwrap();
    for n in 1..4 {
        assert_eq!(store.put(&key("a"), "x").await.unwrap().get(), n);
        let said = tried(&url);
        assert!(said.contains("other ") && said.contains(&format!("in use by process {}", std::process::id())), "{said}");
    }
    drop(store);
    assert!(tried(&url).contains("opened 1"));
    assert_eq!(tenure_kv::open(&url).await.unwrap().put(&key("a"), "x").await.unwrap().get(), 4);
}

#[tokio::test]
async fn a_process_of_an_older_version_refuses_the_file_of_a_newer_one_and_leaves_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let url = format!("file:{}", path.display());
    tenure_kv::open(&url).await.unwrap().put(&key("a"), "x").await.unwrap();
    let numbers = redb::TableDefinition::<&str, u64>::new("tenure.numbers");
    let format = |format: u64| {
        let database = redb::Database::create(&path).unwrap();
        let change = database.begin_write().unwrap();
        change.open_table(numbers).unwrap().insert("format", format).unwrap();
        change.commit().unwrap();
    };
    format(2);
    let before = std::fs::read(&path).unwrap();
    let said = tried(&url);
    assert!(said.contains("invalid ") && said.contains("format 2") && said.contains("use a newer Tenure"), "{said}");
    assert!(std::fs::read(&path).unwrap() == before, "the file was changed");
    // With the version that it knows it opens: nothing else stood in the way.
    format(1);
    assert!(tried(&url).contains("opened 1"));
}

#[test]
fn a_full_disk_refuses_writes_truly_and_recovers_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = start("fill", &format!("file:{}/store", directory.path().display()));
    let said: Vec<_> = heard(&mut child, "refused ").collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(said.len(), 3);
}

/// In a process of its own, because the limit on file sizes is the process's.
async fn fill_the_disk(url: &str) {
    let path = url.strip_prefix("file:").unwrap();
    let roomy = getrlimit(Resource::Fsize);
    let no_more_than = |len| setrlimit(Resource::Fsize, Rlimit { current: Some(len), ..roomy }).unwrap();

    no_more_than(10_000);
    let error = tenure_kv::open(url).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("free some and retry"), "{error}");

    setrlimit(Resource::Fsize, roomy).unwrap();
    let store = tenure_kv::open(url).await.unwrap();
    for round in 0..3 {
        let mut events = store.watch(KeyRange::All, Since::Now).await.unwrap();
        assert_eq!(next(&mut events).await, Event::CaughtUp);
        no_more_than(Path::new(path).metadata().unwrap().len());
        let mut written = Vec::new();
        let (refused, error) = loop {
            let name = key(format!("fill.{round}.{}", written.len()));
            match store.put(&name, vec![1; 100_000]).await {
                Ok(revision) => written.push((name, revision)),
                Err(error) => break (name, error),
            }
        };
        assert!(error.is_unavailable(), "{error:?}");
        assert!(error.to_string().contains("no space left") && error.to_string().contains("free some and retry"), "{error}");
        for (name, revision) in &written {
            assert_eq!(store.get(name).await.unwrap().unwrap().1, *revision);
            assert!(matches!(next(&mut events).await, Event::Entry(entry) if entry.key == *name));
        }
        assert_eq!(store.entry(&refused).await.unwrap(), None);
        assert!(events.next().now_or_never().is_none(), "a refused write was told");

        setrlimit(Resource::Fsize, roomy).unwrap();
        let revision = store.create(&refused, "room again").await.unwrap();
        assert!(written.last().is_none_or(|(_, last)| revision == last.next()));
        println!("refused 1");
    }
    let before = store.list(&KeyRange::All).await.unwrap();
    drop(store);
    assert_eq!(tenure_kv::open(url).await.unwrap().list(&KeyRange::All).await.unwrap(), before);
}
