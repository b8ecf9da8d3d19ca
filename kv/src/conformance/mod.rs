//! The conformance suite: what every [`Store`] must do, one function per behaviour.
//!
//! Each function works under a fresh key prefix of its own, so all of them can run on one store at the
//! same time. A function returns when the store behaves and panics with the reason when it does not.
//!
//! Call [`conformance_tests!`](crate::conformance_tests) in a test file to get one test per behaviour,
//! or [`all`] to run everything on one store.

mod batches;
pub mod buckets;
mod fences;
mod follows;
mod reads;
mod support;
mod ttls;
mod watches;
mod writes;

use std::{fmt, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream};

use crate::Store;

/// How long a behaviour may take as a whole before it counts as hung.
const WHOLE: Duration = Duration::from_secs(180);
/// How many behaviours [`all`] runs at a time.
const AT_ONCE: usize = 8;

/// One behaviour of the suite.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// The name of the function.
    pub name: &'static str,
    run: for<'a> fn(&'a Arc<dyn Store>) -> BoxFuture<'a, ()>,
}

impl Behaviour {
    /// Checks the behaviour on `store`.
    ///
    /// # Panics
    /// With the reason when the store does not behave, or when it takes more than three minutes.
    ///
    /// # Cancel safety
    /// Safe to drop; keys under the behaviour's own prefix stay behind.
    pub async fn check(&self, store: &Arc<dyn Store>) {
        if tokio::time::timeout(WHOLE, (self.run)(store)).await.is_err() {
            panic!("{} did not finish within {WHOLE:?}", self.name);
        }
    }

    /// As [`check`](Self::check), but waits at most `patience` for anything that must come.
    ///
    /// For stores that are meant to fail: the default patience of 20 s is for slow machines.
    ///
    /// # Panics
    /// As [`check`](Self::check).
    ///
    /// # Cancel safety
    /// As [`check`](Self::check).
    pub async fn check_within(&self, store: &Arc<dyn Store>, patience: Duration) {
        support::PATIENCE.scope(patience, self.check(store)).await;
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Behaviour").field(&self.name).finish()
    }
}

/// What a test makes: a store, alone or with something that must live as long as the test.
pub trait Subject {
    /// The store under test.
    fn store(&self) -> &Arc<dyn Store>;
}

impl Subject for Arc<dyn Store> {
    fn store(&self) -> &Arc<dyn Store> {
        self
    }
}

impl<G> Subject for (Arc<dyn Store>, G) {
    fn store(&self) -> &Arc<dyn Store> {
        &self.0
    }
}

/// Checks every behaviour on one store, several at a time.
///
/// # Panics
/// With the reason of the first behaviour that fails.
///
/// # Cancel safety
/// Safe to drop; the keys the suite made stay behind.
pub async fn all(store: &Arc<dyn Store>) {
    stream::iter(BEHAVIOURS).for_each_concurrent(AT_ONCE, |behaviour| behaviour.check(store)).await;
}

