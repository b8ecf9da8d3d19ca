//! Promise 1: at most one holder per lock and one leader per election at any revision, and (epoch, token) strictly
//! increases in the order of grants.

use super::queue::jumps;
use crate::{
    case::{Case, End, Grant, Prize, Tenure},
    history::Op,
    stream::Entry,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Exclusive);
    for (prize, grants) in &case.grants {
        for grant in grants {
            verdict.checked();
            rests_on_a_write(case, grant, &mut verdict);
        }
        each_once(case, *prize, grants, &mut verdict);
        in_order(case, *prize, grants, &mut verdict);
    }
    for jump in jumps(case, true) {
        let (token, over) = (jump.granted.token, jump.over.token);
        let lock = &jump.granted.born.write.key;
        let what = format!("token {token} was granted while {over}, granted too, was still live: two holders ({lock})");
        verdict.violated(what, jump.at(case), jump.lines(case));
    }
    for (prize, tenures) in &case.tenures {
        match prize {
            Prize::Lock(_) => written_once(*prize, tenures, &mut verdict),
            Prize::Election(name) => one_chain(case, name, tenures, &mut verdict),
        }
    }
    verdict
}

fn rests_on_a_write(case: &Case<'_>, grant: &Grant<'_>, verdict: &mut Verdict) {
    let Grant { prize, epoch, token, session, .. } = grant;
    let lines = case.lines([grant.operation]);
    match case.tenure(*prize, *epoch, *token) {
        Some(tenure) if tenure.session.is_some_and(|of| of != *session) => {
            let what = format!("{prize}: {token} was granted to session {session}, but the write is another's");
            verdict.violated(what, Some(grant.returned), lines.into_iter().chain([tenure.born.line]));
        }
        Some(tenure) if tenure.end.surely_by(grant.called.saturating_sub(case.slack + 1)) => {
            let what = format!("{prize}: {token} was granted to a call that began when it had ended already");
            verdict.violated(what, Some(grant.returned), lines.into_iter().chain([tenure.born.line]).chain(tenure.end.line()));
        }
        Some(_) => {}
        // An epoch of its own judges those that are found elsewhere.
        None if case.stream.epochs().any(|epoch| case.tenure(*prize, epoch, *token).is_some()) => {}
        None if case.stream.gap(*epoch, token.saturating_sub(1), token + 1) => verdict.skip(),
        None => {
            let what = format!("{prize}: {token} was granted, but the stream has no such ticket or term at that revision");
            verdict.violated(what, Some(grant.returned), lines);
        }
    }
}

