//! Promise 6: no unknown outcome is reported as success or as failure. Ok means that the stream has the write at
//! that revision, failed that it has it nowhere, and whatever was written is there once.

use std::collections::HashMap;

use crate::{
    case::{Case, Operation, key, nonce, writes},
    history::{Failure, Micros, Op, Outcome},
    stream::Entry,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Unknown);
    let updates = updates(case);
    for operation in &case.operations {
        if !writes(operation.op()) {
            continue;
        }
        match operation.returned.map(|(_, returned)| &returned.outcome) {
            Some(Outcome::Ok(_)) => was_done(case, operation, &updates, &mut verdict),
            // That a membership is over says nothing of what it asked for last.
            Some(Outcome::Failed { kind: Failure::Lost, .. }) if of_member(operation.op()) => {}
            Some(Outcome::Failed { kind, .. }) => was_not_done(case, operation, &format!("{kind:?}"), &mut verdict),
            Some(Outcome::Unknown { .. }) | None => {}
        }
        if let Some(nonce) = nonce(operation.op()) {
            once(case, operation, nonce, &mut verdict);
        }
    }
    verdict
}

const fn of_member(op: &Op) -> bool {
    matches!(op, Op::Join { .. } | Op::Update { .. } | Op::Leave { .. })
}

/// Updates of one member, by its group and id.
type Updates<'c> = HashMap<(&'c str, &'c str), Vec<(Micros, Micros, &'c str)>>;

fn updates<'c>(case: &'c Case<'_>) -> Updates<'c> {
    let mut updates: Updates<'c> = HashMap::new();
    for operation in &case.operations {
        if let Op::Update { group, member, nonce, .. } | Op::Join { group, member, nonce, .. } = operation.op() {
            updates.entry((group, member)).or_default().push((operation.call.at, operation.ended(), nonce));
        }
    }
    updates
}

fn was_done(case: &Case<'_>, operation: &Operation<'_>, updates: &Updates<'_>, verdict: &mut Verdict) {
    let Some(key) = key(operation.op()) else { return };
    verdict.checked();
    let nonce = nonce(operation.op());
    let told = operation.ok().and_then(|done| done.revision);
    let Some(revision) = told else {
        if let Some(nonce) = nonce.filter(|nonce| case.stream.nonce(nonce).is_empty()) {
            verdict.violated(
                format!("{key}: {nonce} was reported as written, and is nowhere"),
                ended(operation),
                operation.lines(),
            );
        }
        return;
    };
    let epoch = case.epoch_of(operation);
    let Some(entry) = case.stream.at(epoch, revision) else {
        if case.stream.gap(epoch, revision - 1, revision + 1) {
            return verdict.skip();
        }
        let what = format!("{key}: revision {revision} was reported as written, and the stream does not have it");
        return verdict.violated(what, ended(operation), operation.lines());
    };
    let written = entry.write.value.nonce.as_deref();
    let same = match nonce {
        Some(nonce) => entry.is_live() && (written == Some(nonce) || merged(operation, written, updates)),
        None => !entry.is_live(),
    };
    if entry.write.key != key || !same {
        let found = written.unwrap_or("something else");
        let what = format!("{key}: {} was reported at {revision}, where the stream has {found}", nonce.unwrap_or("its end"));
        verdict.violated(what, ended(operation), operation.lines().into_iter().chain([entry.line]));
    }
}

/// Updates of one record that are asked for at the same time may go out as one write.
fn merged(operation: &Operation<'_>, written: Option<&str>, updates: &Updates<'_>) -> bool {
    let Op::Update { group, member, .. } = operation.op() else { return false };
    let others = updates.get(&(group.as_str(), member.as_str()));
    others.is_some_and(|others| {
        others
            .iter()
            .any(|(called, ended, nonce)| Some(*nonce) == written && *called <= operation.ended() && *ended >= operation.call.at)
    })
}

fn was_not_done(case: &Case<'_>, operation: &Operation<'_>, kind: &str, verdict: &mut Verdict) {
    let Some(nonce) = nonce(operation.op()) else { return };
    verdict.checked();
    if let Some((_, entry)) = case.stream.nonce(nonce).first() {
        let revision = entry.revision();
        let what = format!("{}: {nonce} was reported as not written ({kind}), and is at {revision}", entry.write.key);
        verdict.violated(what, ended(operation), operation.lines().into_iter().chain([entry.line]));
    }
}

