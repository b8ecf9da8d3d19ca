//! One campaign, from the first look to the office.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use tenure_kv::{ClockExt, Entry, Key, Moment, Notice, Op, Revision};

use super::{
    Election, Leadership,
    challenge::challenge,
    decide::{Next, Standing, later, next},
    record::Record,
    withdrawal::{Beyond, Listed, Withdrawal, beyond, lagging},
};
use crate::{
    Error, Result,
    session::{Inner, Vigil, Wake},
};

/// A campaign that was won, before it is an office.
#[derive(Clone, Copy, Debug)]
pub(super) struct Won {
    pub(super) term: Revision,
    pub(super) revision: Revision,
    /// How many outages the store had had before.
    pub(super) outages: u64,
    /// When it was sent, if the write is our own and was answered.
    sent: Option<Moment>,
}

/// One campaign. Dropped before it is an office, it is withdrawn by the session.
pub(super) struct Attempt {
    election: Election,
    inner: Arc<Inner>,
    record: Record,
    left: Withdrawal,
    /// How many outages the store had had when it was seen to last that the candidate is listed.
    listed_after: u64,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.left.clone().go_on(&self.inner);
    }
}

/// Whom a candidate waits for, and how it hears of their end.
struct Watch {
    session: String,
    /// `None` for our own session, whose end the caller watches.
    vigil: Option<Vigil>,
}

impl Attempt {
    pub(super) fn new(election: &Election, value: &[u8]) -> Result<Self> {
        let inner = election.session.inner().clone();
        if let Some(loss) = inner.validity.lost() {
            return Err(Error::lost(loss));
        }
        let id = format!("{}-{}", inner.id, inner.next_ticket());
        let left = Withdrawal {
            election: election.ballot.key.clone(),
            candidate: election.ballot.name.candidate(&id)?,
            seen_to: inner.traces.candidate(election.ballot.name.key(), &id),
            id: id.clone(),
            listed: Listed::No,
            sent: None,
            named: None,
        };
        let record = Record::new(&inner.id, id, election.ballot.owner.clone(), election.ballot.priority).with_value(value)?;
        let listed_after = inner.store.outages();
        Ok(Self { election: election.clone(), inner, record, left, listed_after })
    }