fn each_once(case: &Case<'_>, prize: Prize<'_>, grants: &[Grant<'_>], verdict: &mut Verdict) {
    for pair in grants.windows(2) {
        if let [first, second] = pair
            && (first.epoch, first.token) == (second.epoch, second.token)
        {
            let what = format!("{prize}: {} was granted twice", first.token);
            verdict.violated(what, Some(second.returned), case.lines([first.operation, second.operation]));
        }
    }
}

/// Who asks after another's grant was told gets more than that other.
fn in_order(case: &Case<'_>, prize: Prize<'_>, grants: &[Grant<'_>], verdict: &mut Verdict) {
    let mut by_call: Vec<_> = grants.iter().collect();
    let mut by_return = by_call.clone();
    by_call.sort_by_key(|grant| grant.called);
    by_return.sort_by_key(|grant| grant.returned);
    let mut told = by_return.into_iter().peekable();
    let mut highest: Option<&Grant<'_>> = None;
    for grant in by_call {
        while let Some(next) = told.next_if(|next| next.returned.saturating_add(case.slack) < grant.called) {
            highest = highest.filter(|kept| (kept.epoch, kept.token) >= (next.epoch, next.token)).or(Some(next));
        }
        if let Some(before) = highest.filter(|before| (before.epoch, before.token) > (grant.epoch, grant.token)) {
            let what = format!(
                "{prize}: token {} of epoch {} was granted after {} of epoch {}",
                grant.token, grant.epoch, before.token, before.epoch
            );
            verdict.violated(what, Some(grant.returned), case.lines([before.operation, grant.operation]));
        }
    }
}

fn written_once(prize: Prize<'_>, tickets: &[Tenure<'_>], verdict: &mut Verdict) {
    let mut last: std::collections::HashMap<(u64, &str), &Tenure<'_>> = std::collections::HashMap::new();
    for ticket in tickets {
        let before = last.insert((ticket.epoch, &ticket.born.write.key), ticket);
        if let Some(before) = before.filter(|before| matches!(before.end, End::At(end) if end.revision() > ticket.token)) {
            let what = format!("{prize}: the live ticket {} was written again at {}", before.token, ticket.token);
            verdict.violated(what, ticket.born.write.at, [before.born.line, ticket.born.line]);
        }
    }
}

/// A record is a win over nobody, over a dead leader or by transfer; or it keeps term and leader as they are.
fn one_chain(case: &Case<'_>, election: &str, terms: &[Tenure<'_>], verdict: &mut Verdict) {
    let key = format!("election.{election}");
    for term in terms {
        verdict.checked();
        let before = case.stream.before(term.epoch, &key, term.token).filter(Entry::is_live);
        let missed = |before: &Entry<'_>| case.stream.gap(term.epoch, before.revision(), term.token);
        if let Some(before) = before.filter(|before| !missed(before))
            && !may_follow(case, election, &before, term)
        {
            let what =
                format!("election {election}: term {} began while the leader of {} was in office", term.token, before.revision());
            verdict.violated(what, term.born.write.at, [before.line, term.born.line]);
        }
    }
    for epoch in case.stream.epochs() {
        let mut before: Option<Entry<'_>> = None;
        for (_, entries) in case.stream.keys_under(epoch, &key).into_iter().filter(|(found, _)| *found == key) {
            for entry in entries {
                let kept = entry.write.value.term.filter(|term| entry.is_live() && *term != entry.revision());
                if let Some(term) = kept
                    && !case.stream.gap(epoch, before.map_or(0, |before| before.revision()), entry.revision())
                    && !before.is_some_and(|before| is_of(&before, term) && same_leader(&before, &entry))
                {
                    let what =
                        format!("election {election}: {} speaks for term {term}, which was not in office", entry.revision());
                    verdict.violated(what, entry.write.at, before.map(|before| before.line).into_iter().chain([entry.line]));
                }
                before = Some(entry);
            }
        }
    }
}

fn is_of(entry: &Entry<'_>, term: u64) -> bool {
    entry.is_live() && entry.write.value.term.unwrap_or(entry.revision()) == term
}

fn same_leader(before: &Entry<'_>, after: &Entry<'_>) -> bool {
    let (before, after) = (&before.write.value, &after.write.value);
    before.session.is_none() || after.session.is_none() || before.session == after.session
}

fn may_follow(case: &Case<'_>, election: &str, before: &Entry<'_>, term: &Tenure<'_>) -> bool {
    let Some(leader) = before.write.value.session.as_deref() else { return true };
    if case.death(term.epoch, leader).may_be_below(term.token) {
        return true;
    }
    // Handed over in one batch: the candidate's own key was ended just before.
    let handed = term.token.checked_sub(1).and_then(|revision| case.stream.at(term.epoch, revision)).is_some_and(|entry| {
        let of_candidate = entry.write.key.starts_with(&format!("candidate.{election}."));
        of_candidate && entry.write.note.as_deref() == Some("transferred")
    });
    handed || transfers(case, election, before)
}

