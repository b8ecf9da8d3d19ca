//! Single writes: preconditions, tombstones, sizes, and many writers at once.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::support::{Ground, MakeOp, conflict, invalid, join, noise, ok, poll, spawn};
use crate::{Error, Expect, Key, MAX_KEY, MAX_VALUE, Op, Revision, Since, State, Store, StoreExt, Ttl};

/// A key that was never written has no entry, alone or among others.
pub async fn absent_keys_have_no_entry(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("nothing");
    assert_eq!(ok(store.entry(&key).await, "a read of an absent key"), None, "an absent key must have no entry");
    let neighbour = ground.key("nothing.below");
    ground.put(&neighbour, "x").await;
    assert_eq!(ok(store.entry(&key).await, "a read"), None, "a key below another is not that other");
    let both = ok(store.entries(&[key.clone(), key]).await, "a read of two absent keys");
    assert_eq!(both, vec![None, None], "absent keys must have no entries");
}

/// What a put wrote is read at the revision it returned, and replaced by the next put.
pub async fn a_put_is_read_back(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    let first = ground.put(&key, "one").await;
    assert!(first > Revision::ZERO, "revisions start at 1");
    ground.reads_as(&key, first, &State::Live("one".into())).await;
    let second = ground.put(&key, "two").await;
    ground.reads_as(&key, second, &State::Live("two".into())).await;
}

/// A create passes once; a conflict names the key and where it is, or leaves that open.
pub async fn create_needs_absence(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    let first = ground.commit(Op::put(key.clone(), "one").if_absent(), "a create of an absent key").await;
    for _ in 0..3 {
        let error = ground.refused(Op::put(key.clone(), "two").if_absent(), "a create of a key that has a value").await;
        if let Error::Conflict { key: named, revision, .. } = &error {
            assert!(named.as_ref().is_none_or(|named| *named == key), "the conflict is on {key}, but names {named:?}");
            assert!(revision.is_none_or(|at| at == first), "{key} is at {first}, but the conflict says {revision:?}");
        }
    }
    ground.reads_as(&key, first, &State::Live("one".into())).await;
    ground.still_at(&key, first, "a refused create changes nothing").await;
}

/// A tombstone of any kind counts as absent, whether it stays for ever or not.
pub async fn create_passes_over_tombstones(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let tombstones: [(&str, MakeOp); 4] = [
        ("delete", Op::delete),
        ("purge", Op::purge),
        ("short.delete", |key| Op::delete(key).ttl(Ttl::MIN)),
        ("short.purge", |key| Op::purge(key).ttl(Ttl::MIN)),
    ];
    for (name, bury) in tombstones {
        let key = ground.key(name);
        ground.put(&key, "before").await;
        let buried = ground.commit(bury(key.clone()), format!("a {name}")).await;
        let created = ground.commit(Op::put(key.clone(), "after").if_absent(), format!("a create after a {name}")).await;
        assert!(created > buried, "a create after a {name} at {buried} has revision {created}");
        ground.reads_as(&key, created, &State::Live("after".into())).await;
        ground.refused(Op::put(key.clone(), "again").if_absent(), "a create of a key created again").await;
    }
}

/// An update passes at the latest revision only.
pub async fn update_needs_the_revision(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    let first = ground.put(&key, "one").await;
    let second = ground.commit(Op::put(key.clone(), "two").if_at(first), "an update at the latest revision").await;
    let elsewhere = ground.put(&ground.key("other"), "x").await;
    for (wrong, name) in
        [(first, "a former revision"), (elsewhere, "another key's revision"), (second.next(), "a later revision")]
    {
        ground.refused(Op::put(key.clone(), "wrong").if_at(wrong), format!("an update at {name}")).await;
    }
    ground.reads_as(&key, second, &State::Live("two".into())).await;
    ground.still_at(&key, second, "refused updates change nothing").await;
    let absent = ground.key("absent");
    ground.refused(Op::put(absent.clone(), "x").if_at(second), "an update of a key that was never written").await;
    ground.never_written(&absent, "a refused update writes nothing").await;
}

/// A tombstone has a revision of its own; the revision of the value it buried is past.
pub async fn update_of_a_tombstone_needs_its_revision(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    for (name, bury) in [("delete", Op::delete as MakeOp), ("purge", Op::purge)] {
        let key = ground.key(name);
        let value = ground.put(&key, "before").await;
        let tombstone = ground.commit(bury(key.clone()), format!("a {name}")).await;
        assert!(tombstone > value, "a {name} after {value} has revision {tombstone}");
        ground.refused(Op::put(key.clone(), "x").if_at(value), format!("an update at the value before a {name}")).await;
        ground.commit(Op::put(key.clone(), "x").if_at(tombstone), format!("an update at the {name}'s revision")).await;
    }
}

