//! Promise 9: tickets are granted in the order of revisions, and a cancelled or dead waiter never blocks the queue.

use super::{
    Limits,
    queue::{jumps, open_waits},
};
use crate::{
    case::{Case, End, Prize, Tenure},
    history::{Micros, Mode, Op},
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>, limits: &Limits) -> Verdict {
    let mut verdict = Verdict::new(Promise::Fifo);
    verdict.checked = case.grants().filter(|grant| matches!(grant.prize, Prize::Lock(_))).count() as u64;
    for jump in jumps(case, false) {
        let (token, over) = (jump.granted.token, jump.over.token);
        let key = &jump.granted.born.write.key;
        let what = format!("token {token} was granted while {over}, which waits, was still live and before it ({key})");
        verdict.violated(what, jump.at(case), jump.lines(case));
    }
    if let Some(quiet) = case.quiet.or_else(|| case.faults.all.is_empty().then_some(0)) {
        nobody_waits_for_ever(case, limits, quiet, &mut verdict);
    }
    verdict
}

/// Whoever is first in line once no fault is active, and all before it gone that must go, is granted soon.
fn nobody_waits_for_ever(case: &Case<'_>, limits: &Limits, quiet: Micros, verdict: &mut Verdict) {
    let open = open_waits(case);
    for (prize, tickets) in &case.tenures {
        let Prize::Lock(lock) = prize else { continue };
        // When the last lower ticket went, or must have gone at the latest.
        let (mut free, mut before): (Micros, Option<&Tenure<'_>>) = (quiet, None);
        for ticket in tickets.iter().filter(|ticket| ticket.epoch == case.stream.last_epoch()) {
            let waiting = ticket.session.and_then(|session| open.get(&(*lock, session))).copied();
            let bound = case.longest_lease + limits.settle + case.slack;
            let late = if let Some(place) = ticket.grant {
                let operation = &case.operations[place];
                let deadline = free.max(operation.call.at).saturating_add(bound);
                let endless = matches!(operation.op(), Op::Acquire { mode: Mode::Wait, .. });
                (endless && operation.ended() > deadline).then_some(deadline)
            } else {
                // Whatever it was for, it is granted or withdrawn; also where its caller was dropped at the end.
                let deadline = free.max(ticket.born.latest).saturating_add(bound);
                let stands = may_wait(case, ticket, deadline);
                if stands && deadline > case.end {
                    verdict.skip();
                }
                (stands && deadline <= case.end).then_some(deadline)
            };
            if let Some(deadline) = late {
                let what = format!("{lock}: ticket {} was first in line and not granted by {deadline} µs", ticket.token);
                let place = ticket.grant.or(waiting);
                let lines = case.lines(place).into_iter().chain([ticket.born.line]).chain(before.map(|before| before.born.line));
                verdict.violated(what, Some(deadline), lines);
            }
            let goes = goes_by(case, ticket, waiting.is_some(), quiet);
            if goes >= free {
                (free, before) = (goes, Some(ticket));
            }
        }
    }
}

/// It is live until then, and so is its session.
fn may_wait(case: &Case<'_>, ticket: &Tenure<'_>, until: Micros) -> bool {
    let lives = |session: &str| {
        // One that was on its way when its bucket was made anew belongs to nobody in the next.
        let of_it = case.sessions.get(session).is_some_and(|session| session.epoch == ticket.epoch);
        // One that nobody renews ends without a trace when the store forgets it.
        let forgotten = case.forgotten(ticket.epoch, session, u64::MAX).is_some_and(|at| at <= until);
        of_it && !forgotten && !case.is_gone_by(session, until) && case.death(ticket.epoch, session).surely_after(until)
    };
    ticket.end.surely_after(until) && ticket.session.is_some_and(lives)
}

/// Until when this ticket may rightly stand in the way.
fn goes_by(case: &Case<'_>, ticket: &Tenure<'_>, waiting: bool, quiet: Micros) -> Micros {
    let wanted = ticket.grant.is_some() || waiting;
    // Its session may live on for a while in the calm, and hold or wait as it likes until it is closed.
    // One that the store forgets ends without a trace, whatever its client does then. When that is at the latest is known
    // where the instants of commits are.
    let exact = case.history.head.store == "sim";
    let gone_at = |session: &str| {
        let forgotten = case.forgotten(ticket.epoch, session, u64::MAX).filter(|_| waiting && exact);
        case.gone_at(session).min(forgotten.unwrap_or(Micros::MAX))
    };
    let gone = ticket.session.filter(|_| wanted).map_or(0, gone_at).max(quiet);
    match ticket.end {
        End::At(end) if gone > quiet => end.latest.min(gone),
        End::At(end) => end.earliest.min(quiet),
        End::Never => gone,
        End::Missed => Micros::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Failure, FaultKind, Outcome},
        tape::{Tape, acquire, close},
    };

    const PROMISE: Promise = Promise::Fifo;

    #[test]
    fn a_ticket_withdrawn_is_out_of_the_way() {
        let mut tape = Tape::new();
        let waits = tape.call(10, 1, acquire("a"));
        tape.ticket(10, "a");
        let mut jumped = tape.clone();
        jumped.granted(20, 2, "b");
        jumped.breaks(PROMISE, "which waits");
        tape.untick(15, "a");
        tape.failed(16, waits, Failure::Timeout);
        tape.granted(20, 2, "b");
        tape.keeps(PROMISE);
    }

    #[test]
    fn who_waits_behind_a_living_holder_waits_rightly() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        tape.call(20, 2, acquire("b"));
        tape.ticket(20, "b");
        tape.end(60_000);
        tape.keeps(PROMISE);
        let mut freed = tape.clone();
        freed.released(30_000, 1, "a", token);
        // Whom the store forgot is not granted any more.
        freed.keeps(PROMISE);
        freed.renew(37_600, "b");
        freed.breaks(PROMISE, "first in line");
        tape.renew(10_000, "b");
        tape.fault(100, None, FaultKind::Crash, 1);
        tape.quiet(200);
        tape.breaks(PROMISE, "first in line");
    }

    #[test]
    fn who_was_forgotten_while_it_waits_stands_in_nobodys_way() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 2, "b");
        tape.call(20, 1, acquire("a"));
        tape.ticket(20, "a");
        tape.open(30, 3, "c");
        tape.call(40, 3, acquire("c"));
        tape.ticket(40, "c");
        tape.fault(50, Some(4_000), FaultKind::Partition, 1);
        tape.quiet(5_000);
        tape.released(6_000, 2, "b", token);
        tape.renew(29_000, "c");
        tape.end(30_000);
        tape.breaks(PROMISE, "ticket 6 was first in line");
        let verdict = tape.verdict(PROMISE);
        assert_eq!(verdict.violations.len(), 1, "{verdict:#?}");
    }

    #[test]
    fn who_holds_until_its_session_is_closed_holds_rightly() {
        let mut tape = Tape::new();
        tape.granted(10, 1, "a");
        let waits = tape.call(20, 2, acquire("b"));
        let next = tape.ticket(20, "b");
        tape.quiet(30);
        let granted = |close_at: u64| {
            let mut tape = tape.clone();
            tape.call(close_at, 1, close("a"));
            tape.untick(49_990, "a");
            tape.ok(50_000, waits, next);
            tape.end(60_000);
            tape
        };
        granted(49_980).keeps(PROMISE);
        granted(10_000).breaks(PROMISE, "first in line");
    }

    #[test]
    fn a_ticket_left_by_an_acquire_that_failed_blocks_nobody() {
        let mut tape = Tape::new();
        let tried = tape.call(10, 1, acquire("a"));
        tape.ticket(10, "a");
        tape.failed(11, tried, Failure::Unavailable);
        tape.call(20, 2, acquire("b"));
        tape.ticket(20, "b");
        tape.renew(10_000, "a");
        tape.end(60_000);
        tape.breaks(PROMISE, "first in line");
    }

    #[test]
    fn who_is_dropped_at_the_end_had_been_first_in_line_all_the_same() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        let waits = tape.call(20, 2, acquire("b"));
        tape.ticket(20, "b");
        tape.released(30_000, 1, "a", token);
        let dropped = |at: u64| {
            let mut tape = tape.clone();
            tape.renew(40_000, "b");
            tape.end_with(at, waits, Outcome::Unknown { why: "dropped".into() });
            tape.call(at, 2, close("b"));
            tape.untick(at + 1, "b");
            tape.end(60_000);
            tape
        };
        dropped(40_400).keeps(PROMISE);
        dropped(40_600).breaks(PROMISE, "first in line");
    }
}
