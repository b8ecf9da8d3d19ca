//! What the janitor knows, and what it should do next; pure.
//!
//! A record is doomed when its session is proven dead: a tombstone was read, or one was committed against the
//! revision that had been silent for too long, or against no key at all. Silence counts by the janitor's own
//! clock, from what it has received.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tenure_kv::{Key, Moment, Revision};

use crate::session::timing;

/// Records that are purged at once, at most.
pub(super) const SWEEP: usize = 256;

/// Sessions that are deposed at the same time, at most.
pub(super) const AT_ONCE: usize = 64;
/// How long a session whose record is seen may take to be seen itself: the two come by different ways.
const GRACE: Duration = Duration::from_millis(100);

/// A session to put a tombstone in place of: against its last renewal, or against no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silent {
    pub(super) session: String,
    pub(super) last: Option<(Revision, Duration)>,
}

/// Something to do for the janitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chore {
    /// Depose these sessions, each on its own.
    Depose(Vec<Silent>),
    /// Purge these records of dead sessions, each at its revision.
    Purge(Vec<(Key, Revision)>),
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    sessions: HashMap<String, Watched>,
    /// Who owns which record.
    owners: HashMap<Key, String>,
    /// When each session is to be looked at.
    due: BTreeSet<(Moment, String)>,
    doomed: BTreeMap<Key, Revision>,
    /// A purge failed: not again before.
    purge_from: Option<Moment>,
}

#[derive(Debug)]
struct Watched {
    life: Life,
    members: BTreeMap<Key, Revision>,
    due: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Last renewed at this revision, and silent since then.
    Live {
        revision: Revision,
        since: Moment,
        lease: Duration,
    },
    /// Not seen; a commit may prove that it is dead.
    Absent {
        from: Moment,
    },
    Dead,
}

impl Ledger {
    /// A renewal was seen at `now`. `earlier` says since when it has been silent, where that is known.
    pub(super) fn renewed(&mut self, session: &str, revision: Revision, lease: Duration, now: Moment, earlier: Option<Moment>) {
        let watched = self.watched(session, now);
        let first = match watched.life {
            Life::Live { revision: known, .. } if known >= revision => return,
            // Dead is for good.
            Life::Dead => return,
            Life::Live { .. } => false,
            Life::Absent { .. } => true,
        };
        let since = earlier.filter(|_| first).unwrap_or(now);
        watched.life = Life::Live { revision, since, lease };
        self.schedule(session);
    }

    /// The session is proven dead.
    pub(super) fn died(&mut self, session: &str) {
        let Some(watched) = self.sessions.get_mut(session) else { return };
        watched.life = Life::Dead;
        self.doomed.extend(watched.members.iter().map(|(key, revision)| (key.clone(), *revision)));
        self.schedule(session);
        self.forget_if_done(session);
    }

    /// The session's key is not there any more, or a look shows none. That is no proof; a commit is.
    pub(super) fn vanished(&mut self, session: &str, now: Moment) {
        if let Some(watched) = self.sessions.get_mut(session)
            && watched.life != Life::Dead
        {
            watched.life = Life::Absent { from: now };
            self.schedule(session);
            self.forget_if_done(session);
        }
    }

    /// Deposing it has failed, and what the store says of it may lag: its silence begins anew.
    pub(super) fn spared(&mut self, session: &str, now: Moment) {
        if let Some(watched) = self.sessions.get_mut(session) {
            match &mut watched.life {
                Life::Live { since, .. } => *since = now,
                Life::Absent { from } => *from = now + GRACE,
                Life::Dead => {}
            }
            self.schedule(session);
        }
    }

    /// The record `key` belongs to `session` as of `revision`.
    pub(super) fn joined(&mut self, key: Key, session: &str, revision: Revision, now: Moment) {
        let before = self.detach(&key);
        let watched = self.watched(session, now);
        watched.members.insert(key.clone(), revision);
        if watched.life == Life::Dead {
            self.doomed.insert(key.clone(), revision);
        }
        self.owners.insert(key, session.to_owned());
        self.schedule(session);
        if let Some(before) = before {
            self.forget_if_done(&before);
        }
    }

    /// The record is gone, or is nobody's that can be told.
    pub(super) fn left(&mut self, key: &Key) {
        if let Some(before) = self.detach(key) {
            self.forget_if_done(&before);
        }
    }

    fn detach(&mut self, key: &Key) -> Option<String> {
        self.doomed.remove(key);
        let session = self.owners.remove(key)?;
        if let Some(watched) = self.sessions.get_mut(&session) {
            watched.members.remove(key);
        }
        self.schedule(&session);
        Some(session)
    }

    /// These are purged, or were not what they had been.
    pub(super) fn settled(&mut self, keys: &[(Key, Revision)]) {
        for (key, revision) in keys {
            if self.doomed.get(key) == Some(revision) {
                self.doomed.remove(key);
            }
        }
    }

