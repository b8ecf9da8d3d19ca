//! Promise 3: validity never overlaps. Whoever says that it holds does so before anybody else can be granted, and
//! no session is ended before its lease has run out.

use std::collections::HashMap;

use crate::{
    case::{Case, Grant, Prize, prize},
    history::{Micros, Seen, Sight},
    stream::Entry,
    verdict::{Promise, Verdict},
};

/// A hold as its client names it, by its token, and the epoch that it means; zero if it was never granted.
type Named<'a> = (Prize<'a>, u64, u64, u64);

/// The last time that a client said of a hold that it has it.
#[derive(Clone, Copy)]
struct LastYes {
    from: Micros,
    line: usize,
}

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Validity);
    let last = last_yes(case);
    for (named, yes) in &last {
        verdict.checked();
        its_own_end(case, *named, *yes, &mut verdict);
    }
    overlaps(case, &last, &mut verdict);
    after_it_was_lost(case, &last, &mut verdict);
    sessions(case, &mut verdict);
    verdict.violations.sort_by(|a, b| a.lines.cmp(&b.lines));
    verdict
}

fn last_yes<'a>(case: &Case<'a>) -> HashMap<Named<'a>, LastYes> {
    let mut last: HashMap<_, LastYes> = HashMap::new();
    for (line, seen) in &case.seen {
        let hold = match &seen.what {
            Sight::Held { lock, token, yes: true } => (Prize::Lock(lock), *token),
            Sight::Leading { election, term, yes: true } => (Prize::Election(election), *term),
            _ => continue,
        };
        // The answer may be as old as the beginning of the look.
        let yes = LastYes { from: seen.from, line: *line };
        let kept = last.entry(named(case, hold, seen)).or_insert(yes);
        if yes.from > kept.from {
            *kept = yes;
        }
    }
    last
}

fn named<'a>(case: &Case<'_>, (prize, token): (Prize<'a>, u64), seen: &Seen) -> Named<'a> {
    let epoch = case.grant(prize, token, seen.client, seen.at).map_or(0, |grant| grant.epoch);
    (prize, token, seen.client, epoch)
}

/// Nobody holds what was not granted to it, nor what has ended in the stream, nor under a dead session.
fn its_own_end(case: &Case<'_>, (prize, token, client, _): Named<'_>, yes: LastYes, verdict: &mut Verdict) {
    let Some(grant) = case.grant(prize, token, client, yes.from) else {
        let what = format!("{prize}: client {client} says that it holds {token}, which was not granted to it");
        return verdict.violated(what, Some(yes.from), [yes.line]);
    };
    let latest = yes.from.saturating_sub(case.slack).saturating_sub(1);
    let tenure = case.tenure(prize, grant.epoch, token);
    // A hold broken by an administrator passes on at once, and its holder hears of it within its lease
    // where nothing is in the way.
    let lease = case.sessions.get(grant.session).map_or(case.longest_lease, |session| session.lease + session.lease / 50);
    let over = tenure.filter(|tenure| {
        let heard = if tenure.was_broken() { latest.saturating_sub(lease) } else { latest };
        let calm = || case.faults.calm(tenure.end.latest(), latest, case.longest_lease, None);
        tenure.end.surely_by(heard) && (!tenure.was_broken() || calm())
    });
    let death = case.death(grant.epoch, grant.session);
    let (what, end) = match over {
        Some(tenure) => ("its end in the stream", tenure.end.entry()),
        None if death.surely_by(latest) && !tenure.is_some_and(|tenure| tenure.was_broken()) => {
            ("its session's end", death.entry())
        }
        None => return,
    };
    let what = format!("{prize}: client {client} says that it holds {token} after {what}");
    let lines = case.lines([grant.operation]).into_iter().chain([yes.line]).chain(end.map(|end| end.line));
    verdict.violated(what, Some(yes.from), lines);
}

fn overlaps(case: &Case<'_>, last: &HashMap<Named<'_>, LastYes>, verdict: &mut Verdict) {
    for (prize, grants) in &case.grants {
        // Ascending by (epoch, token); seen from the end, the earliest return of all later grants.
        let mut next: Option<&Grant<'_>> = None;
        for grant in grants.iter().rev() {
            let broken = case.tenure(*prize, grant.epoch, grant.token).is_some_and(|tenure| tenure.was_broken());
            let yes = last.get(&(*prize, grant.token, grant.client, grant.epoch)).filter(|_| !broken);
            if let Some((yes, next)) = yes.zip(next)
                && yes.from > next.returned.saturating_add(case.slack)
            {
                let what = format!(
                    "{prize}: client {} says that it holds {} at {} µs; client {} was granted {} by {} µs",
                    grant.client, grant.token, yes.from, next.client, next.token, next.returned
                );
                let lines = case.lines([grant.operation, next.operation]).into_iter().chain([yes.line]);
                verdict.violated(what, Some(yes.from), lines);
            }
            next = next.filter(|next| next.returned <= grant.returned).or(Some(grant));
        }
    }
}

/// A time in which a client relied on a hold.
#[derive(Clone, Copy)]
struct Reliance<'a> {
    grant: &'a Grant<'a>,
    from: Micros,
    until: LastYes,
}

