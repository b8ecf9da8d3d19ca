//! Writes to a bucket: preconditions, tombstones, TTLs, and many writers at once.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Tested,
    ground::{Ground, wrong},
};
use crate::{
    Key, Op, Revision, State, Ttl,
    conformance::support::{MakeOp, join, noise, ok, poll, spawn},
};

/// A key that was never written has no entry, no past, and is not listed.
pub async fn nothing_is_there_at_first(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("nothing");
    ground.put(&ground.key("nothing.below"), "x").await;
    assert_eq!(ok(ground.bucket.entry(&key).await, "a read"), None, "an absent key must have no entry");
    assert_eq!(ok(ground.bucket.entry_at(&key, Revision::new(1)).await, "a read"), None, "nor one of the past");
    assert_eq!(ok(ground.bucket.history(&key, usize::MAX).await, "a history"), [], "nor a history");
    assert_eq!(ok(ground.bucket.keys(&ground.like("none.>")).await, "the keys"), [], "a range without keys lists none");
}

/// What was written is read at the revision that was returned, until the next write.
pub async fn a_write_is_read_back(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    let first = ground.put(&key, "one").await;
    assert!(first > Revision::ZERO, "revisions start at 1");
    ground.reads_as(&key, first, &State::Live("one".into())).await;
    let second = ground.put(&key, "two").await;
    ground.reads_as(&key, second, &State::Live("two".into())).await;
}

/// A create passes once, and a refused one changes nothing.
pub async fn a_create_needs_absence(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    let first = ground.write(Op::put(key.clone(), "one").if_absent(), "a create of an absent key").await;
    ground.read(&key, first).await;
    ground.refused(Op::put(key.clone(), "two").if_absent(), first, "a create of a key that has a value").await;
    ground.reads_as(&key, first, &State::Live("one".into())).await;
    ground.still_at(&key, first).await;
}

/// A tombstone of either kind counts as absent.
pub async fn a_create_passes_over_tombstones(tested: &Tested) {
    let ground = Ground::new(tested);
    let tombstones: [(&str, MakeOp); 2] = [("delete", Op::delete), ("purge", Op::purge)];
    for (name, bury) in tombstones {
        let key = ground.key(name);
        ground.put(&key, "one").await;
        let gone = ground.write(bury(key.clone()), format!("a {name}")).await;
        ground.read(&key, gone).await;
        let made = ground.write(Op::put(key.clone(), "two").if_absent(), format!("a create over a {name}")).await;
        ground.reads_as(&key, made, &State::Live("two".into())).await;
    }
}

/// An update passes at the latest revision of its key, tombstones included, and at no other.
pub async fn an_update_needs_the_revision(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    let first = ground.put(&key, "one").await;
    let second = ground.write(Op::put(key.clone(), "two").if_at(first), "an update at the revision").await;
    ground.read(&key, second).await;
    ground.refused(Op::put(key.clone(), "three").if_at(first), second, "an update at a revision that is over").await;
    ground.reads_as(&key, second, &State::Live("two".into())).await;
    let gone = ground.write(Op::delete(key.clone()).if_at(second), "a delete at the revision").await;
    let again = ground.write(Op::put(key.clone(), "four").if_at(gone), "an update of a tombstone").await;
    ground.reads_as(&key, again, &State::Live("four".into())).await;
    let fresh = ground.key("fresh");
    let made = ground.write(Op::put(fresh.clone(), "x").if_at(Revision::ZERO), "a first write").await;
    ground.read(&fresh, made).await;
    ground.refused(Op::put(fresh.clone(), "y").if_at(Revision::ZERO), made, "a first write of a key that was written").await;
}

/// A revision that the key never had is not taken. Among several servers it may stay unproven that it was not.
pub async fn a_revision_beyond_the_latest_is_not_taken(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    let at = ground.put(&key, "one").await;
    let beyond = Revision::new(at.get() + 1_000_000);
    for op in [Op::put(key.clone(), "two").if_at(beyond), Op::delete(key.clone()).if_at(beyond)] {
        match ground.bucket.write(op).await {
            Err(error) if error.is_conflict() || (ground.reads_lag() && error.is_unknown()) => {}
            other => panic!("a write at a revision beyond the latest gave {other:?}"),
        }
    }
    ground.still_at(&key, at).await;
}

/// Without a condition everything passes, whatever was there.
pub async fn writes_without_a_condition_pass(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    let mut last = Revision::ZERO;
    for op in [
        Op::delete(key.clone()),
        Op::purge(key.clone()),
        Op::put(key.clone(), "one"),
        Op::put(key.clone(), "two"),
        Op::delete(key.clone()),
        Op::delete(key.clone()),
        Op::put(key.clone(), "three"),
        Op::purge(key.clone()),
    ] {
        let at = ground.write(op.clone(), format!("{op:?}")).await;
        assert!(at > last, "revision {at} came after {last}");
        last = at;
    }
    assert!(!ground.read(&key, last).await.is_live(), "the last write was a purge");
}

