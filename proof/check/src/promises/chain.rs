//! Conditional writes: each was made on what its writer expected, so those of one key form one chain, and the order
//! of revisions agrees with real time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use crate::{
    case::{Case, Operation},
    history::{Expect, Failure, Micros, Op},
    stream::Entry,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Chain);
    let mut refused: BTreeMap<(u64, &str), Vec<Refused>> = BTreeMap::new();
    for (place, operation) in case.operations.iter().enumerate() {
        let Some((key, expect)) = conditional(operation.op()) else { continue };
        if let Some((epoch, revision)) = landed(case, operation) {
            verdict.checked();
            followed(case, operation, &format!("data.{key}"), expect, epoch, revision, &mut verdict);
        } else if was_refused(case, operation) {
            verdict.checked();
            refused.entry((case.epoch_of(operation), key)).or_default().push(Refused { place, expect });
        }
    }
    for ((epoch, key), refused) in &refused {
        conflicts(case, *epoch, &format!("data.{key}"), refused, &mut verdict);
    }
    real_time(case, &mut verdict);
    within_their_calls(case, &mut verdict);
    verdict
}

/// A conflict, at its place among the operations.
struct Refused {
    place: usize,
    expect: Expect,
}

/// Whether something else must have stood under the key. A fence may have refused it; and a cluster refuses a write
/// while another one to the key is under way.
pub(super) fn was_refused(case: &Case<'_>, operation: &Operation<'_>) -> bool {
    let fenced = matches!(operation.op(), Op::FencedPut { .. });
    operation.failed() == Some(Failure::Conflict) && case.is_embedded() && !fenced && !case.spans_epochs(operation)
}

/// The key and the expectation of a write of data.
pub(super) fn conditional(op: &Op) -> Option<(&str, Expect)> {
    match op {
        Op::Put { key, expect, .. } | Op::Delete { key, expect } => Some((key, *expect)),
        Op::FencedPut { key, .. } => Some((key, Expect::Any)),
        _ => None,
    }
}

/// Where it was applied: as its answer says, or as the stream does.
pub(super) fn landed(case: &Case<'_>, operation: &Operation<'_>) -> Option<(u64, u64)> {
    if let Some(revision) = operation.ok().and_then(|done| done.revision) {
        return Some((case.epoch_of(operation), revision));
    }
    let nonce = crate::case::nonce(operation.op())?;
    case.stream.nonce(nonce).first().map(|(epoch, entry)| (*epoch, entry.revision()))
}

fn meets(standing: Option<&Entry<'_>>, expect: Expect) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Absent => standing.is_none_or(|entry| !entry.is_live()),
        Expect::At(revision) => standing.map_or(0, Entry::revision) == revision,
    }
}

fn followed(
    case: &Case<'_>,
    operation: &Operation<'_>,
    key: &str,
    expect: Expect,
    epoch: u64,
    revision: u64,
    verdict: &mut Verdict,
) {
    let before = case.stream.before(epoch, key, revision);
    if meets(before.as_ref(), expect) || case.stream.gap(epoch, before.map_or(0, |before| before.revision()), revision) {
        return;
    }
    let stood = before.map_or(0, |before| before.revision());
    let what = format!("{key}: {expect:?} was expected of the write at {revision}; {stood} stood there");
    let at = operation.returned.map(|(_, returned)| returned.at);
    let written = case.stream.at(epoch, revision).map(|entry| entry.line);
    verdict.violated(what, at, operation.lines().into_iter().chain(before.map(|before| before.line)).chain(written));
}

/// A conflict is true if at some moment of its call something else was there. Those that follow each other are
/// given such moments in that order, the earliest to each, which leaves the most to the next.
fn conflicts(case: &Case<'_>, epoch: u64, key: &str, refused: &[Refused], verdict: &mut Verdict) {
    // A server that has lost the lead without knowing it refuses by what it knows. It never accepts, so that is safe.
    if case.faults.has(crate::history::FaultKind::StaleReads) {
        return refused.iter().for_each(|_| verdict.skip());
    }
    let found = case.stream.keys_under(epoch, key).into_iter().find(|(found, _)| *found == key);
    let entries = found.map_or(Vec::new(), |(_, entries)| entries);
    // Those still under way, by their ends, and the most that one which had ended needed.
    let (mut open, mut over) = (BinaryHeap::new(), 0);
    for Refused { place, expect } in refused {
        let operation = &case.operations[*place];
        let (called, ended) = (operation.call.at, operation.ended());
        // How many writes had been made for sure, and how many may have been.
        let least = entries.partition_point(|entry| entry.latest < called);
        let most = entries.partition_point(|entry| entry.earliest <= ended);
        while open.peek().is_some_and(|Reverse((end, _)): &Reverse<(Micros, usize)>| end.saturating_add(case.slack) < called) {
            over = open.pop().map_or(over, |Reverse((_, count))| over.max(count));
        }
        let least = least.max(over);
        let other = |count: &usize| !meets(count.checked_sub(1).and_then(|last| entries.get(last)), *expect);
        match (least..=most).find(other) {
            Some(count) => open.push(Reverse((ended, count))),
            None => {
                let what = format!("{key}: a conflict was reported, and {expect:?} was so all the time");
                let stood = least.checked_sub(1).and_then(|last| entries.get(last)).map(|entry| entry.line);
                verdict.violated(what, Some(ended), operation.lines().into_iter().chain(stood));
            }
        }
    }
}

