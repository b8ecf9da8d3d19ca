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