fn once(case: &Case<'_>, operation: &Operation<'_>, nonce: &str, verdict: &mut Verdict) {
    let written = case.stream.nonce(nonce);
    for pair in written.windows(2) {
        if let [(epoch, first), (other, second)] = pair
            && epoch == other
            && !kept(first, second)
        {
            let what =
                format!("{}: {nonce} was written at {} and again at {}", first.write.key, first.revision(), second.revision());
            verdict.violated(what, second.write.at, operation.lines().into_iter().chain([first.line, second.line]));
        }
    }
}

/// A member's record is written anew when its health changes, and a leader's when a transfer comes to nothing, with
/// the rest of it as it was.
fn kept(first: &Entry<'_>, second: &Entry<'_>) -> bool {
    let (before, after) = (&first.write.value, &second.write.value);
    let term = |entry: &Entry<'_>| entry.write.value.term.unwrap_or(entry.revision());
    let same = match first.write.key.split_once('.') {
        Some(("member", _)) => before == after,
        Some(("election", _)) => before.candidate == after.candidate && term(first) == term(second),
        _ => false,
    };
    same && first.write.key == second.write.key && before.session == after.session
}

fn ended(operation: &Operation<'_>) -> Option<Micros> {
    operation.returned.map(|(_, returned)| returned.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Expect, Failure, Line, Return},
        tape::{Tape, put},
    };

    const PROMISE: Promise = Promise::Unknown;

    #[test]
    fn an_unknown_outcome_may_be_either() {
        for landed in [true, false] {
            let mut tape = Tape::new();
            let call = tape.call(10, 1, put("n", Expect::Any));
            if landed {
                tape.data(10, "n");
            }
            tape.failed(11, call, Failure::Timeout);
            let told = tape.verdict(PROMISE);
            assert_eq!(told.violations.len(), usize::from(landed), "certainly not done, and {landed}");
            let last = tape.history.lines.len() - 1;
            tape.history.lines[last] =
                Line::Return(Return { at: 11_000, id: call, outcome: Outcome::Unknown { why: String::new() } });
            assert!(tape.verdict(PROMISE).violations.is_empty());
        }
    }

    #[test]
    fn ok_is_at_that_revision_under_that_key() {
        let mut tape = Tape::new();
        let call = tape.call(10, 1, put("n", Expect::Any));
        let revision = tape.data(10, "n");
        let told = |revision| {
            let mut tape = tape.clone();
            tape.ok(11, call, revision);
            tape
        };
        told(revision).keeps(PROMISE);
        told(revision - 1).breaks(PROMISE, "where the stream has");
        told(revision + 1).breaks(PROMISE, "the stream does not have it");
    }

    #[test]
    fn a_revision_that_the_recorder_missed_proves_nothing() {
        let mut tape = Tape::of("nats-r1");
        let call = tape.call(10, 1, put("n", Expect::Any));
        tape.revision += 1;
        let missed = tape.revision;
        tape.ok(11, call, missed);
        tape.data(20, "other");
        assert_eq!((tape.verdict(PROMISE).violations.len(), tape.verdict(PROMISE).skipped), (0, 1));
    }

    #[test]
    fn a_leader_may_write_what_it_has_said_again_and_nobody_else_may() {
        let mut tape = Tape::new();
        let term = tape.leader(10, "a", None, "");
        let proclaim = Op::Proclaim { session: "a".into(), election: "e".into(), term, nonce: "p".into() };
        let call = tape.call(20, 1, proclaim);
        let revision = tape.leader(20, "a", Some(term), "p");
        tape.ok(20, call, revision);
        tape.leader(30, "a", Some(term), "p");
        tape.keeps(PROMISE);
        tape.leader(40, "b", None, "p");
        tape.breaks(PROMISE, "and again at");
    }

    #[test]
    fn updates_of_one_member_may_go_out_as_one_write() {
        let mut tape = Tape::new();
        tape.joined(10, 1, "a", "j");
        let update =
            |nonce: &str| Op::Update { session: "a".into(), group: "g".into(), member: "m-a".into(), nonce: nonce.into() };
        let (first, second) = (tape.call(20, 1, update("u1")), tape.call(20, 1, update("u2")));
        let revision = tape.member(21, "a", "u2");
        tape.ok(22, first, revision);
        tape.ok(22, second, revision);
        tape.keeps(PROMISE);
        // When the membership is lost, the last of them may have been written or not.
        let last = tape.call(25, 1, update("u9"));
        tape.member(25, "a", "u9");
        tape.failed(26, last, Failure::Lost);
        tape.keeps(PROMISE);
        // One that was over before is not among them.
        let third = tape.call(30, 1, update("u3"));
        tape.ok(31, third, revision);
        tape.breaks(PROMISE, "u3 was reported");
    }
}
