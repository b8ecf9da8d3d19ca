//! The janitor at work: sees every session and every member, and removes what dead sessions left behind.

use std::time::Duration;

use futures::{StreamExt, stream};
use tenure_kv::{
    Batch, Entry, Error as StoreError, Expect, Key, KeyRange, Moment, Op, Revision, State,
    mutants::{self, Mutant},
};

use super::ledger::{Chore, Ledger, Silent};
use crate::{
    Result, View, layout,
    membership::{every_member, farewell, owner_of},
    record::{SessionRecord, decode},
    session::{Inner, timing},
    view::{Change, Changes},
};

/// Requests under way at the same time, at most.
const AT_ONCE: usize = 32;
/// Changes taken in before something is done, at most.
const BURST: usize = 1_024;

pub(super) struct Office<'a> {
    inner: &'a Inner,
    ledger: Ledger,
    sessions: Changes,
    members: Changes,
    /// Parts of the range that are yet to be told.
    untold: u8,
}

/// What became of a session that was to be deposed.
enum Outcome {
    Dead,
    Alive(Entry),
    /// It lives, or what was read lags.
    Spared,
    /// The store is out of reach.
    CutOff,
}

impl<'a> Office<'a> {
    /// Takes stock of everything.
    pub(super) async fn open(inner: &'a Inner) -> Result<Self> {
        // An answer that is lost must not hold up the office for as long as the store is patient.
        let sessions = View::open(&inner.patient, KeyRange::children(&Key::new("session")?)?).await?;
        let members = View::open(&inner.patient, every_member()?).await?;
        let (sessions, members) = (sessions.changes(), members.changes());
        Ok(Self { inner, ledger: Ledger::default(), sessions, members, untold: 2 })
    }

    /// Works until a view ends, whenever `may_act` says that it may: the office outlasts an outage of the store.
    pub(super) async fn work(mut self, may_act: impl Fn() -> bool) -> Result<()> {
        let mut states = self.inner.states();
        states.mark_unchanged();
        loop {
            self.take_in();
            if states.has_changed().unwrap_or(true) {
                // Our own renewals were not answered: others' may not have been either.
                states.mark_unchanged();
                self.ledger.cut_off(self.now());
            }
            // What ends that, a renewal, moves the session's state.
            let acts = self.untold == 0 && may_act();
            let chore = if acts { self.ledger.next(self.now()) } else { None };
            if let Some(chore) = chore {
                match chore {
                    Chore::Depose(silent) => self.depose(silent).await,
                    Chore::Purge(records) => self.purge(records).await,
                }
                continue;
            }
            let later = async {
                match self.ledger.wake_at().filter(|_| acts) {
                    Some(at) => self.inner.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = self.sessions.next() => { let change = change?; self.session(change); }
                change = self.members.next() => { let change = change?; self.member(change); }
                changed = states.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.ledger.cut_off(self.now());
                }
                () = later => {}
            }
        }
    }

    fn now(&self) -> Moment {
        self.inner.clock.now()
    }

    /// Everything that has been told already, before anything is concluded from silence.
    fn take_in(&mut self) {
        for _ in 0..BURST {
            match self.sessions.ready() {
                Some(change) => self.session(change),
                None => break,
            }
        }
        for _ in 0..BURST {
            match self.members.ready() {
                Some(change) => self.member(change),
                None => break,
            }
        }
    }

    fn session(&mut self, change: Change) {
        match change {
            Change::Put(entry) => self.renewed(&entry),
            Change::Gone(entry) => {
                let Some(session) = session_of(&entry.key) else { return };
                match entry.state {
                    // Somebody wrote it: that is the end.
                    State::Deleted(_) | State::Purged => self.ledger.died(session),
                    _ => self.ledger.vanished(session, self.now()),
                }
            }
            Change::CaughtUp => self.untold -= 1,
            Change::Gap => self.ledger.cut_off(self.now()),
        }
    }

    fn renewed(&mut self, entry: &Entry) {
        let (Some(session), Some(value)) = (session_of(&entry.key), entry.value()) else { return };
        if session == self.inner.id {
            // Our own end ends our office.
            return self.ledger.renewed(session, entry.revision, timing::MAX_LEASE, self.now(), None);
        }
        // As a vigil does: what cannot be read is measured by our own lease.
        let lease = decode::<SessionRecord>(value)
            .map_or(self.inner.lease, |record| record.lease().clamp(timing::MIN_LEASE, timing::MAX_LEASE));
        self.ledger.renewed(session, entry.revision, lease, self.now(), self.inner.silent_since(entry.revision));
    }

