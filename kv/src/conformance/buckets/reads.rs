//! Reads of a bucket: the past of a key, and which keys there are.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};

use super::{Tested, ground::Ground};
use crate::{
    Entry, Key, KeyRange, Op, Revision, State,
    conformance::support::{ok, poll},
};

/// The keys of `range`, none of them twice, once they are `wanted`.
async fn lists(ground: &Ground, range: &KeyRange, wanted: &[Key]) {
    let wanted: BTreeSet<&Key> = wanted.iter().collect();
    let mut told = Vec::new();
    for attempt in 0.. {
        told = ok(ground.bucket.keys(range).await, "the keys");
        let found: BTreeSet<&Key> = told.iter().collect();
        assert_eq!(found.len(), told.len(), "{range} lists a key twice: {told:?}");
        if found == wanted {
            return;
        }
        // A server that is behind has others.
        if !ground.reads_lag() || attempt == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("{range} lists {told:?} instead of {wanted:?}");
}

/// What was written at a revision is found with the key that it was written to, while it is kept.
pub async fn a_revision_is_read_with_its_own_key(tested: &Tested) {
    let ground = Ground::new(tested);
    let (key, other) = (ground.key("k"), ground.key("other"));
    let old = ground.put(&key, "old").await;
    let theirs = ground.put(&other, "theirs").await;
    let last = ground.put(&key, "last").await;
    let entry =
        poll("the latest by its revision", || async { ok(ground.bucket.entry_at(&key, last).await, "a read of a revision") })
            .await;
    assert_eq!((&entry.key, entry.revision, &entry.state), (&key, last, &State::Live("last".into())));
    let past = ok(ground.bucket.entry_at(&key, old).await, "a read of the past");
    if tested.history > 1 {
        let found = past.map(|entry| (entry.revision, entry.state));
        assert_eq!(found, Some((old, State::Live("old".into()))), "the bucket keeps {} writes", tested.history);
    } else {
        assert_eq!(past, None, "the bucket keeps the latest write only");
    }
    for revision in [theirs, Revision::ZERO, Revision::new(last.get() + 1_000_000)] {
        let found = ok(ground.bucket.entry_at(&key, revision).await, "a read of another revision");
        assert_eq!(found, None, "{key} was not written at {revision}");
    }
}

/// As many of the last writes as the bucket keeps, removals too, in their order.
pub async fn a_history_is_what_is_kept_oldest_first(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    let mut wrote = Vec::new();
    for number in 0..tested.history + 2 {
        wrote.push((ground.put(&key, number.to_string()).await, State::Live(number.to_string().into())));
    }
    let gone = ground.write(Op::delete(key.clone()), "a delete").await;
    wrote.push((gone, State::Deleted(bytes::Bytes::new())));
    ground.put(&ground.key("k.below"), "x").await;
    let told: Vec<_> =
        ground.history(&key, usize::MAX, gone).await.into_iter().map(|entry| (entry.revision, entry.state)).collect();
    assert_eq!(told, wrote[wrote.len() - tested.history..], "the bucket keeps {} writes", tested.history);
}

/// A history that is longer than asked for ends with the entry that is too much, so that it can be told.
pub async fn a_history_ends_with_what_is_too_much(tested: &Tested) {
    let ground = Ground::new(tested);
    let key = ground.key("k");
    let mut last = Revision::ZERO;
    for _ in 0..tested.history {
        last = ground.put(&key, vec![b'x'; 1_000]).await;
    }
    let bytes = |told: &[Entry]| told.iter().filter_map(Entry::value).map(|value| value.len()).sum::<usize>();
    for most in [0, 999, 1_000, 1_500, tested.history * 1_000] {
        let told = ground.history(&key, most, last).await;
        let expected = (most / 1_000 + 1).min(tested.history);
        assert_eq!((told.len(), bytes(&told)), (expected, expected * 1_000), "a history of at most {most} bytes");
    }
}

/// A key is listed once, if it has a value.
pub async fn keys_are_those_that_have_a_value(tested: &Tested) {
    let ground = Ground::new(tested);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| ground.key(name));
    for key in [&a, &b, &c, &d, &a] {
        ground.put(key, "x").await;
    }
    ground.write(Op::delete(b), "a delete").await;
    ground.write(Op::purge(c.clone()), "a purge").await;
    ground.write(Op::purge(d), "a purge").await;
    ground.write(Op::put(c.clone(), "again").if_absent(), "a create").await;
    lists(&ground, &ground.range(), &[a, c]).await;
}

/// One key, what is below a key, and patterns.
pub async fn keys_keep_to_their_range(tested: &Tested) {
    let ground = Ground::new(tested);
    let [a, ax, axy, ab, b] = ["a", "a.x", "a.x.y", "ab", "b"].map(|name| ground.key(name));
    for key in [&a, &ax, &axy, &ab, &b] {
        ground.put(key, "x").await;
    }
    for (range, wanted) in [
        (KeyRange::One(a.clone()), vec![a.clone()]),
        (KeyRange::Under(a.clone()), vec![ax.clone(), axy.clone()]),
        (ground.like("*"), vec![a.clone(), ab.clone(), b.clone()]),
        (ground.like("*.x"), vec![ax.clone()]),
        (ground.like("a.>"), vec![ax.clone(), axy.clone()]),
        (ground.range(), vec![a, ax, axy, ab, b.clone()]),
    ] {
        lists(&ground, &range, &wanted).await;
    }
    poll("a key among all of the bucket", || async {
        ok(ground.bucket.keys(&KeyRange::All).await, "all keys").contains(&b).then_some(())
    })
    .await;
}

/// More keys than any store reads in one go.
pub async fn a_thousand_keys_are_listed(tested: &Tested) {
    let ground = Ground::new(tested);
    let keys: Vec<_> = (0..1_100).map(|number| ground.key(number)).collect();
    let write = async |key: &Key| ground.put(key, "x").await;
    stream::iter(&keys).map(write).buffer_unordered(64).collect::<Vec<_>>().await;
    for key in &keys[..100] {
        ground.write(Op::delete(key.clone()), "a delete").await;
    }
    lists(&ground, &ground.range(), &keys[100..]).await;
}