/// Deleted and purged are told apart.
pub async fn tombstones_say_what_they_are(tested: &Tested) {
    let ground = Ground::new(tested);
    for (name, op, state) in
        [("deleted", Op::delete as MakeOp, State::Deleted(Bytes::new())), ("purged", Op::purge as MakeOp, State::Purged)]
    {
        let key = ground.key(name);
        ground.put(&key, "x").await;
        let gone = ground.write(op(key.clone()), name).await;
        ground.reads_as(&key, gone, &state).await;
    }
}

/// A delete or a purge at a revision that is over leaves the value.
pub async fn a_conditional_removal_spares_newer_values(tested: &Tested) {
    let ground = Ground::new(tested);
    let removals: [(&str, MakeOp); 2] = [("delete", Op::delete), ("purge", Op::purge)];
    for (name, remove) in removals {
        let key = ground.key(name);
        let first = ground.put(&key, "one").await;
        let second = ground.put(&key, "two").await;
        ground.read(&key, second).await;
        ground.refused(remove(key.clone()).if_at(first), second, format!("a {name} at a revision that is over")).await;
        ground.reads_as(&key, second, &State::Live("two".into())).await;
        let gone = ground.write(remove(key.clone()).if_at(second), format!("a {name} at the revision")).await;
        assert!(!ground.read(&key, gone).await.is_live(), "a {name} must leave no value");
    }
}

/// Values are bytes: empty, not UTF-8, and long.
pub async fn values_are_kept_to_the_last_byte(tested: &Tested) {
    let ground = Ground::new(tested);
    let every: Bytes = (0..=u8::MAX).collect();
    for (name, value) in [("empty", Bytes::new()), ("every", every), ("long", noise(200_000))] {
        let key = ground.key(name);
        let at = ground.put(&key, value.clone()).await;
        ground.reads_as(&key, at, &State::Live(value)).await;
    }
}

/// Each write has a higher revision than any that was acknowledged before, whichever key it was to.
pub async fn revisions_grow_over_all_keys(tested: &Tested) {
    let ground = Ground::new(tested);
    let mut last = Revision::ZERO;
    for round in 0..20 {
        let at = ground.put(&ground.key(round % 3), round.to_string()).await;
        assert!(at > last, "revision {at} came after {last}");
        last = at;
    }
}

/// Of many who create one key at the same time one succeeds, and its value is the one that stays.
pub async fn of_many_creates_only_one_wins(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let (ground, key) = (ground.clone(), key.clone());
        spawn(&mut tasks, async move {
            let create = Op::put(key, number.to_string()).if_absent();
            match ground.bucket.write(create).await {
                Ok(at) => Some((number, at)),
                Err(error) if error.is_conflict() || (ground.reads_lag() && error.is_unknown()) => None,
                Err(error) => panic!("a create among others gave {error:?}"),
            }
        });
    }
    let won: Vec<_> = join(tasks).await.into_iter().flatten().collect();
    let [(number, at)] = won[..] else { panic!("of many creates these succeeded: {won:?}") };
    ground.reads_as(&key, at, &State::Live(number.to_string().into())).await;
}

/// A bucket has no fences: a write that has one is refused, and not written without.
pub async fn a_fence_is_refused(tested: &Tested) {
    let ground = Ground::new(tested);
    let (fence, key) = (ground.key("fence"), ground.key("k"));
    let at = ground.put(&fence, "x").await;
    for revision in [at, Revision::new(at.get() + 1)] {
        let op = Op::put(key.clone(), "x").fenced(fence.clone(), revision);
        wrong(ground.bucket.write(op).await, "a write with a fence");
    }
    ground.write(Op::put(key.clone(), "first").if_at(Revision::ZERO), "a first write of what was refused").await;
}

/// A value with a TTL lives that long, and then none shows, nor an older one; where TTLs are not allowed it is refused.
pub async fn a_value_is_gone_after_its_ttl(tested: &Tested) {
    let ground = Ground::new(tested);
    let (key, ttl) = (ground.key("k"), Duration::from_secs(2));
    let asked = Instant::now();
    let written = ground.bucket.write(Op::put(key.clone(), "x").if_absent().ttl(Ttl::at_least(ttl))).await;
    if !tested.ttls {
        return wrong(written, "a TTL in a bucket that takes none");
    }
    let at = ok(written, "a create with a TTL");
    ground.reads_as(&key, at, &State::Live("x".into())).await;
    poll("the end of a TTL", || async {
        let gone = ok(ground.bucket.entry(&key).await, "a read").is_none_or(|entry| !entry.is_live());
        assert!(!gone || asked.elapsed() >= ttl, "the value was gone after {:?} of {ttl:?}", asked.elapsed());
        gone.then_some(())
    })
    .await;
    ground.write(Op::put(key.clone(), "y").if_absent(), "a create after the TTL").await;
    let listed: HashSet<Key> = poll("the new value is listed", || async {
        let keys: HashSet<_> = ok(ground.bucket.keys(&ground.range()).await, "the keys").into_iter().collect();
        keys.contains(&key).then_some(keys)
    })
    .await;
    assert_eq!(listed.len(), 1);
}
