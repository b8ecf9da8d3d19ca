//! What leases count: how they were lost, and how long what they held was nobody's.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tenure::Loss;

use super::held::Kind;

/// The reason of a loss where no line came from the client for its heartbeat.
pub(super) const CLIENT_SILENT: &str = "client_silent";
/// Ends that are kept in mind at the same time. Two names that share a place cost a sample.
const PLACES: usize = 4_096;
/// The bits of a place that hold a time, in microseconds since the beginning; the others tell names apart.
const TIME: u64 = (1 << 40) - 1;

/// Counts of all connections, without locks.
#[derive(Debug)]
pub(super) struct Tally {
    /// By reason, in the order of [`REASONS`].
    lost: [AtomicU64; REASONS],
    begun: Instant,
    hasher: RandomState,
    /// When what was held under a name ended last.
    ends: Box<[AtomicU64]>,
}

/// [`Loss::ALL`] and the client's silence.
const REASONS: usize = Loss::ALL.len() + 1;

impl Default for Tally {
    fn default() -> Self {
        Self {
            lost: Default::default(),
            begun: Instant::now(),
            hasher: RandomState::new(),
            ends: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Tally {
    /// A client is told that a lease is lost.
    pub(super) fn lost(&self, reason: &str) {
        let at = reasons().position(|known| known == reason);
        if let Some(count) = at.and_then(|at| self.lost.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were lost, by reason.
    pub(super) fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        reasons().zip(&self.lost).map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    /// What was held under the `name` of that `kind` is on its way back.
    pub(super) fn ended(&self, kind: Kind, name: &str) {
        self.ended_at((kind, name), self.begun.elapsed());
    }

    /// It was granted to a request of `asked`: how long ago it ended, if that was while the request waited.
    pub(super) fn passed_on(&self, kind: Kind, name: &str, asked: Instant) -> Option<Duration> {
        self.passed_on_at((kind, name), self.begun.elapsed(), asked.saturating_duration_since(self.begun))
    }

    fn ended_at(&self, name: (Kind, &str), at: Duration) {
        let (place, tag) = self.place(name);
        // Never 0, which is nobody's.
        place.store(tag | (micros(at) & TIME).max(1), Ordering::Relaxed);
    }

    fn passed_on_at(&self, name: (Kind, &str), now: Duration, asked: Duration) -> Option<Duration> {
        let (place, tag) = self.place(name);
        let end = place.load(Ordering::Relaxed);
        if end & !TIME != tag || end & TIME == 0 {
            return None;
        }
        let took = Duration::from_micros(micros(now).wrapping_sub(end) & TIME);
        // Whoever came later did not take it over: it was free.
        let handed_over = took <= now.saturating_sub(asked);
        let first = place.compare_exchange(end, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        (handed_over && first).then_some(took)
    }

    fn place(&self, (kind, name): (Kind, &str)) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one((kind as u8, name));
        let place = usize::try_from(hash % PLACES as u64).unwrap_or_default();
        (&self.ends[place], hash & !TIME)
    }
}

fn reasons() -> impl Iterator<Item = &'static str> {
    Loss::ALL.iter().map(|loss| loss.as_str()).chain([CLIENT_SILENT])
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (Kind, &str) = (Kind::Lock, "a");
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_hand_over_is_to_who_waited_and_counted_once() {
        let tally = Tally::default();
        assert_eq!(tally.passed_on_at(A, 9 * MS, MS), None, "nobody had it");
        tally.ended_at(A, 5 * MS);
        assert_eq!(tally.passed_on_at((Kind::Lock, "b"), 9 * MS, MS), None, "another name");
        assert_eq!(tally.passed_on_at(A, 9 * MS, MS), Some(4 * MS));
        assert_eq!(tally.passed_on_at(A, 9 * MS, MS), None, "told already");
        tally.ended_at(A, 10 * MS);
        assert_eq!(tally.passed_on_at(A, 12 * MS, 11 * MS), None, "it was free when it was asked for");
    }

    #[test]
    fn the_time_goes_round_after_some_days() {
        let tally = Tally::default();
        let days = Duration::from_micros(TIME);
        tally.ended_at(A, days - MS);
        assert_eq!(tally.passed_on_at(A, days + MS, Duration::ZERO).map(|took| took.as_millis()), Some(2));
    }

    #[test]
    fn every_reason_is_counted() {
        let tally = Tally::default();
        let all: Vec<_> = reasons().collect();
        all.iter().for_each(|reason| tally.lost(reason));
        tally.lost("closed");
        assert!(tally.losses().all(|(reason, count)| count == if reason == "closed" { 2 } else { 1 }));
        assert_eq!(tally.losses().count(), all.len());
    }
}
