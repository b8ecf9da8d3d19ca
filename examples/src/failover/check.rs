//! The verdict: a pure function from what was written and reported to what is wrong with it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use super::record::{Nanos, News, Record, Report};

/// What must hold of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    /// No two holders believed to hold, or worked, at the same time.
    Overlap,
    /// Tokens strictly increase from holder to holder.
    Tokens,
    /// Every acknowledged append stands in the file exactly once, and none was made on an outdated total.
    Lost,
    /// The store's copy is the newest that it acknowledged, and agrees with the file.
    Store,
}

impl Rule {
    /// Every rule, in the order in which they are told.
    pub(super) const ALL: [Self; 4] = [Self::Overlap, Self::Tokens, Self::Lost, Self::Store];

    /// What holds when nothing breaks the rule.
    pub(super) const fn promise(self) -> &'static str {
        match self {
            Self::Overlap => "no two holders overlapped",
            Self::Tokens => "tokens strictly increase",
            Self::Lost => "nothing was lost",
            Self::Store => "the store agrees with the file",
        }
    }
}

/// A rule that was broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    pub(super) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The copy of the total in the store, as it was read at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) token: u64,
    pub(super) total: u64,
}

/// When a holder first and last believed to hold.
#[derive(Clone, Copy, Debug)]
struct Belief {
    pid: u32,
    from: Nanos,
    until: Nanos,
}

/// Everything that is wrong with a run: the text of the shared file, what the workers reported, and the
/// store's copy.
pub(super) fn check(file: &str, reports: &[Report], copy: Option<Copy>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut records = Vec::new();
    for (number, line) in (1..).zip(file.lines()) {
        match serde_json::from_str::<Record>(line) {
            Ok(record) => records.push(record),
            Err(error) => violations
                .push(Violation { rule: Rule::Lost, what: format!("line {number} of the shared file is damaged: {error}") }),
        }
    }
    check_file(&records, &mut violations);
    check_beliefs(reports, &mut violations);
    check_acknowledged(&records, reports, &mut violations);
    check_copy(&records, reports, copy, &mut violations);
    violations
}

/// Tokens, totals and working times, line by line.
fn check_file(records: &[Record], violations: &mut Vec<Violation>) {
    let mut broken = |rule, what| violations.push(Violation { rule, what });
    for (number, pair) in (2..).zip(records.windows(2)) {
        let [before, after] = pair else { continue };
        if after.seq == 0 {
            if after.token <= before.token {
                broken(Rule::Tokens, format!("line {number}: token {} was granted after token {}", after.token, before.token));
            }
            if after.total != before.total {
                broken(Rule::Lost, format!("line {number}: the total changed without an append"));
            }
            continue;
        }
        if after.token != before.token || after.pid != before.pid {
            broken(Rule::Tokens, format!("line {number}: token {} wrote in the time of token {}", after.token, before.token));
        }
        if after.begin < before.end {
            broken(Rule::Overlap, format!("line {number}: tokens {} and {} worked at the same time", before.token, after.token));
        }
        if after.total != before.total + 1 {
            broken(Rule::Lost, format!("line {number}: total {} follows {}: an update was lost", after.total, before.total));
        }
    }
}

/// No holder believed to hold when the next was told that it does.
fn check_beliefs(reports: &[Report], violations: &mut Vec<Violation>) {
    let mut beliefs = BTreeMap::<u64, Belief>::new();
    for Report { pid, at, news } in reports {
        let (token, from, until) = match news {
            News::Granted { token, held: true } | News::Releasing { token, held: true } => (*token, *at, *at),
            News::Appended { record, held: true } => (record.token, record.begin, record.end),
            _ => continue,
        };
        let belief = beliefs.entry(token).or_insert(Belief { pid: *pid, from, until });
        if belief.pid != *pid {
            let what = format!("token {token} was given to two processes, {} and {pid}", belief.pid);
            violations.push(Violation { rule: Rule::Tokens, what });
        }
        belief.from = belief.from.min(from);
        belief.until = belief.until.max(until);
    }
    let beliefs: Vec<_> = beliefs.into_iter().collect();
    for pair in beliefs.windows(2) {
        let [(before, first), (after, second)] = pair else { continue };
        if second.from < first.until {
            let both = std::time::Duration::from_nanos(first.until - second.from);
            let what = format!("tokens {before} and {after} were both believed to hold, for {both:.1?}");
            violations.push(Violation { rule: Rule::Overlap, what });
        }
    }
}

/// What was acknowledged stands in the file once.
fn check_acknowledged(records: &[Record], reports: &[Report], violations: &mut Vec<Violation>) {
    let mut copies = HashMap::<&Record, usize>::new();
    for record in records.iter().filter(|record| record.seq > 0) {
        *copies.entry(record).or_default() += 1;
    }
    for (record, count) in &copies {
        if *count > 1 {
            let what = format!("append {} of token {} stands in the file {count} times", record.seq, record.token);
            violations.push(Violation { rule: Rule::Lost, what });
        }
    }
    for report in reports {
        if let News::Appended { record, .. } = &report.news
            && !copies.contains_key(record)
        {
            let what = format!("append {} of token {} was acknowledged and is not in the file", record.seq, record.token);
            violations.push(Violation { rule: Rule::Lost, what });
        }
    }
}

