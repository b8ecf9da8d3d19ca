//! Promise 5: a release that returned ok is visible to every later acquire, and a release never frees another hold
//! than its own.

use std::collections::HashMap;

use crate::{
    case::{Case, Operation, Prize, Tenure},
    history::{Failure, Hold, Micros, Op, Outcome, Return, SessionState, Sight},
    stream::Entry,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Release);
    for operation in &case.operations {
        let (prize, token) = match operation.op() {
            Op::Release { lock, token, .. } => (Prize::Lock(lock), *token),
            Op::Resign { election, term, .. } => (Prize::Election(election), *term),
            _ => continue,
        };
        let Some(tenure) = operation.ok().and_then(|_| case.tenure(prize, case.epoch_of(operation), token)) else { continue };
        verdict.checked();
        // What was of a bucket that is no more has ended with it, and what is told then is of the key in the next.
        let stood = !case.is_over(tenure.epoch, operation.ended());
        if stood && tenure.end.surely_after(operation.ended().saturating_add(case.slack)) {
            let what = format!("{prize}: the release of {token} returned ok, and it was live after that");
            let lines = operation.lines().into_iter().chain([tenure.born.line]).chain(tenure.end.line());
            verdict.violated(what, Some(operation.ended()), lines);
        }
    }
    let reasons = Reasons::new(case);
    for (prize, tickets) in &case.tenures {
        for ticket in tickets.iter().filter(|_| matches!(prize, Prize::Lock(_))) {
            if let Some((operation, end)) = ticket.grant.zip(ticket.end.entry()) {
                verdict.checked();
                if !reasons.explain(case, *prize, ticket, &end) {
                    let what = format!(
                        "{prize}: {} was ended at {} though its holder had not released it, its session lived, and nobody broke it",
                        ticket.token,
                        end.revision()
                    );
                    let lines = case.lines([operation]).into_iter().chain([ticket.born.line, end.line]);
                    verdict.violated(what, end.write.at, lines);
                }
            }
        }
    }
    verdict
}

/// Losses that somebody else, or a defect, brings about.
const BY_OTHERS: [&str; 2] = ["broken", "deposed"];

/// Whether the reason that was given is one of these.
fn by_others(operation: &Operation<'_>) -> bool {
    let Some((_, Return { outcome: Outcome::Failed { why, .. }, .. })) = operation.returned else { return false };
    ["deposed", "administrator"].iter().any(|word| why.contains(word))
}

/// Who asked for the end of a ticket, or nobody in particular, and when.
type Asked<'a> = (Option<&'a str>, Micros);

