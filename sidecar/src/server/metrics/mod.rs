//! What the daemon counts of itself, all of it without locks.

mod histogram;
mod process;
mod scrape;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use self::histogram::Histogram;
pub(super) use self::scrape::{Format, scrape};
use super::held;
use crate::protocol::{ErrorObject, Kind, METHODS};

/// How a request went: answered with a result, with an error of a kind, or not at all.
const OUTCOMES: usize = Kind::ALL.len() + 2;
/// What stands for a method that is not known.
const NO_METHOD: &str = "unknown";
const KINDS: usize = held::Kind::ALL.len();

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Error(Kind),
    /// Its connection ended before the answer.
    Dropped,
}

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error(kind) => kind.as_str(),
            Self::Dropped => "dropped",
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        [Self::Ok, Self::Dropped].into_iter().chain(Kind::ALL.map(Self::Error))
    }

    fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Dropped => 1,
            Self::Error(kind) => 2 + Kind::ALL.iter().position(|known| *known == kind).unwrap_or_default(),
        }
    }
}

/// Counts of what no other part of the daemon knows already.
#[derive(Debug)]
pub(super) struct Metrics {
    /// By method, the unknown last, then by outcome.
    requests: Box<[[AtomicU64; OUTCOMES]]>,
    kinds: [OfKind; KINDS],
    pub(super) accepted: AtomicU64,
    pub(super) turned_away: AtomicU64,
    /// Subscriptions that ended because their clients did not read.
    pub(super) slow_readers: Arc<AtomicU64>,
    pub(super) http: Http,
    /// By the wall clock, for people.
    began: SystemTime,
}

/// What is counted of locks, of leaderships and of memberships.
#[derive(Debug, Default)]
struct OfKind {
    waiting: AtomicUsize,
    waited: Histogram,
    handed_over: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: (0..=METHODS.len()).map(|_| Default::default()).collect(),
            kinds: Default::default(),
            accepted: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            slow_readers: Arc::default(),
            http: Http::default(),
            began: SystemTime::now(),
        }
    }
}

impl Metrics {
    /// The place of a method among those that are counted.
    pub(super) fn method(name: &str) -> usize {
        METHODS.iter().position(|method| *method == name).unwrap_or(METHODS.len())
    }

    /// The name of that place.
    pub(super) fn named(method: usize) -> &'static str {
        METHODS.get(method).copied().unwrap_or(NO_METHOD)
    }

    /// Counts a request of the method at that place.
    pub(super) fn request(&self, method: usize, outcome: Outcome) {
        if let Some(count) = self.requests.get(method).and_then(|outcomes| outcomes.get(outcome.index())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a line that is no request.
    pub(super) fn unreadable(&self, error: &ErrorObject) {
        self.request(METHODS.len(), Outcome::Error(error.kind().unwrap_or(Kind::Internal)));
    }

    /// A request that may wait, until what is returned is dropped.
    pub(super) fn waits(self: &Arc<Self>, kind: held::Kind) -> Waiting {
        let waiting = Waiting { metrics: self.clone(), kind: kind as usize };
        waiting.metrics.kinds[waiting.kind].waiting.fetch_add(1, Ordering::Relaxed);
        waiting
    }

    fn requests(&self) -> impl Iterator<Item = (&'static str, Outcome, u64)> {
        self.requests.iter().enumerate().flat_map(|(method, outcomes)| {
            let count = |outcome: Outcome| outcomes.get(outcome.index()).map_or(0, |count| count.load(Ordering::Relaxed));
            Outcome::all().map(move |outcome| (Self::named(method), outcome, count(outcome)))
        })
    }
}

/// A request that waits for something to hold.
#[derive(Debug)]
pub(super) struct Waiting {
    metrics: Arc<Metrics>,
    kind: usize,
}

impl Waiting {
    /// It has `waited`, and was granted what somebody had until a moment ago, where that is known.
    pub(super) fn granted(&self, waited: Duration, passed_on: Option<Duration>) {
        let of_kind = &self.metrics.kinds[self.kind];
        of_kind.waited.observe(waited);
        if let Some(took) = passed_on {
            of_kind.handed_over.observe(took);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.metrics.kinds[self.kind].waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is counted of the HTTP listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Http(Arc<HttpCounts>);

#[derive(Debug, Default)]
struct HttpCounts {
    open: AtomicUsize,
    /// By status, the others last.
    answered: [AtomicU64; STATUSES.len() + 1],
}

/// The statuses that are answered with.
const STATUSES: [u16; 5] = [200, 400, 404, 405, 503];

impl Http {
    /// A connection is open until what is returned is dropped.
    pub(super) fn open(&self) -> OpenHttp {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        OpenHttp(self.clone())
    }

    pub(super) fn answered(&self, status: u16) {
        let at = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        self.0.answered[at].fetch_add(1, Ordering::Relaxed);
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct OpenHttp(Http);

impl Drop for OpenHttp {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a round trip is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trip {
    Read,
    Commit,
    /// To a bucket beside the store, whatever its name.
    BucketRead,
    BucketWrite,
}

impl Trip {
    pub(super) const ALL: [Self; 4] = [Self::Read, Self::Commit, Self::BucketRead, Self::BucketWrite];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Commit => "commit",
            Self::BucketRead => "bucket_read",
            Self::BucketWrite => "bucket_write",
        }
    }
}

/// What is counted of the store, and of buckets beside it.
#[derive(Debug, Default)]
pub(super) struct Trips {
    took: [Histogram; Trip::ALL.len()],
    /// By kind, of all.
    failed: [AtomicU64; FAILURES.len()],
}

/// How a request to the store may fail.
const FAILURES: [&str; 4] = ["conflict", "unavailable", "invalid", "unknown"];

impl Trips {
    /// How many there were.
    #[cfg(test)]
    pub(super) fn counted(&self, trip: Trip) -> u64 {
        self.took[trip as usize].count()
    }

    /// Counts one that `took` so long.
    pub(super) fn count(&self, trip: Trip, took: Duration, error: Option<&tenure_kv::Error>) {
        self.took[trip as usize].observe(took);
        if let Some(error) = error {
            let at = match error {
                tenure_kv::Error::Conflict { .. } => 0,
                tenure_kv::Error::Unavailable { .. } => 1,
                tenure_kv::Error::Invalid { .. } => 2,
                _ => 3,
            };
            self.failed[at].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_outcome_and_each_kind_has_a_place_of_its_own() {
        assert_eq!(Outcome::all().map(Outcome::index).collect::<HashSet<_>>(), (0..OUTCOMES).collect());
        assert_eq!(Outcome::all().map(Outcome::as_str).collect::<HashSet<_>>().len(), OUTCOMES);
        assert_eq!(held::Kind::ALL.map(|kind| kind as usize), [0, 1, 2]);
        assert_eq!(Trip::ALL.map(|trip| trip as usize), [0, 1, 2, 3]);
        assert!(!METHODS.contains(&NO_METHOD));
    }
}
