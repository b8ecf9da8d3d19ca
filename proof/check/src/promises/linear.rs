//! A second opinion on small histories: each key of `data.` as a compare-and-set register, its conditional writes
//! searched for a linear order by `stateright`, which knows nothing of revisions' own order but that they grow.

use std::collections::{BTreeMap, HashSet};

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::chain::{conditional, landed, was_refused};
use crate::{
    case::Case,
    history::{Expect, Micros, Op},
    verdict::{Promise, Verdict},
};

/// The search takes time that grows without bound, so longer histories of a key are left to the chain.
const MAX_OPERATIONS: usize = 40;

/// What stands under the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Register {
    revision: u64,
    live: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Write {
    expect: Expect,
    /// What it leaves: a value, or none.
    live: bool,
    /// Where it was applied.
    revision: u64,
}

impl SequentialSpec for Register {
    type Op = Write;
    /// Whether it was applied.
    type Ret = bool;

    fn invoke(&mut self, write: &Write) -> bool {
        let met = match write.expect {
            Expect::Any => true,
            Expect::Absent => !self.live,
            Expect::At(revision) => self.revision == revision,
        };
        let applied = met && (write.revision > self.revision);
        if applied {
            (self.revision, self.live) = (write.revision, write.live);
        }
        applied
    }

    fn is_valid_step(&mut self, write: &Write, applied: &bool) -> bool {
        // A refused one has no revision of its own, and is judged by its expectation alone.
        let write = if *applied { write.clone() } else { Write { revision: u64::MAX, ..write.clone() } };
        let before = self.clone();
        let same = self.invoke(&write) == *applied;
        if !*applied {
            *self = before;
        }
        same
    }
}

struct Event {
    called: Micros,
    ended: Micros,
    operation: usize,
    write: Write,
    applied: bool,
}

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Linear);
    let lagging = case.faults.has(crate::history::FaultKind::StaleReads);
    // Nobody need have written to the next epoch yet.
    let anew = !case.began.is_empty() || case.stream.epochs().count() > 1;
    if lagging || anew || case.stream.missing() > 0 {
        verdict.skip();
        return verdict;
    }
    let mut keys: BTreeMap<&str, Vec<Event>> = BTreeMap::new();
    for (place, operation) in case.operations.iter().enumerate() {
        let Some((key, expect)) = conditional(operation.op()) else { continue };
        let live = !matches!(operation.op(), Op::Delete { .. });
        let (called, ended) = (operation.call.at, operation.ended().saturating_add(case.slack));
        let event =
            |applied, revision| Event { called, ended, operation: place, write: Write { expect, live, revision }, applied };
        if let Some((_, revision)) = landed(case, operation) {
            // One without an answer took effect some time.
            let mut event = event(true, revision);
            event.ended = if operation.ok().is_some() { ended } else { Micros::MAX };
            keys.entry(key).or_default().push(event);
        } else if was_refused(case, operation) {
            keys.entry(key).or_default().push(event(false, 0));
        }
    }
    let unanswered = unanswered_deletes(case);
    for (key, events) in keys {
        if events.len() > MAX_OPERATIONS || unanswered.contains(key) {
            verdict.skip();
            continue;
        }
        verdict.checked();
        if !is_linear(&events) {
            let what = format!("data.{key}: the outcomes of its writes have no linear order");
            verdict.violated(
                what,
                events.first().map(|event| event.called),
                case.lines(events.iter().map(|event| event.operation)),
            );
        }
    }
    verdict
}

/// The keys with a delete that was not answered: it has no nonce, so the stream does not tell whether it was done.
fn unanswered_deletes<'a>(case: &Case<'a>) -> HashSet<&'a str> {
    let open = case.operations.iter().filter(|operation| operation.ok().is_none() && operation.failed().is_none());
    let deletes = open.filter_map(|operation| match operation.op() {
        Op::Delete { key, .. } => Some(key.as_str()),
        _ => None,
    });
    deletes.collect()
}