    /// Campaigns until it is won. Outages of the store are waited out: the session decides.
    pub(super) async fn win(&mut self) -> Result<Won> {
        let inner = self.inner.clone();
        let mut pause = Duration::from_millis(2);
        loop {
            let begun = inner.clock.now();
            let outcome = tokio::select! {
                biased;
                outcome = async { let won = self.turn().await?; self.here(won).await } => outcome,
                loss = inner.lost() => Err(Error::lost(loss)),
            };
            match outcome {
                Err(error @ (Error::Unavailable { .. } | Error::Unknown { .. } | Error::Conflict { .. })) => {
                    tracing::debug!(election = self.election.name(), %error, "the campaign goes on");
                    if inner.clock.now().saturating_since(begun) > inner.lease {
                        pause = Duration::from_millis(2);
                    }
                    inner.clock.sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                outcome => return outcome,
            }
        }
    }

    /// Campaigns until it is won or the store fails.
    async fn turn(&mut self) -> Result<Won> {
        let inner = self.inner.clone();
        // What was seen before an interruption may be of a past that the bucket was set back from.
        let past = Past::of(&inner);
        let mut notices: Option<BoxStream<'static, Notice>> = None;
        let mut watch: Option<Watch> = None;
        let mut dead: Option<String> = None;
        // Which leader has been challenged, and whether to see to it that it still is.
        let mut challenged: Option<String> = None;
        let mut latest = inner.patient.entry(&self.left.election).await?;
        // A look now and then makes up for notices that a store may lose; rare enough to cost nothing.
        let mut backup = inner.clock.now() + inner.lease;
        loop {
            if Past::of(&inner) != past {
                return Err(interrupted());
            }
            if past.outages != self.listed_after {
                // It may have gone with what was lost: a commit tells.
                if let Listed::At(_) = self.left.listed {
                    self.left.listed = Listed::Sent;
                }
                self.listed_after = past.outages;
            }
            let standing = match next(latest.as_ref(), &self.left.id, dead.as_deref()) {
                Next::Lead { term, revision } => return Ok(self.named(term, revision, past, None)),
                Next::Seize(at) => {
                    if let Some(won) = self.seize(at, past).await? {
                        return Ok(won);
                    }
                    latest = self.look_beyond(latest, at).await?;
                    continue;
                }
                Next::Wait(standing) => standing,
            };
            self.list().await?;
            if notices.is_none() {
                notices = Some(inner.patient.follow(&self.left.election).await?);
                latest = later(latest, inner.patient.entry(&self.left.election).await?);
                continue;
            }
            let Some(told) = &mut notices else { continue };
            if watch.as_ref().is_none_or(|watch| watch.session != standing.session) {
                let own = standing.session == inner.id;
                let vigil = if own { None } else { Some(Vigil::new(&inner, &standing.session).await?) };
                let mut watched = Watch { session: standing.session.clone(), vigil };
                latest = Self::look(&self.left.election, &inner, latest, &mut watched, &mut dead).await?;
                watch = Some(watched);
                continue;
            }
            let Some(watched) = &mut watch else { continue };
            if self.record.priority > standing.priority && challenged.as_ref() != Some(&standing.candidate) {
                challenge(&inner, &self.election.ballot, &self.left.id).await?;
                challenged = Some(standing.candidate);
            }
            let wake = async {
                match watched.vigil.as_mut() {
                    Some(vigil) => vigil.wake(&inner).await,
                    None => std::future::pending().await,
                }
            };
            let look = tokio::select! {
                biased;
                notice = told.next() => match notice {
                    Some(Notice::Entry(entry)) => {
                        latest = later(latest, Some(entry));
                        false
                    }
                    Some(Notice::Recheck) => true,
                    Some(Notice::Reconnected) => {
                        if let Some(vigil) = &mut watched.vigil {
                            vigil.cut_off(&inner);
                        }
                        true
                    }
                    None => return Err(tenure_kv::Error::unavailable("the store ended its notices").into()),
                },
                wake = wake => match wake {
                    Wake::Read => true,
                    Wake::Dead => {
                        dead = Some(watched.session.clone());
                        false
                    }
                    Wake::Silent => {
                        if let Some(vigil) = &mut watched.vigil
                            && vigil.depose(&inner).await
                        {
                            dead = Some(watched.session.clone());
                        }
                        false
                    }
                },
                () = inner.clock.sleep_until(backup) => {
                    backup = inner.clock.now() + inner.lease;
                    challenged = None;
                    true
                }
            };
            if look {
                latest = Self::look(&self.left.election, &inner, latest, watched, &mut dead).await?;
            }
        }
    }

    /// One read of the election's key and of the session behind its leader.
    async fn look(
        election: &Key,
        inner: &Inner,
        latest: Option<Entry>,
        watched: &mut Watch,
        dead: &mut Option<String>,
    ) -> Result<Option<Entry>> {
        let mut keys = vec![election.clone()];
        keys.extend(watched.vigil.as_ref().map(|vigil| vigil.key().clone()));
        let mut found = match inner.patient.entries(&keys).await {
            Ok(found) => found.into_iter(),
            Err(error) => {
                if let Some(vigil) = &mut watched.vigil {
                    vigil.cut_off(inner);
                }
                return Err(error.into());
            }
        };
        let latest = later(latest, found.next().flatten());
        if let Some(vigil) = &mut watched.vigil
            // A leader whose session does not exist: a commit proves it.
            && (vigil.saw(inner, found.next().flatten().as_ref()) || vigil.never_seen() && vigil.depose(inner).await)
        {
            *dead = Some(watched.session.clone());
        }
        Ok(latest)
    }

    /// Reads the election's key after it was not at `at`, and holds back while replicas still show it there.
    async fn look_beyond(&self, latest: Option<Entry>, at: Revision) -> Result<Option<Entry>> {
        let mut latest = latest;
        let mut vanished = false;
        for n in 0..7 {
            let seen = self.inner.patient.entry(&self.left.election).await?;
            vanished = seen.is_none();
            latest = later(latest, seen);
            if latest.as_ref().map_or(Revision::ZERO, |entry| entry.revision) != at {
                return Ok(latest);
            }
            self.inner.clock.sleep(Duration::from_millis(1 << n)).await;
        }
        // What a commit has not found, and reads do not show any more, is probably gone without a trace.
        Ok(latest.filter(|_| !vanished))
    }

    fn named(&mut self, term: Revision, revision: Revision, past: Past, sent: Option<Moment>) -> Won {
        // The write that named us is the one sent, or the leader's, which has ended our own key.
        self.left.sent = None;
        self.left.named = Some(revision);
        Won { term, revision, outages: past.outages, sent }
    }

    /// Writes our record over what stands at `at`; `None` when something else stands there.
    ///
    /// A write that is not answered is sent again: of the copies at most one lands, for it moves the key. None is sent
    /// where the campaign looked before what is `past` now.
    async fn seize(&mut self, at: Revision, past: Past) -> Result<Option<Won>> {
        let inner = self.inner.clone();
        if !self.left.is_needed() {
            inner.room().await?;
        }
        inner.until_grants().await?;
        let record = self.record.encode();
        let (mut unanswered, mut tries) = (false, 0_u64);
        loop {
            inner.vouched().await?;
            let now = Past::of(&inner);
            if now.outages != past.outages || !unanswered && now != past {
                return Err(interrupted());
            }
            self.left.sent = Some(at);
            let (before, sent) = (inner.witness.mark(), inner.clock.now());
            let op = Op::put(self.left.election.clone(), record.clone()).if_at(at);
            match inner.patient.commit(op.into()).await {
                Ok(revision) => {
                    inner.acknowledged(before, revision)?;
                    return Ok(Some(self.named(revision, revision, past, Some(sent))));
                }
                Err(tenure_kv::Error::Conflict { .. }) if !unanswered => {
                    self.left.sent = None;
                    return Ok(None);
                }
                Err(tenure_kv::Error::Conflict { .. }) => match beyond(&*inner.patient, &self.left.election, at).await {
                    Ok(Beyond::Entry(entry)) => {
                        if let Next::Lead { term, revision } = next(Some(&entry), &self.left.id, None) {
                            return Ok(Some(self.named(term, revision, past, None)));
                        }
                        self.left.sent = None;
                        return Ok(None);
                    }
                    Ok(Beyond::Nothing(_)) => {
                        self.left.sent = None;
                        return Ok(None);
                    }
                    Err(_) => {}
                },
                Err(error) if error.is_unknown() => unanswered = true,
                // Nothing is on its way.
                Err(error) if !unanswered => {
                    self.left.sent = None;
                    return Err(error.into());
                }
                Err(error) if error.is_invalid() => return Err(error.into()),
                Err(_) => {}
            }
            tries += 1;
            self.inner.clock.sleep(Duration::from_millis((5 * tries).min(500))).await;
        }
    }

    /// Writes our own key, so that we are listed and the office can be handed to us.
    async fn list(&mut self) -> Result<()> {
        let inner = self.inner.clone();
        // It can win without, and is listed at a later turn.
        if self.left.listed == Listed::No && inner.room_now().is_err() {
            return Ok(());
        }
        while self.left.listed == Listed::No && self.left.named.is_none() {
            self.left.listed = Listed::Sent;
            // Not over a tombstone either: that may be the one that forestalls this very write.
            let op = Op::put(self.left.candidate.clone(), self.record.encode()).if_at(Revision::ZERO);
            match inner.patient.commit(op.into()).await {
                Ok(revision) => self.left.listed = Listed::At(revision),
                Err(error) if error.is_unknown() => {}
                Err(tenure_kv::Error::Conflict { .. }) => {}
                Err(error) => {
                    self.left.listed = Listed::No;
                    return Err(error.into());
                }
            }
        }
        if self.left.listed == Listed::Sent {
            self.left.find_listing(&*inner.patient).await?;
            if self.left.listed == Listed::No && self.left.named.is_none() {
                self.rename()?;
                return Err(tenure_kv::Error::unavailable("the candidature was not answered").into());
            }
        }
        Ok(())
    }

    /// Another id, for one under which nothing stands and nothing ever will.
    fn rename(&mut self) -> Result<()> {
        let id = format!("{}-{}", self.inner.id, self.inner.next_ticket());
        self.left.candidate = self.election.ballot.name.candidate(&id)?;
        self.left.seen_to = self.inner.traces.candidate(self.election.ballot.name.key(), &id);
        self.left.id.clone_from(&id);
        self.record.candidate = id;
        Ok(())
    }

    /// What was won, once a read has shown that it is in the bucket that the session was opened in.
    async fn here(&self, won: Won) -> Result<Won> {
        let outages = self.inner.store.outages();
        if outages == won.outages && won.sent.is_some_and(|sent| self.inner.is_surely_here(won.revision, sent)) {
            return Ok(won);
        }
        for n in 0..7 {
            if let Some(entry) = self.inner.written_here(&self.left.election, won.revision).await? {
                // Moved by a proclamation that is not ours it is somebody else's.
                return if self.left.is_named(&entry) { Ok(Won { outages, ..won }) } else { Err(interrupted()) };
            }
            self.inner.clock.sleep(Duration::from_millis(1 << n)).await;
        }
        Err(lagging().into())
    }

    /// Our record stands there: the office is ours once the session can vouch for it.
    pub(super) async fn take_office(mut self, won: Won) -> Result<Leadership> {
        let inner = self.inner.clone();
        let mut won = won;
        loop {
            inner.until_grants().await?;
            inner.vouched().await?;
            if inner.store.outages() == won.outages {
                break;
            }
            won = self.here(won).await?;
        }
        // From here on the office sees to what is there.
        let left = self.left.clone();
        (self.left.listed, self.left.sent, self.left.named) = (Listed::No, None, None);
        Ok(Leadership::new(&self.election, self.record.clone(), left, won))
    }

    /// One look: wins if nobody leads who is not proven dead, and tells who leads otherwise.
    pub(super) async fn try_once(&mut self) -> Result<std::result::Result<Won, Standing>> {
        let inner = self.inner.clone();
        let past = Past::of(&inner);
        let mut dead: Option<String> = None;
        let mut latest = inner.patient.entry(&self.left.election).await?;
        loop {
            match next(latest.as_ref(), &self.left.id, dead.as_deref()) {
                Next::Lead { term, revision } => {
                    let won = self.named(term, revision, past, None);
                    return Ok(Ok(self.here(won).await?));
                }
                Next::Seize(at) => {
                    if let Some(won) = self.seize(at, past).await? {
                        return Ok(Ok(self.here(won).await?));
                    }
                    latest = self.look_beyond(latest, at).await?;
                }
                Next::Wait(standing) => {
                    if standing.session == inner.id || !inner.is_dead(&standing.session).await? {
                        return Ok(Err(standing));
                    }
                    dead = Some(standing.session);
                }
            }
        }
    }

    pub(super) async fn withdraw(mut self) {
        // On failure the drop hands it to the session.
        let _ = self.left.attempt(&self.inner).await;
    }
}

/// What a look at an election may be out of date by.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Past {
    /// Interruptions of the lease.
    interruptions: u64,
    /// Outages after which a server may have forgotten a death.
    outages: u64,
}

impl Past {
    fn of(inner: &Inner) -> Self {
        Self { interruptions: inner.validity.interruptions(), outages: inner.store.outages() }
    }
}

fn interrupted() -> Error {
    tenure_kv::Error::unavailable("the lease was interrupted: the campaign has to look again").into()
}
