//! What is wrong with a run, as the shared file tells: pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stage::Verdict;

/// One run of the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) round: u64,
    pub(super) term: u64,
    pub(super) pid: u32,
}

/// Judges the text of the file, in which so many leaders should have run the job.
pub(super) fn check(file: &str, leaders: usize) -> Vec<Verdict> {
    let (mut damaged, mut backwards) = (Vec::new(), Vec::new());
    let mut rounds = BTreeMap::<u64, Vec<u32>>::new();
    let mut terms = BTreeMap::<u64, u32>::new();
    for (number, text) in (1..).zip(file.lines()) {
        let Line { round, term, pid } = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(error) => {
                damaged.push(format!("line {number} is damaged: {error}"));
                continue;
            }
        };
        rounds.entry(round).or_default().push(pid);
        if let Some((last, _)) = terms.last_key_value().filter(|(last, _)| **last > term) {
            backwards.push(format!("line {number}: term {term} worked after term {last}"));
        }
        let leader = *terms.entry(term).or_insert(pid);
        if leader != pid {
            backwards.push(format!("line {number}: process {pid} worked in the term {term} of {leader}"));
        }
    }
    let first = rounds.first_key_value().map_or(0, |(round, _)| *round);
    let twice = rounds.iter().filter(|(_, pids)| pids.len() > 1);
    let twice = twice.map(|(round, pids)| format!("round {} ran {} times, in {pids:?}", round - first, pids.len())).collect();
    let last = rounds.last_key_value().map_or(0, |(round, _)| *round);
    let missing = (first..=last).filter(|round| !rounds.contains_key(round));
    let few = (terms.len() < leaders).then(|| format!("{} leaders worked, not {leaders}", terms.len()));
    vec![
        Verdict { promise: "no round ran twice", broken: twice },
        Verdict {
            promise: "no round was left out",
            broken: missing.map(|round| format!("round {} did not run", round - first)).collect(),
        },
        Verdict { promise: "only leaders worked, one after the other", broken: backwards },
        Verdict { promise: "whoever was elected worked", broken: few.into_iter().collect() },
        Verdict { promise: "the shared file is whole", broken: damaged },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(lines: &[(u64, u64, u32)]) -> Vec<&'static str> {
        let text = lines
            .iter()
            .map(|(round, term, pid)| serde_json::to_string(&Line { round: *round, term: *term, pid: *pid }).unwrap() + "\n");
        let verdicts = check(&text.collect::<String>(), 2);
        verdicts.into_iter().filter(|verdict| !verdict.broken.is_empty()).map(|verdict| verdict.promise).collect()
    }

    #[test]
    fn a_good_run_passes() {
        assert!(broken(&[(7, 3, 1), (8, 3, 1), (9, 5, 2)]).is_empty());
    }

    #[test]
    fn each_rule_that_is_broken_is_told() {
        assert_eq!(broken(&[(7, 3, 1), (7, 5, 2), (8, 5, 2)]), ["no round ran twice"]);
        assert_eq!(broken(&[(7, 3, 1), (9, 5, 2)]), ["no round was left out"]);
        assert_eq!(broken(&[(7, 5, 1), (8, 3, 2)]), ["only leaders worked, one after the other"]);
        assert_eq!(broken(&[(7, 3, 1), (8, 3, 2), (9, 5, 1)]), ["only leaders worked, one after the other"]);
        assert_eq!(broken(&[(7, 3, 1)]), ["whoever was elected worked"]);
        assert!(check("{\"rou", 0).iter().any(|verdict| !verdict.broken.is_empty()));
    }
}
