//! The suite for ordinary buckets: what every [`Bucket`] must do, whatever its settings. One function per behaviour, as for
//! stores, each under a prefix of its own.
//!
//! Call [`bucket_conformance_tests!`](crate::bucket_conformance_tests) in a test file to get one test per behaviour.

mod ground;
mod reads;
mod watches;
mod writes;

use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;

use super::{WHOLE, support::PATIENCE};
use crate::{Bucket, Key, RangeBucket, Store};

/// A bucket under test, and what its settings promise.
#[derive(Clone, Debug)]
pub struct Tested {
    /// The bucket.
    pub bucket: Arc<dyn Bucket>,
    /// How many writes to a key it keeps.
    pub history: usize,
    /// Whether a value may have a TTL of its own.
    pub ttls: bool,
    /// How many servers keep a copy: reads may lag where there are several, and a refusal may stay unproven.
    pub replicas: u16,
}

impl Tested {
    /// The range under `parent` of a store as a bucket.
    pub fn range(store: Arc<dyn Store>, parent: Key) -> Self {
        let replicas = store.info().replicas;
        Self { bucket: Arc::new(RangeBucket::new(store, parent)), history: 1, ttls: true, replicas }
    }
}

/// One behaviour of the suite.
#[derive(Clone, Copy)]
pub struct BucketBehaviour {
    /// The name of the function.
    pub name: &'static str,
    run: for<'a> fn(&'a Tested) -> BoxFuture<'a, ()>,
}

impl BucketBehaviour {
    /// Checks the behaviour on a bucket.
    ///
    /// # Panics
    /// With the reason when the bucket does not behave, or when it takes more than three minutes.
    ///
    /// # Cancel safety
    /// Safe to drop; keys under the behaviour's own prefix stay behind.
    pub async fn check(&self, tested: &Tested) {
        if tokio::time::timeout(WHOLE, (self.run)(tested)).await.is_err() {
            panic!("{} did not finish within {WHOLE:?}", self.name);
        }
    }

    /// As [`check`](Self::check), but waits at most `patience` for anything that must come.
    ///
    /// # Panics
    /// As [`check`](Self::check).
    ///
    /// # Cancel safety
    /// As [`check`](Self::check).
    pub async fn check_within(&self, tested: &Tested, patience: Duration) {
        PATIENCE.scope(patience, self.check(tested)).await;
    }
}

impl fmt::Debug for BucketBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BucketBehaviour").field(&self.name).finish()
    }
}

/// What a test makes: a bucket, alone or with something that must live as long as the test.
pub trait BucketSubject {
    /// The bucket under test.
    fn tested(&self) -> &Tested;
}

impl BucketSubject for Tested {
    fn tested(&self) -> &Tested {
        self
    }
}

impl<G> BucketSubject for (Tested, G) {
    fn tested(&self) -> &Tested {
        &self.0
    }
}

/// The list of behaviours, handed to another macro: the one place where they are named.
#[doc(hidden)]
#[macro_export]
macro_rules! __bucket_behaviours {
    ([$($then:tt)*] $($arguments:tt)*) => {
        $($then)*! { [$($arguments)*]
            writes: nothing_is_there_at_first;
            writes: a_write_is_read_back;
            writes: a_create_needs_absence;
            writes: a_create_passes_over_tombstones;
            writes: an_update_needs_the_revision;
            writes: a_revision_beyond_the_latest_is_not_taken;
            writes: writes_without_a_condition_pass;
            writes: tombstones_say_what_they_are;
            writes: a_conditional_removal_spares_newer_values;
            writes: values_are_kept_to_the_last_byte;
            writes: revisions_grow_over_all_keys;
            writes: of_many_creates_only_one_wins;
            writes: a_fence_is_refused;
            writes: a_value_is_gone_after_its_ttl;
            reads: a_revision_is_read_with_its_own_key;
            reads: a_history_is_what_is_kept_oldest_first;
            reads: a_history_ends_with_what_is_too_much;
            reads: keys_are_those_that_have_a_value;
            reads: keys_keep_to_their_range;
            reads: a_thousand_keys_are_listed;
            watches: a_watch_begins_with_what_is_there;
            watches: a_watch_of_the_past_tells_what_is_kept;
            watches: a_watch_begins_after_a_revision;
            watches: a_watch_begins_now;
            watches: a_watch_tells_tombstones;
            watches: a_watch_keeps_to_its_range_in_a_bucket;
            watches: a_watch_among_writers_tells_the_last_writes;
        }
    };
}

macro_rules! table {
    ([] $($module:ident: $name:ident;)*) => {
        $(pub use $module::$name;)*

        /// Every behaviour.
        pub const BUCKET_BEHAVIOURS: &[BucketBehaviour] =
            &[$(BucketBehaviour { name: stringify!($name), run: |tested| Box::pin($name(tested)) }),*];
    };
}

crate::__bucket_behaviours! { [table] }

/// One test per behaviour of the [suite for buckets](crate::conformance::buckets).
///
/// The argument is an expression that gives a future of a [`BucketSubject`](crate::conformance::buckets::BucketSubject). The
/// caller's crate needs tokio with `macros` and `rt-multi-thread`.
///
/// ```
/// use tenure_kv::{Key, conformance::buckets::Tested};
///
/// async fn a_range() -> Tested {
///     Tested::range(tenure_kv::open("memory:").await.unwrap(), Key::new("data").unwrap())
/// }
///
/// mod range {
///     tenure_kv::bucket_conformance_tests!(super::a_range());
/// }
/// ```
#[macro_export]
macro_rules! bucket_conformance_tests {
    ($make:expr) => {
        $crate::__bucket_behaviours! { [$crate::__bucket_conformance_tests] $make }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __bucket_conformance_tests {
    ([$make:expr] $($module:ident: $name:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let subject = $make.await;
                let behaviour = $crate::conformance::buckets::named(stringify!($name));
                behaviour.check($crate::conformance::buckets::BucketSubject::tested(&subject)).await;
            }
        )*
    };
}

/// The behaviour called `name`.
///
/// # Panics
/// When there is none of that name.
pub fn named(name: &str) -> &'static BucketBehaviour {
    match BUCKET_BEHAVIOURS.iter().find(|behaviour| behaviour.name == name) {
        Some(behaviour) => behaviour,
        None => panic!("no behaviour of buckets is called {name:?}"),
    }
}
