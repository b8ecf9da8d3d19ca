//! How much a history holds, so that a verdict can be weighed.

use std::collections::{BTreeMap, HashSet};

use crate::{
    case::{Case, Prize},
    history::{FaultKind, History, Outcome},
    promises,
};

/// How much a history holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Clients that did something.
    pub clients: u64,
    /// Operations begun.
    pub operations: u64,
    /// Of these, those that were done.
    pub ok: u64,
    /// Those that were certainly not done.
    pub failed: u64,
    /// Those that may have been done: told so, or never answered.
    pub unknown: u64,
    /// Locks granted.
    pub grants: u64,
    /// Elections won.
    pub terms: u64,
    /// Fenced writes refused because their hold was over.
    pub refused: u64,
    /// Things seen that are no answers.
    pub seen: u64,
    /// Writes in the stream.
    pub writes: u64,
    /// Revisions between those recorded that are not.
    pub missing: u64,
    /// Incarnations of the bucket.
    pub epochs: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
}

impl Counts {
    /// Counts.
    pub fn of(history: &History) -> Self {
        let case = Case::new(history);
        let calls = case.operations.iter().map(|operation| operation.call.client);
        let clients: HashSet<u64> = calls.chain(case.seen.iter().map(|(_, seen)| seen.client)).collect();
        let mut counts = Self {
            clients: clients.len() as u64,
            operations: case.operations.len() as u64,
            seen: case.seen.len() as u64,
            writes: case.stream.epochs().map(|epoch| case.stream.own(epoch).count() as u64).sum(),
            missing: case.stream.missing(),
            epochs: case.stream.epochs().count() as u64,
            refused: promises::refused(&case),
            ..Self::default()
        };
        for operation in &case.operations {
            match operation.returned.map(|(_, returned)| &returned.outcome) {
                Some(Outcome::Ok(_)) => counts.ok += 1,
                Some(Outcome::Failed { .. }) => counts.failed += 1,
                Some(Outcome::Unknown { .. }) | None => counts.unknown += 1,
            }
        }
        for grant in case.grants() {
            match grant.prize {
                Prize::Lock(_) => counts.grants += 1,
                Prize::Election(_) => counts.terms += 1,
            }
        }
        for (_, fault) in &case.faults.all {
            *counts.faults.entry(fault.kind).or_default() += 1;
        }
        counts
    }
}
