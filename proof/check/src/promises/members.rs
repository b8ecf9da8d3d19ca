//! Promise 7: a member with a live session is never removed; one with a dead session goes within lease + 1 s while
//! any janitor candidate lives.

use std::collections::HashMap;

use super::{Limits, SLOW};
use crate::{
    case::Case,
    history::{Micros, Op, SessionState, Sight},
    stream::Entry,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>, limits: &Limits) -> Verdict {
    let mut verdict = Verdict::new(Promise::Members);
    let leaves = leaves(case);
    let forsaken = forsaken(case);
    let janitors = janitors(case, &leaves);
    let joins = joins(case);
    for epoch in case.stream.epochs() {
        for (key, entries) in case.stream.keys_under(epoch, "member.") {
            for (place, record) in entries.iter().enumerate().filter(|(_, entry)| entry.is_live()) {
                let Some(session) = record.write.value.session.as_deref() else { continue };
                let next = entries.get(place + 1);
                // What the same session writes there again, it may.
                let kept = next.is_some_and(|next| next.is_live() && next.write.value.session.as_deref() == Some(session));
                if kept {
                    continue;
                }
                if let Some(next) = next {
                    verdict.checked();
                    let given_up = record.write.value.nonce.as_deref().and_then(|nonce| forsaken.get(nonce)).copied();
                    let since = joined(case, &joins, &entries[..=place]);
                    if !may_go(case, session, &leaves, given_up, since, record, next) {
                        let what = format!("{key}: the record of the live session {session} was ended at {}", next.revision());
                        verdict.violated(what, next.write.at, [record.line, next.line]);
                    }
                }
                if epoch == case.stream.last_epoch() {
                    goes_soon(case, limits, &janitors, record, next, &mut verdict);
                }
            }
        }
    }
    verdict
}

/// When each session asked to leave, by the member's key; and, with no key, when its own client saw it lost: then it
/// withdraws what it had.
type Leaves<'c> = HashMap<(&'c str, String), Vec<Micros>>;

/// The joins that did not come to be, by their nonce: what such a one may have written is withdrawn. That it failed may
/// be heard of after that, by a client that stood still.
type Forsaken<'c> = HashMap<&'c str, Micros>;

fn forsaken<'c>(case: &'c Case<'_>) -> Forsaken<'c> {
    let mut forsaken = HashMap::new();
    for operation in &case.operations {
        if let Op::Join { nonce, .. } = operation.op()
            && operation.returned.is_some()
            && operation.ok().is_none()
        {
            forsaken.insert(nonce.as_str(), operation.call.at);
        }
    }
    forsaken
}

/// When each join was called, by its nonce.
fn joins<'c>(case: &'c Case<'_>) -> HashMap<&'c str, Micros> {
    let joins = case.operations.iter().filter_map(|operation| match operation.op() {
        Op::Join { nonce, .. } => Some((nonce.as_str(), operation.call.at)),
        _ => None,
    });
    joins.collect()
}

/// Since when the session of the last of these records of one key may have been there without a break.
fn joined(case: &Case<'_>, joins: &HashMap<&str, Micros>, records: &[Entry<'_>]) -> Micros {
    let Some(last) = records.last() else { return 0 };
    let same = |entry: &&Entry<'_>| entry.is_live() && entry.write.value.session == last.write.value.session;
    let first = records.iter().rev().take_while(same).last().unwrap_or(last);
    let called = first.write.value.nonce.as_deref().and_then(|nonce| joins.get(nonce)).copied();
    called.unwrap_or(first.earliest).saturating_sub(case.slack)
}

fn leaves<'c>(case: &'c Case<'_>) -> Leaves<'c> {
    let mut leaves = Leaves::new();
    for operation in &case.operations {
        if let Op::Leave { session, group, member } = operation.op()
            && operation.failed().is_none()
        {
            leaves.entry((session.as_str(), format!("member.{group}.{member}"))).or_default().push(operation.call.at);
        }
    }
    for (_, seen) in &case.seen {
        if let Sight::Session { session, state: SessionState::Lost } = &seen.what {
            leaves.entry((session.as_str(), String::new())).or_default().push(seen.from);
        }
    }
    leaves
}

