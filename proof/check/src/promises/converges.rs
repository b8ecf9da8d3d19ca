//! Promise 10: with no fault nobody loses a lease; after the faults stop everything converges in lease + 10 s.

use std::collections::{HashMap, HashSet};

use super::Limits;
use crate::{
    case::{Case, End, Operation, Prize, session_of},
    history::{Failure, Micros, Mode, Op, SessionState, Sight},
    stream::Entry,
    verdict::{Promise, Verdict},
};

/// Losses that somebody wanted.
const WANTED: [&str; 6] = ["closed", "resigned", "reassigned", "broken", "unhealthy", "critical"];

pub(super) fn check(case: &Case<'_>, limits: &Limits) -> Verdict {
    let mut verdict = Verdict::new(Promise::Converges);
    if case.faults.all.is_empty() {
        nothing_is_lost(case, &mut verdict);
    }
    if let Some(quiet) = case.quiet.or_else(|| case.faults.all.is_empty().then_some(0)) {
        let bound = case.longest_lease + limits.settle + case.slack;
        everything_ends(case, quiet, bound, &mut verdict);
        somebody_leads(case, quiet, bound, &mut verdict);
        nobody_stays_suspect(case, quiet, bound, &mut verdict);
    }
    verdict
}

fn nothing_is_lost(case: &Case<'_>, verdict: &mut Verdict) {
    for (line, seen) in &case.seen {
        match &seen.what {
            Sight::Lost { hold, loss } if !WANTED.contains(&loss.as_str()) => {
                verdict.violated(format!("{hold:?} was lost ({loss}) with no fault"), Some(seen.at), [*line]);
            }
            Sight::Session { session, state: SessionState::Lost } if !closes(case, session, seen.at) => {
                verdict.violated(format!("session {session} was lost with no fault"), Some(seen.at), [*line]);
            }
            _ => {}
        }
    }
    for epoch in case.stream.epochs() {
        for (key, entries) in case.stream.keys_under(epoch, "session.") {
            verdict.checked();
            let id = &key["session.".len()..];
            let Some(death) = entries.iter().find(|entry| !entry.is_live()) else { continue };
            if case.sessions.contains_key(id) && !closes(case, id, death.latest) {
                verdict.violated(format!("session {id} was ended with no fault"), death.write.at, [death.line]);
            }
        }
    }
    for operation in case.operations.iter().filter(|operation| operation.failed() == Some(Failure::Lost)) {
        if session_of(operation.op()).is_some_and(|session| !closes(case, session, operation.ended()))
            && !was_broken(case, operation)
        {
            verdict.violated(
                "an operation failed with its session lost, and there was no fault",
                Some(operation.ended()),
                operation.lines(),
            );
        }
    }
}

fn closes(case: &Case<'_>, session: &str, by: Micros) -> bool {
    case.sessions.get(session).and_then(|session| session.closed).is_some_and(|closed| closed <= by.saturating_add(case.slack))
}

fn was_broken(case: &Case<'_>, operation: &Operation<'_>) -> bool {
    let Op::Release { lock, token, .. } = operation.op() else {
        // What a hold under which one writes has come to is not looked up: whoever breaks holds may expect it.
        return case.operations.iter().any(|operation| matches!(operation.op(), Op::Break { .. }));
    };
    case.tenure(Prize::Lock(lock), case.epoch_of(operation), *token).is_some_and(|ticket| ticket.was_broken())
}

/// Every operation that nobody can keep waiting.
fn everything_ends(case: &Case<'_>, quiet: Micros, bound: Micros, verdict: &mut Verdict) {
    let queued: HashSet<(&str, &str)> = case
        .tenures
        .iter()
        .filter_map(|(prize, tickets)| if let Prize::Lock(lock) = prize { Some((*lock, tickets)) } else { None })
        .flat_map(|(lock, tickets)| {
            tickets.iter().filter(|ticket| !matches!(ticket.end, End::At(_))).map(move |ticket| (lock, ticket))
        })
        .filter_map(|(lock, ticket)| ticket.session.map(|session| (lock, session)))
        .collect();
    for operation in &case.operations {
        if case.faults.crashed(operation.call.client).is_some() {
            continue;
        }
        let limit = match operation.op() {
            // In line: whether it is its turn is another promise.
            Op::Acquire { mode: Mode::Wait, session, lock, .. } => {
                let gone = operation.returned.is_some() || queued.contains(&(lock.as_str(), session.as_str()));
                if gone || case.is_gone(session) || missed(case) {
                    continue;
                }
                0
            }
            Op::Acquire { limit_ms, .. } => limit_ms.unwrap_or_default() * 1000,
            Op::Campaign { .. } => continue,
            _ => 0,
        };
        let deadline = quiet.max(operation.call.at).saturating_add(bound + limit);
        if deadline > case.end && operation.returned.is_none() {
            verdict.skip();
            continue;
        }
        verdict.checked();
        if operation.ended() > deadline {
            let what =
                format!("operation {} of client {} had not ended by {deadline} µs", operation.call.id, operation.call.client);
            verdict.violated(what, Some(deadline), operation.lines());
        }
    }
}

