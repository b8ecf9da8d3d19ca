//! One module per promise: a digested history goes in, a verdict comes out.

mod chain;
mod converges;
mod crash;
mod epoch;
mod exclusive;
mod fenced;
mod fifo;
mod linear;
mod members;
mod queue;
mod recording;
mod release;
mod unknown;
mod validity;
mod views;

use crate::{
    case::Case,
    history::{Fault, FaultKind, History, Line, Micros},
    verdict::{Promise, Verdict},
};

pub(crate) use fenced::refused;

/// A store takes milliseconds. Where it takes so long, its machine is busy with something else.
const SLOW: Micros = 250_000;

/// How long things may take, in microseconds. The defaults are what is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Beyond the lease, until the next holder has what a crashed one held.
    pub crash: u64,
    /// The same for leases under a second, where the store is on the same machine.
    pub short_crash: u64,
    /// Beyond the lease, until the members of a dead session are gone.
    pub members: u64,
    /// Beyond the lease, until everything has converged after the last fault.
    pub settle: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { crash: 250_000, short_crash: 60_000, members: 1_000_000, settle: 10_000_000 }
    }
}

pub(crate) fn all(case: &Case<'_>, limits: &Limits) -> Vec<Verdict> {
    if case.faults.has(FaultKind::Rollback) {
        return after_a_rollback(case, limits);
    }
    vec![
        exclusive::check(case),
        fenced::check(case),
        validity::check(case),
        crash::check(case, limits),
        release::check(case),
        unknown::check(case),
        members::check(case, limits),
        views::check(case, limits),
        fifo::check(case, limits),
        converges::check(case, limits),
        chain::check(case),
        epoch::check(case),
        linear::check(case),
        recording::check(case),
    ]
}

/// Revisions of a bucket that was set back stand for something else the second time, so nothing that rests on their
/// order is judged beyond that moment. What is left is what matters: that no two believe to hold at one moment, and that
/// all of it ends. What came before is judged as ever.
fn after_a_rollback(case: &Case<'_>, limits: &Limits) -> Vec<Verdict> {
    let judged = |promise| match promise {
        Promise::Validity => validity::in_real_time(case),
        Promise::Converges => converges::check(case, limits),
        Promise::Recording => recording::check(case),
        promise => Verdict::new(promise),
    };
    let mut verdicts: Vec<_> = Promise::ALL.into_iter().map(judged).collect();
    if let Some((before, lines)) = before_the_rollback(case) {
        for (verdict, before) in verdicts.iter_mut().zip(all(&Case::new(&before), limits)) {
            verdict.join(before, &lines);
        }
    }
    verdicts
}

/// The history up to when the bucket was first set back, and where its lines are in the whole. Only a recorder that knows
/// when each write was committed can tell.
fn before_the_rollback(case: &Case<'_>) -> Option<(History, Vec<usize>)> {
    let of_rollback = |fault: &&Fault| fault.kind == FaultKind::Rollback;
    let until = case.faults.all.iter().map(|(_, fault)| *fault).filter(of_rollback).map(|fault| fault.from).min()?;
    let happened = |line: &Line| match line {
        Line::Call(call) => Some(call.at),
        Line::Return(returned) => Some(returned.at),
        Line::Seen(seen) => Some(seen.at),
        Line::Fault(fault) => Some(fault.from),
        Line::Write(write) => write.at,
        Line::Head(_) | Line::Quiet { .. } | Line::End { .. } => Some(Micros::MAX),
    };
    let lines = &case.history.lines;
    if lines.iter().any(|line| happened(line).is_none()) {
        return None;
    }
    let places: Vec<_> = (0..lines.len()).filter(|place| happened(&lines[*place]).is_some_and(|at| at < until)).collect();
    let mut before = History::new(case.history.head.clone());
    before.lines = places.iter().map(|place| lines[*place].clone()).collect();
    before.lines.push(Line::End { at: until });
    Some((before, places))
}
