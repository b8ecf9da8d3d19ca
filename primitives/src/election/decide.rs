//! What a candidate does next, given what stands in the election's key; pure.

use tenure_kv::{Entry, Revision};

use super::record::Record;

/// What a candidate does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Its own record stands there, since this term.
    Lead { term: Revision, revision: Revision },
    /// Nobody leads: write one's own record over what stands at this revision, zero for nothing at all.
    Seize(Revision),
    /// Somebody else leads.
    Wait(Standing),
}

/// Who leads, as far as a candidate has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) session: String,
    pub(super) candidate: String,
    pub(super) priority: i32,
    pub(super) revision: Revision,
}

/// `dead` is a session that is proven to have ended.
pub(super) fn next(latest: Option<&Entry>, own: &str, dead: Option<&str>) -> Next {
    let Some(entry) = latest else { return Next::Seize(Revision::ZERO) };
    if !entry.is_live() {
        return Next::Seize(entry.revision);
    }
    let Some(record) = Record::read(entry) else {
        tracing::warn!(key = %entry.key, "this key was not written by Tenure; it is written over");
        return Next::Seize(entry.revision);
    };
    if record.candidate == own {
        return Next::Lead { term: record.term_at(entry.revision), revision: entry.revision };
    }
    if dead == Some(record.session.as_str()) {
        return Next::Seize(entry.revision);
    }
    Next::Wait(Standing {
        session: record.session,
        candidate: record.candidate,
        priority: record.priority,
        revision: entry.revision,
    })
}

/// The later of two sights of one key. Nothing at all can be a replica that lags, so it is later than nothing.
pub(super) fn later(known: Option<Entry>, seen: Option<Entry>) -> Option<Entry> {
    match (known, seen) {
        (Some(known), Some(seen)) => Some(if seen.revision > known.revision { seen } else { known }),
        (known, seen) => known.or(seen),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tenure_kv::{Key, State};

    use super::*;
    use crate::record::TicketRecord;

    fn entry(revision: u64, state: State) -> Entry {
        let key = Key::new("election.x").unwrap();
        Entry { key, revision: Revision::new(revision), state, created: SystemTime::UNIX_EPOCH }
    }

    fn led(revision: u64, session: &str, term: Option<u64>) -> Entry {
        let mut record = Record::new(session, format!("{session}-1"), TicketRecord::default(), 5);
        record.term = term;
        entry(revision, State::Live(record.encode()))
    }

    #[test]
    fn a_candidate_seizes_what_nobody_leads() {
        assert_eq!(next(None, "me-1", None), Next::Seize(Revision::ZERO));
        for state in [State::Purged, State::Expired, State::Deleted("x".into()), State::Live("no record".into())] {
            assert_eq!(next(Some(&entry(7, state)), "me-1", None), Next::Seize(Revision::new(7)));
        }
        assert_eq!(next(Some(&led(7, "other", None)), "me-1", Some("other")), Next::Seize(Revision::new(7)));
    }

    #[test]
    fn a_candidate_waits_for_whoever_is_not_known_to_be_dead() {
        for dead in [None, Some("third")] {
            let Next::Wait(standing) = next(Some(&led(7, "other", Some(3))), "me-1", dead) else { panic!("no wait") };
            assert_eq!((standing.session.as_str(), standing.priority, standing.revision.get()), ("other", 5, 7));
        }
    }

    #[test]
    fn the_term_is_where_it_was_won() {
        let lead = |term, revision| Next::Lead { term: Revision::new(term), revision: Revision::new(revision) };
        assert_eq!(next(Some(&led(7, "me", None)), "me-1", None), lead(7, 7));
        assert_eq!(next(Some(&led(9, "me", Some(7))), "me-1", None), lead(7, 9));
        // Another campaign of the same session is somebody else.
        assert!(matches!(next(Some(&led(7, "me", None)), "me-2", None), Next::Wait(_)));
    }

    #[test]
    fn a_sight_never_goes_back() {
        let at = |entry: Option<Entry>| entry.map(|entry| entry.revision.get());
        assert_eq!(at(later(Some(led(7, "a", None)), Some(led(5, "b", None)))), Some(7));
        assert_eq!(at(later(Some(led(7, "a", None)), Some(entry(8, State::Purged)))), Some(8));
        assert_eq!(at(later(Some(led(7, "a", None)), None)), Some(7));
        assert_eq!(at(later(Some(entry(8, State::Purged)), None)), Some(8));
        assert_eq!(at(later(None, Some(led(5, "b", None)))), Some(5));
    }
}
