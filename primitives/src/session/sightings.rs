//! What the session's own writes tell about how long others have been silent; no I/O.
//!
//! Revisions order all writes of the store. If one of our writes was acknowledged at our moment `a` with
//! revision `R`, every write with a lower revision had been sent before `a`. So a session whose last
//! renewal has a revision below `R` has been silent since `a` at the latest, although nobody here was
//! looking at it then.

use std::collections::VecDeque;

use tenure_kv::{Moment, Revision};

const KEPT: usize = 64;

/// Revisions of our own acknowledged writes and when they were acknowledged, since the store was last
/// out of reach.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    /// After so many outages of the store: across one of them revisions may have been given out a second time.
    outages: u64,
    seen: VecDeque<(Revision, Moment)>,
}

impl Sightings {
    /// A write that was sent after so many `outages` was acknowledged `at` this moment.
    pub(crate) fn saw(&mut self, outages: u64, revision: Revision, at: Moment) {
        if self.outages != outages {
            (self.outages, self.seen) = (outages, VecDeque::new());
        }
        if self.seen.back().is_some_and(|(last, _)| *last >= revision) {
            return;
        }
        if self.seen.len() == KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back((revision, at));
    }

    /// The store was out of reach: silence from before now proves nothing about others, who may have
    /// been cut off as well.
    pub(crate) fn clear(&mut self) {
        self.seen.clear();
    }

    /// Since when at the latest the writer of `revision`, its last, has been silent, where the store has had so many
    /// `outages` by now.
    pub(crate) fn silent_since(&self, outages: u64, revision: Revision) -> Option<Moment> {
        let mut seen = self.seen.iter().filter(|_| self.outages == outages);
        seen.find(|(ours, _)| *ours > revision).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn silence_counts_from_our_first_later_write() {
        let at = |s| Moment::new(Duration::from_secs(s));
        let mut seen = Sightings::default();
        for (revision, second) in [(10, 1), (20, 2), (30, 3)] {
            seen.saw(1, Revision::new(revision), at(second));
        }
        assert_eq!(seen.silent_since(1, Revision::new(9)), Some(at(1)));
        assert_eq!(seen.silent_since(1, Revision::new(10)), Some(at(2)));
        assert_eq!(seen.silent_since(1, Revision::new(29)), Some(at(3)));
        assert_eq!(seen.silent_since(1, Revision::new(30)), None);
        assert_eq!(seen.silent_since(2, Revision::new(9)), None, "an outage since");
        seen.clear();
        assert_eq!(seen.silent_since(1, Revision::new(9)), None);
    }
}
