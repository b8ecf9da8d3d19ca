//! What was seen of a run, and what is wrong with it: pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::client::Outcome;
use crate::stage::Verdict;

/// Counts of one server.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Count {
    pub(super) answered: u64,
    pub(super) failed: u64,
}

/// All that was seen.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tally {
    pub(super) answered: u64,
    pub(super) retried: u64,
    pub(super) lost: Vec<String>,
    pub(super) servers: BTreeMap<String, Count>,
    pub(super) joined: BTreeSet<String>,
    pub(super) drained: BTreeSet<String>,
    pub(super) crashed: BTreeSet<String>,
    /// Who was seen to be removed from the group.
    pub(super) removed: BTreeSet<String>,
    /// Why tries failed that should not have.
    #[serde(skip)]
    failures: Vec<(String, String)>,
}

impl Tally {
    /// Takes the outcome of a request, or of one try, in.
    pub(super) fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered { by, tries } => {
                self.answered += 1;
                self.retried += u64::from(tries > 1);
                self.servers.entry(by).or_default().answered += 1;
            }
            Outcome::Failed { at, why } => {
                self.servers.entry(at.clone()).or_default().failed += 1;
                self.failures.push((at, why));
            }
            Outcome::Lost { why } => self.lost.push(why),
        }
    }

    /// What should hold, and what does not.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let failures = |of: &BTreeSet<String>| -> Vec<String> {
            let some = self.failures.iter().filter(|(at, _)| of.contains(at));
            some.map(|(at, why)| format!("a request to {at} failed: {why}")).collect()
        };
        let well: BTreeSet<_> =
            self.joined.iter().filter(|name| !self.crashed.contains(*name) && !self.drained.contains(*name)).cloned().collect();
        let unused = self.joined.iter().filter(|name| self.servers.get(*name).is_none_or(|count| count.answered == 0));
        let stuck = self.crashed.difference(&self.removed);
        vec![
            Verdict { promise: "every request was answered", broken: self.lost.clone() },
            Verdict { promise: "no request failed at a server that drained", broken: failures(&self.drained) },
            Verdict { promise: "no request failed at a server that was well", broken: failures(&well) },
            Verdict {
                promise: "every server that came was used",
                broken: unused.map(|name| format!("{name} answered nothing")).collect(),
            },
            Verdict {
                promise: "who crashed was removed from the group",
                broken: stuck.map(|name| format!("{name} is still there")).collect(),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(tally: &Tally) -> Vec<&'static str> {
        tally.verdicts().into_iter().filter(|verdict| !verdict.broken.is_empty()).map(|verdict| verdict.promise).collect()
    }

    fn good() -> Tally {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut tally = Tally {
            joined: set(&["a", "b", "c"]),
            drained: set(&["b"]),
            crashed: set(&["c"]),
            removed: set(&["b", "c"]),
            ..Tally::default()
        };
        for by in ["a", "b", "c"] {
            tally.note(Outcome::Answered { by: by.into(), tries: 1 });
        }
        tally.note(Outcome::Failed { at: "c".into(), why: "gone".into() });
        tally.note(Outcome::Answered { by: "a".into(), tries: 2 });
        tally
    }

    #[test]
    fn a_request_that_fails_at_a_crashed_server_and_is_answered_elsewhere_is_no_loss() {
        let tally = good();
        assert_eq!(broken(&tally), Vec::<&str>::new());
        assert_eq!((tally.answered, tally.retried), (4, 1));
    }

    #[test]
    fn each_rule_that_is_broken_is_told() {
        for (outcome, rule) in [
            (Outcome::Lost { why: "nobody".into() }, "every request was answered"),
            (Outcome::Failed { at: "b".into(), why: "gone".into() }, "no request failed at a server that drained"),
            (Outcome::Failed { at: "a".into(), why: "gone".into() }, "no request failed at a server that was well"),
        ] {
            let mut tally = good();
            tally.note(outcome);
            assert_eq!(broken(&tally), [rule]);
        }
        let mut tally = good();
        tally.joined.insert("d".into());
        tally.removed.clear();
        assert_eq!(broken(&tally), ["every server that came was used", "who crashed was removed from the group"]);
    }
}