/// Revision 0 is where a key is that was never written, and nothing else.
pub async fn revision_zero_means_never_written(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    let first = ground.never_written(&key, "it is fresh").await;
    ground.refused(Op::put(key.clone(), "x").if_at(Revision::ZERO), "a first write of a key that has a value").await;
    let first = ground.still_at(&key, first, "a refused first write changes nothing").await;
    let tombstone = ground.commit(Op::delete(key.clone()).if_at(first), "a delete").await;
    ground.refused(Op::put(key.clone(), "x").if_at(Revision::ZERO), "a first write of a key that has a tombstone").await;
    ground.still_at(&key, tombstone, "a refused first write leaves the tombstone").await;
}

/// Writes without a condition pass on absent, live and deleted keys.
pub async fn unconditional_writes_always_pass(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    let mut last = Revision::ZERO;
    let steps: [(Op, State); 7] = [
        (Op::delete(key.clone()), State::Deleted(Bytes::new())),
        (Op::put(key.clone(), "one"), State::Live("one".into())),
        (Op::put(key.clone(), "two"), State::Live("two".into())),
        (Op::purge(key.clone()), State::Purged),
        (Op::delete(key.clone()), State::Deleted(Bytes::new())),
        (Op::purge(key.clone()).expect(Expect::Absent), State::Purged),
        (Op::put(key.clone(), "three"), State::Live("three".into())),
    ];
    for (op, state) in steps {
        let revision = ground.commit(op, "an unconditional write").await;
        assert!(revision > last, "a write after {last} has revision {revision}");
        ground.reads_as(&key, revision, &state).await;
        last = revision;
    }
}

/// A delete and a purge are told apart, alone and among other entries.
pub async fn tombstones_say_why(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let (deleted, purged) = (ground.key("deleted"), ground.key("purged"));
    ground.put(&deleted, "x").await;
    ground.put(&purged, "x").await;
    let first = ground.commit(Op::delete(deleted.clone()), "a delete").await;
    let second = ground.commit(Op::purge(purged.clone()), "a purge").await;
    ground.reads_as(&deleted, first, &State::Deleted(Bytes::new())).await;
    ground.reads_as(&purged, second, &State::Purged).await;
    for key in [&deleted, &purged] {
        assert_eq!(ok(store.get(key).await, "a get"), None, "a tombstone has no value");
    }
}

/// The note of a delete is read with the tombstone, by a read and by a watch.
pub async fn a_note_stays_with_its_tombstone(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    for (name, note) in [("text", Bytes::from("moved to b")), ("binary", noise(300)), ("large", noise(64 << 10))] {
        let key = ground.key(name);
        let value = ground.put(&key, "x").await;
        let op = Op::delete(key.clone()).if_at(value).note(note.clone());
        let revision = ground.commit(op, "a delete with a note").await;
        ground.reads_as(&key, revision, &State::Deleted(note.clone())).await;
        let told = ground.watch(crate::KeyRange::One(key.clone()), Since::Current).await.until(revision).await;
        assert_eq!(told.last().map(|entry| &entry.state), Some(&State::Deleted(note)), "a watch must show the note");
        let short = ground.commit(Op::delete(key.clone()).note("bye").ttl(Ttl::MIN), "a short tombstone with a note").await;
        if let Some(entry) = ok(store.entry(&key).await, "a read").filter(|entry| entry.revision == short) {
            assert_eq!(entry.state, State::Deleted("bye".into()), "a short tombstone must carry its note");
        }
    }
}

/// A delete or purge at a former revision leaves the newer value alone.
pub async fn a_conditional_delete_spares_newer_values(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    let old = ground.put(&key, "old").await;
    let new = ground.put(&key, "new").await;
    ground.refused(Op::delete(key.clone()).if_at(old), "a delete at a former revision").await;
    ground.refused(Op::purge(key.clone()).if_at(old), "a purge at a former revision").await;
    ground.refused(Op::delete(key.clone()).if_absent(), "a delete of a live key on condition of absence").await;
    ground.reads_as(&key, new, &State::Live("new".into())).await;
    let kept = ground.still_at(&key, new, "refused deletes free nothing").await;
    let gone = ground.commit(Op::delete(key.clone()).if_at(kept), "a delete at the latest revision").await;
    ground.reads_as(&key, gone, &State::Deleted(Bytes::new())).await;
    ground.refused(Op::delete(key.clone()).if_at(kept), "a second delete at the same revision").await;
}