fn may_go(
    case: &Case<'_>,
    session: &str,
    leaves: &Leaves<'_>,
    given_up: Option<Micros>,
    since: Micros,
    record: &Entry<'_>,
    end: &Entry<'_>,
) -> bool {
    let epoch = record.epoch;
    if case.death(epoch, session).may_be_below(end.revision())
        || case.may_be_forgotten(epoch, session, end)
        || case.stream.gap(epoch, record.revision(), end.revision())
    {
        return true;
    }
    let by = end.latest.saturating_add(case.slack);
    let closed = case.sessions.get(session).and_then(|session| session.closed);
    let asked = |key: String| leaves.get(&(session, key)).into_iter().flatten().copied();
    // Who left, and joined again under the same id, has not left again.
    let left = asked(record.write.key.clone()).filter(|left| *left >= since);
    closed.into_iter().chain(left).chain(asked(String::new())).chain(given_up).any(|asked| asked <= by)
}

fn goes_soon(
    case: &Case<'_>,
    limits: &Limits,
    janitors: &[(Micros, Micros)],
    record: &Entry<'_>,
    end: Option<&Entry<'_>>,
    verdict: &mut Verdict,
) {
    let Some(session) = record.write.value.session.as_deref() else { return };
    let known = case.sessions.get(session);
    let death = case.death(record.epoch, session).entry();
    let crash = known.and_then(|known| case.faults.crashed(known.client));
    let since = death.map(|death| death.latest).into_iter().chain(crash.map(|(_, at)| at)).min();
    let Some(since) = since.filter(|since| *since < Micros::MAX).map(|since| since.max(record.earliest)) else { return };
    let lease = known.map_or(case.longest_lease, |known| known.lease);
    let alone = since + lease + limits.members + case.slack;
    let calm = case.faults.calm(since, alone, case.longest_lease, crash.map(|(line, _)| line));
    let deadline = match case.quiet {
        _ if calm => alone,
        // The janitor may have died too. Its successor has seen sessions a third of its own lease before.
        Some(quiet) => since.max(quiet) + case.longest_lease * 4 / 3 + limits.members + case.slack,
        None => return verdict.skip(),
    };
    let janitor = janitors.iter().any(|(from, until)| *from <= since && *until > deadline);
    if !janitor || case.store_was_slow(since, deadline, SLOW) || (deadline > case.end && end.is_none()) {
        return verdict.skip();
    }
    verdict.checked();
    if end.is_none_or(|end| end.earliest > deadline) {
        let what = format!(
            "{}: the session {session} was dead at {since} µs; its record was still there at {deadline} µs",
            record.write.key
        );
        let lines = [Some(record.line), death.map(|death| death.line), crash.map(|(line, _)| line), end.map(|end| end.line)];
        verdict.violated(what, Some(deadline), lines.into_iter().flatten());
    }
}

