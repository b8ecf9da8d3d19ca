//! Not a promise: a recording that contradicts itself is no evidence.

use std::collections::{HashMap, HashSet};

use crate::{
    case::Case,
    history::{Line, Op},
    stream::Entry,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Recording);
    verdict.checked = case.history.lines.len() as u64;
    calls(case, &mut verdict);
    stream(case, &mut verdict);
    nonces(case, &mut verdict);
    verdict
}

fn calls(case: &Case<'_>, verdict: &mut Verdict) {
    let (mut calls, mut returns) = (HashMap::new(), HashMap::new());
    for (line, what) in case.history.lines.iter().enumerate() {
        match what {
            Line::Call(call) => {
                if let Some((before, _)) = calls.insert(call.id, (line, call.at)) {
                    verdict.violated(format!("there are two calls {}", call.id), Some(call.at), [before, line]);
                }
            }
            Line::Return(returned) => {
                if let Some((before, _)) = returns.insert(returned.id, (line, returned.at)) {
                    verdict.violated(format!("call {} has two returns", returned.id), Some(returned.at), [before, line]);
                }
            }
            Line::Seen(seen) if seen.from > seen.at => {
                verdict.violated("something was seen before it was looked for", Some(seen.at), [line]);
            }
            _ => {}
        }
    }
    for (id, (line, at)) in &returns {
        match calls.get(id) {
            None => verdict.violated(format!("there is a return but no call {id}"), Some(*at), [*line]),
            Some((call, called)) if called > at => {
                verdict.violated(format!("call {id} returned before it began"), Some(*at), [*call, *line]);
            }
            Some(_) => {}
        }
    }
    for operation in &case.operations {
        let told = operation.ok().is_none_or(|done| match operation.op() {
            Op::Acquire { .. } | Op::Campaign { .. } => done.revision.is_some(),
            Op::Open { .. } => done.session.is_some(),
            _ => true,
        });
        if !told {
            verdict.violated("an ok does not say what it gave", Some(operation.ended()), operation.lines());
        }
    }
}

fn stream(case: &Case<'_>, verdict: &mut Verdict) {
    let mut written = HashMap::new();
    for (line, what) in case.history.lines.iter().enumerate() {
        let Line::Write(write) = what else { continue };
        if let Some((before, other)) = written.insert((write.epoch, write.revision), (line, write))
            && other != write
        {
            verdict.violated(format!("there are two writes at revision {}", write.revision), write.at, [before, line]);
        }
    }
    for epoch in case.stream.epochs() {
        let with_instant = |entry: &&Entry<'_>| entry.write.at.is_some();
        let entries: Vec<_> = case.stream.writes(epoch).iter().filter(with_instant).collect();
        for pair in entries.windows(2).filter(|pair| pair[0].write.at > pair[1].write.at) {
            let (first, second) = (pair[0].revision(), pair[1].revision());
            let what = format!("{second} was committed before {first}");
            verdict.violated(what, pair[1].write.at, [pair[0].line, pair[1].line]);
        }
    }
}

fn nonces(case: &Case<'_>, verdict: &mut Verdict) {
    let mut nonces = HashSet::new();
    for operation in &case.operations {
        if let Some(nonce) = crate::case::nonce(operation.op()).filter(|nonce| !nonces.insert(*nonce)) {
            verdict.violated(format!("two operations write {nonce}"), Some(operation.call.at), operation.lines());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Expect,
        tape::{Tape, put},
    };

    const PROMISE: Promise = Promise::Recording;

    #[test]
    fn one_write_may_be_recorded_twice_but_not_two_at_one_revision() {
        let mut tape = Tape::new();
        tape.data(10, "n");
        let mut twice = tape.clone();
        twice.history.lines.extend(tape.history.lines.last().cloned());
        twice.keeps(PROMISE);
        tape.revision -= 1;
        tape.data(10, "m");
        tape.breaks(PROMISE, "two writes at revision 3");
    }

    #[test]
    fn clients_may_have_been_recorded_apart() {
        let mut tape = Tape::new();
        let call = tape.call(10, 1, put("n", Expect::Any));
        let revision = tape.data(10, "n");
        tape.ok(11, call, revision);
        tape.history.lines.reverse();
        tape.keeps(PROMISE);
        tape.keeps(Promise::Unknown);
    }

    #[test]
    fn an_answer_belongs_to_a_call() {
        let mut tape = Tape::new();
        tape.ok(10, 77, 1);
        tape.breaks(PROMISE, "no call 77");
    }
}