/// Since when a ticket may be ended by its owner, or by an administrator.
struct Reasons<'a> {
    asked: HashMap<(&'a str, u64), Vec<Asked<'a>>>,
    /// Sessions that were lost, as their own client saw it: it withdraws what it had.
    lost: HashMap<&'a str, Micros>,
    /// Holds that were lost by their own client's clock or will.
    given_up: HashMap<(&'a str, u64, u64), Micros>,
}

impl<'a> Reasons<'a> {
    fn new(case: &Case<'a>) -> Self {
        let mut reasons = Self { asked: HashMap::new(), lost: HashMap::new(), given_up: HashMap::new() };
        for operation in &case.operations {
            let (lock, token, session) = match operation.op() {
                Op::Release { lock, token, session } => (lock, *token, Some(session.as_str())),
                Op::Break { lock, token } => (lock, *token, None),
                _ => continue,
            };
            // What was certainly not done explains nothing; whose own clock ran out withdraws it.
            let ran_out = operation.failed() == Some(Failure::Lost) && !by_others(operation);
            if operation.failed().is_none() || ran_out {
                reasons.asked.entry((lock, token)).or_default().push((session, operation.call.at));
            }
        }
        for (_, seen) in &case.seen {
            match &seen.what {
                Sight::Session { session, state: SessionState::Lost } => {
                    reasons.lost.entry(session).or_insert(seen.from);
                }
                // That somebody else ended it is what is to be explained.
                Sight::Lost { hold: Hold::Lock { lock, token }, loss } if !BY_OTHERS.contains(&loss.as_str()) => {
                    reasons.given_up.entry((lock, *token, seen.client)).or_insert(seen.from);
                }
                _ => {}
            }
        }
        reasons
    }

    fn explain(&self, case: &Case<'a>, prize: Prize<'a>, ticket: &Tenure<'a>, end: &Entry<'_>) -> bool {
        let (Prize::Lock(lock), Some(session)) = (prize, ticket.session) else { return true };
        if case.death(ticket.epoch, session).may_be_below(end.revision())
            || case.may_be_forgotten(ticket.epoch, session, end)
            || case.stream.gap(ticket.epoch, ticket.token, end.revision())
        {
            return true;
        }
        // What is assigned to whom, and so who lets go of a partition and when, is its owner's own affair.
        if lock.starts_with("partitions/") && end.write.note.as_deref() == Some("held") {
            return true;
        }
        let by = end.latest.saturating_add(case.slack);
        let asked = self.asked.get(&(lock, ticket.token)).map_or(&[][..], Vec::as_slice);
        let asked = asked.iter().any(|(of, at)| *at <= by && of.is_none_or(|of| of == session));
        let known = case.sessions.get(session);
        let closed = known.and_then(|session| session.closed).is_some_and(|closed| closed <= by);
        // It may be heard of later, by a client that stood still or asks a daemon.
        let lost = self.lost.get(session).is_some_and(|lost| *lost <= by.saturating_add(case.longest_lease));
        // A hold says that it is lost about when its ticket is withdrawn, before or after.
        // Whoever it was granted to hears that, be it by a session of its own or by one that a daemon has for it.
        let client = ticket.grant.and_then(|place| case.operations.get(place)).map(|operation| operation.call.client);
        let given_up = client.is_some_and(|client| self.given_up.contains_key(&(lock, ticket.token, client)));
        asked || closed || lost || given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Expect, FaultKind, Line, WriteState},
        tape::{Tape, campaign, close, lost, put, release},
    };

    const PROMISE: Promise = Promise::Release;

    #[test]
    fn a_released_ticket_is_ended_when_that_is_told() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        let call = tape.call(20, 1, release("a", token));
        let mut late = tape.clone();
        late.ok(25, call, 99);
        late.untick(26, "a");
        late.breaks(PROMISE, "it was live after that");
        tape.untick(24, "a");
        tape.ok(25, call, 99);
        tape.keeps(PROMISE);
    }

    #[test]
    fn a_ticket_ends_with_its_bucket() {
        let told = |at: u64| {
            let mut tape = Tape::new();
            let token = tape.granted(10, 1, "a");
            let call = tape.call(30, 1, release("a", token));
            tape.fault(at, None, FaultKind::Recreate, 1);
            tape.epoch += 1;
            tape.ok(40, call, 99);
            tape
        };
        told(35).keeps(PROMISE);
        told(41).breaks(PROMISE, "it was live after that");
    }

    #[test]
    fn a_ticket_is_ended_by_its_owner_its_session_s_death_or_an_administrator() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        let ended = |mut tape: Tape| {
            tape.untick(20, "a");
            tape
        };
        ended(tape.clone()).breaks(PROMISE, "nobody broke it");
        let with = |add: &dyn Fn(&mut Tape) -> u64| {
            let mut tape = tape.clone();
            add(&mut tape);
            ended(tape)
        };
        with(&|tape| tape.call(20, 1, release("a", token))).keeps(PROMISE);
        with(&|tape| tape.call(20, 1, close("a"))).keeps(PROMISE);
        with(&|tape| tape.call(20, 3, Op::Break { lock: "l".into(), token })).keeps(PROMISE);
        with(&|tape| tape.die(19, "a")).keeps(PROMISE);
        with(&|tape| {
            tape.seen(20, 1, lost(token, "deadline"));
            0
        })
        .keeps(PROMISE);
        with(&|tape| {
            let call = tape.call(20, 1, release("a", token));
            tape.failed(20, call, Failure::Lost);
            call
        })
        .keeps(PROMISE);
        // Not by what is asked for later, nor by another's release, nor by one that was not done.
        with(&|tape| tape.call(21, 1, release("a", token))).breaks(PROMISE, "nobody broke it");
        with(&|tape| tape.call(20, 2, release("b", token))).breaks(PROMISE, "nobody broke it");
        with(&|tape| {
            let call = tape.call(20, 1, release("a", token));
            tape.failed(20, call, Failure::Unavailable);
            call
        })
        .breaks(PROMISE, "nobody broke it");
    }

    #[test]
    fn a_resignation_may_be_what_the_recorder_missed() {
        let told = |missed: u64| {
            let mut tape = Tape::of("nats-r1");
            tape.open(1, 1, "a");
            tape.open(2, 2, "b");
            let call = tape.call(10, 1, campaign("a"));
            let term = tape.leader(11, "a", None, "");
            tape.ok(12, call, term);
            let resign = tape.call(20, 1, Op::Resign { session: "a".into(), election: "e".into(), term });
            tape.ok(21, resign, 99);
            tape.revision += missed;
            let call = tape.call(1_000_030, 2, campaign("b"));
            let next = tape.leader(1_000_031, "b", None, "");
            tape.ok(1_000_032, call, next);
            tape
        };
        told(0).breaks(PROMISE, "it was live after that");
        told(1).keeps(PROMISE);
        // The next one may have come and gone there, too, so that only its own resignation is known.
        let gone = |whose: &str| {
            let mut tape = Tape::of("nats-r1");
            tape.open(1, 1, "a");
            let call = tape.call(10, 1, campaign("a"));
            let term = tape.leader(11, "a", None, "");
            if let Some(Line::Write(write)) = tape.history.lines.last_mut() {
                write.value.candidate = Some("a-1".into());
            }
            tape.ok(12, call, term);
            let resign = tape.call(20, 1, Op::Resign { session: "a".into(), election: "e".into(), term });
            tape.ok(21, resign, 99);
            tape.revision += 2;
            let call = tape.call(1_000_030, 1, put("x", Expect::Any));
            let written = tape.data(1_000_031, "x");
            tape.ok(1_000_032, call, written);
            tape.write(1_000_033, "election.e", WriteState::Deleted, "", "");
            tape.noted(whose);
            tape
        };
        gone("a-1").breaks(PROMISE, "it was live after that");
        gone("b-2").keeps(PROMISE);
    }

    #[test]
    fn what_somebody_else_did_or_what_was_lost_much_later_explains_nothing() {
        let ended = |seen: &dyn Fn(u64) -> (u64, Sight)| {
            let mut tape = Tape::new();
            let token = tape.granted(10, 1, "a");
            tape.untick(20, "a");
            let (at, what) = seen(token);
            tape.seen(at, 1, what);
            tape
        };
        let lost_at = |at| move |_| (at, Sight::Session { session: "a".into(), state: SessionState::Lost });
        ended(&lost_at(520)).keeps(PROMISE);
        ended(&lost_at(521)).breaks(PROMISE, "nobody broke it");
        ended(&|token| (20, lost(token, "renewal_timeout"))).keeps(PROMISE);
        ended(&|token| (20, lost(token, "deposed"))).breaks(PROMISE, "nobody broke it");
    }
}