/// Since when and until when each living session with a member may be the janitor.
fn janitors(case: &Case<'_>, leaves: &Leaves<'_>) -> Vec<(Micros, Micros)> {
    let candidate = |operation: &crate::case::Operation<'_>| {
        let Op::Join { session, .. } = operation.op() else { return None };
        let of = case.sessions.get(session.as_str()).filter(|of| case.faults.crashed(of.client).is_none())?;
        let deaths = case.stream.epochs().filter_map(|epoch| case.death(epoch, session).entry());
        let lost = leaves.get(&(session.as_str(), String::new())).and_then(|lost| lost.first()).copied();
        let end = deaths.map(|death| death.earliest).chain(of.closed).chain(lost).min().unwrap_or(Micros::MAX);
        operation.ok().map(|_| (operation.ended(), end))
    };
    case.operations.iter().filter_map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Done, Failure, FaultKind, Outcome, WriteState},
        tape::{Tape, close, join},
    };

    const PROMISE: Promise = Promise::Members;

    #[test]
    fn a_member_goes_when_it_leaves_or_its_session_ends() {
        let mut tape = Tape::new();
        tape.joined(10, 1, "a", "j");
        let gone = |add: &dyn Fn(&mut Tape) -> u64| {
            let mut tape = tape.clone();
            add(&mut tape);
            tape.unmember(30, "a");
            tape
        };
        gone(&|_| 0).breaks(PROMISE, "live session a");
        gone(&|tape| tape.die(29, "a")).keeps(PROMISE);
        gone(&|tape| tape.call(29, 1, close("a"))).keeps(PROMISE);
        let leave = || Op::Leave { session: "a".into(), group: "g".into(), member: "m-a".into() };
        gone(&|tape| tape.call(29, 1, leave())).keeps(PROMISE);
        gone(&|tape| tape.call(31, 1, leave())).breaks(PROMISE, "live session a");
    }

    #[test]
    fn who_was_silent_for_its_ttl_may_find_itself_forgotten_and_withdraw() {
        let mut tape = Tape::new();
        tape.joined(10, 1, "a", "j");
        tape.renew(1_000, "a");
        let ended = |at| {
            let mut tape = tape.clone();
            tape.unmember(at, "a");
            tape.end(9_000);
            tape
        };
        ended(3_999).breaks(PROMISE, "live session a");
        ended(4_000).keeps(PROMISE);
        let mut renewed = tape.clone();
        renewed.renew(2_000, "a");
        renewed.unmember(4_000, "a");
        renewed.end(9_000);
        renewed.breaks(PROMISE, "live session a");
    }

    #[test]
    fn what_a_failed_join_has_written_is_withdrawn() {
        let ended = |outcome: Outcome| {
            let mut tape = Tape::new();
            let call = tape.call(10, 1, join("a", "j"));
            tape.member(11, "a", "j");
            tape.end_with(20, call, outcome);
            tape.unmember(30, "a");
            tape
        };
        ended(Outcome::Ok(Done::default())).breaks(PROMISE, "live session a");
        ended(Outcome::Unknown { why: String::new() }).keeps(PROMISE);
        ended(Outcome::Failed { kind: Failure::Unavailable, why: String::new() }).keeps(PROMISE);
        // A later join is not the one that failed.
        let mut again = ended(Outcome::Unknown { why: String::new() });
        again.joined(40, 1, "a", "j2");
        again.unmember(50, "a");
        again.breaks(PROMISE, "live session a");
    }

    #[test]
    fn an_id_is_taken_over_from_the_dead_alone() {
        let mut tape = Tape::new();
        tape.joined(10, 1, "a", "j");
        let mut dead = tape.clone();
        dead.die(15, "a");
        for (mut tape, kept) in [(tape, false), (dead, true)] {
            tape.write(20, "member.g.m-a", WriteState::Live, "b", "j2");
            assert_eq!(tape.verdict(PROMISE).violations.is_empty(), kept);
        }
    }

    #[test]
    fn the_dead_go_within_their_lease_and_a_second_while_a_janitor_lives() {
        let killed = |gone: u64, janitor: bool| {
            let mut tape = Tape::new();
            tape.joined(10, 1, "a", "j");
            if janitor {
                tape.joined(11, 2, "b", "j2");
            }
            tape.fault(100, None, FaultKind::Crash, 1);
            tape.die(620, "a");
            tape.unmember(gone, "a");
            tape.end(5000);
            tape
        };
        killed(1600, true).keeps(PROMISE);
        killed(1601, true).breaks(PROMISE, "was still there");
        killed(4000, false).keeps(PROMISE);
        // One whose own session is over is none.
        let mut none = killed(4000, true);
        none.die(700, "b");
        none.keeps(PROMISE);
    }

    #[test]
    fn who_left_and_joined_again_has_not_left_again() {
        let leave = || Op::Leave { session: "a".into(), group: "g".into(), member: "m-a".into() };
        let mut tape = Tape::new();
        tape.joined(10, 1, "a", "j");
        tape.call(20, 1, leave());
        tape.unmember(20, "a");
        tape.joined(30, 1, "a", "j2");
        let mut again = tape.clone();
        tape.unmember(40, "a");
        tape.breaks(PROMISE, "live session a");
        again.call(39, 1, leave());
        again.unmember(40, "a");
        again.keeps(PROMISE);
    }
}
