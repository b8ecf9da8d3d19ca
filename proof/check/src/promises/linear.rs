//! A second opinion on small histories: each key of `data.` as a compare-and-set register, its conditional writes
//! searched for a linear order by `stateright`, which knows nothing of revisions' own order but that they grow.

use std::collections::BTreeMap;

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
    if case.stream.epochs().count() > 1 || case.stream.missing() > 0 {
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
    for (key, events) in keys {
        if events.len() > MAX_OPERATIONS || unanswered_delete(case, key) {
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

/// A delete has no nonce, so one without an answer cannot be found in the stream.
fn unanswered_delete(case: &Case<'_>, key: &str) -> bool {
    case.operations.iter().any(|operation| {
        let open = operation.ok().is_none() && operation.failed().is_none();
        open && matches!(operation.op(), Op::Delete { key: of, .. } if of == key)
    })
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
