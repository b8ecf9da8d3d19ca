//! The conformance suite can fail: every behaviour notices at least one store that is broken in one way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod broken;

use std::{collections::HashSet, panic::AssertUnwindSafe, time::Duration};

use broken::{Broken, Bug};
use futures::{FutureExt, StreamExt, future, stream};
use tenure_kv::conformance::{self, BEHAVIOURS};

/// For what never comes; what comes from a store in memory comes at once.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// A defect in time may pass unnoticed while the machine stands still; one attempt that notices is enough.
const ATTEMPTS: usize = 3;

/// What is broken, and the behaviours that must notice.
const CASES: &[(Bug, &[&str])] = &[
    (Bug::AbsentKeysReadAsPurged, &["absent_keys_have_no_entry"]),
    (Bug::ReturnsTheRevisionBefore, &["a_put_is_read_back", "update_needs_the_revision", "a_batch_has_consecutive_revisions"]),
    (Bug::ReturnsRevisionsInPairs, &["concurrent_writers_get_their_own_revisions", "revisions_increase_over_all_keys"]),
    (Bug::ReturnsFallingRevisions, &["revisions_increase_over_all_keys", "a_fence_that_holds_lets_through"]),
    (
        Bug::CreatesUnchecked,
        &["create_needs_absence", "of_many_creates_one_wins", "a_batch_is_all_or_nothing", "the_conveniences_do_as_they_say"],
    ),
    (Bug::TombstonesBlockCreates, &["create_passes_over_tombstones"]),
    (
        Bug::UpdatesUnchecked,
        &["update_needs_the_revision", "a_shared_counter_loses_nothing", "revision_zero_means_never_written"],
    ),
    (Bug::TombstonesHaveNoRevision, &["update_of_a_tombstone_needs_its_revision"]),
    (Bug::ZeroIsAbsent, &["revision_zero_means_never_written"]),
    (Bug::DeletesNeedAValue, &["unconditional_writes_always_pass"]),
    (Bug::PurgesAreDeletes, &["tombstones_say_why", "a_watch_shows_tombstones", "a_follower_hears_every_kind_of_write"]),
    (Bug::NotesAreLost, &["a_note_stays_with_its_tombstone", "a_watch_shows_tombstones", "a_follower_hears_every_kind_of_write"]),
    (Bug::DeletesUnchecked, &["a_conditional_delete_spares_newer_values"]),
    (Bug::EmptyValuesDelete, &["values_are_kept_to_the_byte"]),
    (Bug::ValuesAreText, &["values_are_kept_to_the_byte"]),
    (Bug::LargestValueRefused, &["the_largest_write_passes"]),
    (Bug::KeysFoldCase, &["the_longest_keys_work", "a_scan_keeps_to_its_range"]),
    (Bug::LongKeysRefused, &["the_longest_keys_work", "the_largest_write_passes"]),
    (Bug::OversizedCutShort, &["oversized_values_are_refused", "malformed_batches_are_refused"]),
    (Bug::ChecksThenWrites, &["of_many_creates_one_wins", "a_shared_counter_loses_nothing"]),
    (Bug::BatchesInOrderOfKeys, &["a_batch_has_consecutive_revisions"]),
    (
        Bug::BatchesOneByOne,
        &[
            "a_batch_is_all_or_nothing",
            "concurrent_batches_do_not_mix",
            "dropped_commits_are_whole_or_nothing",
            "a_fence_guards_its_whole_batch",
        ],
    ),
    (Bug::MalformedMended, &["malformed_batches_are_refused"]),
    (Bug::FullBatchesRefused, &["a_full_batch_passes"]),
    (Bug::FencesRefuse, &["a_fence_that_holds_lets_through", "the_largest_write_passes"]),
    (
        Bug::FencesIgnored,
        &[
            "a_fence_that_moved_refuses",
            "a_fence_stands_beside_an_expectation",
            "a_fence_guards_its_whole_batch",
            "no_fenced_write_lands_after_the_fence_moved",
            "an_expired_fence_refuses",
            "a_full_batch_passes",
        ],
    ),
    (Bug::FencesForgottenBesideExpectations, &["a_fence_stands_beside_an_expectation"]),
    (Bug::FencesOfTheFirstOnly, &["a_fence_guards_its_whole_batch"]),
    (Bug::FencesOfTheLastForgotten, &["a_fence_guards_its_whole_batch", "a_full_batch_passes"]),
    (Bug::FencesCheckedThenWritten, &["no_fenced_write_lands_after_the_fence_moved"]),
    (Bug::TtlsIgnored, &["a_value_lives_as_long_as_its_ttl", "a_rewrite_renews_the_ttl", "an_expired_fence_refuses"]),
    (Bug::TtlsShortened, &["a_value_lives_as_long_as_its_ttl", "a_rewrite_renews_the_ttl", "ttls_in_a_batch_are_each_their_own"]),
    (Bug::TtlsOnEverything, &["a_rewrite_without_ttl_stays", "ttls_in_a_batch_are_each_their_own"]),
    (Bug::MarkersStay, &["a_tombstone_is_forgotten_after_its_ttl", "ttls_in_a_batch_are_each_their_own"]),
    (Bug::TtlOfTheFirst, &["ttls_in_a_batch_are_each_their_own"]),
    (Bug::EntriesSorted, &["entries_come_in_the_order_asked_for"]),
    (Bug::EntriesLimited, &["entries_of_a_thousand_keys"]),
    (Bug::ScansByName, &["a_scan_ascends_from_a_revision", "thousands_of_keys_are_listed"]),
    (Bug::ScansFromTheStart, &["a_scan_ascends_from_a_revision", "pages_leave_no_hole"]),
    (Bug::PagesSkip, &["pages_leave_no_hole", "pages_leave_no_hole_under_writes", "thousands_of_keys_are_listed"]),
    (Bug::PagesEndEarly, &["pages_leave_no_hole", "thousands_of_keys_are_listed"]),
    (
        Bug::ScansLoseTheNewest,
        &["a_scan_that_reaches_a_write_shows_it", "a_scan_ascends_from_a_revision", "the_conveniences_do_as_they_say"],
    ),
    (
        Bug::ScansShowDeleted,
        &["a_scan_that_reaches_a_delete_hides_it", "thousands_of_tombstones_are_passed_over", "pages_leave_no_hole"],
    ),
    (Bug::PatternsAreSubtrees, &["a_scan_keeps_to_its_range", "a_watch_keeps_to_its_range"]),
    (Bug::WatchesStartEmpty, &["a_watch_starts_with_what_is_there", "history_is_one"]),
    (Bug::WatchesTellHistory, &["history_is_one", "a_watch_starts_with_what_is_there"]),
    (Bug::WatchesStartOver, &["a_watch_starts_after_a_revision"]),
    (Bug::NowIsCurrent, &["a_watch_starts_now"]),
    (Bug::CaughtUpTwice, &["a_watch_catches_up_once"]),
    (Bug::CaughtUpNever, &["a_watch_catches_up_once", "a_watch_starts_with_what_is_there"]),
    (Bug::CaughtUpAfterSomething, &["a_watch_catches_up_once"]),
    (Bug::WatchesOpenLate, &["a_watch_is_established_when_it_returns", "a_watch_keeps_to_its_range", "a_watch_starts_now"]),
    (
        Bug::WatchesHideTombstones,
        &["a_watch_shows_tombstones", "a_watch_starts_with_what_is_there", "an_unpolled_watch_keeps_the_last_states"],
    ),
    (Bug::TellsRefusedWrites, &["a_watch_shows_only_what_was_committed", "a_follower_hears_only_what_was_committed"]),
    (Bug::WatchesReorder, &["a_watch_among_writers_never_goes_back", "an_unpolled_watch_keeps_the_last_states"]),
    (Bug::WatchesHoldBackTheLast, &["a_watch_is_established_when_it_returns", "dropped_watches_leave_the_store_well"]),
    (Bug::WatchesOverflow, &["an_unpolled_watch_keeps_the_last_states"]),
    (Bug::WatchesRunOut, &["dropped_watches_leave_the_store_well"]),
    (Bug::FollowersMissDeletes, &["a_follower_hears_every_kind_of_write", "a_follower_that_slept_learns_the_latest"]),
    (Bug::FollowersHoldBackTheLast, &["a_follower_that_slept_learns_the_latest", "every_follower_hears"]),
    (Bug::FollowersHearNeighbours, &["a_follower_hears_only_its_key"]),
    (Bug::FollowersHearAlone, &["every_follower_hears"]),
    (Bug::FollowersRunOut, &["dropped_followers_leave_the_store_well"]),
];

