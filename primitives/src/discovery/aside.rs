//! Setting an instance aside after errors; pure.

use std::time::Duration;

use tenure_kv::Moment;

/// For how long an instance is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cooling {
    /// After the first error.
    pub(super) first: Duration,
    /// At most, however many errors follow one another; each doubles the time.
    pub(super) longest: Duration,
}

impl Cooling {
    fn after(&self, streak: u32) -> Duration {
        let doubled = 1_u32.checked_shl(streak.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

/// The errors of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Errors in a row.
    streak: u32,
    /// Counts the errors that counted; whoever was sent to the instance before the last one says nothing new.
    generation: u64,
    /// When the last one was reported.
    last: Option<Moment>,
    until: Moment,
}

impl Faults {
    /// Which errors a request that starts now knows of.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// When the last error was reported, if the instance has not been well since.
    pub(super) const fn last(&self) -> Option<Moment> {
        self.last
    }

    /// Until when it is aside.
    pub(super) const fn until(&self) -> Moment {
        self.until
    }

    /// A request of `generation` failed. Of a hundred that fail together one counts.
    pub(super) fn failed(&mut self, generation: u64, now: Moment, cooling: Cooling) {
        if generation == self.generation {
            self.generation += 1;
            self.streak = self.streak.saturating_add(1);
            self.last = Some(now);
            self.until = now + cooling.after(self.streak);
        }
    }

    /// A request of `generation` succeeded; one that began before the last error proves nothing.
    pub(super) fn succeeded(&mut self, generation: u64) {
        if generation == self.generation {
            *self = Self { generation, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLING: Cooling = Cooling { first: Duration::from_secs(1), longest: Duration::from_secs(10) };

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    #[test]
    fn repeated_errors_set_aside_for_longer_up_to_a_bound() {
        let mut faults = Faults::default();
        for (now, until) in [(0, 1), (1, 3), (3, 7), (7, 15), (15, 25), (25, 35)] {
            faults.failed(faults.generation(), at(now), COOLING);
            assert_eq!(faults.until(), at(until));
        }
        for _ in 0..100 {
            faults.failed(faults.generation(), at(100), COOLING);
        }
        assert_eq!(faults.until(), at(110));
    }

    #[test]
    fn requests_that_fail_together_count_once() {
        let mut faults = Faults::default();
        let together = faults.generation();
        for _ in 0..100 {
            faults.failed(together, at(5), COOLING);
        }
        assert_eq!(faults.until(), at(6));
    }

    #[test]
    fn a_success_brings_back_unless_it_began_before_the_error() {
        let mut faults = Faults::default();
        let before = faults.generation();
        faults.failed(before, at(0), COOLING);
        faults.succeeded(before);
        assert_eq!((faults.until(), faults.last()), (at(1), Some(at(0))));
        faults.succeeded(faults.generation());
        assert_eq!((faults.until(), faults.last()), (at(0), None));
        faults.failed(faults.generation(), at(9), COOLING);
        assert_eq!(faults.until(), at(10), "the streak is over");
        faults.failed(before, at(9), COOLING);
        assert_eq!(faults.until(), at(10), "an old request says nothing new after a success either");
    }
}
