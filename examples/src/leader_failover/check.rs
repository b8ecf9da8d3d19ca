//! What is wrong with a run, as its processes report it: pure.

use std::collections::BTreeMap;

use super::candidate::News;
use crate::stage::{Report, Verdict};

/// Judges what was reported; the processes `woken` had been stopped while they led, each in the term beside it.
pub(super) fn check(reports: &[Report<News>], woken: &[(u32, u64)]) -> Vec<Verdict> {
    let (mut terms, mut backwards) = (BTreeMap::<u64, u32>::new(), Vec::new());
    for Report { pid, news, .. } in reports {
        if let News::Leads { term } = news {
            if let Some((last, _)) = terms.last_key_value().filter(|(last, _)| *last >= term) {
                backwards.push(format!("term {term} of {pid} came after term {last}"));
            }
            terms.insert(*term, *pid);
        }
    }
    let mut stale = Vec::new();
    for Report { pid, news, .. } in reports {
        // A term is the revision of the write that won it, so that the two can be compared.
        if let News::Wrote { term, revision } = news
            && let Some((later, by)) = terms.range(term + 1..).next()
            && revision > later
        {
            stale.push(format!("{pid} wrote in term {term} at revision {revision}, after {by} was elected in term {later}"));
        }
    }
    let refused = |pid: u32, term: u64| {
        reports.iter().any(|report| report.pid == pid && matches!(&report.news, News::Refused { term: of, .. } if *of == term))
    };
    let accepted = woken.iter().filter(|(pid, term)| !refused(*pid, *term));
    vec![
        Verdict { promise: "each leader's term is higher than the one before", broken: backwards },
        Verdict { promise: "no leader wrote after a later one was elected", broken: stale },
        Verdict {
            promise: "the write of each stopped leader was refused when it woke up",
            broken: accepted.map(|(pid, term)| format!("{pid} went on in term {term}")).collect(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(news: &[(u32, News)], woken: &[(u32, u64)]) -> Vec<&'static str> {
        let reports: Vec<_> = news.iter().map(|(pid, news)| Report { pid: *pid, at: 0, news: news.clone() }).collect();
        let verdicts = check(&reports, woken);
        verdicts.into_iter().filter(|verdict| !verdict.broken.is_empty()).map(|verdict| verdict.promise).collect()
    }

    fn leads(term: u64) -> News {
        News::Leads { term }
    }

    fn wrote(term: u64, revision: u64) -> News {
        News::Wrote { term, revision }
    }

    fn refused(term: u64) -> News {
        News::Refused { term, reason: "x".to_owned() }
    }

    #[test]
    fn a_good_run_passes() {
        // Reports of different processes may overtake each other.
        let run = [(1, leads(3)), (1, wrote(3, 4)), (2, leads(9)), (1, wrote(3, 8)), (2, wrote(9, 10)), (1, refused(3))];
        assert!(broken(&run, &[(1, 3)]).is_empty());
    }

    #[test]
    fn each_rule_that_is_broken_is_told() {
        assert_eq!(broken(&[(1, leads(3)), (2, leads(3))], &[]), ["each leader's term is higher than the one before"]);
        let late = [(1, leads(3)), (2, leads(9)), (1, wrote(3, 10))];
        assert_eq!(broken(&late, &[]), ["no leader wrote after a later one was elected"]);
        let run = [(1, leads(3)), (2, leads(9)), (2, refused(9))];
        assert_eq!(broken(&run, &[(1, 3)]), ["the write of each stopped leader was refused when it woke up"]);
    }
}
