//! Promise 4: a crashed holder delays the next by at most its lease and 250 ms; with a lease under a second and the
//! store on the same machine, 60 ms.

use super::{Limits, SLOW, queue::open_waits};
use crate::{
    case::{Case, Operation, Prize, Tenure},
    history::{Micros, Op},
    verdict::{Promise, Verdict},
};

struct Crash {
    client: u64,
    line: usize,
    at: Micros,
}

pub(super) fn check(case: &Case<'_>, limits: &Limits) -> Verdict {
    let mut verdict = Verdict::new(Promise::Crash);
    let mut crashes: Vec<_> = case.faults.crashes().map(|(client, line, at)| Crash { client, line, at }).collect();
    crashes.sort_by_key(|crash| crash.at);
    let waiting = open_waits(case);
    for crash in crashes {
        for (prize, tenures) in &case.tenures {
            let held = tenures.iter().enumerate().filter(|(_, tenure)| {
                let grant = tenure.grant.map(|place| &case.operations[place]);
                grant.is_some_and(|grant| grant.call.client == crash.client && grant.ended() <= crash.at)
                    && tenure.end.surely_after(crash.at)
            });
            for (place, tenure) in held {
                let lease = tenure.session.and_then(|session| case.sessions.get(session)).map(|session| session.lease);
                let Some(lease) = lease else { continue };
                let short = lease < 1_000_000 && case.is_embedded();
                let bound = lease + if short { limits.short_crash } else { limits.crash };
                match prize {
                    Prize::Lock(lock) => {
                        let behind = tenures[place + 1..].iter().find(|ticket| waits(case, &crash, tenure, ticket));
                        let open = |session| waiting.get(&(*lock, session)).map(|place| &case.operations[*place]);
                        if let Some(next) = behind {
                            next_ticket(case, &crash, tenure, next, next.session.and_then(open), bound, &mut verdict);
                        }
                    }
                    Prize::Election(name) => next_leader(case, &crash, name, tenure, bound, &mut verdict),
                }
            }
        }
    }
    verdict
}

/// Whether this ticket stands behind the one held, and is of somebody who was alive then.
fn waits(case: &Case<'_>, crash: &Crash, held: &Tenure<'_>, ticket: &Tenure<'_>) -> bool {
    let of = ticket.session.and_then(|session| case.sessions.get(session));
    let lived_on = |client| case.faults.crashed(client).is_none_or(|(_, at)| at > crash.at);
    let alive = of.is_some_and(|of| of.client != crash.client && lived_on(of.client));
    alive && ticket.epoch == held.epoch && ticket.end.surely_after(crash.at)
}

/// `open` is the acquire that a ticket which was not granted belongs to.
fn next_ticket(
    case: &Case<'_>,
    crash: &Crash,
    held: &Tenure<'_>,
    next: &Tenure<'_>,
    open: Option<&Operation<'_>>,
    bound: Micros,
    verdict: &mut Verdict,
) {
    let granted = next.grant.map(|place| &case.operations[place]);
    // One that was withdrawn is of an acquire that was given up, not of a later one of the same session.
    let Some(operation) = granted.or(open.filter(|_| next.end.entry().is_none())) else { return };
    let deadline = crash.at.max(operation.call.at) + bound + case.slack;
    judge(case, crash, held, operation, deadline, verdict);
}

/// Candidates are not queued: any of them will do, but one there must be.
fn next_leader(case: &Case<'_>, crash: &Crash, election: &str, held: &Tenure<'_>, bound: Micros, verdict: &mut Verdict) {
    let campaigns = case.operations.iter().filter(|operation| {
        let alive = case.faults.crashed(operation.call.client).is_none();
        alive && matches!(operation.op(), Op::Campaign { election: of, .. } if of == election)
    });
    let open: Vec<_> = campaigns.filter(|campaign| campaign.call.at <= crash.at && campaign.ended() > crash.at).collect();
    let won = |campaign: &&&Operation<'_>| campaign.ok().and_then(|done| done.revision).is_some_and(|term| term > held.token);
    let first = open.iter().filter(won).min_by_key(|campaign| campaign.ended());
    let deadline = crash.at + bound + case.slack;
    // Somebody who came later may have been faster.
    let by_term = |grant: &&crate::case::Grant<'_>| grant.epoch == held.epoch && grant.token > held.token;
    if case.grants.get(&Prize::Election(election)).into_iter().flatten().filter(by_term).any(|grant| grant.returned <= deadline) {
        return verdict.checked();
    }
    // One that gives up does not count, so without a winner one is asked for that waited throughout.
    if let Some(campaign) = first.or_else(|| open.iter().find(|campaign| campaign.ended() > deadline)) {
        judge(case, crash, held, campaign, deadline, verdict);
    }
}

