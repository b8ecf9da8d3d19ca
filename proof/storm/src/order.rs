//! What the director tells a client process to be.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// The whole of it, handed over as JSON on the command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The number of this incarnation in the history.
    pub number: u64,
    /// What it draws its choices from.
    pub seed: u64,
    /// How it reaches Tenure.
    pub way: Way,
    /// Where it writes down what happens.
    pub tape: PathBuf,
    /// Its lease.
    pub lease_ms: u64,
    /// What there is to compete for.
    pub field: Field,
}

impl Order {
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// After so long a client turns away from a call. The checker asks that everything ends within the lease and 11 s of
    /// the last fault; whoever turned away before that would hide that it did not, so also a call from a while before
    /// that fault is waited for until then.
    pub(crate) fn patience(&self) -> Duration {
        self.lease() + Duration::from_secs(30)
    }
}

/// How a client reaches Tenure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// It opens the store with this URL.
    Store(String),
    /// It asks the daemon that listens there.
    Socket(PathBuf),
}

/// What the clients of a history compete for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Field {
    /// So many locks.
    pub locks: usize,
    /// So many in one client want each lock.
    pub waiters: usize,
    /// So many in one client want the first lock; eight or more share a view of its queue.
    pub crowd: usize,
    /// So many elections.
    pub elections: usize,
    /// So many groups.
    pub groups: usize,
    /// So many ids to be joined as in each group.
    pub ids: usize,
    /// So many plain registers.
    pub registers: usize,
    /// All pauses are so many times as long as usual.
    pub pace: f64,
    /// Locks and offices are mostly held for long, so that whoever is killed leaves some.
    pub held_long: bool,
}

impl Default for Field {
    fn default() -> Self {
        Self { locks: 3, waiters: 1, crowd: 1, elections: 2, groups: 1, ids: 4, registers: 2, pace: 1.0, held_long: false }
    }
}