fn is_linear(events: &[Event]) -> bool {
    let calls = events.iter().enumerate().map(|(thread, event)| (event.called, false, thread));
    let returns = events.iter().enumerate().map(|(thread, event)| (event.ended, true, thread));
    let mut order: Vec<_> = calls.chain(returns).collect();
    // At one instant calls come first: what touches is concurrent.
    order.sort_unstable();
    let mut tester = LinearizabilityTester::new(Register::default());
    let told = order.into_iter().all(|(_, returned, thread)| {
        let Some(event) = events.get(thread) else { return false };
        // Each is a thread of its own, for a client may have several under way.
        let told = if returned { tester.on_return(thread, event.applied) } else { tester.on_invoke(thread, event.write.clone()) };
        told.is_ok()
    });
    told && tester.is_consistent()
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::{
        check as all_checks,
        history::{Failure, FaultKind},
        tape::{Tape, put},
    };

    const PROMISE: Promise = Promise::Linear;

    /// A short history of one register with several clients at once; `lies` of its outcomes are changed.
    fn random(rng: &mut Rng, lies: usize) -> Tape {
        let mut tape = Tape::of("memory");
        // Instants: a call, its moment, its end.
        let mut all: Vec<_> = (0..rng.u64(2..9))
            .map(|_| {
                let called = rng.u64(10..60);
                let moment = called + rng.u64(0..12);
                (moment, called, moment + rng.u64(0..12))
            })
            .collect();
        all.sort_unstable();
        let lies: Vec<usize> = (0..lies).map(|_| rng.usize(0..all.len())).collect();
        let (mut standing, mut live) = (0, false);
        for (place, (_, called, ended)) in all.into_iter().enumerate() {
            let expect = match rng.u8(0..4) {
                0 => Expect::Any,
                1 => Expect::Absent,
                _ => Expect::At(standing.max(2)),
            };
            let nonce = format!("n{place}");
            let mut applied = match expect {
                Expect::Any => true,
                Expect::Absent => !live,
                Expect::At(revision) => revision == standing,
            };
            if lies.contains(&place) && expect != Expect::Any {
                applied = !applied;
            }
            let call = tape.call(called, 1, put(&nonce, expect));
            if applied {
                (standing, live) = (tape.data(0, &nonce), true);
                if rng.u8(0..6) > 0 {
                    tape.ok(ended, call, standing);
                }
            } else {
                tape.failed(ended, call, Failure::Conflict);
            }
        }
        tape
    }

    #[test]
    fn the_search_and_the_chain_agree() {
        let mut rng = Rng::with_seed(7);
        let mut found = [0, 0];
        for round in 0..600 {
            let tape = random(&mut rng, round % 3);
            let [linear, chain] = [PROMISE, Promise::Chain].map(|promise| tape.verdict(promise).violations.is_empty());
            assert_eq!(linear, chain, "{round}: {:#?}", all_checks(&tape.history));
            found[usize::from(linear)] += 1;
        }
        assert!(found.iter().all(|count| *count > 100), "both sorts are among them: {found:?}");
    }

    #[test]
    fn who_conflicts_with_a_bucket_that_is_empty_again_is_not_judged() {
        let mut tape = Tape::of("memory");
        let call = tape.call(10, 1, put("n1", Expect::Any));
        let first = tape.data(0, "n1");
        tape.ok(11, call, first);
        let mut anew = tape.clone();
        anew.fault(12, None, FaultKind::Recreate, 1);
        for tape in [&mut tape, &mut anew] {
            let call = tape.call(20, 1, put("n2", Expect::At(first)));
            tape.failed(21, call, Failure::Conflict);
        }
        tape.breaks(PROMISE, "no linear order");
        let verdict = anew.verdict(PROMISE);
        assert!(verdict.violations.is_empty() && verdict.skipped > 0, "{verdict:#?}");
    }

    #[test]
    fn conflicts_that_follow_each_other_need_moments_in_that_order() {
        let mut tape = Tape::of("memory");
        let call = tape.call(10, 1, put("n1", Expect::Any));
        let first = tape.data(0, "n1");
        tape.ok(11, call, first);
        // While `n2` may or may not have been done, one says that it was and a later one that it was not.
        let slow = tape.call(20, 1, put("n2", Expect::Any));
        let second = tape.data(0, "n2");
        tape.ok(50, slow, second);
        let call = tape.call(30, 2, put("n3", Expect::At(first)));
        tape.failed(31, call, Failure::Conflict);
        tape.keeps(PROMISE);
        tape.keeps(Promise::Chain);
        let call = tape.call(40, 2, put("n4", Expect::At(second)));
        tape.failed(41, call, Failure::Conflict);
        tape.breaks(PROMISE, "no linear order");
        tape.breaks(Promise::Chain, "a conflict was reported");
    }
}
