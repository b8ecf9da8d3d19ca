//! Promise 2: a fenced write with token t is refused from the moment a later holder exists. This needs no clock.

use crate::{
    case::{Case, Operation, Prize, prize},
    history::{Hold, Op},
    stream::Entry,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Fenced);
    for (operation, under, nonce) in fenced(case) {
        verdict.checked();
        // Wherever it is in the stream, whatever its caller was told: a write that landed late counts too.
        for (epoch, entry) in case.stream.nonce(nonce) {
            held_at(case, operation, under, epoch, &entry, &mut verdict);
        }
    }
    verdict
}

fn fenced<'c, 'a>(case: &'c Case<'a>) -> impl Iterator<Item = (&'c Operation<'a>, &'a Hold, &'a str)> {
    case.operations.iter().filter_map(|operation| match operation.op() {
        Op::FencedPut { under, nonce, .. } => Some((operation, under, nonce.as_str())),
        _ => None,
    })
}

fn held_at(case: &Case<'_>, operation: &Operation<'_>, under: &Hold, epoch: u64, entry: &Entry<'_>, verdict: &mut Verdict) {
    let (prize, token) = prize(under);
    let revision = entry.revision();
    let mut lines = operation.lines();
    lines.push(entry.line);
    let Some(tenure) = case.tenure(prize, epoch, token) else {
        // The ticket may be one of those that the recorder missed.
        if case.stream.gap(epoch, token.saturating_sub(1), token + 1) {
            return verdict.skip();
        }
        return verdict.violated(format!("{prize}: a write at {revision} under {token}, which never was"), entry.write.at, lines);
    };
    if tenure.end.is_below(revision) {
        let end = tenure.end.entry().map_or(0, |end| end.revision());
        lines.extend([Some(tenure.born.line), tenure.end.line()].into_iter().flatten());
        return verdict.violated(
            format!("{prize}: a write at {revision} was accepted under {token}, which had ended at {end}"),
            entry.write.at,
            lines,
        );
    }
    if token > revision {
        return verdict.violated(format!("{prize}: a write at {revision} under the later {token}"), entry.write.at, lines);
    }
    if let Some(later) = granted_before(case, prize, epoch, token, entry) {
        lines.extend(case.lines([later]));
        let what = format!("{prize}: a write at {revision} was accepted under {token} after a later holder had been granted");
        verdict.violated(what, entry.write.at, lines);
    }
}

/// A grant of more than `token` that was returned before this write was committed.
fn granted_before(case: &Case<'_>, prize: Prize<'_>, epoch: u64, token: u64, entry: &Entry<'_>) -> Option<usize> {
    let grants = case.grants.get(&prize)?;
    let first = grants.partition_point(|grant| (grant.epoch, grant.token) <= (epoch, token));
    // The next grant alone is asked: were a later one before it, that would be seen as holders out of order.
    let next = grants.get(first).filter(|grant| grant.epoch == epoch)?;
    (next.returned.saturating_add(case.slack) < entry.earliest).then_some(next.operation)
}

/// How many fenced writes were refused whose hold had ended, or had a later one beside it.
pub(crate) fn refused(case: &Case<'_>) -> u64 {
    let stale = |(operation, under): (&Operation<'_>, &Hold)| {
        let (prize, token) = prize(under);
        let tenure = case.tenure(prize, case.epoch_of(operation), token);
        operation.failed().is_some() && tenure.is_none_or(|tenure| tenure.end.earliest() <= operation.ended())
    };
    fenced(case).filter(|(operation, under, _)| stale((operation, under))).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Counts,
        history::{Failure, WriteState},
        tape::{Tape, fenced, lock},
    };

    const PROMISE: Promise = Promise::Fenced;

    #[test]
    fn a_write_is_taken_as_long_as_its_ticket_lives() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        let call = tape.call(20, 1, fenced("a", lock(token), "n1"));
        let revision = tape.data(20, "n1");
        tape.ok(20, call, revision);
        tape.released(30, 1, "a", token);
        tape.keeps(PROMISE);
        let late = tape.call(40, 1, fenced("a", lock(token), "n2"));
        let mut taken = tape.clone();
        taken.data(40, "n2");
        // Whether its caller was told so or not.
        taken.breaks(PROMISE, "which had ended");
        tape.failed(40, late, Failure::Conflict);
        tape.keeps(PROMISE);
        assert_eq!(Counts::of(&tape.history).refused, 1);
    }

    #[test]
    fn a_later_holder_is_enough_to_refuse() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        tape.granted(20, 2, "b");
        tape.call(30, 1, fenced("a", lock(token), "n"));
        tape.data(30, "n");
        tape.breaks(PROMISE, "after a later holder");
    }

    #[test]
    fn the_fence_of_a_leader_follows_its_proclamations() {
        let mut tape = Tape::new();
        let term = tape.leader(10, "a", None, "");
        tape.leader(15, "a", Some(term), "p");
        tape.call(20, 1, fenced("a", Hold::Election { election: "e".into(), term }, "n1"));
        tape.data(20, "n1");
        tape.keeps(PROMISE);
        tape.write(25, "election.e", WriteState::Deleted, "", "");
        tape.call(30, 1, fenced("a", Hold::Election { election: "e".into(), term }, "n2"));
        tape.data(30, "n2");
        tape.breaks(PROMISE, "which had ended");
    }
}
