//! Commits of a file store on their way through its queue, its writer's thread and the disk.

use std::{path::Path, sync::Arc};

use shuttle::future::block_on;
use tenure_kv::HandClock;
use tokio::sync::oneshot::error::TryRecvError;

use super::{
    disk::Disk,
    file::{File, FileOptions, Sync},
    platter::Platter,
    shared::Shared,
    state::State,
    writer::Writer,
};
use crate::{Batch, Key, Op, Store, sync::thread};

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put(name: &str) -> Batch {
    Op::put(key(name), format!("the value of {name}")).into()
}

fn open(platter: Arc<Platter>) -> File {
    let (disk, loaded) = Disk::on(Path::new("platter"), platter).unwrap();
    File::over(Path::new("platter"), disk, loaded, FileOptions::default(), Arc::new(HandClock::default())).unwrap()
}

/// Two commit and one reads. Nobody reads what a power cut could undo; who was answered reads what it wrote; and when
/// the store is closed all of it is on the disk.
pub fn what_is_seen_is_on_disk() {
    let platter = Platter::new();
    let store = open(platter.clone());
    let names = ["data.a", "data.b"];
    let writers = names.map(|name| {
        let store = store.clone();
        thread::spawn(move || {
            let revision = block_on(store.commit(put(name))).unwrap();
            let read = block_on(store.entry(&key(name))).unwrap();
            assert_eq!(read.map(|entry| entry.revision), Some(revision), "answered, and {name} is not to be read");
            revision
        })
    });
    for _ in 0..2 {
        for name in names {
            if block_on(store.entry(&key(name))).unwrap().is_some() {
                assert!(platter.keeps(&format!("the value of {name}")), "{name} is read and is not on the disk");
            }
        }
    }
    let [a, b] = writers.map(|writer| writer.join().unwrap());
    assert_ne!(a, b);
    drop(store);
    let again = open(platter.after_power_cut());
    for (name, revision) in names.into_iter().zip([a, b]) {
        let read = block_on(again.entry(&key(name))).unwrap();
        assert_eq!(read.map(|entry| entry.revision), Some(revision), "{name} was acknowledged");
    }
}

/// The store is closed while commits come. What was taken is decided, and stays so; nothing is left to wait for.
pub fn what_is_queued_is_decided() {
    let platter = Platter::new();
    let (disk, _) = Disk::on(Path::new("platter"), platter.clone()).unwrap();
    let shared = Shared::new(Arc::new(HandClock::default()), State::default());
    let writer = Writer::start(Path::new("platter"), shared, disk, Sync::Always).unwrap();
    let queue = writer.queue().clone();
    let own = block_on(queue.push(put("data.own"))).unwrap();
    let other = thread::spawn({
        let queue = queue.clone();
        move || block_on(queue.push(put("data.other")))
    });
    drop(writer);
    let mut outcomes = vec![("data.own", own)];
    outcomes.extend(other.join().unwrap().ok().map(|outcome| ("data.other", outcome)));
    let again = open(platter.after_power_cut());
    for (name, mut outcome) in outcomes {
        let kept = block_on(again.entry(&key(name))).unwrap().map(|entry| entry.revision);
        match outcome.try_recv() {
            Ok(answer) => assert_eq!(answer.ok(), kept, "{name}: the answer, and what is there"),
            Err(TryRecvError::Closed) => assert_ne!(name, "data.own", "it was queued before the end"),
            Err(TryRecvError::Empty) => panic!("{name} was queued and never decided"),
        }
    }
}
