//! How renewals go, counted for people.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the renewals of all sessions that are opened with it: see
/// [`SessionBuilder::renewals`](crate::SessionBuilder::renewals).
#[derive(Debug, Default)]
pub struct Renewals {
    acknowledged: AtomicU64,
    missed: AtomicU64,
}

impl Renewals {
    /// How many are known to have been applied.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many were not taken, or not answered in time. One of the latter may have been applied, and is among the
    /// acknowledged once that is found.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    pub(super) fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}
