//! When a daemon that has nothing to do looks again in place of going to sleep. No I/O: the time is an argument.

use std::time::{Duration, Instant};

/// So many budgets are spent on one request at most, however often it goes to the store.
const BUDGETS: u32 = 4;

/// What the store is worth waiting for, and until when.
#[derive(Debug)]
pub(super) struct Patience {
    budget: Duration,
    /// A bit for each of its last answers: whether that came within the budget.
    in_time: u8,
    /// Answers that are waited for.
    waiting: u32,
    /// From here on nothing is waited for: it is too long after somebody asked.
    enough: Instant,
    until: Instant,
}

impl Patience {
    pub(super) const fn new(budget: Duration, now: Instant) -> Self {
        Self { budget, in_time: 0, waiting: 0, enough: now, until: now }
    }

    /// Whether to look again.
    pub(super) fn looks(&self, now: Instant) -> bool {
        now < self.until
    }

    /// A client asks for something.
    pub(super) fn asked(&mut self, now: Instant) {
        self.enough = now + BUDGETS * self.budget;
    }

    /// The store was asked and has not answered at once.
    pub(super) fn sent(&mut self, now: Instant) {
        self.waiting += 1;
        // More often than not.
        if self.in_time.count_ones() > u8::BITS / 2 {
            self.until = self.until.max((now + self.budget).min(self.enough));
        }
    }

    /// Its answer is not waited for any more, after so long; `answered` says whether it came. What it takes is seen without
    /// looking, too.
    pub(super) fn ended(&mut self, now: Instant, took: Duration, answered: bool) {
        let in_time = took <= self.budget;
        if answered || !in_time {
            self.in_time = (self.in_time << 1) | u8::from(in_time);
        }
        self.waiting -= 1;
        if self.waiting == 0 {
            self.until = self.until.min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_micros(200);

    /// A clock in the hand.
    struct Hand {
        now: Instant,
        patience: Patience,
    }

    impl Hand {
        fn new() -> Self {
            let now = Instant::now();
            Self { now, patience: Patience::new(BUDGET, now) }
        }

        /// One whose store has been quick so far.
        fn with_a_quick_store() -> Self {
            let mut hand = Self::new();
            for _ in 0..8 {
                hand.trip(100);
            }
            hand
        }

        fn pass(&mut self, micros: u64) {
            self.now += Duration::from_micros(micros);
        }

        /// For how many microseconds it would go on looking, if nothing happened.
        fn looks_for(&self) -> u64 {
            (0..).find(|micros| !self.patience.looks(self.now + Duration::from_micros(*micros))).unwrap()
        }

        fn asked(&mut self) {
            self.patience.asked(self.now);
        }

        fn sent(&mut self) -> u64 {
            self.patience.sent(self.now);
            self.looks_for()
        }

        fn ended(&mut self, took: u64, answered: bool) {
            self.patience.ended(self.now, Duration::from_micros(took), answered);
        }

        /// A round trip to the store, and for how long it would have looked for the answer.
        fn trip(&mut self, micros: u64) -> u64 {
            let looks = self.sent();
            self.pass(micros);
            self.ended(micros, true);
            looks
        }
    }

    #[test]
    fn a_quick_store_is_waited_for_until_it_has_answered() {
        let mut hand = Hand::with_a_quick_store();
        hand.asked();
        assert_eq!(hand.looks_for(), 0, "nothing was sent");
        assert_eq!(hand.trip(100), 200);
        assert_eq!(hand.looks_for(), 0, "it answered");
    }

    #[test]
    fn a_store_that_is_not_known_or_slow_is_not_waited_for() {
        let mut hand = Hand::new();
        hand.asked();
        assert_eq!(hand.trip(100), 0, "not known");
        let mut hand = Hand::with_a_quick_store();
        let mut asked_and_looked = |took: u64| {
            hand.asked();
            hand.trip(took) > 0
        };
        assert_eq!((0..1_000).filter(|_| asked_and_looked(300)).count(), 4, "then it is known to be slow");
        assert_eq!((0..1_000).filter(|_| !asked_and_looked(100)).count(), 5, "it is found out without looking");
    }

    #[test]
    fn the_store_is_waited_for_only_after_somebody_asked() {
        let mut hand = Hand::with_a_quick_store();
        assert_eq!(hand.trip(100), 0, "a renewal");
        hand.asked();
        hand.pass(4 * 200 - 50);
        assert_eq!(hand.trip(100), 50, "four budgets in all");
        assert_eq!(hand.trip(100), 0, "a lock that somebody else had until now");
        hand.asked();
        assert_eq!(hand.trip(100), 200);
    }

    #[test]
    fn one_answer_does_not_end_the_wait_for_another() {
        let mut hand = Hand::with_a_quick_store();
        hand.asked();
        hand.sent();
        assert_eq!(hand.trip(100), 200);
        assert_eq!(hand.looks_for(), 100);
        hand.ended(100, true);
        assert_eq!(hand.looks_for(), 0);
    }

    #[test]
    fn what_is_given_up_soon_says_nothing_of_the_store() {
        let mut hand = Hand::with_a_quick_store();
        for _ in 0..100 {
            hand.sent();
            hand.ended(100, false);
        }
        hand.asked();
        assert_eq!(hand.sent(), 200);
        hand.ended(100, false);
        assert_eq!(hand.looks_for(), 0, "nobody waits");
        for _ in 0..4 {
            hand.sent();
            hand.ended(300, false);
        }
        assert_eq!(hand.sent(), 0, "no answer within the budget");
    }
}
