//! Counts over a history, and over many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenure_check::{
    Counts, History,
    history::{Line, Op, Outcome, Sight},
};

use crate::verdicts::Judged;

/// What happened, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Histories.
    pub histories: u64,
    /// Operations begun.
    pub operations: u64,
    /// Those whose outcome stayed unknown.
    pub unknown: u64,
    /// Locks and offices granted.
    pub grants: u64,
    /// Grants to another client than that before.
    pub hand_overs: u64,
    /// Fenced writes that were done.
    pub fenced: u64,
    /// Holds that were lost.
    pub lost: u64,
    /// Writes in the stream.
    pub writes: u64,
    /// Sightings.
    pub seen: u64,
    /// Faults, by their kind and what belongs to it.
    pub faults: BTreeMap<String, u64>,
    /// Violations.
    pub violations: u64,
    /// Histories that could not be recorded.
    pub failed: u64,
    /// Histories in which hardly anything was granted, so that they say little.
    pub empty: u64,
    /// Revisions between those recorded that are not.
    pub missing: u64,
    /// Histories of which it is known how much was checked.
    pub judged: u64,
    /// How many things were checked, by promise.
    pub checked: BTreeMap<String, u64>,
    /// How many could not be decided, by promise.
    pub undecided: BTreeMap<String, u64>,
}

/// A history with fewer grants says little.
const HANDFUL: u64 = 5;

impl Totals {
    /// Of one history.
    pub(crate) fn of(history: &History) -> Self {
        let mut totals = Self { histories: 1, ..Self::default() };
        let mut calls = BTreeMap::new();
        let mut grants: BTreeMap<String, Vec<(u64, u64, u64)>> = BTreeMap::new();
        for line in &history.lines {
            match line {
                Line::Call(call) => {
                    totals.operations += 1;
                    calls.insert(call.id, call);
                }
                Line::Seen(seen) => {
                    totals.seen += 1;
                    totals.lost += u64::from(matches!(seen.what, Sight::Lost { .. }));
                }
                Line::Write(write) => totals.writes += u64::from(!write.key.is_empty()),
                Line::Fault(fault) => {
                    let kind = serde_json::to_value(fault.kind).unwrap_or_default();
                    let of = if fault.client.is_some() { "client" } else { "server" };
                    let note = fault.note.split([':', ';']).next().unwrap_or_default();
                    *totals.faults.entry(format!("{}/{of}/{note}", kind.as_str().unwrap_or("?"))).or_default() += 1;
                }
                _ => {}
            }
        }
        totals.unknown = totals.operations;
        for line in &history.lines {
            let Line::Return(returned) = line else { continue };
            totals.unknown -= u64::from(!matches!(returned.outcome, Outcome::Unknown { .. }));
            let (Outcome::Ok(done), Some(call)) = (&returned.outcome, calls.get(&returned.id)) else { continue };
            let prize = match &call.op {
                Op::Acquire { lock, .. } => format!("lock {lock}"),
                Op::Campaign { election, .. } => format!("election {election}"),
                Op::FencedPut { .. } => {
                    totals.fenced += 1;
                    continue;
                }
                _ => continue,
            };
            totals.grants += 1;
            let place = (done.epoch.unwrap_or_default(), done.revision.unwrap_or_default(), call.client);
            grants.entry(prize).or_default().push(place);
        }
        for grants in grants.values_mut() {
            grants.sort();
            totals.hand_overs += grants.windows(2).filter(|pair| pair[0].2 != pair[1].2).count() as u64;
        }
        totals.empty = u64::from(totals.grants < HANDFUL);
        totals.missing = Counts::of(history).missing;
        totals
    }

    /// The same, with how much of it was checked.
    pub(crate) fn and(mut self, judged: &Judged) -> Self {
        self.judged = 1;
        self.checked.clone_from(&judged.checked);
        self.undecided.clone_from(&judged.undecided);
        self
    }

    /// Adds those of another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.grants += other.grants;
        self.hand_overs += other.hand_overs;
        self.fenced += other.fenced;
        self.lost += other.lost;
        self.writes += other.writes;
        self.seen += other.seen;
        self.violations += other.violations;
        self.failed += other.failed;
        self.empty += other.empty;
        self.missing += other.missing;
        self.judged += other.judged;
        let counts =
            [(&mut self.faults, &other.faults), (&mut self.checked, &other.checked), (&mut self.undecided, &other.undecided)];
        for (all, some) in counts {
            for (what, count) in some {
                *all.entry(what.clone()).or_default() += count;
            }
        }
    }

    /// All faults together.
    pub fn all_faults(&self) -> u64 {
        self.faults.values().sum()
    }
}
