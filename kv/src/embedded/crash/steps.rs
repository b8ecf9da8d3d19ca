//! One disk, step by step: a power cut at every step, a disk that fails at every step, and any damage.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::io::Errno;

use super::{
    super::{
        disk::{Disk, Failed, Loaded},
        file::Sync,
        shared::Shared,
        state::{self, Write},
        writer::Writer,
    },
    rig::{Calls, Rig, Step, Trouble, apply},
};
use crate::{BootClock, Bytes, Entry, Key, Op, Revision, State};

type Content = BTreeMap<String, Entry>;

fn open(rig: &Arc<Rig>) -> crate::Result<(Disk, Loaded)> {
    Disk::on(Path::new("/rig"), rig.clone())
}

fn content(loaded: &Loaded) -> Content {
    loaded.writes.iter().map(|write| (write.entry.key.to_string(), write.entry.clone())).collect()
}

/// Group number `n` of a story that writes, overwrites, deletes and expires, at revisions after `base`.
fn group(n: u64, base: u64) -> Vec<Write> {
    (0..1 + n % 3)
        .map(|i| {
            let state = match (n + i) % 5 {
                0 => State::Deleted(Bytes::from("note")),
                1 => State::Expired,
                _ => State::Live(Bytes::from(vec![n as u8; if n.is_multiple_of(4) { 9_000 } else { 60 }])),
            };
            let key = Key::new(format!("k.{}", (n * 7 + i) % 11)).unwrap();
            let entry = Entry { key, revision: Revision::new(base + i + 1), state, created: SystemTime::UNIX_EPOCH };
            Write { entry, ttl: None }
        })
        .collect()
}

fn model(content: &mut Content, writes: &[Write]) {
    for write in writes {
        let key = write.entry.key.to_string();
        match write.entry.state {
            State::Expired => content.remove(&key),
            _ => content.insert(key, write.entry.clone()),
        };
    }
}

fn last(writes: &[Write]) -> Revision {
    writes.last().unwrap().entry.revision
}