/// The list of behaviours, handed to another macro: the one place where they are named.
#[doc(hidden)]
#[macro_export]
macro_rules! __behaviours {
    ([$($then:tt)*] $($arguments:tt)*) => {
        $($then)*! { [$($arguments)*]
            writes: absent_keys_have_no_entry;
            writes: a_put_is_read_back;
            writes: create_needs_absence;
            writes: create_passes_over_tombstones;
            writes: update_needs_the_revision;
            writes: update_of_a_tombstone_needs_its_revision;
            writes: revision_zero_means_never_written;
            writes: unconditional_writes_always_pass;
            writes: tombstones_say_why;
            writes: a_note_stays_with_its_tombstone;
            writes: a_conditional_delete_spares_newer_values;
            writes: values_are_kept_to_the_byte;
            writes: the_largest_write_passes;
            writes: the_longest_keys_work;
            writes: oversized_values_are_refused;
            writes: revisions_increase_over_all_keys;
            writes: of_many_creates_one_wins;
            writes: a_shared_counter_loses_nothing;
            writes: concurrent_writers_get_their_own_revisions;
            batches: a_batch_has_consecutive_revisions;
            batches: a_batch_is_all_or_nothing;
            batches: malformed_batches_are_refused;
            batches: a_full_batch_passes;
            batches: concurrent_batches_do_not_mix;
            batches: dropped_commits_are_whole_or_nothing;
            fences: a_fence_that_holds_lets_through;
            fences: a_fence_that_moved_refuses;
            fences: a_fence_stands_beside_an_expectation;
            fences: a_fence_guards_its_whole_batch;
            fences: no_fenced_write_lands_after_the_fence_moved;
            ttls: a_value_lives_as_long_as_its_ttl;
            ttls: a_rewrite_renews_the_ttl;
            ttls: a_rewrite_without_ttl_stays;
            ttls: a_tombstone_is_forgotten_after_its_ttl;
            ttls: an_expired_fence_refuses;
            ttls: ttls_in_a_batch_are_each_their_own;
            reads: entries_come_in_the_order_asked_for;
            reads: entries_of_a_thousand_keys;
            reads: a_scan_ascends_from_a_revision;
            reads: pages_leave_no_hole;
            reads: pages_leave_no_hole_under_writes;
            reads: a_scan_that_reaches_a_write_shows_it;
            reads: a_scan_that_reaches_a_delete_hides_it;
            reads: thousands_of_keys_are_listed;
            reads: thousands_of_tombstones_are_passed_over;
            reads: a_scan_keeps_to_its_range;
            reads: the_conveniences_do_as_they_say;
            watches: a_watch_starts_with_what_is_there;
            watches: history_is_one;
            watches: a_watch_starts_after_a_revision;
            watches: a_watch_starts_now;
            watches: a_watch_catches_up_once;
            watches: a_watch_is_established_when_it_returns;
            watches: a_watch_shows_tombstones;
            watches: a_watch_shows_only_what_was_committed;
            watches: a_watch_among_writers_never_goes_back;
            watches: an_unpolled_watch_keeps_the_last_states;
            watches: a_watch_keeps_to_its_range;
            watches: dropped_watches_leave_the_store_well;
            follows: a_follower_hears_every_kind_of_write;
            follows: a_follower_that_slept_learns_the_latest;
            follows: a_follower_hears_only_its_key;
            follows: a_follower_hears_only_what_was_committed;
            follows: every_follower_hears;
            follows: dropped_followers_leave_the_store_well;
        }
    };
}

macro_rules! table {
    ([] $($module:ident: $name:ident;)*) => {
        $(pub use $module::$name;)*

        /// Every behaviour.
        pub const BEHAVIOURS: &[Behaviour] =
            &[$(Behaviour { name: stringify!($name), run: |store| Box::pin($name(store)) }),*];
    };
}

crate::__behaviours! { [table] }

/// One test per behaviour of the [conformance suite](crate::conformance).
///
/// The argument is an expression that gives a future of a [`Subject`](crate::conformance::Subject): an
/// `Arc<dyn Store>`, or a pair of it and a guard that lives as long as the test. The caller's crate
/// needs tokio with `macros` and `rt-multi-thread`.
///
/// ```
/// use std::sync::Arc;
/// use tenure_kv::Store;
///
/// async fn a_store() -> Arc<dyn Store> {
///     tenure_kv::open("memory:").await.unwrap()
/// }
///
/// mod memory {
///     tenure_kv::conformance_tests!(super::a_store());
/// }
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($make:expr) => {
        $crate::__behaviours! { [$crate::__conformance_tests] $make }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ([$make:expr] $($module:ident: $name:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let subject = $make.await;
                $crate::conformance::named(stringify!($name)).check($crate::conformance::Subject::store(&subject)).await;
            }
        )*
    };
}

/// The behaviour called `name`.
///
/// # Panics
/// When there is none of that name.
pub fn named(name: &str) -> &'static Behaviour {
    match BEHAVIOURS.iter().find(|behaviour| behaviour.name == name) {
        Some(behaviour) => behaviour,
        None => panic!("no behaviour is called {name:?}"),
    }
}
