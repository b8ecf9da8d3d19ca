//! How far a store's revisions have come, as far as this process knows; no I/O.

use tenure_kv::Revision;

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The height of the bucket that the store leads to, which may turn out to be another one.
#[derive(Debug, Default)]
pub(crate) struct Heights {
    now: Mutex<Mark>,
}

/// How far the revisions had come before a write was sent, and in which bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    turn: u64,
    highest: Revision,
}

impl Mark {
    /// The same bucket at another revision of its own.
    pub(crate) const fn at(self, highest: Revision) -> Self {
        Self { highest, ..self }
    }

    /// The revision right after it.
    pub(crate) const fn next(self) -> Revision {
        self.highest.next()
    }
}

impl Heights {
    fn now(&self) -> MutexGuard<'_, Mark> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mark(&self) -> Mark {
        *self.now()
    }

    /// Notes an acknowledged write. False when it shows that the bucket has gone back.
    #[must_use]
    pub(crate) fn committed(&self, before: Mark, now: Revision) -> bool {
        let mut height = self.now();
        let forward = now > before.highest;
        // What was sent to the former bucket says nothing of this one.
        if forward && before.turn == height.turn {
            height.highest = height.highest.max(now);
        }
        forward
    }

    /// It is another bucket from now on.
    pub(crate) fn turn(&self) {
        let mut height = self.now();
        *height = Mark { turn: height.turn + 1, highest: Revision::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_former_bucket_says_nothing_of_the_next() {
        let heights = Heights::default();
        assert!(heights.committed(heights.mark(), Revision::new(100)));
        let sent = heights.mark();
        assert!(!heights.committed(heights.mark(), Revision::new(3)), "the bucket has gone back");
        heights.turn();
        assert!(heights.committed(sent, Revision::new(101)), "this one was still taken by the former");
        assert!(heights.committed(heights.mark(), Revision::new(4)), "the new one has not gone back");
    }
}