/// Empty, binary and header-like values come back to the byte; an empty value is a value.
pub async fn values_are_kept_to_the_byte(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let every: Bytes = (0..=u8::MAX).collect();
    let values = [
        ("empty", Bytes::new()),
        ("zero", Bytes::from_static(b"\0")),
        ("bytes", every),
        ("lines", Bytes::from_static(b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n")),
        ("large", noise(300_000)),
    ];
    for (name, value) in values {
        let key = ground.key(name);
        let revision = ground.put(&key, value.clone()).await;
        ground.reads_as(&key, revision, &State::Live(value.clone())).await;
        let told = ground.watch(crate::KeyRange::One(key.clone()), Since::Current).await.until(revision).await;
        assert_eq!(told.last().and_then(|entry| entry.value()), Some(&value), "a watch must show the value of {name}");
        ground.refused(Op::put(key.clone(), "x").if_absent(), format!("a create over a value that is {name}")).await;
    }
}

/// A value of [`MAX_VALUE`] bytes passes, alone and with all that may stand beside it.
pub async fn the_largest_write_passes(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let value = noise(MAX_VALUE);
    let plain = ground.key("plain");
    let revision = ground.put(&plain, value.clone()).await;
    ground.reads_as(&plain, revision, &State::Live(value.clone())).await;

    let (key, guard) = (longest(&ground, 'k'), longest(&ground, 'g'));
    let held = ground.put(&guard, "held").await;
    let ttl = Ttl::at_least(std::time::Duration::from_secs(600));
    let op = Op::put(key.clone(), value.clone()).if_absent().fenced(guard, held).ttl(ttl);
    let revision = ground.commit(op, "the largest value under the longest key, fenced by the longest key, with a TTL").await;
    ground.reads_as(&key, revision, &State::Live(value)).await;
}

/// Keys of [`MAX_KEY`] bytes work in every verb, and no two keys are taken for one.
pub async fn the_longest_keys_work(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let room = (MAX_KEY - ground.root().as_str().len()) / 2;
    let tokens = ok(Key::new(format!("{}{}", ground.root(), ".t".repeat(room))), "a key of many tokens");
    let odd = [longest(&ground, 'a'), longest(&ground, 'A'), tokens, ground.key("-/_=09.az"), ground.key("-/_=09.AZ")];
    for key in odd {
        let first = ground.commit(Op::put(key.clone(), "x").if_absent(), "a create of an odd key").await;
        ground.reads_as(&key, first, &State::Live("x".into())).await;
        let mut watch = ground.watch(crate::KeyRange::One(key.clone()), Since::Current).await;
        watch.until(first).await;
        let second = ground.commit(Op::put(key.clone(), "y").if_at(first), "an update of an odd key").await;
        watch.until(second).await;
        let one = ok(store.list(&crate::KeyRange::One(key.clone())).await, "a list of an odd key");
        assert!(one.iter().all(|entry| entry.key == key) && one.len() <= 1, "the range of one key holds {one:?}");
        ground.commit(Op::delete(key.clone()).if_at(second), "a delete of an odd key").await;
    }
}

/// Values and notes over the limit are refused as invalid and nothing is written.
pub async fn oversized_values_are_refused(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("k");
    let value = noise(MAX_VALUE + 1);
    invalid(store.put(&key, value.clone()).await, "a value over the limit");
    invalid(store.commit(Op::delete(key.clone()).note(value).into()).await, "a note over the limit");
    ground.never_written(&key, "oversized writes are refused").await;
}

/// One order for the whole store: each write is later than every write acknowledged before it.
pub async fn revisions_increase_over_all_keys(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut last = Revision::ZERO;
    for round in 0..40 {
        let key = ground.key(round % 7);
        let op = if round % 5 == 4 { Op::delete(key) } else { Op::put(key, round.to_string()) };
        let revision = ground.commit(op, "a write").await;
        assert!(revision > last, "a write after {last} has revision {revision}");
        last = revision;
    }
}

/// Of 50 creates of one key at once exactly one passes, and the others are conflicts.
pub async fn of_many_creates_one_wins(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    for round in 0..4 {
        let key = ground.key(round);
        let mut tasks = JoinSet::new();
        for who in 0..50 {
            let (store, key) = (store.clone(), key.clone());
            spawn(&mut tasks, async move { (who, store.create(&key, format!("{who}")).await) });
        }
        let (mut winners, mut unsure) = (Vec::new(), Vec::new());
        for (who, outcome) in join(tasks).await {
            match outcome {
                Ok(revision) => winners.push((who, revision)),
                Err(error) if error.is_unknown() => unsure.push(who),
                other => drop(conflict(other, "a create that lost")),
            }
        }
        assert!(winners.len() <= 1, "creates of one key passed more than once: {winners:?}");
        assert!(unsure.len() < 50, "every create of a healthy store ended unknown");
        let entry = ground.read(&key, winners.first().map_or(Revision::new(1), |winner| winner.1)).await;
        match winners.first() {
            Some((who, revision)) => {
                assert_eq!(entry.value().map(|value| &value[..]), Some(who.to_string().as_bytes()), "the winner's value stands");
                assert_eq!(entry.revision, *revision, "the winner's revision stands");
            }
            None => {
                let found = entry.value().map(|value| String::from_utf8_lossy(value).into_owned());
                let among = unsure.iter().any(|who| Some(who.to_string()) == found);
                assert!(among, "nobody won, yet {key} has the value {found:?}");
            }
        }
    }
}

/// Twenty writers count up one key by compare-and-set; no increment is lost or made twice.
pub async fn a_shared_counter_loses_nothing(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let key = ground.key("counter");
    ground.put(&key, "0").await;
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (store, key) = (store.clone(), key.clone());
        spawn(&mut tasks, async move { count(&store, &key, 10).await });
    }
    let (mut sure, mut unsure) = (0, 0);
    for (ours, perhaps) in join(tasks).await {
        sure += ours;
        unsure += perhaps;
    }
    let value = latest_count(store, &key).await;
    assert!(
        (sure..=sure + unsure).contains(&value),
        "{sure} increments passed and {unsure} are unknown, but the counter is at {value}"
    );
}

/// Increments that passed and increments that may have.
async fn count(store: &Arc<dyn Store>, key: &Key, times: u64) -> (u64, u64) {
    let (mut sure, mut unsure) = (0, 0);
    while sure + unsure < times {
        let (value, revision) = read_count(store, key).await;
        // So that others come in between even where a store never waits.
        tokio::task::yield_now().await;
        match store.update(key, (value + 1).to_string(), revision).await {
            Ok(_) => sure += 1,
            Err(error) if error.is_unknown() => unsure += 1,
            other => drop(conflict(other, "an increment that lost")),
        }
    }
    (sure, unsure)
}

/// The counter's value, proven the latest by a write on top of it.
async fn latest_count(store: &Arc<dyn Store>, key: &Key) -> u64 {
    poll("a read of the counter's latest value", || async {
        let (value, revision) = read_count(store, key).await;
        store.update(key, value.to_string(), revision).await.is_ok().then_some(value)
    })
    .await
}

async fn read_count(store: &Arc<dyn Store>, key: &Key) -> (u64, Revision) {
    let Some((value, revision)) = ok(store.get(key).await, "a read of the counter") else {
        panic!("the counter is gone");
    };
    match std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()) {
        Some(value) => (value, revision),
        None => panic!("the counter reads {value:?}"),
    }
}

