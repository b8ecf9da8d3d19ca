//! What the checker says of a history: lines for people, and how much it looked at.

use std::collections::BTreeMap;

use tenure_check::{
    History, Limits, Promise, Verdict,
    history::{FaultKind, Line},
};

/// What came of checking a history.
pub(crate) struct Judged {
    /// Every violation; empty when there is none.
    pub(crate) violations: Vec<String>,
    /// Of each promise that was asked for, how many things were looked at.
    pub(crate) checked: BTreeMap<String, u64>,
    /// How many could not be decided.
    pub(crate) undecided: BTreeMap<String, u64>,
}

/// Has a history checked.
pub(crate) fn of(history: &History) -> Judged {
    let verdicts = tenure_check::check_with(history, &limits());
    let set_back = history
        .lines
        .iter()
        .any(|line| matches!(line, Line::Fault(fault) if matches!(fault.kind, FaultKind::Rollback | FaultKind::Recreate)));
    // What was acknowledged is undone by that, so nothing that rests on it can be asked for. But nobody may believe to
    // hold what another has.
    let asked = |promise| !set_back || matches!(promise, Promise::Validity | Promise::Recording);
    let verdicts: Vec<_> = verdicts.iter().filter(|verdict| asked(verdict.promise)).collect();
    let count = |of: fn(&Verdict) -> u64| verdicts.iter().map(|verdict| (verdict.promise.to_string(), of(verdict))).collect();
    let violations = verdicts
        .iter()
        .flat_map(|verdict| &verdict.violations)
        .map(|violation| {
            let lines: Vec<_> = violation.lines.iter().map(|line| (line + 2).to_string()).collect();
            format!("{}: {} [lines {}]", violation.promise, violation.what, lines.join(", "))
        })
        .collect();
    Judged { violations, checked: count(|verdict| verdict.checked), undecided: count(|verdict| verdict.skipped) }
}

/// How soon things are to happen is promised for a machine that has time for them. This one is busy with a cluster,
/// its clients and their faults, and perhaps with more; so a second is added, which hides no wait for ever.
fn limits() -> Limits {
    let Limits { crash, short_crash, members, settle } = Limits::default();
    let busy = 1_000_000;
    Limits { crash: crash + busy, short_crash: short_crash + busy, members: members + busy, settle: settle + busy }
}
