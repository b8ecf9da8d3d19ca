//! The verdicts as text for a terminal.

use std::io::{self, Write};

use crate::{Counts, Verdict, history::FaultKind};

/// Of each promise so many violations are written out.
const SHOWN: usize = 20;

/// Writes the counts and one line per promise, each violation below it with the lines of the file that it rests on.
///
/// # Errors
/// What the output says.
pub fn print(mut out: impl Write, counts: &Counts, verdicts: &[Verdict]) -> io::Result<()> {
    let Counts { clients, operations, ok, failed, unknown, grants, terms, refused, seen, writes, .. } = counts;
    writeln!(out, "{operations} operations of {clients} clients: {ok} ok, {failed} failed, {unknown} unknown")?;
    writeln!(out, "{grants} grants, {terms} terms, {refused} stale fenced writes refused, {seen} sightings, {writes} writes")?;
    if counts.epochs > 1 {
        writeln!(out, "{} incarnations of the bucket", counts.epochs)?;
    }
    if counts.missing > 0 {
        writeln!(out, "{} revisions are missing from the recorded stream", counts.missing)?;
    }
    writeln!(out, "faults: {}", faults(counts))?;
    writeln!(out)?;
    for verdict in verdicts {
        let number = verdict.promise.number().map_or("  ".to_owned(), |number| format!("{number:>2}"));
        let word = word(verdict);
        let skipped = if verdict.skipped > 0 { format!(", {} undecided", verdict.skipped) } else { String::new() };
        writeln!(out, "{number} {:<10} {word:<9} {} checked{skipped}", verdict.promise, verdict.checked)?;
        for violation in verdict.violations.iter().take(SHOWN) {
            let lines: Vec<_> = violation.lines.iter().map(|line| (line + 2).to_string()).collect();
            let at = violation.at.map_or(String::new(), |at| format!("at {at} µs: "));
            writeln!(out, "     {at}{} [lines {}]", violation.what, lines.join(", "))?;
        }
        if let Some(more) = verdict.violations.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            writeln!(out, "     and {more} more")?;
        }
    }
    Ok(())
}

/// `kept`, `VIOLATED`, or `-` where the history says nothing.
pub(crate) const fn word(verdict: &Verdict) -> &'static str {
    if !verdict.violations.is_empty() {
        "VIOLATED"
    } else if verdict.checked > 0 {
        "kept"
    } else {
        "-"
    }
}

pub(crate) fn faults(counts: &Counts) -> String {
    if counts.faults.is_empty() {
        return "none".into();
    }
    let each = counts.faults.iter().map(|(kind, count)| format!("{count} {}", name(*kind)));
    each.collect::<Vec<_>>().join(", ")
}

/// As the format spells it.
pub(crate) fn name(kind: FaultKind) -> String {
    let spelled = serde_json::to_value(kind).ok();
    spelled.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_else(|| format!("{kind:?}"))
}
