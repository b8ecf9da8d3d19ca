//! Promise 10: with no fault nobody loses a lease; after the faults stop everything converges in lease + 10 s.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Limits;
use crate::{
    case::{Case, End, Operation, Prize, session_of},
    history::{Failure, FaultKind, Micros, Mode, Op, SessionState, Sight},
    verdict::{Promise, Verdict},
};

/// How long servers need to be as before once nothing is done to them any more, and clients to give up what was lost.
const AFTERMATH: Micros = 5_000_000;

/// Losses that somebody wanted.
const WANTED: [&str; 6] = ["closed", "resigned", "reassigned", "broken", "unhealthy", "critical"];

pub(super) fn check(case: &Case<'_>, limits: &Limits) -> Verdict {
    let mut verdict = Verdict::new(Promise::Converges);
    // What was lost in a fault may be heard of for as long as that is felt.
    let felt = AFTERMATH + 2 * case.longest_lease;
    let calm = if case.faults.all.is_empty() { Some(0) } else { case.quiet.map(|quiet| quiet + felt) };
    if let Some(calm) = calm {
        nothing_is_lost(case, calm, &mut verdict);
    }
    if let Some(quiet) = case.quiet.or_else(|| case.faults.all.is_empty().then_some(0)) {
        let bound = case.longest_lease + limits.settle + case.slack;
        everything_ends(case, quiet, bound, &mut verdict);
        somebody_leads(case, quiet, bound, &mut verdict);
        nobody_stays_suspect(case, quiet, bound, &mut verdict);
    }
    verdict
}

