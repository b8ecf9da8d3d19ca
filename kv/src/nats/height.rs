//! How far the stream has come, as far as is known: what a watch is compared with. A replica that takes nothing in any
//! more, for want of descriptors for one, goes on to serve its consumers, whose heartbeats say that all is well.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{Options, bucket, link::Link, names::Names};

/// How often the stream's leader is asked while somebody watches. Whoever writes is told anyway.
const ASK: Duration = Duration::from_secs(10);
/// A consumer that has not moved for so long, although there was more, stands still. Its heartbeats come every second and
/// are one behind.
const LATE: Duration = Duration::from_secs(5);

/// The stream's last revision, as far as is known.
#[derive(Debug)]
pub(super) struct Height {
    known: Arc<Known>,
    watches: Arc<AtomicUsize>,
    _asker: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Known(AtomicU64);

impl Known {
    /// The stream's leader, asked when `before` was known, said `last`: less than that where the bucket was set back. What
    /// was learned meanwhile may be newer.
    fn learn(&self, before: u64, last: u64) {
        if self.0.compare_exchange(before, last, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.0.fetch_max(last, Ordering::Relaxed);
        }
    }
}

impl Height {
    /// Of a stream that was at `last` a moment ago.
    pub(super) fn new(last: u64, link: Arc<Link>, names: Names, options: Options) -> Self {
        let known = Arc::new(Known(AtomicU64::new(last)));
        let watches = Arc::new(AtomicUsize::new(0));
        let (told, watched) = (known.clone(), watches.clone());
        let asker = tokio::spawn(async move {
            loop {
                sleep(ASK).await;
                if watched.load(Ordering::Relaxed) == 0 {
                    continue;
                }
                let before = told.0.load(Ordering::Relaxed);
                // Without an answer there is nothing to compare with, and the next one is asked for in a while.
                if let Ok(Some(info)) = bucket::info(&link, &names, &options).await {
                    told.learn(before, bucket::last(&info));
                }
            }
        });
        Self { known, watches, _asker: AbortOnDropHandle::new(asker) }
    }

    /// A write at `revision` was acknowledged.
    pub(super) fn written(&self, revision: u64) {
        self.known.0.fetch_max(revision, Ordering::Relaxed);
    }

    /// The stream's leader, asked when `before` was known, said that `last` is the last.
    pub(super) fn said(&self, before: u64, last: u64) {
        self.known.learn(before, last);
    }

    pub(super) fn known(&self) -> u64 {
        self.known.0.load(Ordering::Relaxed)
    }

    /// As long as this is kept the leader is asked.
    pub(super) fn watched(&self) -> Watched {
        self.watches.fetch_add(1, Ordering::Relaxed);
        Watched(self.watches.clone())
    }
}

#[derive(Debug)]
pub(super) struct Watched(Arc<AtomicUsize>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How one consumer gets on, by its heartbeats.
#[derive(Debug)]
pub(super) struct Course {
    position: u64,
    /// What was known when it was last seen to move.
    known: u64,
    since: Instant,
}

impl Course {
    pub(super) fn new(known: u64) -> Self {
        Self { position: 0, known, since: Instant::now() }
    }

    /// Whether a consumer that has looked at everything up to `position` stands still, now that `known` is known.
    pub(super) fn stands_still(&mut self, position: u64, known: u64) -> bool {
        // What is known may have been set back.
        if position > self.position || position >= self.known.min(known) {
            *self = Self { position, known, since: Instant::now() };
        }
        self.since.elapsed() >= LATE
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_who_does_not_move_although_there_was_more_stands_still() {
        let mut course = Course::new(10);
        assert!(!course.stands_still(4, 10));
        advance(LATE).await;
        assert!(!course.stands_still(5, 20), "slow, but it moves");
        advance(LATE - Duration::from_millis(1)).await;
        assert!(!course.stands_still(5, 30), "not yet");
        advance(Duration::from_millis(1)).await;
        assert!(course.stands_still(5, 30));
        assert!(!course.stands_still(5, 5), "the bucket was set back to there");
        advance(LATE).await;
        assert!(!course.stands_still(5, 6), "what is known now was not known then");
        advance(LATE).await;
        assert!(course.stands_still(5, 6));
    }

    #[test]
    fn what_was_learned_while_the_leader_was_asked_is_not_forgotten() {
        let known = Known(AtomicU64::new(7));
        known.learn(7, 5);
        assert_eq!(known.0.load(Ordering::Relaxed), 5, "it was set back");
        known.0.fetch_max(9, Ordering::Relaxed);
        known.learn(5, 8);
        assert_eq!(known.0.load(Ordering::Relaxed), 9);
    }
}