/// Writers of the same keys at once: every write has a revision of its own, the highest one stands.
pub async fn concurrent_writers_get_their_own_revisions(store: &Arc<dyn Store>) {
    let ground = Ground::new(store);
    let mut tasks = JoinSet::new();
    for who in 0..16 {
        let ground = ground.clone();
        spawn(&mut tasks, async move {
            let mut written = Vec::new();
            for round in 0..25 {
                let key = ground.key(round % 5);
                let value = format!("{who}-{round}");
                let revision = ground.put(&key, value.clone()).await;
                written.push((revision, key, value));
            }
            assert!(written.is_sorted_by(|a, b| a.0 < b.0), "one writer's revisions must increase");
            written
        });
    }
    let mut written: Vec<_> = join(tasks).await.into_iter().flatten().collect();
    written.sort();
    let distinct: HashSet<_> = written.iter().map(|write| write.0).collect();
    assert_eq!(distinct.len(), written.len(), "two writes were given one revision");
    for at in 0..5 {
        let key = ground.key(at);
        if let Some((revision, _, value)) = written.iter().rev().find(|write| write.1 == key) {
            ground.reads_as(&key, *revision, &State::Live(value.clone().into())).await;
        }
    }
}

/// A key of [`MAX_KEY`] bytes.
fn longest(ground: &Ground, fill: char) -> Key {
    let room = MAX_KEY - ground.root().as_str().len() - 1;
    ground.key(fill.to_string().repeat(room))
}