/// A disk after five groups, and what it holds.
fn begun() -> (Arc<Rig>, Disk, Content, Revision) {
    let rig = Rig::new(Vec::new());
    let (mut disk, _) = open(&rig).unwrap();
    let (mut wanted, mut revision) = (Content::new(), Revision::ZERO);
    for n in 0..5 {
        let writes = group(n, revision.get());
        disk.write([], &writes, last(&writes)).unwrap();
        model(&mut wanted, &writes);
        revision = last(&writes);
    }
    (rig, disk, wanted, revision)
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_that_was_written() {
    let rig = Rig::new(Vec::new());
    let (mut disk, _) = open(&rig).unwrap();
    let mut acknowledged = vec![(rig.parts().journal.len(), Revision::ZERO)];
    let (mut wanted, mut at) = (BTreeMap::from([(Revision::ZERO, Content::new())]), Revision::ZERO);
    for n in 0..16 {
        let writes = group(n, at.get());
        disk.write([], &writes, last(&writes)).unwrap();
        let mut now = wanted[&at].clone();
        model(&mut now, &writes);
        at = last(&writes);
        wanted.insert(at, now);
        acknowledged.push((rig.parts().journal.len(), at));
    }
    let journal = std::mem::take(&mut rig.parts().journal);
    let mut dice = 1_u64;
    let mut durable = Vec::new();
    let mut since_sync = 0;
    for cut in 0..=journal.len() {
        let lost = &journal[since_sync..cut];
        // Everything, nothing, or any sectors of what was not synced may have reached the disk.
        for chance in [0, 50, 100] {
            let mut bytes = durable.clone();
            for step in lost {
                match step {
                    Step::Write(at, data) => {
                        for (i, sector) in data.chunks(512).enumerate() {
                            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                            if dice >> 33 < (chance << 31) / 100 {
                                apply(&mut bytes, &Step::Write(at + 512 * i as u64, sector.to_vec()));
                            }
                        }
                    }
                    other => apply(&mut bytes, other),
                }
            }
            let (_, loaded) = open(&Rig::new(bytes)).unwrap_or_else(|error| panic!("cut at {cut}, {chance}%: {error}"));
            let sure = acknowledged.iter().filter(|(len, _)| *len <= cut).map(|(_, revision)| *revision).max();
            assert!(loaded.revision >= sure.unwrap_or_default(), "cut at {cut}, {chance}%: lost {sure:?}");
            assert_eq!(content(&loaded), wanted[&loaded.revision], "cut at {cut}, {chance}%");
        }
        if journal.get(cut) == Some(&Step::Sync) {
            journal[since_sync..cut].iter().for_each(|step| apply(&mut durable, step));
            since_sync = cut;
        }
    }
}

#[test]
fn a_write_that_fails_once_is_told_truly_and_the_next_one_works() {
    let mut failures = 0;
    for after in 0.. {
        let (rig, mut disk, mut wanted, revision) = begun();
        rig.parts().trouble = Some(Trouble { calls: Calls::Writes, after, times: 1, errno: Errno::NOSPC });
        let writes = group(8, revision.get());
        let outcome = disk.write([], &writes, last(&writes));
        let struck = rig.parts().trouble.take().unwrap().times == 0;
        let mut expected = revision;
        match outcome {
            Ok(()) => {
                model(&mut wanted, &writes);
                expected = last(&writes);
            }
            Err(Failed::NotWritten(error)) => {
                assert!(error.is_unavailable() && error.to_string().contains("no space left"), "{error}");
                failures += 1;
            }
            Err(Failed::Doubtful(error)) => panic!("a failure that is over leaves no doubt: {error}"),
        }
        assert_eq!(disk.recover().unwrap(), expected);
        let again = group(9, expected.get());
        disk.write([], &again, last(&again)).unwrap();
        model(&mut wanted, &again);
        drop(disk);
        let (_, loaded) = open(&rig).unwrap();
        assert_eq!((loaded.revision, content(&loaded)), (last(&again), wanted));
        if !struck {
            break;
        }
    }
    assert!(failures > 3, "only {failures} steps could fail");
}

#[test]
fn a_disk_that_stays_full_leaves_doubt_until_it_is_not() {
    for after in 0.. {
        let (rig, mut disk, mut wanted, revision) = begun();
        rig.parts().trouble = Some(Trouble { calls: Calls::Writes, after, times: usize::MAX, errno: Errno::NOSPC });
        let writes = group(8, revision.get());
        let outcome = disk.write([], &writes, last(&writes));
        let struck = rig.parts().trouble.is_some_and(|trouble| trouble.times < usize::MAX);
        if let Err(Failed::Doubtful(error)) = &outcome {
            assert!(error.is_unknown() && error.to_string().contains("no space left"), "{error}");
            assert!(disk.recover().unwrap_err().is_unavailable());
            assert!(matches!(disk.write([], &writes, last(&writes)), Err(Failed::NotWritten(_))));
        }
        rig.parts().trouble = None;
        let found = disk.recover().unwrap();
        if found == last(&writes) {
            model(&mut wanted, &writes);
        } else {
            assert_eq!(found, revision);
            assert!(outcome.is_err());
        }
        let (_, loaded) = open(&Rig::new(rig.parts().bytes.clone())).unwrap();
        assert_eq!((loaded.revision, content(&loaded)), (found, wanted));
        if !struck {
            break;
        }
    }
}

#[test]
fn a_disk_that_did_not_sync_is_not_written_again() {
    let (rig, mut disk, wanted, revision) = begun();
    rig.parts().trouble = Some(Trouble { calls: Calls::Syncs, after: 0, times: 1, errno: Errno::IO });
    let writes = group(8, revision.get());
    let Err(Failed::Doubtful(error)) = disk.write([], &writes, last(&writes)) else { panic!("not in doubt") };
    assert!(error.is_unknown() && error.to_string().contains("restart"), "{error}");
    let steps = rig.parts().journal.len();
    assert!(disk.recover().unwrap_err().is_unavailable());
    assert!(matches!(disk.write([], &writes, last(&writes)), Err(Failed::NotWritten(_))));
    drop(disk);
    assert_eq!(rig.parts().journal.len(), steps);
    let (_, loaded) = open(&rig).unwrap();
    let mut also = wanted.clone();
    model(&mut also, &writes);
    assert!([wanted, also].contains(&content(&loaded)));
}

/// A writer over a disk that holds `a` at revision 1.
async fn writer(sync: Sync) -> (Arc<Rig>, Arc<Shared>, Writer) {
    let rig = Rig::new(Vec::new());
    let (disk, _) = open(&rig).unwrap();
    let shared = Shared::new(Arc::new(BootClock), state::State::default());
    let writer = Writer::start(Path::new("/rig"), shared.clone(), disk, sync).unwrap();
    assert_eq!(put(&writer, "a").await.unwrap(), Revision::new(1));
    (rig, shared, writer)
}

async fn put(writer: &Writer, key: &str) -> crate::Result<Revision> {
    let op = Op::put(Key::new(key).unwrap(), "value");
    writer.queue().push(op.into()).await.unwrap().await.unwrap()
}

fn exists(shared: &Shared, key: &str) -> bool {
    shared.entry(&Key::new(key).unwrap()).is_some()
}

#[tokio::test]
async fn while_a_write_is_in_doubt_nothing_is_shown_and_nothing_is_decided() {
    let (rig, shared, writer) = writer(Sync::Always).await;
    rig.parts().trouble = Some(Trouble { calls: Calls::Writes, after: 0, times: usize::MAX, errno: Errno::NOSPC });
    assert!(put(&writer, "b").await.unwrap_err().is_unknown());
    assert!(put(&writer, "c").await.unwrap_err().is_unavailable());
    assert!(exists(&shared, "a") && !exists(&shared, "b") && !exists(&shared, "c"));
    rig.parts().trouble = None;
    let revision = put(&writer, "c").await.unwrap();
    let landed = exists(&shared, "b");
    assert_eq!(revision.get(), if landed { 3 } else { 2 });
    drop(writer);
    let (_, loaded) = open(&rig).unwrap();
    assert_eq!(content(&loaded).contains_key("b"), landed);
    assert_eq!(loaded.revision, revision);
}

#[tokio::test]
async fn after_a_failed_sync_reads_go_on_and_writes_do_not() {
    let (rig, shared, writer) = writer(Sync::Always).await;
    rig.parts().trouble = Some(Trouble { calls: Calls::Syncs, after: 0, times: 1, errno: Errno::IO });
    assert!(put(&writer, "b").await.unwrap_err().is_unknown());
    for _ in 0..2 {
        let error = put(&writer, "c").await.unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains("restart"), "{error}");
    }
    assert!(exists(&shared, "a") && !exists(&shared, "b"));
}