/// When clients relied on each prize: a hold that said no may say yes again, as what was granted to others since may have
/// been lost.
fn reliances<'a>(case: &'a Case<'a>) -> HashMap<Prize<'a>, Vec<Reliance<'a>>> {
    let mut sights: Vec<_> = case.seen.iter().map(|(line, seen)| (seen.from, *line, seen)).collect();
    sights.sort_unstable_by_key(|(from, line, _)| (*from, *line));
    let mut open: HashMap<Named<'_>, Option<Reliance<'a>>> = HashMap::new();
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for (from, line, seen) in sights {
        let (hold, yes) = match &seen.what {
            Sight::Held { lock, token, yes } => ((Prize::Lock(lock), *token), *yes),
            Sight::Leading { election, term, yes } => ((Prize::Election(election), *term), *yes),
            _ => continue,
        };
        let Some(grant) = case.grant(hold.0, hold.1, seen.client, seen.at) else { continue };
        let before = open.get(&(hold.0, hold.1, seen.client, grant.epoch)).copied();
        let now = yes.then(|| Reliance {
            grant,
            // The first begins with the grant.
            from: before.map_or(grant.returned, |before| before.map_or(from, |before| before.from)),
            until: LastYes { from, line },
        });
        if let (None, Some(Some(over))) = (now, before) {
            all.entry(hold.0).or_default().push(over);
        }
        open.insert((hold.0, hold.1, seen.client, grant.epoch), now);
    }
    for ((prize, ..), last) in open {
        all.entry(prize).or_default().extend(last);
    }
    all
}

/// No two holds of one prize at one moment, whatever their tokens say.
pub(super) fn in_real_time(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Validity);
    let mut all: Vec<_> = reliances(case).into_iter().collect();
    all.sort_unstable_by_key(|(prize, _)| *prize);
    for (prize, mut held) in all {
        held.retain(|held| !case.tenure(prize, held.grant.epoch, held.grant.token).is_some_and(|tenure| tenure.was_broken()));
        held.sort_by_key(|held| (held.from, held.grant.token));
        let mut longest: Option<Reliance<'_>> = None;
        for held in held {
            verdict.checked();
            if let Some(before) = longest
                && before.until.from > held.from.saturating_add(case.slack)
            {
                let what = format!(
                    "{prize}: client {} says that it holds {} at {} µs; client {} has held {} since {} µs",
                    before.grant.client, before.grant.token, before.until.from, held.grant.client, held.grant.token, held.from
                );
                let lines = case.lines([before.grant.operation, held.grant.operation]).into_iter().chain([before.until.line]);
                verdict.violated(what, Some(before.until.from), lines);
            }
            longest = longest.filter(|before| before.until.from >= held.until.from).or(Some(held));
        }
    }
    verdict
}

/// What was lost is not held again.
fn after_it_was_lost(case: &Case<'_>, last: &HashMap<Named<'_>, LastYes>, verdict: &mut Verdict) {
    for (line, seen) in &case.seen {
        let Sight::Lost { hold, loss } = &seen.what else { continue };
        let (prize, token) = prize(hold);
        if let Some(yes) = last.get(&named(case, (prize, token), seen)).filter(|yes| yes.from > seen.at) {
            let what = format!("{prize}: client {} lost {token} ({loss}) and says later that it holds it", seen.client);
            verdict.violated(what, Some(yes.from), [*line, yes.line]);
        }
    }
}

/// A session's death is permanent, and nobody brings it about while the lease runs.
fn sessions(case: &Case<'_>, verdict: &mut Verdict) {
    for epoch in case.stream.epochs() {
        for (key, entries) in case.stream.keys_under(epoch, "session.") {
            let id = &key["session.".len()..];
            let Some(death) = entries.iter().position(|entry| !entry.is_live()) else { continue };
            verdict.checked();
            if let Some(revived) = entries[death..].iter().find(|entry| entry.is_live()) {
                let what = format!("session {id} was written at {} after its end", revived.revision());
                verdict.violated(what, revived.write.at, [entries[death].line, revived.line]);
            }
            if death > 0 {
                deposed_early(case, id, &entries[death - 1], &entries[death], verdict);
            }
        }
    }
}