    /// Purging did not work: not again before `try_from`.
    pub(super) fn hold_back(&mut self, try_from: Moment) {
        self.purge_from = Some(try_from);
    }

    /// The store was out of reach, or may have been: silence so far proves nothing.
    pub(super) fn cut_off(&mut self, now: Moment) {
        let sessions: Vec<_> = self.due.iter().map(|(_, session)| session.clone()).collect();
        for watched in self.sessions.values_mut() {
            if let Life::Live { since, .. } = &mut watched.life {
                *since = (*since).max(now);
            }
        }
        for session in sessions {
            self.schedule(&session);
        }
    }

    /// What to do now, if anything.
    pub(super) fn next(&self, now: Moment) -> Option<Chore> {
        if !self.doomed.is_empty() && self.purge_from.is_none_or(|from| from <= now) {
            let some = self.doomed.iter().take(SWEEP).map(|(key, revision)| (key.clone(), *revision));
            return Some(Chore::Purge(some.collect()));
        }
        let silent = self.due.iter().take_while(|(at, _)| *at <= now).take(AT_ONCE).filter_map(|(_, session)| {
            let last = match self.sessions.get(session)?.life {
                Life::Live { revision, lease, .. } => Some((revision, lease)),
                Life::Absent { .. } => None,
                Life::Dead => return None,
            };
            Some(Silent { session: session.clone(), last })
        });
        let silent: Vec<_> = silent.collect();
        (!silent.is_empty()).then_some(Chore::Depose(silent))
    }

