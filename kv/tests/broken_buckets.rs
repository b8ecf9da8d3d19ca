//! The suite for buckets can fail: every behaviour notices at least one bucket that is broken in one way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future, stream, stream::BoxStream};
use tenure_kv::{
    Bucket, Change, Entry, Error, Event, Expect, Key, KeyRange, Op, Result, Revision, Since, State,
    conformance::buckets::{self, BUCKET_BEHAVIOURS, Tested},
};

/// For what never comes; what comes from memory comes at once, and a TTL takes two seconds.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    AbsentKeysReadAsPurged,
    ReturnsTheRevisionBefore,
    CreatesUnchecked,
    TombstonesBlockCreates,
    UpdatesUnchecked,
    BeyondIsTaken,
    DeletesNeedAValue,
    PurgesAreDeletes,
    DeletesUnchecked,
    EmptyValuesDelete,
    ValuesAreText,
    RevisionsOfKeys,
    FencesDropped,
    TtlsIgnored,
    AnyRevisionIsTheLatest,
    HistoryIsEmpty,
    HistoryLeavesOutWhatIsTooMuch,
    KeysAreListedTwice,
    KeysOfOtherRanges,
    KeysEndEarly,
    TombstonesAreListed,
    WatchesBeginNow,
    WatchesBeginWithWhatIsThere,
    WatchesHideTombstones,
    WatchesOfEverything,
    WatchesLoseEveryOther,
}

/// What is broken, and the behaviours that must notice.
const CASES: &[(Bug, &[&str])] = &[
    (Bug::AbsentKeysReadAsPurged, &["nothing_is_there_at_first"]),
    (Bug::ReturnsTheRevisionBefore, &["a_write_is_read_back", "a_watch_begins_after_a_revision"]),
    (Bug::CreatesUnchecked, &["a_create_needs_absence", "of_many_creates_only_one_wins"]),
    (Bug::TombstonesBlockCreates, &["a_create_passes_over_tombstones"]),
    (Bug::UpdatesUnchecked, &["an_update_needs_the_revision"]),
    (Bug::BeyondIsTaken, &["a_revision_beyond_the_latest_is_not_taken"]),
    (Bug::DeletesNeedAValue, &["writes_without_a_condition_pass"]),
    (Bug::PurgesAreDeletes, &["tombstones_say_what_they_are", "a_watch_tells_tombstones"]),
    (Bug::DeletesUnchecked, &["a_conditional_removal_spares_newer_values"]),
    (Bug::EmptyValuesDelete, &["values_are_kept_to_the_last_byte"]),
    (Bug::ValuesAreText, &["values_are_kept_to_the_last_byte"]),
    (Bug::RevisionsOfKeys, &["revisions_grow_over_all_keys"]),
    (Bug::FencesDropped, &["a_fence_is_refused"]),
    (Bug::TtlsIgnored, &["a_value_is_gone_after_its_ttl"]),
    (Bug::AnyRevisionIsTheLatest, &["a_revision_is_read_with_its_own_key"]),
    (Bug::HistoryIsEmpty, &["a_history_is_what_is_kept_oldest_first", "a_history_ends_with_what_is_too_much"]),
    (Bug::HistoryLeavesOutWhatIsTooMuch, &["a_history_ends_with_what_is_too_much"]),
    (Bug::KeysAreListedTwice, &["keys_are_those_that_have_a_value"]),
    (Bug::KeysOfOtherRanges, &["keys_keep_to_their_range"]),
    (Bug::KeysEndEarly, &["a_thousand_keys_are_listed"]),
    (Bug::TombstonesAreListed, &["keys_are_those_that_have_a_value"]),
    (
        Bug::WatchesBeginNow,
        &["a_watch_begins_with_what_is_there", "a_watch_of_the_past_tells_what_is_kept", "a_watch_begins_after_a_revision"],
    ),
    (Bug::WatchesBeginWithWhatIsThere, &["a_watch_begins_now", "a_watch_begins_after_a_revision"]),
    (Bug::WatchesHideTombstones, &["a_watch_tells_tombstones"]),
    (Bug::WatchesOfEverything, &["a_watch_keeps_to_its_range_in_a_bucket"]),
    (Bug::WatchesLoseEveryOther, &["a_watch_among_writers_tells_the_last_writes"]),
];

/// A range of a store in memory, with a defect.
#[derive(Debug)]
struct Broken {
    inner: Arc<dyn Bucket>,
    bug: Bug,
    writes: AtomicU64,
}

impl Broken {
    async fn with(bug: Bug) -> Tested {
        let tested = Tested::range(tenure_kv::open("memory:").await.unwrap(), Key::new("data").unwrap());
        Tested { bucket: Arc::new(Self { inner: tested.bucket, bug, writes: AtomicU64::new(0) }), ..tested }
    }