fn deposed_early(case: &Case<'_>, id: &str, renewal: &Entry<'_>, death: &Entry<'_>, verdict: &mut Verdict) {
    let Some(session) = case.sessions.get(id) else { return };
    // What its own client ends, it ends when it likes.
    if session.closed.is_some_and(|closed| closed <= death.latest.saturating_add(case.slack)) {
        return;
    }
    let unknown = death.latest == Micros::MAX || (renewal.earliest == 0 && renewal.write.at.is_none());
    if unknown || case.stream.gap(death.epoch, renewal.revision(), death.revision()) {
        return;
    }
    let silence = death.latest.saturating_sub(renewal.earliest).saturating_add(2 * case.slack);
    // Clocks may differ by 1%, in either direction and on both sides.
    if silence < session.lease - session.lease / 50 {
        let lease = session.lease;
        let what = format!("session {id} was ended {silence} µs after its last renewal; its lease is {lease} µs");
        verdict.violated(what, Some(death.latest), [renewal.line, death.line]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{FaultKind, Line, Seen, SessionState, Sight},
        tape::{Tape, acquire, close, held},
    };

    const PROMISE: Promise = Promise::Validity;

    /// `a` held the lock; `b` has it from 600 ms on.
    fn passed_on(note: Option<&str>) -> (Tape, u64) {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        let waits = tape.call(20, 2, acquire("b"));
        let next = tape.ticket(20, "b");
        if note.is_none() {
            tape.die(599, "a");
        }
        tape.untick(600, "a");
        note.into_iter().for_each(|note| tape.noted(note));
        tape.ok(600, waits, next);
        (tape, token)
    }

    #[test]
    fn the_last_word_of_a_holder_is_before_the_next_grant() {
        let (mut tape, token) = passed_on(None);
        tape.seen(598, 1, held(token, true));
        tape.seen(700, 1, held(token, false));
        tape.keeps(PROMISE);
        tape.seen(601, 1, held(token, true));
        tape.breaks(PROMISE, "client 2 was granted");
    }

    #[test]
    fn a_look_counts_from_its_beginning() {
        let (mut tape, token) = passed_on(None);
        let what = held(token, true);
        tape.line(Line::Seen(Seen { from: 598_000, at: 700_000, client: 1, what }));
        tape.keeps(PROMISE);
    }

    #[test]
    fn what_an_administrator_breaks_passes_on_at_once() {
        let (mut tape, token) = passed_on(Some("broken"));
        tape.seen(601, 1, held(token, true));
        tape.keeps(PROMISE);
    }

    #[test]
    fn a_session_is_deposed_after_its_lease_and_no_sooner() {
        for (at, early) in [(400, true), (489, true), (500, false)] {
            let mut tape = Tape::new();
            tape.die(at, "a");
            if early {
                tape.breaks(PROMISE, "its lease is 500000");
            } else {
                tape.keeps(PROMISE);
            }
        }
        // That its client knows of a loss explains nothing, that it closes it does from then on.
        let closed = |at: Option<u64>| {
            let mut tape = Tape::new();
            tape.seen(100, 1, Sight::Session { session: "a".into(), state: SessionState::Lost });
            if let Some(at) = at {
                tape.call(at, 1, close("a"));
            }
            tape.die(101, "a");
            tape
        };
        closed(Some(101)).keeps(PROMISE);
        closed(Some(102)).breaks(PROMISE, "its lease is 500000");
        closed(None).breaks(PROMISE, "its lease is 500000");
    }

    #[test]
    fn after_a_set_back_a_hold_may_be_relied_on_again_but_not_while_another_is() {
        let (mut tape, token) = passed_on(None);
        // Its ticket; then the end of the session before it, and of that one's ticket.
        let next = tape.revision() - 2;
        tape.seen(500, 1, held(token, true));
        tape.seen(700, 1, held(token, false));
        tape.seen(800, 2, held(next, true));
        tape.fault(900, Some(1_000), FaultKind::Rollback, 1);
        tape.seen(1_100, 2, held(next, false));
        tape.seen(1_200, 1, held(token, true));
        tape.keeps(PROMISE);
        let mut both = tape.clone();
        both.seen(1_300, 2, held(next, true));
        both.seen(1_400, 1, held(token, true));
        both.breaks(PROMISE, "has held");
        let mut on = passed_on(None).0;
        on.seen(500, 1, held(token, true));
        on.fault(900, Some(1_000), FaultKind::Rollback, 1);
        on.seen(1_200, 1, held(token, true));
        on.seen(800, 2, held(next, true));
        on.breaks(PROMISE, "has held");
    }

    #[test]
    fn of_a_hold_that_was_broken_its_holder_hears_within_its_lease() {
        let (mut tape, token) = passed_on(Some("broken"));
        tape.seen(1_110, 1, held(token, true));
        tape.keeps(PROMISE);
        tape.seen(1_112, 1, held(token, true));
        tape.breaks(PROMISE, "after its end in the stream");
        // That it was broken is seen also where the recorder has missed something else.
        let mut tape = Tape::of("nats-r1");
        let token = tape.granted(10, 1, "a");
        let waits = tape.call(20, 2, acquire("b"));
        let next = tape.ticket(20, "b");
        tape.revision += 1;
        tape.untick(600, "a");
        tape.noted("broken");
        tape.ok(600, waits, next);
        tape.seen(601, 1, held(token, true));
        tape.keeps(PROMISE);
    }
}
