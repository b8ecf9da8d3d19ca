//! What a session knows for good about the queues of locks: tickets never come back.
//!
//! Except where the one server that keeps a bucket loses its last writes: then revisions are given out a second time,
//! and a ticket may stand where it was known that there is none. So all of it is forgotten after an outage.

use std::collections::HashMap;

use tenure_kv::{Key, Revision};

use crate::sync::{Mutex, PoisonError};

/// What is known about the queue of one lock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floor {
    /// Of how many outages of the store it was learned after.
    pub(crate) outages: u64,
    /// Every ticket up to this revision is gone.
    pub(crate) gone: Revision,
    /// Where our own last release left its tombstone.
    pub(crate) released: Revision,
    /// How often in a row nobody was before us.
    pub(crate) calm: u8,
    /// The queue did not fit one page when it was last read from the front.
    pub(crate) crowded: bool,
}

/// Floors kept at most; beyond that they are forgotten, which costs reads and nothing else.
const MAX: usize = 16_384;

/// The floors of a session.
#[derive(Debug, Default)]
pub(crate) struct Floors(Mutex<HashMap<Key, Floor>>);

impl Floors {
    /// What is known of `lock` now that the store has had so many `outages`.
    pub(crate) fn of(&self, lock: &Key, outages: u64) -> Floor {
        let floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = floors.get(lock).filter(|floor| floor.outages == outages);
        known.copied().unwrap_or(Floor { outages, ..Floor::default() })
    }

    /// Adds what follows from reads and writes that all came after so many `outages`.
    pub(crate) fn learn(&self, lock: &Key, outages: u64, change: impl FnOnce(&mut Floor)) {
        let mut floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if floors.len() >= MAX && !floors.contains_key(lock) {
            floors.clear();
        }
        let floor = floors.entry(lock.clone()).or_default();
        // Of two that learn at the same time the later one knows better.
        if floor.outages > outages {
            return;
        }
        if floor.outages < outages {
            *floor = Floor { outages, ..Floor::default() };
        }
        change(floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_before_an_outage_is_forgotten() {
        let floors = Floors::default();
        let lock = Key::new("l").unwrap();
        floors.learn(&lock, 1, |floor| floor.gone = Revision::new(9));
        assert_eq!(floors.of(&lock, 1).gone, Revision::new(9));
        assert_eq!(floors.of(&lock, 2).gone, Revision::ZERO);
        floors.learn(&lock, 2, |floor| floor.calm = 1);
        assert_eq!((floors.of(&lock, 2).gone, floors.of(&lock, 2).calm), (Revision::ZERO, 1));
        floors.learn(&lock, 1, |floor| floor.gone = Revision::new(9));
        assert_eq!(floors.of(&lock, 2).gone, Revision::ZERO, "learned before, told late");
    }
}