/// Its leader asked for a transfer, which was not refused.
fn transfers(case: &Case<'_>, election: &str, before: &Entry<'_>) -> bool {
    let term = before.write.value.term.unwrap_or(before.revision());
    let of_it = |op: &Op| matches!(op, Op::Transfer { election: of, term: given, .. } if of == election && *given == term);
    case.operations.iter().any(|operation| of_it(operation.op()) && operation.failed().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Failure, WriteState},
        tape::{Tape, acquire, campaign, fenced, lock},
    };

    const PROMISE: Promise = Promise::Exclusive;

    #[test]
    fn a_hold_ends_before_the_next_begins() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        let waits = tape.call(20, 2, acquire("b"));
        let next = tape.ticket(20, "b");
        let mut early = tape.clone();
        early.ok(29, waits, next);
        early.released(30, 1, "a", token);
        early.breaks(PROMISE, "two holders");
        tape.released(30, 1, "a", token);
        tape.ok(30, waits, next);
        tape.keeps(PROMISE);
    }

    #[test]
    fn outside_a_simulation_the_order_of_operations_tells() {
        let mut tape = Tape::of("memory");
        let token = tape.granted(10, 1, "a");
        tape.granted(20, 2, "b");
        let mut unclear = tape.clone();
        // When the tombstone was written is not known, so it may have been in time.
        unclear.untick(0, "a");
        unclear.keeps(PROMISE);
        // A write under the token of the later tombstone shows that it was not.
        let call = tape.call(30, 1, fenced("a", lock(token), "n"));
        let revision = tape.data(0, "n");
        tape.ok(31, call, revision);
        tape.untick(0, "a");
        tape.breaks(PROMISE, "two holders");
    }

    #[test]
    fn a_hold_whose_end_was_missed_may_have_ended_late() {
        let mut tape = Tape::of("nats-r1");
        let token = tape.granted(10, 1, "a");
        let waits = tape.call(20, 2, acquire("b"));
        let next = tape.ticket(20, "b");
        tape.released(30, 1, "a", token);
        tape.ok(40, waits, next);
        // What came between was not recorded; something after it was.
        tape.revision += 1;
        tape.data(50, "n");
        tape.keeps(PROMISE);
    }

    #[test]
    fn an_office_passes_on_by_death_resignation_or_transfer() {
        let mut led = Tape::new();
        let call = led.call(10, 1, campaign("a"));
        let term = led.leader(10, "a", None, "");
        led.ok(10, call, term);
        led.leader(15, "a", Some(term), "p");
        let successor = |mut tape: Tape| {
            let call = tape.call(20, 2, campaign("b"));
            let term = tape.leader(20, "b", None, "");
            tape.ok(20, call, term);
            tape
        };
        successor(led.clone()).breaks(PROMISE, "in office");
        let mut dead = led.clone();
        dead.die(19, "a");
        successor(dead).keeps(PROMISE);
        let mut resigned = led.clone();
        resigned.write(19, "election.e", WriteState::Deleted, "", "");
        successor(resigned).keeps(PROMISE);
        led.write(19, "candidate.e.b-1", WriteState::Deleted, "", "");
        led.noted("transferred");
        successor(led).keeps(PROMISE);
    }

    #[test]
    fn who_speaks_for_a_term_is_its_leader() {
        let mut tape = Tape::new();
        let call = tape.call(10, 1, campaign("a"));
        let term = tape.leader(10, "a", None, "");
        tape.ok(10, call, term);
        tape.leader(15, "b", Some(term), "p");
        tape.breaks(PROMISE, "speaks for term");
    }

    #[test]
    fn a_transfer_that_was_refused_hands_nothing_over() {
        let mut tape = Tape::new();
        let call = tape.call(10, 1, campaign("a"));
        let term = tape.leader(10, "a", None, "");
        tape.ok(10, call, term);
        let transfer = tape.call(15, 1, Op::Transfer { session: "a".into(), election: "e".into(), term, to: None });
        let call = tape.call(20, 2, campaign("b"));
        let next = tape.leader(20, "b", None, "");
        tape.ok(20, call, next);
        tape.keeps(PROMISE);
        tape.failed(16, transfer, Failure::Conflict);
        tape.breaks(PROMISE, "in office");
    }

    #[test]
    fn what_ended_a_ticket_may_have_been_written_over_where_the_recorder_missed_it() {
        let taken = |missed: u64| {
            let mut tape = Tape::of("nats-r1");
            let token = tape.granted(10, 1, "a");
            let call = tape.call(20, 1, Op::Release { session: "a".into(), lock: "l".into(), token });
            tape.ok(25, call, token + 1);
            tape.revision += missed;
            tape.granted(30, 2, "b");
            let call = tape.call(40, 2, fenced("b", lock(token + 1 + missed), "n"));
            let revision = tape.data(0, "n");
            tape.ok(41, call, revision);
            tape.untick(0, "a");
            tape
        };
        taken(0).breaks(PROMISE, "two holders");
        assert!(taken(1).verdict(PROMISE).violations.is_empty());
    }
}