#[tokio::test]
async fn every_broken_store_is_noticed() {
    let pairs = CASES.iter().flat_map(|(bug, behaviours)| behaviours.iter().map(move |name| (bug, name)));
    let unnoticed: Vec<_> = stream::iter(pairs)
        .map(|(bug, name)| async move {
            for _ in 0..ATTEMPTS {
                let store = Broken::with(*bug).await;
                let check = conformance::named(name).check_within(&store, PATIENCE);
                if AssertUnwindSafe(check).catch_unwind().await.is_err() {
                    return None;
                }
            }
            Some((bug, name))
        })
        .buffer_unordered(16)
        .filter_map(future::ready)
        .collect()
        .await;
    assert!(unnoticed.is_empty(), "these passed although the store is broken: {unnoticed:#?}");
}

#[test]
fn every_behaviour_has_a_store_that_fails_it() {
    let covered: HashSet<_> = CASES.iter().flat_map(|case| case.1).copied().collect();
    let never: Vec<_> = BEHAVIOURS.iter().map(|behaviour| behaviour.name).filter(|name| !covered.contains(name)).collect();
    assert!(never.is_empty(), "nothing shows that these can fail: {never:?}");
}

/// It is the defect that fails above, not the wrapper around it.
#[tokio::test(flavor = "multi_thread")]
async fn the_wrapper_itself_is_sound() {
    conformance::all(&Broken::with(Bug::None).await).await;
}