/// What is asked for after another's answer has the higher revision.
fn real_time(case: &Case<'_>, verdict: &mut Verdict) {
    let mut done: Vec<(Micros, Micros, u64, u64, usize)> = Vec::new();
    for (place, operation) in case.operations.iter().enumerate() {
        // An acquire waits long after its ticket was written, and an update may go out with an earlier one.
        let plain = matches!(operation.op(), Op::Put { .. } | Op::Delete { .. } | Op::FencedPut { .. } | Op::Proclaim { .. });
        if let Some((epoch, revision)) = landed(case, operation).filter(|_| plain) {
            let ended = operation.ok().map_or(Micros::MAX, |_| operation.ended());
            done.push((operation.call.at, ended, epoch, revision, place));
        }
    }
    let mut returned = done.clone();
    returned.sort_by_key(|(_, ended, ..)| *ended);
    let mut returned = returned.into_iter().peekable();
    let mut highest: Option<(u64, u64, usize)> = None;
    for (called, _, epoch, revision, place) in done {
        verdict.checked();
        while let Some((_, _, epoch, revision, place)) =
            returned.next_if(|(_, ended, ..)| ended.saturating_add(case.slack) < called)
        {
            highest = highest.filter(|kept| (kept.0, kept.1) >= (epoch, revision)).or(Some((epoch, revision, place)));
        }
        if let Some((_, before, other)) = highest.filter(|(of, before, _)| *of == epoch && *before > revision) {
            let what = format!("a write got revision {revision} after another had been told that it has {before}");
            verdict.violated(what, Some(called), case.lines([other, place]));
        }
    }
}

/// Where the instants of commits are known they lie within the calls.
fn within_their_calls(case: &Case<'_>, verdict: &mut Verdict) {
    for operation in case
        .operations
        .iter()
        .filter(|operation| matches!(operation.op(), Op::Put { .. } | Op::FencedPut { .. } | Op::Delete { .. }))
    {
        let Some((epoch, revision)) = landed(case, operation) else { continue };
        let Some(entry) = case.stream.at(epoch, revision).filter(|entry| entry.write.at.is_some()) else { continue };
        let early = entry.latest.saturating_add(case.slack) < operation.call.at;
        let late = operation.ok().is_some() && entry.earliest > operation.ended().saturating_add(case.slack);
        if early || late {
            let what = format!("the write at {revision} was committed outside its call");
            verdict.violated(what, Some(entry.earliest), operation.lines().into_iter().chain([entry.line]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::WriteState,
        tape::{Tape, put},
    };

    const PROMISE: Promise = Promise::Chain;

    fn done(tape: &mut Tape, at: u64, op: Op, nonce: &str) -> u64 {
        let call = tape.call(at, 1, op);
        let revision = tape.data(at, nonce);
        tape.ok(at, call, revision);
        revision
    }

    #[test]
    fn each_follows_what_it_expected() {
        let mut tape = Tape::new();
        let first = done(&mut tape, 10, put("n1", Expect::Absent), "n1");
        let mut twice = tape.clone();
        done(&mut twice, 20, put("n2", Expect::Absent), "n2");
        twice.breaks(PROMISE, "Absent was expected");
        done(&mut tape, 20, put("n2", Expect::At(first)), "n2");
        // A tombstone is no value.
        tape.write(25, "data.k", WriteState::Deleted, "", "");
        done(&mut tape, 30, put("n3", Expect::Absent), "n3");
        tape.keeps(PROMISE);
        done(&mut tape, 40, put("n4", Expect::At(first)), "n4");
        tape.breaks(PROMISE, "At(3) was expected");
    }

    #[test]
    fn a_conflict_has_a_moment_at_which_it_is_true() {
        let mut tape = Tape::new();
        let first = done(&mut tape, 10, put("n1", Expect::Any), "n1");
        let call = tape.call(20, 2, put("n2", Expect::At(first)));
        let mut alone = tape.clone();
        alone.failed(25, call, Failure::Conflict);
        alone.breaks(PROMISE, "a conflict was reported");
        done(&mut tape, 22, put("n3", Expect::Any), "n3");
        tape.failed(25, call, Failure::Conflict);
        tape.keeps(PROMISE);
    }

    #[test]
    fn a_write_is_committed_within_its_call() {
        let mut tape = Tape::new();
        let call = tape.call(10, 1, put("n", Expect::Any));
        let revision = tape.data(15, "n");
        tape.ok(14, call, revision);
        tape.breaks(PROMISE, "outside its call");
    }
}