fn missed(case: &Case<'_>) -> bool {
    case.stream.missing() > 0
}

/// While somebody alive campaigns, somebody alive leads.
fn somebody_leads(case: &Case<'_>, quiet: Micros, bound: Micros, verdict: &mut Verdict) {
    let mut open: HashMap<&str, Vec<&Operation<'_>>> = HashMap::new();
    for operation in &case.operations {
        if let Op::Campaign { session, election } = operation.op()
            && operation.returned.is_none()
            && !case.is_gone(session)
            && case.death(case.epoch_of(operation), session).entry().is_none()
        {
            open.entry(election).or_default().push(operation);
        }
    }
    for (election, campaigns) in open {
        let Some(first) = campaigns.iter().min_by_key(|campaign| campaign.call.at) else { continue };
        let standing = case.stream.final_state(&format!("election.{election}"));
        let leader = standing.filter(Entry::is_live).filter(|entry| {
            let term = entry.write.value.term.unwrap_or(entry.revision());
            let granted = case.tenure(Prize::Election(election), entry.epoch, term).and_then(|tenure| tenure.grant);
            let session = entry.write.value.session.as_deref();
            let alive =
                session.is_none_or(|session| !case.is_gone(session) && case.death(entry.epoch, session).entry().is_none());
            granted.is_some() && alive
        });
        let since = standing.map_or(0, |entry| if entry.latest == Micros::MAX { entry.earliest } else { entry.latest });
        let deadline = quiet.max(first.call.at).max(since).max(last_departure(case)).saturating_add(bound);
        if deadline > case.end {
            verdict.skip();
            continue;
        }
        verdict.checked();
        if leader.is_none() {
            let what = format!("election {election}: nobody alive leads at {deadline} µs, though somebody campaigns");
            verdict.violated(what, Some(deadline), first.lines().into_iter().chain(standing.map(|entry| entry.line)));
        }
    }
}

/// When the last session was closed or killed: from there on an office may have to be taken over.
fn last_departure(case: &Case<'_>) -> Micros {
    let closed = case.sessions.values().filter_map(|session| session.closed);
    closed.chain(case.faults.crashes().map(|(_, _, at)| at)).max().unwrap_or_default()
}

fn nobody_stays_suspect(case: &Case<'_>, quiet: Micros, bound: Micros, verdict: &mut Verdict) {
    let mut last: HashMap<&str, (usize, Micros, SessionState)> = HashMap::new();
    for (line, seen) in &case.seen {
        if let Sight::Session { session, state } = &seen.what {
            last.insert(session, (*line, seen.at, *state));
        }
    }
    for (session, (line, at, state)) in last {
        verdict.checked();
        if state == SessionState::Suspect && quiet.max(at).saturating_add(bound) <= case.end && !case.is_gone(session) {
            verdict.violated(format!("session {session} was suspect and stayed so"), Some(at), [line]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Expect, FaultKind},
        tape::{Tape, campaign, close, lost, put},
    };

    const PROMISE: Promise = Promise::Converges;

    #[test]
    fn with_no_fault_nothing_is_lost_that_nobody_gave_up() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        let mut unasked = tape.clone();
        unasked.seen(20, 1, lost(token, "deadline"));
        unasked.breaks(PROMISE, "was lost (deadline)");
        unasked.fault(15, Some(16), FaultKind::Pause, 1);
        assert!(unasked.verdict(PROMISE).violations.is_empty(), "with a fault it may be");
        tape.call(20, 1, close("a"));
        tape.die(20, "a");
        tape.seen(20, 1, lost(token, "closed"));
        tape.seen(20, 1, Sight::Session { session: "a".into(), state: SessionState::Lost });
        tape.keeps(PROMISE);
    }

    #[test]
    fn after_the_faults_every_operation_ends() {
        let mut tape = Tape::new();
        tape.fault(5, Some(100), FaultKind::Partition, 1);
        let call = tape.call(10, 1, put("n", Expect::Any));
        tape.quiet(100);
        tape.end(20_000);
        let mut slow = tape.clone();
        slow.failed(10_601, call, Failure::Timeout);
        slow.breaks(PROMISE, "had not ended");
        tape.failed(10_600, call, Failure::Timeout);
        tape.keeps(PROMISE);
    }

    #[test]
    fn a_session_does_not_stay_suspect() {
        let mut tape = Tape::new();
        let state = |state| Sight::Session { session: "a".into(), state };
        tape.fault(5, Some(100), FaultKind::Partition, 1);
        tape.seen(50, 1, state(SessionState::Suspect));
        tape.quiet(100);
        tape.end(20_000);
        tape.breaks(PROMISE, "stayed so");
        tape.seen(200, 1, state(SessionState::Restored));
        tape.keeps(PROMISE);
    }

    #[test]
    fn an_office_does_not_stay_empty() {
        let mut tape = Tape::new();
        tape.call(10, 2, campaign("b"));
        tape.end(20_000);
        let mut led = tape.clone();
        let call = led.call(11, 1, campaign("a"));
        let term = led.leader(11, "a", None, "");
        led.ok(11, call, term);
        led.keeps(PROMISE);
        tape.breaks(PROMISE, "nobody alive leads");
    }
}
