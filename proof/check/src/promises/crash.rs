//! Promise 4: a crashed holder delays the next by at most its lease and 250 ms; with a lease under a second and the
//! store on the same machine, 60 ms.

use super::{Limits, queue::open_waits};
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

/// Whether this ticket stands behind the one held, and is of somebody alive.
fn waits(case: &Case<'_>, crash: &Crash, held: &Tenure<'_>, ticket: &Tenure<'_>) -> bool {
    let of = ticket.session.and_then(|session| case.sessions.get(session));
    let alive = of.is_some_and(|of| of.client != crash.client && case.faults.crashed(of.client).is_none());
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
    let Some(operation) = granted.or(open) else { return };
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
    // One that gives up does not count, so without a winner one is asked for that waited throughout.
    if let Some(campaign) = first.or_else(|| open.iter().find(|campaign| campaign.ended() > deadline)) {
        judge(case, crash, held, campaign, deadline, verdict);
    }
}

fn judge(case: &Case<'_>, crash: &Crash, held: &Tenure<'_>, next: &Operation<'_>, deadline: Micros, verdict: &mut Verdict) {
    let calm = case.faults.calm(crash.at, deadline, case.longest_lease, Some(crash.line));
    if !calm || (deadline > case.end && next.returned.is_none()) {
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
