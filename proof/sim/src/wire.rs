//! The wire between a process and the server: how late, how lossy, how cut.

use tenure_check::history::Micros;
use tenure_kv::{Batch, Entry, Error, Event, Key, KeyRange, Page, Revision, Since};
use tokio::sync::mpsc;

/// By how much reads of several servers lag now and then, with nothing wrong.
pub(crate) const LAG: Micros = 4_000;

/// A request.
#[derive(Clone)]
pub(crate) enum Ask {
    Entries(Vec<Key>),
    Scan(KeyRange, Revision, usize),
    Commit(Batch),
    Watch(KeyRange, Since, mpsc::UnboundedSender<tenure_kv::Result<Event>>),
}

/// An answer.
pub(crate) enum Said {
    Entries(Vec<Option<Entry>>),
    Page(Page),
    Committed(Revision),
    Refused(Error),
    Established,
}

/// How a process is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing passes, and nobody is told.
    Silent,
    /// Answers are lost, requests pass.
    Answers,
    /// The client's library knows: requests are refused at once.
    Refused,
}

/// What the wire does at present.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    /// More than one cut may be in force.
    pub(crate) cuts: Vec<Cut>,
    pub(crate) lose_requests: f64,
    pub(crate) lose_answers: f64,
    pub(crate) duplicate: f64,
    /// Added to every message, at most.
    pub(crate) slow: Micros,
    /// How far reads lag, at most.
    pub(crate) stale: Micros,
}

impl Wire {
    pub(crate) fn is_refused(&self) -> bool {
        self.cuts.contains(&Cut::Refused)
    }

    pub(crate) fn hears_nothing(&self) -> bool {
        !self.cuts.is_empty()
    }

    pub(crate) fn loses_requests(&self, rng: &mut fastrand::Rng) -> bool {
        self.cuts.contains(&Cut::Silent) || self.is_refused() || chance(rng, self.lose_requests)
    }

    pub(crate) fn loses_answers(&self, rng: &mut fastrand::Rng) -> bool {
        !self.cuts.is_empty() || chance(rng, self.lose_answers)
    }

    pub(crate) fn comes_twice(&self, rng: &mut fastrand::Rng) -> bool {
        chance(rng, self.duplicate)
    }

    /// How long a message takes. Each draws its own, so they overtake each other.
    pub(crate) fn delay(&self, rng: &mut fastrand::Rng) -> Micros {
        let usual = rng.u64(50..400);
        if self.slow == 0 { usual } else { usual + rng.u64(..=self.slow) }
    }

    /// How far behind the replica is that answers a read.
    pub(crate) fn lag(&self, rng: &mut fastrand::Rng) -> Micros {
        if self.stale > 0 {
            rng.u64(..=self.stale)
        } else if rng.u8(..) < 32 {
            rng.u64(..LAG)
        } else {
            0
        }
    }

    pub(crate) fn refuses_lagging(&self, rng: &mut fastrand::Rng) -> bool {
        self.stale > 0 && chance(rng, 0.05)
    }
}

pub(crate) fn chance(rng: &mut fastrand::Rng, probability: f64) -> bool {
    probability > 0.0 && rng.f64() < probability
}