    /// When [`next`](Self::next) has something to say if nothing happens until then.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        let purge = (!self.doomed.is_empty()).then_some(self.purge_from.unwrap_or_default());
        let due = self.due.first().map(|(at, _)| *at);
        purge.into_iter().chain(due).min()
    }

    fn watched(&mut self, session: &str, now: Moment) -> &mut Watched {
        let life = Life::Absent { from: now + GRACE };
        self.sessions.entry(session.to_owned()).or_insert_with(|| Watched { life, members: BTreeMap::new(), due: None })
    }

    fn schedule(&mut self, session: &str) {
        let Some(watched) = self.sessions.get_mut(session) else { return };
        let due = match watched.life {
            // Nobody waits for its end. But a store need not tell that a TTL ran out, and it must not be kept for ever.
            Life::Live { since, lease, .. } if watched.members.is_empty() => Some(since + timing::garbage(lease).as_duration()),
            _ if watched.members.is_empty() => None,
            Life::Live { since, lease, .. } => Some(since + timing::silence(lease)),
            Life::Absent { from } => Some(from),
            Life::Dead => None,
        };
        if due != watched.due {
            if let Some(old) = std::mem::replace(&mut watched.due, due) {
                self.due.remove(&(old, session.to_owned()));
            }
            self.due.extend(due.map(|at| (at, session.to_owned())));
        }
    }

    /// A session that is not alive matters only as long as it has members.
    fn forget_if_done(&mut self, session: &str) {
        let done = |watched: &Watched| watched.members.is_empty() && !matches!(watched.life, Life::Live { .. });
        if self.sessions.get(session).is_some_and(done) {
            self.sessions.remove(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Moment {
        Moment::new(Duration::from_millis(ms))
    }

    fn rev(n: u64) -> Revision {
        Revision::new(n)
    }

    fn key(id: &str) -> Key {
        Key::new(format!("member.g.{id}")).unwrap()
    }

    fn depose(session: &str, last: Option<u64>) -> Option<Chore> {
        let last = last.map(|revision| (rev(revision), LEASE));
        Some(Chore::Depose(vec![Silent { session: session.to_owned(), last }]))
    }

    fn purge(records: &[(&str, u64)]) -> Option<Chore> {
        Some(Chore::Purge(records.iter().map(|(id, revision)| (key(id), rev(*revision))).collect()))
    }

    #[test]
    fn silence_counts_from_the_last_renewal_and_ends_at_its_time() {
        let mut ledger = Ledger::default();
        ledger.renewed("a", rev(1), LEASE, at(0), None);
        ledger.joined(key("x"), "a", rev(2), at(0));
        ledger.renewed("a", rev(3), LEASE, at(300), None);
        ledger.renewed("a", rev(3), LEASE, at(900), None);
        let end = at(300) + timing::silence(LEASE);
        assert_eq!((ledger.next(at(1_310)), ledger.wake_at()), (None, Some(end)));
        assert_eq!(ledger.next(end), depose("a", Some(3)));
        ledger.died("a");
        assert_eq!(ledger.next(end), purge(&[("x", 2)]));
        ledger.left(&key("x"));
        assert_eq!((ledger.next(at(99_999)), ledger.wake_at()), (None, None));
        assert!(ledger.sessions.is_empty() && ledger.owners.is_empty());
    }

    #[test]
    fn sessions_without_members_are_left_alone_until_the_store_must_have_forgotten_them() {
        let mut ledger = Ledger::default();
        ledger.renewed("b", rev(1), LEASE, at(0), None);
        assert_eq!(ledger.next(at(3_999)), None);
        assert_eq!(ledger.next(at(4_000)), depose("b", Some(1)));
        ledger.died("b");
        assert!(ledger.sessions.is_empty() && ledger.wake_at().is_none());
        ledger.renewed("a", rev(1), LEASE, at(0), None);
        assert_eq!(ledger.next(at(3_999)), None);
        // But their silence counts once they have one.
        ledger.joined(key("x"), "a", rev(2), at(3_000));
        assert_eq!(ledger.next(at(3_000)), depose("a", Some(1)));
    }

    #[test]
    fn silence_from_before_counts_where_it_is_known() {
        let mut ledger = Ledger::default();
        ledger.joined(key("x"), "a", rev(2), at(2_000));
        ledger.renewed("a", rev(1), LEASE, at(2_000), Some(at(1_500)));
        assert_eq!(ledger.wake_at(), Some(at(1_500) + timing::silence(LEASE)));
        ledger.renewed("a", rev(5), LEASE, at(2_100), Some(at(1_500)));
        assert_eq!(ledger.wake_at(), Some(at(2_100) + timing::silence(LEASE)), "a renewal seen is news");
    }

    #[test]
    fn an_outage_begins_every_window_anew() {
        let mut ledger = Ledger::default();
        for (session, ms) in [("a", 0), ("b", 500)] {
            ledger.renewed(session, rev(ms + 1), LEASE, at(ms), None);
            ledger.joined(key(session), session, rev(ms + 2), at(ms));
        }
        ledger.cut_off(at(900));
        assert_eq!(ledger.next(at(1_900)), None);
        assert!(matches!(ledger.next(at(900) + timing::silence(LEASE)), Some(Chore::Depose(both)) if both.len() == 2));
    }

    #[test]
    fn a_session_that_is_not_seen_is_proven_dead_before_its_records_go() {
        let mut ledger = Ledger::default();
        ledger.joined(key("x"), "gone", rev(7), at(0));
        assert_eq!(ledger.next(at(0)), None, "it may only not have been seen yet");
        assert_eq!(ledger.next(at(200)), depose("gone", None));
        ledger.spared("gone", at(200));
        assert_eq!(ledger.next(at(200)), None);
        ledger.renewed("gone", rev(3), LEASE, at(250), None);
        assert_eq!(ledger.next(at(400)), None, "it lives");
        ledger.vanished("gone", at(500));
        assert_eq!(ledger.next(at(500)), depose("gone", None));
        ledger.died("gone");
        assert_eq!(ledger.next(at(500)), purge(&[("x", 7)]));
    }

    #[test]
    fn a_record_that_another_session_has_taken_over_is_left_alone() {
        let mut ledger = Ledger::default();
        for session in ["a", "b"] {
            ledger.renewed(session, rev(1), LEASE, at(0), None);
        }
        ledger.joined(key("x"), "a", rev(2), at(0));
        ledger.died("a");
        ledger.joined(key("x"), "b", rev(9), at(10));
        assert_eq!(ledger.next(at(20)), None);
        assert_eq!(ledger.owners.get(&key("x")).map(String::as_str), Some("b"));
    }

    #[test]
    fn a_dead_session_that_writes_late_is_swept_again() {
        let mut ledger = Ledger::default();
        ledger.renewed("a", rev(1), LEASE, at(0), None);
        ledger.joined(key("x"), "a", rev(2), at(0));
        ledger.died("a");
        ledger.settled(&[(key("x"), rev(2))]);
        assert_eq!(ledger.next(at(10)), None);
        ledger.joined(key("x"), "a", rev(5), at(20));
        assert_eq!(ledger.next(at(20)), purge(&[("x", 5)]));
        ledger.renewed("a", rev(6), LEASE, at(30), None);
        assert_eq!(ledger.next(at(30)), purge(&[("x", 5)]), "dead is for good");
        ledger.hold_back(at(90));
        assert_eq!((ledger.next(at(30)), ledger.wake_at()), (None, Some(at(90))));
    }

    #[test]
    fn many_are_swept_in_pieces() {
        let mut ledger = Ledger::default();
        for n in 0..1_000 {
            ledger.joined(key(&format!("m{n}")), "a", rev(n + 1), at(0));
        }
        ledger.died("a");
        let mut swept = 0;
        while let Some(Chore::Purge(some)) = ledger.next(at(0)) {
            assert!(some.len() <= SWEEP);
            swept += some.len();
            ledger.settled(&some);
        }
        assert_eq!(swept, 1_000);
    }
}
