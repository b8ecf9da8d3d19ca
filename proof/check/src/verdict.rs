//! What the checker says: one verdict per promise, and what each violation rests on.

use std::fmt;

use crate::history::Micros;

/// What is checked. The numbers are those of the promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Promise {
    /// 1: one holder per lock and one leader per election; (epoch, token) grows in the order of grants.
    Exclusive,
    /// 2: a fenced write is refused from the moment a later holder exists.
    Fenced,
    /// 3: nobody believes to hold what another may have been granted.
    Validity,
    /// 4: a crashed holder delays the next by at most its lease and a little.
    Crash,
    /// 5: a release is visible to every later acquire and never frees another's hold.
    Release,
    /// 6: an unknown outcome is reported neither as success nor as failure.
    Unknown,
    /// 7: a member with a live session is never removed; one with a dead session goes soon.
    Members,
    /// 8: views, watches and observers skip no final state and never go back.
    Views,
    /// 9: tickets are granted in the order of revisions; a dead waiter blocks nobody.
    Fifo,
    /// 10: with no fault nobody loses a lease; after the faults everything converges.
    Converges,
    /// Conditional writes of each key form one chain that agrees with real time.
    Chain,
    /// Nobody holds on into another incarnation of the bucket.
    Epoch,
    /// A small register's history has a linear order, by an independent search.
    Linear,
    /// Not a promise: the recording contradicts itself, so no verdict is worth much.
    Recording,
}

impl Promise {
    /// All of them, in order.
    pub const ALL: [Self; 14] = [
        Self::Exclusive,
        Self::Fenced,
        Self::Validity,
        Self::Crash,
        Self::Release,
        Self::Unknown,
        Self::Members,
        Self::Views,
        Self::Fifo,
        Self::Converges,
        Self::Chain,
        Self::Epoch,
        Self::Linear,
        Self::Recording,
    ];

    /// A word for programs and for the heads of recorded histories.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Fenced => "fenced",
            Self::Validity => "validity",
            Self::Crash => "crash",
            Self::Release => "release",
            Self::Unknown => "unknown",
            Self::Members => "members",
            Self::Views => "views",
            Self::Fifo => "fifo",
            Self::Converges => "converges",
            Self::Chain => "chain",
            Self::Epoch => "epoch",
            Self::Linear => "linear",
            Self::Recording => "recording",
        }
    }

    /// The number among Tenure's promises.
    pub const fn number(self) -> Option<u8> {
        match self {
            Self::Exclusive => Some(1),
            Self::Fenced => Some(2),
            Self::Validity => Some(3),
            Self::Crash => Some(4),
            Self::Release => Some(5),
            Self::Unknown => Some(6),
            Self::Members => Some(7),
            Self::Views => Some(8),
            Self::Fifo => Some(9),
            Self::Converges => Some(10),
            Self::Chain | Self::Epoch | Self::Linear | Self::Recording => None,
        }
    }

    /// What is promised, in a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Exclusive => "One holder per lock, one leader per election; tokens grow in the order of grants",
            Self::Fenced => "A fenced write is refused from the moment a later holder exists",
            Self::Validity => "Nobody believes to hold what another may have been granted",
            Self::Crash => "A crashed holder delays the next by at most its lease and a little",
            Self::Release => "A release is visible to every later acquire and never frees another's hold",
            Self::Unknown => "An unknown outcome is reported neither as success nor as failure",
            Self::Members => "A member with a live session is never removed; one with a dead session goes soon",
            Self::Views => "Views, watches and observers skip no final state and never go back",
            Self::Fifo => "Tickets are granted in the order of revisions; a dead waiter blocks nobody",
            Self::Converges => "With no fault nobody loses a lease; after the faults everything converges",
            Self::Chain => "Conditional writes of each key form one chain that agrees with real time",
            Self::Epoch => "Nobody holds on into another incarnation of the bucket",
            Self::Linear => "A small register's history has a linear order",
            Self::Recording => "The recording is whole and does not contradict itself",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the checker says about one promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which.
    pub promise: Promise,
    /// How many things were looked at. None means that the history says nothing about this promise.
    pub checked: u64,
    /// How many could not be decided: the recording ended too soon, a fault was active, the stream has a gap.
    pub skipped: u64,
    /// Where it was broken.
    pub violations: Vec<Violation>,
}

impl Verdict {
    pub(crate) const fn new(promise: Promise) -> Self {
        Self { promise, checked: 0, skipped: 0, violations: Vec::new() }
    }

    pub(crate) const fn checked(&mut self) {
        self.checked += 1;
    }

    pub(crate) const fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Adds what was found in a part of the history, of whose lines `places` says where they are in the whole.
    pub(crate) fn join(&mut self, part: Self, places: &[usize]) {
        self.checked += part.checked;
        self.skipped += part.skipped;
        self.violations.extend(part.violations.into_iter().map(|violation| {
            let lines = violation.lines.iter().filter_map(|line| places.get(*line)).copied().collect();
            Violation { lines, ..violation }
        }));
    }

    /// `lines` are indices into the history's lines.
    pub(crate) fn violated(&mut self, what: impl Into<String>, at: Option<Micros>, lines: impl IntoIterator<Item = usize>) {
        let mut lines: Vec<_> = lines.into_iter().collect();
        lines.sort_unstable();
        lines.dedup();
        self.violations.push(Violation { promise: self.promise, what: what.into(), at, lines });
    }
}

/// A promise broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// What happened, with the numbers it rests on.
    pub what: String,
    /// When, as far as that can be said.
    pub at: Option<Micros>,
    /// The lines it rests on: indices into [`crate::History::lines`], ascending.
    pub lines: Vec<usize>,
}
