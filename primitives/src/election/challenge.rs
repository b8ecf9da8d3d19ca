//! A candidate with a higher priority than the leader's asks it to step down.
//!
//! One literal key rings; what it says does not matter. Whenever it has rung, the leader looks at who is
//! listed: a candidate that has withdrawn or died asks for nothing.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use tenure_kv::{ClockExt, Key, Moment, Notice, Op, StoreExt};

use super::{Ballot, Candidate, leadership::patience, record::Record};
use crate::{
    Result, layout,
    session::{Inner, Watched, timing},
};

/// Rings, unless it has rung and nobody has answered yet.
pub(super) async fn challenge(inner: &Inner, ballot: &Ballot, id: &str) -> Result<()> {
    let key = ballot.name.challenge()?;
    let rung = inner.patient.entry(&key).await?;
    if rung.is_some_and(|entry| entry.value().is_some_and(|value| value.as_ref() == id.as_bytes())) {
        return Ok(());
    }
    let op = Op::put(key, Bytes::copy_from_slice(id.as_bytes())).ttl(timing::forestall());
    match inner.patient.commit(op.into()).await {
        // It is looked at again after a lease.
        Err(error) if error.is_unknown() => Ok(()),
        outcome => Ok(outcome.map(drop)?),
    }
}

/// The leader's ear for challenges.
pub(super) struct Bell {
    ballot: Ballot,
    notices: Option<BoxStream<'static, Notice>>,
    rung: bool,
    asked: bool,
    /// When the minimum tenure is over.
    from: Moment,
    /// Sessions of challengers, to tell those that have crashed.
    watched: HashMap<String, Watched>,
}

impl Bell {
    pub(super) fn new(inner: &Inner, ballot: &Ballot) -> Self {
        let from = inner.clock.now() + ballot.min_tenure;
        Self { ballot: ballot.clone(), notices: None, rung: true, asked: false, from, watched: HashMap::new() }
    }

    /// It may have rung unheard.
    pub(super) const fn look(&mut self) {
        self.rung = true;
    }

    /// Resolves when it is time to [`answer`](Self::answer).
    pub(super) async fn rings(&mut self, inner: &Inner) {
        if self.rung {
            return inner.clock.sleep_until(self.from).await;
        }
        if self.notices.is_none() {
            let Ok(key) = self.ballot.name.challenge() else { return std::future::pending().await };
            match inner.patient.follow(&key).await {
                Ok(notices) => self.notices = Some(notices),
                // The look now and then makes up for it.
                Err(_) => return std::future::pending().await,
            }
            // What was said before this.
            self.rung = true;
            return;
        }
        if let Some(notices) = &mut self.notices {
            if notices.next().await.is_none() {
                self.notices = None;
                inner.clock.sleep_until(inner.clock.now() + inner.lease).await;
            }
            self.rung = true;
        }
    }

    /// Who asks the leader to step down now; nothing when there is no news.
    pub(super) async fn answer(&mut self, inner: &Inner) -> Option<Option<Candidate>> {
        if !self.rung || inner.clock.now() < self.from {
            return None;
        }
        self.rung = false;
        let answer = inner.clock.timeout(patience(inner.lease).min(Duration::from_secs(1)), self.challenger(inner)).await;
        let challenger = answer.ok()?.ok()?;
        let news = challenger.is_some() || self.asked;
        self.asked = challenger.is_some();
        news.then_some(challenger)
    }

    async fn challenger(&mut self, inner: &Inner) -> Result<Option<Candidate>> {
        let key = self.ballot.name.challenge()?;
        let Some(ring) = inner.patient.entry(&key).await?.filter(tenure_kv::Entry::is_live) else { return Ok(None) };
        let (mut listed, mut sessions) = (Vec::new(), Vec::new());
        for entry in inner.patient.list(&self.ballot.name.candidates()?).await? {
            if let Some(record) = read(&self.ballot, &entry.key, &entry)
                && record.priority > self.ballot.priority
                && let Ok(session) = layout::session_key(&record.session)
            {
                listed.push((record, entry.revision));
                sessions.push(session);
            }
        }
        self.watched.retain(|session, _| listed.iter().any(|(record, _)| record.session == *session));
        let mut alive = Vec::new();
        for ((record, revision), session) in listed.into_iter().zip(inner.patient.entries(&sessions).await?) {
            if record.session == inner.id || self.lives(inner, &record.session, session.as_ref())? {
                alive.push((record, revision));
            }
        }
        // Of equals the one that came first.
        if let Some((record, revision)) = alive.into_iter().rev().max_by_key(|(record, _)| record.priority) {
            return Ok(Some(record.candidate(revision)));
        }
        // Nobody is left who rang. Whoever rings meanwhile moves the key.
        let answered: Key = key;
        if let Err(error) = inner.patient.commit(Op::purge(answered).if_at(ring.revision).ttl(tenure_kv::Ttl::MIN).into()).await {
            tracing::debug!(%error, "a challenge that is over is ended at the next look");
        }
        Ok(None)
    }

    fn lives(&mut self, inner: &Inner, session: &str, entry: Option<&tenure_kv::Entry>) -> Result<bool> {
        if entry.is_none() {
            return Ok(false);
        }
        let watched = match self.watched.entry(session.to_owned()) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => free.insert(Watched::new(inner, session)?),
        };
        Ok(!watched.saw(inner, entry) && !watched.is_silent(inner))
    }
}

/// A candidate's record, if this is one.
pub(super) fn read(ballot: &Ballot, key: &Key, entry: &tenure_kv::Entry) -> Option<Record> {
    let record = Record::read(entry).filter(|record| ballot.name.candidate(&record.candidate).is_ok_and(|own| own == *key));
    if record.is_none() {
        tracing::warn!(%key, "this key is among an election's candidates but is none; it is passed over");
    }
    record
}
