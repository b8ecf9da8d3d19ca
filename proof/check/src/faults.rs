//! When something was wrong, and for how long after it that may still be felt.

use std::collections::HashMap;

use crate::history::{Fault, FaultKind, Line, Micros};

/// How long a server, or the way to it, needs to be as before: a cluster elects, clients connect anew.
const RECOVERY: Micros = 10_000_000;

/// The faults of a history.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    pub(crate) all: Vec<(usize, &'a Fault)>,
    crashed: HashMap<u64, (usize, Micros)>,
    /// For how long each may be felt, without the lease that follows it.
    spans: Vec<(Micros, Micros)>,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(lines: &'a [Line], quiet: Option<Micros>, end: Micros) -> Self {
        let faults = lines.iter().enumerate().filter_map(|(line, what)| match what {
            Line::Fault(fault) => Some((line, fault)),
            _ => None,
        });
        let all: Vec<_> = faults.collect();
        let crash = |(line, fault): &(usize, &Fault)| {
            let client = fault.client.filter(|_| fault.kind == FaultKind::Crash)?;
            Some((client, (*line, fault.from)))
        };
        let crashed = all.iter().filter_map(crash).collect();
        let spans = all.iter().map(|(_, fault)| span(fault, quiet, end)).collect();
        Self { all, crashed, spans }
    }

    pub(crate) fn has(&self, kind: FaultKind) -> bool {
        self.all.iter().any(|(_, fault)| fault.kind == kind)
    }

    /// When this client was killed, and the line that says so.
    pub(crate) fn crashed(&self, client: u64) -> Option<(usize, Micros)> {
        self.crashed.get(&client).copied()
    }

    pub(crate) fn crashes(&self) -> impl Iterator<Item = (u64, usize, Micros)> {
        self.crashed.iter().map(|(client, (line, at))| (*client, *line, *at))
    }

    /// When each incarnation of the bucket was over, and by when the next had begun.
    pub(crate) fn resets(&self) -> Vec<(Micros, Micros)> {
        let kinds = [FaultKind::Recreate, FaultKind::Rollback];
        let resets = self.all.iter().filter(|(_, fault)| kinds.contains(&fault.kind));
        let mut resets: Vec<_> = resets.map(|(_, fault)| (fault.from, fault.until.unwrap_or(fault.from))).collect();
        // In the order in which they took effect: of two that overlap the earlier may be over later.
        resets.sort_unstable_by_key(|(over, began)| (*began, *over));
        resets
    }

    /// Nothing but the fault at line `but` can be felt between the two instants. `lease`: for so long a fault may
    /// be felt beyond its end, since sessions that did not outlive it must run out.
    pub(crate) fn calm(&self, from: Micros, to: Micros, lease: Micros, but: Option<usize>) -> bool {
        self.all.iter().zip(&self.spans).all(|((line, fault), (begin, end))| {
            let harmless = fault.kind == FaultKind::ClockStep;
            harmless || but == Some(*line) || *begin > to || end.saturating_add(2 * lease) < from
        })
    }
}

/// From when to when, at the longest.
pub(crate) fn span(fault: &Fault, quiet: Option<Micros>, end: Micros) -> (Micros, Micros) {
    use FaultKind as Kind;
    let last = quiet.filter(|quiet| *quiet >= fault.from).unwrap_or(end).max(fault.from);
    let until = match fault.kind {
        Kind::Crash | Kind::ClockStep | Kind::LoseAnswer | Kind::LoseRequest | Kind::Duplicate | Kind::CutWatch => fault.from,
        _ => last,
    };
    let until = fault.until.unwrap_or(until);
    let recovery = match fault.kind {
        Kind::ServerKill | Kind::ServerPause | Kind::LeaderStepdown | Kind::Rollback | Kind::Recreate | Kind::DiskFull => {
            RECOVERY
        }
        Kind::Partition if fault.client.is_none() => RECOVERY,
        _ => 0,
    };
    // `quiet` is the recorder's word that all of it is over.
    let felt = until.saturating_add(recovery);
    (fault.from, quiet.filter(|quiet| *quiet >= until).map_or(felt, |quiet| felt.min(quiet)))
}