fn judge(case: &Case<'_>, crash: &Crash, held: &Tenure<'_>, next: &Operation<'_>, deadline: Micros, verdict: &mut Verdict) {
    let calm = case.faults.calm(crash.at, deadline, case.longest_lease, Some(crash.line));
    // In a bucket that is new grants wait one lease, once: the longest, as its clock counts it.
    let epochs = case.stream.epochs().flat_map(|epoch| case.stream.keys_under(epoch, "meta.epoch"));
    let began = epochs.filter_map(|(_, entries)| entries.first().map(|first| first.latest).filter(|at| *at < Micros::MAX));
    let new =
        began.into_iter().any(|began| crash.at.saturating_sub(began) < case.longest_lease * 2 + 500_000 && crash.at >= began);
    let slow = case.store_was_slow(crash.at, deadline, SLOW);
    if new || slow || !calm || (deadline > case.end && next.returned.is_none()) {
        return verdict.skip();
    }
    verdict.checked();
    if next.ended() <= deadline || next.failed().is_some() {
        return;
    }
    let took = next.returned.map_or("never came".into(), |(_, returned)| {
        format!("came {} µs after", returned.at.saturating_sub(crash.at.max(next.call.at)))
    });
    let allowed = deadline - crash.at.max(next.call.at);
    let (key, token) = (&held.born.write.key, held.token);
    let what = format!("client {} crashed with {token} of {key}; the next grant {took}, {allowed} µs are allowed", crash.client);
    let lines = next.lines().into_iter().chain([crash.line, held.born.line]).chain(held.end.line());
    verdict.violated(what, Some(deadline), lines);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Expect, FaultKind},
        tape::{Tape, acquire, campaign, put},
    };

    const PROMISE: Promise = Promise::Crash;

    /// `a` is killed at 100 ms with the lock; `b`, which waits, has it at `granted`.
    fn killed(granted: Option<u64>, end: u64) -> Tape {
        let mut tape = Tape::new();
        tape.granted(10, 1, "a");
        let waits = tape.call(20, 2, acquire("b"));
        let next = tape.ticket(20, "b");
        tape.fault(100, None, FaultKind::Crash, 1);
        if let Some(granted) = granted {
            tape.die(granted, "a");
            tape.untick(granted, "a");
            tape.ok(granted, waits, next);
        }
        tape.end(end);
        tape
    }

    #[test]
    fn the_next_has_it_within_the_lease_and_60_ms() {
        killed(Some(660), 2000).keeps(PROMISE);
        killed(Some(661), 2000).breaks(PROMISE, "560000 µs are allowed");
        killed(None, 2000).breaks(PROMISE, "never came");
    }

    #[test]
    fn nothing_is_said_while_something_else_is_wrong_or_the_end_is_near() {
        let undecided = |tape: &Tape| {
            let verdict = tape.verdict(PROMISE);
            assert_eq!((verdict.violations.len(), verdict.skipped), (0, 1), "{verdict:?}");
        };
        undecided(&killed(None, 600));
        let mut faulty = killed(Some(900), 2000);
        faulty.fault(300, Some(400), FaultKind::Partition, 2);
        undecided(&faulty);
    }

    #[test]
    fn one_that_is_killed_later_is_the_next_like_any_other() {
        let mut tape = killed(Some(650), 5000);
        let waits = tape.call(30, 3, acquire("c"));
        let next = tape.ticket(30, "c");
        tape.untick(2000, "b");
        tape.ok(2000, waits, next);
        tape.fault(3000, None, FaultKind::Crash, 2);
        tape.keeps(PROMISE);
        let mut late = killed(Some(900), 5000);
        late.fault(3000, None, FaultKind::Crash, 2);
        late.breaks(PROMISE, "the next grant came");
    }

    #[test]
    fn some_candidate_takes_the_office_of_a_killed_leader() {
        for (won, kept) in [(650, true), (700, false)] {
            let mut tape = Tape::new();
            let call = tape.call(10, 1, campaign("a"));
            let term = tape.leader(10, "a", None, "");
            tape.ok(10, call, term);
            let waits = tape.call(20, 2, campaign("b"));
            tape.fault(100, None, FaultKind::Crash, 1);
            tape.die(won, "a");
            let term = tape.leader(won, "b", None, "");
            tape.ok(won, waits, term);
            tape.end(2000);
            if kept {
                tape.keeps(PROMISE);
            } else {
                tape.breaks(PROMISE, "the next grant came");
            }
        }
    }

    #[test]
    fn where_the_store_itself_is_slow_nobody_is_judged_but_in_a_simulation() {
        let crashed = |store: &str, slow: bool| {
            let mut tape = Tape::of(store);
            tape.granted(2_000, 1, "a");
            let waits = tape.call(2_010, 2, acquire("b"));
            let next = tape.ticket(2_010, "b");
            tape.fault(2_100, None, FaultKind::Crash, 1);
            let put = tape.call(2_200, 2, put("n", Expect::Any));
            let revision = tape.data(2_210, "n");
            tape.ok(if slow { 2_451 } else { 2_450 }, put, revision);
            tape.untick(3_500, "a");
            tape.ok(3_500, waits, next);
            tape
        };
        crashed("nats-r1", false).breaks(PROMISE, "the next grant came");
        assert!(crashed("nats-r1", true).verdict(PROMISE).violations.is_empty());
        crashed("sim", true).breaks(PROMISE, "the next grant came");
    }
}
