//! Listeners of a store in memory, between those who write and those who read.

use futures::StreamExt;
use shuttle::future::block_on;
use tenure_kv::HandClock;

use super::memory::Memory;
use crate::{Event, Key, KeyRange, Notice, Op, Revision, Since, Store, sync::thread};

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn store() -> Memory {
    Memory::with_clock(std::sync::Arc::new(HandClock::default()))
}

fn write(store: &Memory, name: &str) -> Revision {
    block_on(store.commit(Op::put(key(name), "x").into())).unwrap()
}

/// Whoever begins to listen while others write hears of the last write of each key, in order, and is told once that it
/// has caught up; nobody sleeps over a write.
pub fn the_last_write_is_heard() {
    let store = store();
    let first = write(&store, "data.a");
    let writers = ["data.a", "data.b"].map(|name| {
        let store = store.clone();
        thread::spawn(move || write(&store, name))
    });
    let listener = thread::spawn({
        let store = store.clone();
        move || {
            let mut events = block_on(store.watch(KeyRange::All, Since::Current)).unwrap();
            let (mut seen, mut caught_up) = (Vec::new(), false);
            // The keys and the word that it has caught up may come in any order; the last write is the third of all.
            while seen.last() != Some(&Revision::new(3)) || !caught_up {
                match block_on(events.next()).unwrap().unwrap() {
                    Event::Entry(entry) => {
                        assert!(seen.last() < Some(&entry.revision), "revisions go back");
                        seen.push(entry.revision);
                    }
                    Event::CaughtUp => assert!(!std::mem::replace(&mut caught_up, true), "it has caught up twice"),
                    Event::Gap => panic!("a store in memory misses nothing"),
                }
            }
            seen
        }
    });
    let [a, b] = writers.map(|writer| writer.join().unwrap());
    let seen = listener.join().unwrap();
    assert!(seen.contains(&a) && seen.contains(&b), "of {first}, {a} and {b} it heard of {seen:?}");
}

/// With the last handle of a store its streams end, and whoever waits for one wakes; what was written before is still
/// told.
pub fn the_end_is_heard() {
    let store = store();
    let mut events = block_on(store.watch(KeyRange::Under(key("data")), Since::Now)).unwrap();
    let mut notices = block_on(store.follow(&key("data.a"))).unwrap();
    let follower = thread::spawn(move || {
        let mut last = None;
        while let Some(Notice::Entry(entry)) = block_on(notices.next()) {
            last = Some(entry.revision);
        }
        last
    });
    let writer = thread::spawn(move || write(&store, "data.a"));
    let mut last = None;
    while let Some(event) = block_on(events.next()) {
        if let Event::Entry(entry) = event.unwrap() {
            last = Some(entry.revision);
        }
    }
    let written = Some(writer.join().unwrap());
    assert_eq!((last, follower.join().unwrap()), (written, written));
}