    fn member(&mut self, change: Change) {
        match change {
            Change::Put(entry) => match owner_of(&entry) {
                Some(session) => self.ledger.joined(entry.key, &session, entry.revision, self.now()),
                // Nobody's that can be told: it is not for us to remove.
                None => self.ledger.left(&entry.key),
            },
            Change::Gone(entry) => self.ledger.left(&entry.key),
            Change::CaughtUp => self.untold -= 1,
            Change::Gap => self.ledger.cut_off(self.now()),
        }
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        // Past the deadline the bucket may be another one, where the revisions that are known stand for others' records.
        if self.inner.validity.remaining(&*self.inner.clock).is_zero() {
            return Err(StoreError::unavailable("the janitor's lease is not valid now"));
        }
        self.inner.patient.commit(batch).await
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.inner.patient.entry(key).await
    }

    async fn depose(&mut self, silent: Vec<Silent>) {
        // Since when they have been silent may be concluded from the order of revisions alone.
        if !self.inner.is_same_bucket().await {
            let now = self.now();
            silent.iter().for_each(|one| self.ledger.spared(&one.session, now));
            return self.ledger.cut_off(now);
        }
        let outcomes = stream::iter(silent).map(|one| {
            let office = &*self;
            async move {
                let outcome = office.depose_one(&one).await;
                (one.session, outcome)
            }
        });
        let outcomes: Vec<_> = outcomes.buffer_unordered(AT_ONCE).collect().await;
        let now = self.now();
        for (session, outcome) in outcomes {
            match outcome {
                Outcome::Dead => self.ledger.died(&session),
                Outcome::Alive(entry) => self.renewed(&entry),
                Outcome::Spared => self.ledger.spared(&session, now),
                Outcome::CutOff => {
                    self.ledger.spared(&session, now);
                    self.ledger.cut_off(now);
                }
            }
        }
    }

    async fn depose_one(&self, silent: &Silent) -> Outcome {
        if mutants::is_on(Mutant::JanitorWithoutPrecondition) {
            return Outcome::Dead;
        }
        // A session that no key can name has no key.
        let Ok(key) = layout::session_key(&silent.session) else { return Outcome::Dead };
        let lease = silent.last.map_or(self.inner.lease, |(_, lease)| lease);
        let last = silent.last.map(|(revision, _)| revision);
        let op = Op::purge(key.clone()).expect(last.map_or(Expect::Absent, Expect::At)).ttl(timing::garbage(lease));
        match self.commit(op.into()).await {
            Ok(_) => {
                tracing::info!(session = %silent.session, "deposed a session that was silent for longer than its lease");
                Outcome::Dead
            }
            Err(StoreError::Conflict { .. }) => match self.entry(&key).await {
                Ok(Some(entry)) if last.is_some_and(|last| entry.revision <= last) => Outcome::Spared,
                Ok(Some(entry)) if entry.is_live() => Outcome::Alive(entry),
                Ok(Some(_)) => Outcome::Dead,
                Ok(None) if last.is_some() => self.forgotten(key, lease).await,
                Ok(None) => Outcome::Spared,
                Err(_) => Outcome::CutOff,
            },
            Err(error) => {
                tracing::debug!(session = %silent.session, %error, "the silent session could not be deposed");
                Outcome::CutOff
            }
        }
    }

    /// A key that no longer is where it was, and that a read does not show: gone by its TTL, or the read lags. A
    /// tombstone proves it, and is told to all who still believe it to be there.
    async fn forgotten(&self, key: Key, lease: Duration) -> Outcome {
        match self.commit(Op::purge(key).if_absent().ttl(timing::garbage(lease)).into()).await {
            Ok(_) => Outcome::Dead,
            Err(StoreError::Conflict { .. }) => Outcome::Spared,
            Err(_) => Outcome::CutOff,
        }
    }

    /// All at once, or where that does not go each alone.
    async fn purge(&mut self, records: Vec<(Key, Revision)>) {
        let purge = |(key, revision): &(Key, Revision)| {
            let purge = Op::purge(key.clone()).ttl(farewell());
            if mutants::is_on(Mutant::JanitorWithoutPrecondition) { purge } else { purge.if_at(*revision) }
        };
        let outcome = self.commit(records.iter().map(purge).collect()).await;
        let settled: Vec<_> = match outcome {
            Ok(_) => {
                tracing::info!(count = records.len(), "removed members whose sessions are dead");
                records
            }
            Err(StoreError::Conflict { .. }) => {
                let each = stream::iter(records).map(|record| {
                    let office = &*self;
                    async move {
                        let gone = office.commit(purge(&record).into()).await.is_ok() || office.is_overtaken(&record).await;
                        gone.then_some(record)
                    }
                });
                each.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
            }
            Err(error) => {
                tracing::debug!(%error, "members of dead sessions could not be removed; trying again");
                Vec::new()
            }
        };
        if settled.is_empty() {
            self.ledger.hold_back(self.now() + timing::renewal_retry(self.inner.lease));
        }
        self.ledger.settled(&settled);
    }

    /// Whether something was written over the record, of which we shall hear.
    async fn is_overtaken(&self, (key, revision): &(Key, Revision)) -> bool {
        matches!(self.entry(key).await, Ok(Some(entry)) if entry.revision > *revision)
    }
}

fn session_of(key: &Key) -> Option<&str> {
    key.under("session")
}
