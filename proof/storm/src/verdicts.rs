//! What the checker says of a history, as lines for people.

use tenure_check::{
    History, Limits, Promise,
    history::{FaultKind, Line},
};

/// Every violation; empty when there is none.
pub(crate) fn of(history: &History) -> Vec<String> {
    let verdicts = tenure_check::check_with(history, &limits());
    let set_back = history
        .lines
        .iter()
        .any(|line| matches!(line, Line::Fault(fault) if matches!(fault.kind, FaultKind::Rollback | FaultKind::Recreate)));
    // What was acknowledged is undone by that, so nothing that rests on it can be asked for. But nobody may believe to
    // hold what another has.
    let asked = |promise| !set_back || matches!(promise, Promise::Validity | Promise::Recording);
    let violations = verdicts.iter().filter(|verdict| asked(verdict.promise)).flat_map(|verdict| &verdict.violations);
    violations
        .map(|violation| {
            let lines: Vec<_> = violation.lines.iter().map(|line| (line + 2).to_string()).collect();
            format!("{}: {} [lines {}]", violation.promise, violation.what, lines.join(", "))
        })
        .collect()
}

/// How soon things are to happen is promised for a machine that has time for them. This one is busy with a cluster,
/// its clients and their faults, and perhaps with more; so a second is added, which hides no wait for ever.
fn limits() -> Limits {
    let Limits { crash, short_crash, members, settle } = Limits::default();
    let busy = 1_000_000;
    Limits { crash: crash + busy, short_crash: short_crash + busy, members: members + busy, settle: settle + busy }
}