#[tokio::test]
async fn what_was_acknowledged_before_its_sync_is_written_once_the_disk_works_again() {
    let (rig, shared, writer) = writer(Sync::Every(Duration::from_millis(1))).await;
    rig.parts().trouble = Some(Trouble { calls: Calls::Writes, after: 0, times: usize::MAX, errno: Errno::NOSPC });
    let mut acknowledged = vec!["a".to_owned()];
    let error = loop {
        let name = format!("b.{}", acknowledged.len());
        match put(&writer, &name).await {
            Ok(_) => acknowledged.push(name),
            Err(error) => break error,
        }
    };
    assert!(error.is_unavailable() && error.to_string().contains("no space left"), "{error}");
    assert!(acknowledged.iter().all(|name| exists(&shared, name)));
    rig.parts().trouble = None;
    put(&writer, "c").await.unwrap();
    acknowledged.push("c".to_owned());
    drop(writer);
    let (_, loaded) = open(&rig).unwrap();
    acknowledged.sort();
    assert_eq!(content(&loaded).into_keys().collect::<Vec<_>>(), acknowledged);
}

#[test]
fn any_damage_is_refused_and_left_as_it_is_or_does_no_harm() {
    let (rig, disk, wanted, revision) = begun();
    disk.close(revision).unwrap();
    let sound = rig.parts().bytes.clone();
    let used = || (0..sound.len()).filter(|at| sound[at - at % 64..][..64].iter().any(|byte| *byte != 0));
    let (mut damaged, mut harmless) = (0, 0);
    // The flags in the tenth byte say whether to trust the rest; and the first bytes of a page, what it is.
    let heads = || used().filter(|at| *at >= 4_096 && at % 4_096 < 2);
    let flagged = [2, 4, 6].into_iter().flat_map(|flags| heads().map(move |at| (at, flags)));
    for (at, flags) in used().step_by(61).map(|at| (at, 0)).chain(flagged) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes[9] ^= flags;
        let rig = Rig::new(bytes);
        match open(&rig) {
            Ok((_, loaded)) => {
                assert_eq!((loaded.revision, content(&loaded)), (revision, wanted.clone()), "byte {at}");
                harmless += 1;
            }
            Err(error) => {
                assert!(error.is_invalid(), "{error}");
                assert!(rig.is_untouched(), "byte {at}");
                damaged += 1;
            }
        }
    }
    assert!(damaged > 20 && harmless > 5, "{damaged} refused, {harmless} harmless");
}