/// The store has the newest total it acknowledged, or a newer one, and one that the file had as well.
fn check_copy(records: &[Record], reports: &[Report], copy: Option<Copy>, violations: &mut Vec<Violation>) {
    let newest = reports.iter().filter_map(|report| match report.news {
        News::Stored { token, total } => Some((token, total)),
        _ => None,
    });
    let newest = newest.max();
    let mut broken = |what| violations.push(Violation { rule: Rule::Store, what });
    for report in reports {
        if let News::Passed { token } = report.news {
            broken(format!("the store took a write with token {token} after that lock was lost"));
        }
    }
    match (copy, newest) {
        (None, None) => {}
        (None, Some((token, _))) => broken(format!("the store acknowledged a value of token {token} and has none")),
        (Some(copy), newest) => {
            if newest.is_some_and(|newest| newest > (copy.token, copy.total)) {
                broken(format!("the store has a value of token {}, and acknowledged a later one", copy.token));
            }
            if !records.iter().any(|record| record.token == copy.token && record.total == copy.total) {
                broken(format!("the store has the total {} of token {}, which the file never had", copy.total, copy.token));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(token: u64, seq: u64, total: u64, begin: Nanos, end: Nanos) -> Record {
        Record { token, seq, total, pid: u32::try_from(token).unwrap(), begin, end }
    }

    fn text(records: &[Record]) -> String {
        records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect()
    }

    fn report(token: u64, at: Nanos, news: News) -> Report {
        Report { pid: u32::try_from(token).unwrap(), at, news }
    }

    fn acknowledged(records: &[Record]) -> Vec<Report> {
        let appended = |record: &Record| News::Appended { record: record.clone(), held: true };
        records.iter().filter(|r| r.seq > 0).map(|r| report(r.token, r.end, appended(r))).collect()
    }

    fn good() -> Vec<Record> {
        vec![line(3, 0, 0, 10, 10), line(3, 1, 1, 11, 20), line(3, 2, 2, 21, 30), line(7, 0, 2, 40, 40), line(7, 1, 3, 41, 50)]
    }

    fn rules(violations: &[Violation]) -> Vec<Rule> {
        let mut rules: Vec<_> = violations.iter().map(|violation| violation.rule).collect();
        rules.sort();
        rules.dedup();
        rules
    }

    #[test]
    fn a_good_run_passes() {
        let copy = Some(Copy { token: 7, total: 3 });
        let mut reports = acknowledged(&good());
        reports.push(report(7, 51, News::Stored { token: 7, total: 3 }));
        assert_eq!(check(&text(&good()), &reports, copy), []);
        // A worker killed between write and report leaves a line that nobody acknowledged.
        assert_eq!(check(&text(&good()), &[], None), []);
    }

    #[test]
    fn tokens_that_go_back_are_seen() {
        let mut records = good();
        records.push(line(3, 3, 4, 51, 60));
        assert_eq!(rules(&check(&text(&records), &[], None)), [Rule::Tokens]);
        records.pop();
        records.push(line(5, 0, 3, 60, 60));
        assert_eq!(rules(&check(&text(&records), &[], None)), [Rule::Tokens]);
    }

    #[test]
    fn work_at_the_same_time_is_seen() {
        let mut records = good();
        records[3] = line(7, 0, 2, 25, 25);
        assert_eq!(rules(&check(&text(&records), &[], None)), []);
        records[4] = line(7, 1, 3, 24, 50);
        assert_eq!(rules(&check(&text(&records), &[], None)), [Rule::Overlap]);
    }

    #[test]
    fn two_beliefs_at_the_same_time_are_seen() {
        let held = |token, at| report(token, at, News::Granted { token, held: true });
        let until = |token, at, held| report(token, at, News::Releasing { token, held });
        assert_eq!(check("", &[held(3, 10), until(3, 20, true), held(7, 20)], None), []);
        assert_eq!(check("", &[held(3, 10), until(3, 30, false), held(7, 20)], None), []);
        assert_eq!(rules(&check("", &[held(3, 10), until(3, 30, true), held(7, 20)], None)), [Rule::Overlap]);
    }

    #[test]
    fn what_is_lost_or_doubled_is_seen() {
        let good = good();
        let reports = acknowledged(&good);
        let mut lost = good.clone();
        lost.pop();
        assert_eq!(rules(&check(&text(&lost), &reports, None)), [Rule::Lost]);
        let mut doubled = good.clone();
        doubled.push(good[4].clone());
        assert!(rules(&check(&text(&doubled), &reports, None)).contains(&Rule::Lost));
        let mut outdated = good;
        outdated[4].total = 2;
        assert_eq!(rules(&check(&text(&outdated), &[], None)), [Rule::Lost]);
        assert_eq!(rules(&check("{\"token\":3,\"se", &[], None)), [Rule::Lost]);
    }

    #[test]
    fn a_copy_that_went_back_is_seen() {
        let stored = [report(7, 51, News::Stored { token: 7, total: 3 })];
        let records = text(&good());
        assert_eq!(rules(&check(&records, &stored, Some(Copy { token: 3, total: 2 }))), [Rule::Store]);
        assert_eq!(rules(&check(&records, &stored, None)), [Rule::Store]);
        assert_eq!(rules(&check(&records, &[], Some(Copy { token: 9, total: 9 }))), [Rule::Store]);
        assert_eq!(rules(&check(&records, &[report(3, 45, News::Passed { token: 3 })], None)), [Rule::Store]);
    }
}