    /// The write as the bug has it, or what it comes to at once.
    async fn bent(&self, op: &mut Op) -> Option<Result<Revision>> {
        let latest = self.inner.entry(&op.key).await.unwrap();
        let (at, live) = (latest.as_ref().map(|entry| entry.revision), latest.as_ref().is_some_and(Entry::is_live));
        let removes = !matches!(op.change, Change::Put(..));
        let text = |value: &bytes::Bytes| String::from_utf8_lossy(value).into_owned();
        match (self.bug, &op.expect) {
            (Bug::CreatesUnchecked, Expect::Absent) => op.expect = Expect::Any,
            (Bug::TombstonesBlockCreates, Expect::Absent) if at.is_some() => return Some(Err(Error::conflict(&op.key, at))),
            (Bug::UpdatesUnchecked, Expect::At(_)) => op.expect = Expect::Any,
            (Bug::BeyondIsTaken, Expect::At(wanted)) if at.is_some_and(|at| *wanted > at) => op.expect = Expect::Any,
            (Bug::DeletesUnchecked, Expect::At(_)) if removes => op.expect = Expect::Any,
            (Bug::DeletesNeedAValue, _) if removes && !live => return Some(Err(Error::conflict(&op.key, at))),
            _ => {}
        }
        match (self.bug, &mut op.change) {
            (Bug::PurgesAreDeletes, Change::Purge { .. }) => op.change = Op::delete(op.key.clone()).change,
            (Bug::EmptyValuesDelete, Change::Put(value, _)) if value.is_empty() => op.change = Op::delete(op.key.clone()).change,
            (Bug::ValuesAreText, Change::Put(value, _)) => *value = text(value).into(),
            (Bug::TtlsIgnored, Change::Put(_, ttl)) => *ttl = None,
            _ => {}
        }
        if self.bug == Bug::FencesDropped {
            op.fence = None;
        }
        None
    }
}

#[async_trait]
impl Bucket for Broken {
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        let found = self.inner.entry(key).await?;
        if found.is_none() && self.bug == Bug::AbsentKeysReadAsPurged {
            let created = std::time::SystemTime::now();
            return Ok(Some(Entry { key: key.clone(), revision: Revision::ZERO, state: State::Purged, created }));
        }
        Ok(found)
    }

    async fn entry_at(&self, key: &Key, revision: Revision) -> Result<Option<Entry>> {
        if self.bug == Bug::AnyRevisionIsTheLatest {
            self.inner.entry(key).await
        } else {
            self.inner.entry_at(key, revision).await
        }
    }

    async fn history(&self, key: &Key, most: usize) -> Result<Vec<Entry>> {
        let mut all = self.inner.history(key, most).await?;
        match self.bug {
            Bug::HistoryIsEmpty => all.clear(),
            Bug::HistoryLeavesOutWhatIsTooMuch => all.retain(|entry| entry.value().is_none_or(|value| value.len() <= most)),
            _ => {}
        }
        Ok(all)
    }

    async fn keys(&self, range: &KeyRange) -> Result<Vec<Key>> {
        let mut keys = self.inner.keys(if self.bug == Bug::KeysOfOtherRanges { &KeyRange::All } else { range }).await?;
        match self.bug {
            Bug::KeysAreListedTwice => keys.extend(keys.first().cloned()),
            Bug::KeysEndEarly => keys.truncate(512),
            Bug::TombstonesAreListed => {
                let mut all = self.inner.watch(range.clone(), Since::Current).await?;
                while let Some(Ok(Event::Entry(entry))) = all.next().await {
                    if !keys.contains(&entry.key) {
                        keys.push(entry.key);
                    }
                }
            }
            _ => {}
        }
        Ok(keys)
    }

    async fn write(&self, mut op: Op) -> Result<Revision> {
        if let Some(outcome) = self.bent(&mut op).await {
            return outcome;
        }
        let at = self.inner.write(op).await?;
        Ok(match self.bug {
            Bug::ReturnsTheRevisionBefore => Revision::new(at.get() - 1),
            Bug::RevisionsOfKeys => Revision::new(1 + self.writes.fetch_add(1, Ordering::SeqCst) % 2),
            _ => at,
        })
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        let bug = self.bug;
        let range = if bug == Bug::WatchesOfEverything { KeyRange::All } else { range };
        let since = match bug {
            Bug::WatchesBeginNow => Since::Now,
            Bug::WatchesBeginWithWhatIsThere => Since::Current,
            _ => since,
        };
        let mut told = 0;
        let events = self.inner.watch(range, since).await?.filter(move |event| {
            let Ok(Event::Entry(entry)) = event else { return future::ready(true) };
            told += 1;
            let kept = match bug {
                Bug::WatchesHideTombstones => entry.is_live(),
                Bug::WatchesLoseEveryOther => told % 2 == 0,
                _ => true,
            };
            future::ready(kept)
        });
        Ok(events.boxed())
    }
}

#[tokio::test]
async fn every_broken_bucket_is_noticed() {
    let pairs = CASES.iter().flat_map(|(bug, behaviours)| behaviours.iter().map(move |name| (bug, name)));
    let unnoticed: Vec<_> = stream::iter(pairs)
        .map(|(bug, name)| async move {
            let tested = Broken::with(*bug).await;
            let check = buckets::named(name).check_within(&tested, PATIENCE);
            AssertUnwindSafe(check).catch_unwind().await.is_ok().then_some((bug, name))
        })
        .buffer_unordered(16)
        .filter_map(future::ready)
        .collect()
        .await;
    assert!(unnoticed.is_empty(), "these passed although the bucket is broken: {unnoticed:#?}");
}

#[test]
fn every_behaviour_has_a_bucket_that_fails_it() {
    let covered: HashSet<_> = CASES.iter().flat_map(|case| case.1).copied().collect();
    let never: Vec<_> = BUCKET_BEHAVIOURS.iter().map(|behaviour| behaviour.name).filter(|name| !covered.contains(name)).collect();
    assert!(never.is_empty(), "nothing shows that these can fail: {never:?}");
}

/// It is the defect that fails above, not the wrapper around it.
#[tokio::test(flavor = "multi_thread")]
async fn the_wrapper_itself_is_sound() {
    let tested = Broken::with(Bug::None).await;
    for behaviour in BUCKET_BEHAVIOURS {
        behaviour.check(&tested).await;
    }
}