/// From this moment on.
fn nothing_is_lost(case: &Case<'_>, calm: Micros, verdict: &mut Verdict) {
    for (line, seen) in case.seen.iter().filter(|(_, seen)| seen.from >= calm && !is_excused(case, seen.at, calm)) {
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
            let excused = death.earliest < calm || is_excused(case, death.latest, calm);
            let of_it = case.sessions.get(id).is_some_and(|session| session.epoch == epoch);
            if of_it && !excused && case.gone_at(id) > death.latest.saturating_add(case.slack) {
                verdict.violated(format!("session {id} was ended with no fault"), death.write.at, [death.line]);
            }
        }
    }
    let failed = |operation: &&Operation<'_>| {
        operation.failed() == Some(Failure::Lost) && operation.call.at >= calm && !is_excused(case, operation.ended(), calm)
    };
    for operation in case.operations.iter().filter(failed) {
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

/// After faults a machine may be busy with all that it has to do again: where the store did not answer anybody in time,
/// renewals were late, too.
fn is_excused(case: &Case<'_>, at: Micros, calm: Micros) -> bool {
    let lease = case.longest_lease;
    calm > 0 && case.store_was_slow(at.saturating_sub(lease), at, lease / 4)
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
    for operation in &case.operations {
        if case.faults.crashed(operation.call.client).is_some() {
            continue;
        }
        let limit = match operation.op() {
            // In line: whether it is its turn is another promise. Who has no ticket is in none.
            Op::Acquire { mode: Mode::Wait, session, lock, .. } => {
                let deadline = quiet.max(operation.call.at).saturating_add(bound);
                let granted = operation.ok().is_some() || in_line(case, lock, session, operation.call.at, deadline);
                if granted || case.is_gone_by(session, deadline) || missed(case) {
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

/// Whether this session may have had a ticket between the two instants.
fn in_line(case: &Case<'_>, lock: &str, session: &str, from: Micros, to: Micros) -> bool {
    let tickets = case.tenures.get(&Prize::Lock(lock)).into_iter().flatten();
    let mut of_it = tickets.filter(|ticket| ticket.session == Some(session));
    of_it.any(|ticket| ticket.born.earliest <= to && ticket.end.latest() >= from)
}

fn missed(case: &Case<'_>) -> bool {
    case.stream.missing() > 0
}

/// While somebody alive campaigns, somebody alive leads, but for a while after each departure.
fn somebody_leads(case: &Case<'_>, quiet: Micros, bound: Micros, verdict: &mut Verdict) {
    let mut elections: BTreeMap<&str, Vec<&Operation<'_>>> = BTreeMap::new();
    for operation in &case.operations {
        if let Op::Campaign { election, .. } = operation.op() {
            elections.entry(election).or_default().push(operation);
        }
    }
    for (election, campaigns) in elections {
        let led = led(case, election);
        for campaign in campaigns {
            let Op::Campaign { session, .. } = campaign.op() else { continue };
            let death = case.death(case.epoch_of(campaign), session).earliest();
            let until = campaign.ended().min(case.gone_at(session)).min(death).min(case.end);
            let since = quiet.max(campaign.call.at);
            if until < since.saturating_add(bound) {
                continue;
            }
            verdict.checked();
            if let Some(from) = unled(&led, since, until, bound) {
                let what = format!("election {election}: nobody alive leads from {from} µs on, though somebody campaigns");
                verdict.violated(what, Some(from.saturating_add(bound)), campaign.lines());
            }
        }
    }
}

/// From when to when somebody alive may have led, who knew it; ascending.
fn led(case: &Case<'_>, election: &str) -> Vec<(Micros, Micros)> {
    let terms = case.tenures.get(&Prize::Election(election)).into_iter().flatten();
    let mut led: Vec<_> = terms
        // What is granted after a rollback is of another epoch for its session than for the stream.
        .filter(|term| term.grant.is_some() || matches!(term.end, End::Missed) || case.faults.has(FaultKind::Rollback))
        .map(|term| {
            let session = term.session.unwrap_or_default();
            let gone = if case.sessions.contains_key(session) { case.gone_at(session) } else { Micros::MAX };
            let end = if matches!(term.end, End::Missed) { Micros::MAX } else { term.end.latest() };
            let death = case.death(term.epoch, session).latest();
            (term.born.earliest, end.min(gone).min(death))
        })
        .collect();
    led.sort_unstable();
    led
}

/// The beginning of the first stretch of more than `bound` between the two instants that nothing covers.
fn unled(led: &[(Micros, Micros)], since: Micros, until: Micros, bound: Micros) -> Option<Micros> {
    let mut covered = since;
    for (from, to) in led {
        if (*from).min(until) > covered.saturating_add(bound) {
            return Some(covered);
        }
        covered = covered.max(*to);
    }
    (until > covered.saturating_add(bound)).then_some(covered)
}

fn nobody_stays_suspect(case: &Case<'_>, quiet: Micros, bound: Micros, verdict: &mut Verdict) {
    let mut since: HashMap<&str, (usize, Micros)> = HashMap::new();
    let mut stayed = |session: &str, (line, at): (usize, Micros), until: Micros| {
        let deadline = quiet.max(at).saturating_add(bound);
        if deadline <= until && !case.is_gone_by(session, deadline) {
            verdict.violated(format!("session {session} was suspect and stayed so"), Some(at), [line]);
        }
    };
    let mut looked_at = HashSet::new();
    for (line, seen) in &case.seen {
        let Sight::Session { session, state } = &seen.what else { continue };
        looked_at.insert(session);
        if *state == SessionState::Suspect {
            since.entry(session).or_insert((*line, seen.at));
        } else if let Some(suspect) = since.remove(session.as_str()) {
            stayed(session, suspect, seen.from);
        }
    }
    for (session, suspect) in since {
        stayed(session, suspect, case.end);
    }
    verdict.checked += looked_at.len() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Expect, Outcome, WriteState},
        tape::{Tape, acquire, campaign, close, lost, put},
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

    #[test]
    fn who_is_dropped_at_the_end_had_hung_all_the_same() {
        let dropped = |at: u64, ticket: bool| {
            let mut tape = Tape::new();
            let call = tape.call(10, 2, acquire("b"));
            if ticket {
                tape.ticket(11, "b");
            }
            tape.end_with(at, call, Outcome::Unknown { why: "dropped".into() });
            tape.call(at, 2, close("b"));
            tape.call(10, 1, put("n", Expect::Any));
            tape.fault(10, None, FaultKind::Crash, 1);
            tape.quiet(10);
            tape.end(20_000);
            tape
        };
        dropped(10_500, false).keeps(PROMISE);
        dropped(10_600, false).breaks(PROMISE, "had not ended");
        // One that is in line waits for its turn.
        assert!(dropped(10_600, true).verdict(PROMISE).violations.is_empty());
    }

    #[test]
    fn a_session_that_is_closed_at_the_end_had_stayed_suspect_all_the_same() {
        let closed = |at: u64| {
            let mut tape = Tape::new();
            let state = |state| Sight::Session { session: "a".into(), state };
            tape.seen(50, 1, state(SessionState::Suspect));
            tape.call(at, 1, close("a"));
            tape.die(at, "a");
            tape.seen(at, 1, state(SessionState::Lost));
            tape.end(20_000);
            tape
        };
        closed(10_500).keeps(PROMISE);
        closed(10_600).breaks(PROMISE, "stayed so");
    }

    #[test]
    fn an_office_does_not_stay_empty_between_two_leaders_either() {
        let led_again = |at: u64| {
            let mut tape = Tape::new();
            let first = tape.call(10, 1, campaign("a"));
            let term = tape.leader(10, "a", None, "");
            tape.ok(10, first, term);
            let call = tape.call(20, 2, campaign("b"));
            tape.write(30, "election.e", WriteState::Deleted, "", "");
            let term = tape.leader(at, "b", None, "");
            tape.ok(at, call, term);
            tape.end(60_000);
            tape
        };
        led_again(10_530).keeps(PROMISE);
        led_again(10_531).breaks(PROMISE, "nobody alive leads");
    }

    #[test]
    fn once_faults_can_be_felt_no_longer_nothing_is_lost() {
        let lost_at = |at: u64| {
            let mut tape = Tape::new();
            let token = tape.granted(10, 1, "a");
            tape.fault(50, Some(100), FaultKind::Pause, 2);
            tape.quiet(100);
            tape.seen(at, 1, lost(token, "deadline"));
            tape.end(7_000);
            tape
        };
        lost_at(6_099).keeps(PROMISE);
        lost_at(6_100).breaks(PROMISE, "was lost (deadline)");
    }
}
