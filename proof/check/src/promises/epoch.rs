//! Epochs: when the bucket was made anew or set back, no session of before holds anything afterwards.

use crate::{
    case::{Case, Prize},
    history::Sight,
    verdict::{Promise, Verdict},
};

pub(super) fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::new(Promise::Epoch);
    for grant in case.grants() {
        verdict.checked();
        let session = case.sessions.get(grant.session);
        let own = case.tenure(grant.prize, grant.epoch, grant.token).is_some();
        let elsewhere = case.stream.epochs().filter(|epoch| !own && *epoch != grant.epoch);
        let other = elsewhere.filter_map(|epoch| case.tenure(grant.prize, epoch, grant.token)).next();
        if let Some(session) = session.filter(|session| session.epoch != grant.epoch || other.is_some()) {
            let what = format!(
                "{}: {} was granted in epoch {} to a session of epoch {}",
                grant.prize,
                grant.token,
                other.map_or(grant.epoch, |other| other.epoch),
                session.epoch
            );
            let lines = case.lines([grant.operation]).into_iter().chain(other.map(|other| other.born.line));
            verdict.violated(what, Some(grant.returned), lines);
        }
    }
    for (line, seen) in &case.seen {
        let (prize, token) = match &seen.what {
            Sight::Held { lock, token, yes: true } => (Prize::Lock(lock), *token),
            Sight::Leading { election, term, yes: true } => (Prize::Election(election), *term),
            _ => continue,
        };
        let Some(grant) = case.grant(prize, token, seen.client, seen.at) else { continue };
        let Some(session) = case.sessions.get(grant.session) else { continue };
        let next = case.began.iter().find(|(epoch, ..)| *epoch > session.epoch);
        // What was renewed just before is valid for the lease, and nobody else is granted anything meanwhile.
        if let Some((epoch, _, at)) = next.filter(|(.., at)| seen.from > at.saturating_add(session.lease + case.slack)) {
            let what = format!(
                "{prize}: client {} holds {token} of epoch {} at {} µs; epoch {epoch} began by {at} µs",
                seen.client, session.epoch, seen.from
            );
            verdict.violated(what, Some(seen.from), case.lines([grant.operation]).into_iter().chain([*line]));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{FaultKind, WriteState},
        tape::{Tape, acquire, held},
    };

    const PROMISE: Promise = Promise::Epoch;

    #[test]
    fn a_hold_outlives_its_bucket_by_a_lease_at_most() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        tape.fault(100, Some(100), FaultKind::Recreate, 1);
        (tape.epoch, tape.revision) = (2, 0);
        tape.write(100, "meta.epoch", WriteState::Live, "", "");
        tape.seen(600, 1, held(token, true));
        tape.keeps(PROMISE);
        tape.seen(601, 1, held(token, true));
        tape.breaks(PROMISE, "of epoch 1");
    }

    #[test]
    fn tokens_of_a_new_bucket_may_be_lower() {
        let mut tape = Tape::new();
        let token = tape.granted(10, 1, "a");
        (tape.epoch, tape.revision) = (2, 0);
        tape.open(100, 2, "c");
        let next = tape.granted(700, 2, "c");
        assert!(next < token);
        tape.keeps(PROMISE);
        tape.keeps(Promise::Exclusive);
        // To a session of before nothing is granted any more.
        tape.untick(710, "c");
        let call = tape.call(720, 2, acquire("b"));
        let token = tape.ticket(720, "b");
        tape.ok(720, call, token);
        tape.breaks(PROMISE, "to a session of epoch 1");
    }

    #[test]
    fn a_bucket_that_nobody_wrote_to_counts_as_one() {
        let mut tape = Tape::new();
        for at in [100, 200, 2_000] {
            tape.fault(at, Some(at), FaultKind::Recreate, 1);
        }
        (tape.epoch, tape.revision) = (3, 0);
        tape.write(250, "meta.epoch", WriteState::Live, "", "");
        tape.open(250, 2, "c");
        let token = tape.granted(900, 2, "c");
        tape.seen(1_000, 2, held(token, true));
        (tape.epoch, tape.revision) = (4, 0);
        tape.write(2_000, "meta.epoch", WriteState::Live, "", "");
        tape.keeps(PROMISE);
        tape.seen(2_501, 2, held(token, true));
        tape.breaks(PROMISE, "of epoch 3");
    }
}
