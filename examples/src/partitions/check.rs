//! What is wrong with a run, as the shared file tells: pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stage::{Nanos, Verdict};

/// One piece of work on one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) partition: u32,
    pub(super) token: u64,
    pub(super) pid: u32,
    pub(super) begin: Nanos,
    pub(super) end: Nanos,
}

/// Judges the text of the file, in which each of so many partitions should have been worked on.
pub(super) fn check(file: &str, partitions: u32) -> Vec<Verdict> {
    let mut damaged = Vec::new();
    let mut owners = BTreeMap::<u32, BTreeMap<u64, (u32, Nanos, Nanos)>>::new();
    let mut both = Vec::new();
    let mut tokens = Vec::new();
    for (number, text) in (1..).zip(file.lines()) {
        let line: Line = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(error) => {
                damaged.push(format!("line {number} is damaged: {error}"));
                continue;
            }
        };
        let of = owners.entry(line.partition).or_default();
        if let Some((last, _)) = of.last_key_value().filter(|(last, _)| **last > line.token) {
            tokens.push(format!("line {number}: partition {} has token {} after {last}", line.partition, line.token));
        }
        let (pid, begin, end) = of.entry(line.token).or_insert((line.pid, line.begin, line.end));
        if *pid != line.pid {
            tokens.push(format!("line {number}: token {} was given to two processes, {pid} and {}", line.token, line.pid));
        }
        (*begin, *end) = ((*begin).min(line.begin), (*end).max(line.end));
    }
    for (partition, of) in &owners {
        let of: Vec<_> = of.iter().collect();
        for pair in of.windows(2) {
            let [(before, (_, _, until)), (after, (_, from, _))] = pair else { continue };
            if from < until {
                let overlap = std::time::Duration::from_nanos(until - from);
                both.push(format!(
                    "partition {partition}: tokens {before} and {after} worked at the same time, for {overlap:.1?}"
                ));
            }
        }
    }
    let idle = (0..partitions).filter(|partition| !owners.contains_key(partition));
    vec![
        Verdict { promise: "no partition had two owners at once", broken: both },
        Verdict { promise: "fencing tokens grow from owner to owner", broken: tokens },
        Verdict {
            promise: "every partition was worked on",
            broken: idle.map(|partition| format!("partition {partition} never was")).collect(),
        },
        Verdict { promise: "the shared file is whole", broken: damaged },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(lines: &[(u32, u64, u32, Nanos, Nanos)]) -> Vec<&'static str> {
        let text = lines.iter().map(|(partition, token, pid, begin, end)| {
            let line = Line { partition: *partition, token: *token, pid: *pid, begin: *begin, end: *end };
            serde_json::to_string(&line).unwrap() + "\n"
        });
        let verdicts = check(&text.collect::<String>(), 2);
        verdicts.into_iter().filter(|verdict| !verdict.broken.is_empty()).map(|verdict| verdict.promise).collect()
    }

    #[test]
    fn a_good_run_passes() {
        assert!(broken(&[(0, 3, 1, 0, 9), (1, 4, 1, 0, 9), (0, 3, 1, 10, 19), (0, 7, 2, 19, 30), (1, 4, 1, 10, 40)]).is_empty());
    }

    #[test]
    fn each_rule_that_is_broken_is_told() {
        assert_eq!(broken(&[(0, 3, 1, 0, 9), (1, 4, 1, 0, 9), (0, 7, 2, 8, 12)]), ["no partition had two owners at once"]);
        assert_eq!(broken(&[(0, 7, 1, 10, 19), (1, 4, 1, 0, 9), (0, 3, 2, 0, 9)]), ["fencing tokens grow from owner to owner"]);
        assert_eq!(broken(&[(0, 7, 1, 0, 9), (1, 4, 1, 0, 9), (0, 7, 2, 10, 19)]), ["fencing tokens grow from owner to owner"]);
        assert_eq!(broken(&[(0, 3, 1, 0, 9)]), ["every partition was worked on"]);
        assert_eq!(check("{\"parti", 0).iter().filter(|verdict| !verdict.broken.is_empty()).count(), 1);
    }
}
