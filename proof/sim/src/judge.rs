//! One seed, run and checked; and what is left of its faults when all that do not matter are taken away.

use std::{fmt, io};

use tenure_check::{Limits, Promise, Violation, check_with, history::History};
use tenure_kv::mutants::Mutant;

use crate::{Plan, Planned, Played, run};

/// What became of a seed.
#[derive(Debug)]
pub struct Verdict {
    /// What happened.
    pub history: History,
    /// The promises that were broken, with what shows it.
    pub broken: Vec<(Promise, Violation)>,
}

impl Verdict {
    fn breaks(&self, promise: Promise) -> bool {
        self.broken.iter().any(|(broken, _)| *broken == promise)
    }
}

/// Runs `plan` with the faults that `keep` names, with `mutant` in the code, and checks what happened.
///
/// # Errors
/// When a runtime cannot be made.
pub fn judge(plan: &Plan, keep: &[bool], mutant: Option<Mutant>) -> io::Result<Verdict> {
    switch(mutant);
    let played = run(plan, keep);
    switch(None);
    let Played { history, unfinished } = played?;
    // The server is not on the machine of those who use it.
    let limits = Limits { short_crash: Limits::default().crash, settle: plan.settle(), ..Limits::default() };
    let broken = check_with(&history, &limits).into_iter().flat_map(|verdict| {
        let promise = verdict.promise;
        verdict.violations.into_iter().map(move |violation| (promise, violation))
    });
    let unfinished = unfinished.map(|what| (Promise::Converges, never_over(what)));
    let broken = broken.chain(unfinished).collect();
    Ok(Verdict { history, broken })
}

/// A run that has to be stopped, though nobody wants anything any more, has not converged.
fn never_over(what: String) -> Violation {
    Violation { promise: Promise::Converges, what: format!("it was never over: {what}"), at: None, lines: Vec::new() }
}

#[cfg(feature = "mutants")]
fn switch(mutant: Option<Mutant>) {
    tenure_kv::mutants::switch(mutant);
}

#[cfg(not(feature = "mutants"))]
const fn switch(_: Option<Mutant>) {}

/// A seed that breaks a promise, and the faults that it takes.
#[derive(Debug)]
pub struct Shrunk {
    /// The promise.
    pub promise: Promise,
    /// The faults that are left.
    pub faults: Vec<Planned>,
    /// Which they are of the plan's.
    pub keep: Vec<bool>,
    /// The run with these alone.
    pub verdict: Verdict,
}

/// Takes faults away as long as the first promise that `verdict` shows broken stays so.
///
/// # Errors
/// When a runtime cannot be made.
pub fn shrink(plan: &Plan, verdict: Verdict, mutant: Option<Mutant>) -> io::Result<Option<Shrunk>> {
    let Some(promise) = verdict.broken.first().map(|(promise, _)| *promise) else { return Ok(None) };
    let (mut keep, mut verdict) = (vec![true; plan.faults.len()], verdict);
    // By halves first, then one by one.
    let mut size = keep.len().div_ceil(2);
    while size > 0 {
        for from in (0..keep.len()).step_by(size) {
            let mut fewer = keep.clone();
            fewer.iter_mut().skip(from).take(size).for_each(|keep| *keep = false);
            if fewer == keep {
                continue;
            }
            let again = judge(plan, &fewer, mutant)?;
            if again.breaks(promise) {
                (keep, verdict) = (fewer, again);
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    let faults = plan.faults.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(fault, _)| fault.clone()).collect();
    Ok(Some(Shrunk { promise, faults, keep, verdict }))
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  breaks promise `{}`: {}", self.promise, self.promise.text())?;
        for (_, violation) in self.verdict.broken.iter().filter(|(promise, _)| *promise == self.promise).take(3) {
            writeln!(f, "    {}", violation.what)?;
        }
        writeln!(f, "  with {} of its faults:", self.faults.len())?;
        self.faults.iter().try_for_each(|fault| writeln!(f, "    {fault}"))
    }
}
