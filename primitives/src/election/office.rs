//! The task behind a leadership: it alone writes the election's key while the office lasts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tenure_kv::{Batch, ClockExt, Entry, Error as StoreError, Key, Moment, Op, Revision, State};
use tokio::sync::{mpsc, oneshot};

use super::{
    Ballot, Election,
    attempt::Won,
    challenge::Bell,
    leadership::{Reign, past_deadline, patience},
    record::{Record, TRANSFERRED},
    sweep::sweep,
    withdrawal::{Beyond, Withdrawal, beyond, is_handed_over, resignation},
};
use crate::{
    Error, Loss, Result,
    session::{Inner, timing, why_ended},
};

/// Every how many leases the leader removes the candidates that have died.
const SWEEP_EVERY: u32 = 16;

/// What a leadership asks of its task.
#[derive(Debug)]
pub(super) enum Request {
    Proclaim {
        value: Bytes,
        reply: oneshot::Sender<Result<Revision>>,
    },
    Transfer {
        candidate: String,
        reply: oneshot::Sender<Result<Revision>>,
    },
    Resign {
        reply: oneshot::Sender<Result<()>>,
    },
    /// Where is the election's key now?
    Verify {
        reply: oneshot::Sender<Result<Revision>>,
    },
}

/// The office of one leader.
pub(super) struct Office {
    inner: Arc<Inner>,
    ballot: Ballot,
    reign: Arc<Reign>,
    /// What was sent last.
    record: Record,
    /// Where the election's key was found last, by a commit or beyond one.
    at: Revision,
    /// A write that was to replace `at` may be on its way.
    doubt: bool,
    /// How many outages the store had had before.
    outages: u64,
    /// Our own key among the candidates, as long as it is there.
    left: Withdrawal,
    /// The key names somebody else, or nobody: nothing is left to give up.
    gone: bool,
    bell: Bell,
}

/// What became of a write of the election's key.
enum Applied {
    At(Revision),
    Lost(Loss),
    /// The key is where it was, so far as a read tells: another precondition did not hold, or a replica lags.
    Refused(StoreError),
    /// Not known while it was worth trying.
    Unsettled(StoreError),
}

/// How long a write is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// While anybody may rely on the lease.
    Lease,
    /// As long as the session lives.
    Session,
}

impl Office {
    pub(super) fn new(election: &Election, reign: Arc<Reign>, mut record: Record, left: Withdrawal, won: Won) -> Self {
        let inner = election.session.inner().clone();
        record.term = Some(reign.term.get());
        let bell = Bell::new(&inner, &election.ballot);
        // Not the election itself: a task of the session must not keep it open.
        let ballot = election.ballot.clone();
        let (at, outages) = (won.revision, won.outages);
        Self { inner, ballot, reign, record, at, doubt: false, outages, left, gone: false, bell }
    }

    /// Runs until the office is given up or the session has ended.
    pub(super) async fn run(mut self, inbox: mpsc::Receiver<Request>) {
        let (inner, reign) = (self.inner.clone(), self.reign.clone());
        let loss = tokio::select! {
            biased;
            loss = inner.lost() => loss,
            () = inner.stop.cancelled() => inner.validity.lost().unwrap_or(Loss::Closed),
            loss = self.serve(inbox) => loss,
        };
        reign.hold.end(loss);
    }

    async fn serve(&mut self, mut inbox: mpsc::Receiver<Request>) -> Loss {
        let mut outlived = self.inner.outlived();
        sweep(&self.inner, &self.ballot);
        self.unlist().await;
        let lost = self.reign.hold.clone().lost();
        tokio::pin!(lost);
        let mut health = self.ballot.health.clone();
        let mut look_at = self.inner.clock.now() + self.inner.lease;
        let mut looks = 0_u32;
        if self.inner.store.outages() != self.outages {
            outlived.mark_changed();
        }
        loop {
            if let Some(challenger) = self.bell.answer(&self.inner).await {
                self.reign.state.send_modify(|state| state.asked = challenger);
            }
            tokio::select! {
                biased;
                loss = &mut lost => {
                    drop(inbox);
                    self.leave().await;
                    return loss;
                }
                () = super::unhealthy(health.clone()), if health.is_some() => {
                    self.reign.hold.end(Loss::Unhealthy);
                    health = None;
                }
                request = inbox.recv() => match request {
                    None => { self.reign.hold.end(Loss::Resigned); }
                    Some(Request::Proclaim { value, reply }) => drop(reply.send(self.proclaim(value).await)),
                    Some(Request::Transfer { candidate, reply }) => drop(reply.send(self.transfer(&candidate).await)),
                    Some(Request::Verify { reply }) => drop(reply.send(self.verify().await)),
                    Some(Request::Resign { reply }) => {
                        // Before the write: whoever is elected by it must not find us relying on the office.
                        self.reign.hold.end(Loss::Resigned);
                        drop(reply.send(self.resign().await));
                    }
                },
                () = self.bell.rings(&self.inner) => {}
                Ok(()) = outlived.changed() => look_at = self.look().await,
                () = self.inner.clock.sleep_until(look_at) => {
                    look_at = self.look().await;
                    looks = looks.wrapping_add(1);
                    if looks.is_multiple_of(SWEEP_EVERY) {
                        sweep(&self.inner, &self.ballot);
                    }
                }
            }
        }
    }

    /// Ends our own key among the candidates, if it can be done now.
    async fn unlist(&mut self) {
        if let Err(error) = self.left.unlist(&*self.inner.patient).await {
            tracing::debug!(candidate = %self.left.candidate, %error, "the winner is still listed as a candidate");
        }
    }

    /// A look now and then, for what nobody told us: somebody has taken the office, or asks for it. Returns when to look
    /// again: soon where it is not known what an outage has left.
    async fn look(&mut self) -> Moment {
        let outages = self.inner.store.outages();
        self.unlist().await;
        self.bell.look();
        let settled = if self.doubt {
            self.verify().await.is_ok()
        } else if let Ok(entry) = self.inner.patient.entry(&self.reign.key).await {
            match &entry {
                Some(entry) if entry.revision >= self.at && !self.is_ours(entry) => drop(self.end_by(entry)),
                entry => drop(self.set_back_to(entry.as_ref(), false).await),
            }
            entry.is_some_and(|entry| entry.revision >= self.at)
        } else {
            false
        };
        if settled {
            self.outages = outages;
        }
        let lease = self.inner.lease;
        let soon = self.inner.store.outages() != self.outages;
        self.inner.clock.now() + if soon { timing::renewal_retry(lease) } else { lease }
    }

    /// A bucket that was set back has lost our last writes: then we go on from the earlier one that is there, or the office
    /// is over with the session that relied on it. Where a write was `refused` for it, our own record is worth a try in
    /// any case: if a replica lags, that is refused, too.
    async fn set_back_to(&mut self, entry: Option<&Entry>, refused: bool) -> Option<Loss> {
        if entry.is_some_and(|entry| entry.revision >= self.at) {
            return None;
        }
        let ours = entry.filter(|entry| self.is_ours(entry));
        let worth_a_try = refused && ours.is_some();
        let proven = !worth_a_try && self.inner.is_set_back_to(self.outages, &self.reign.key, entry).await;
        if let Some(entry) = ours.filter(|_| proven || refused) {
            self.at = entry.revision;
            self.reign.state.send_modify(|state| state.revision = entry.revision);
            return None;
        }
        if !proven {
            return None;
        }
        self.inner.lost_its_past();
        Some(self.reign.hold.end(Loss::StoreReset))
    }

    fn is_ours(&self, entry: &Entry) -> bool {
        Record::read(entry).is_some_and(|record| record.candidate == self.reign.candidate)
    }

    /// Somebody else has written the key: the office is over.
    fn end_by(&self, entry: &Entry) -> Loss {
        let loss = self
            .inner
            .validity
            .lost()
            .unwrap_or_else(|| if entry.is_live() { Loss::Deposed } else { why_ended(Some(&entry.state)) });
        self.reign.hold.end(loss);
        loss
    }

    fn found_at(&mut self, revision: Revision) {
        self.at = revision;
        self.doubt = false;
        self.reign.state.send_modify(|state| state.revision = revision);
    }

    /// Whether a write may still be tried.
    fn may_go_on(&self, patience: Patience) -> bool {
        patience == Patience::Session || !self.inner.validity.remaining(&*self.inner.clock).is_zero()
    }

    /// Commits what `make` says for the key's revision, until it is known what became of it. `landed` tells
    /// whether an entry is what this very write leaves.
    async fn apply(&mut self, tries_for: Patience, make: impl Fn(Revision) -> Batch, landed: impl Fn(&Entry) -> bool) -> Applied {
        let inner = self.inner.clone();
        let mut pause = timing::renewal_retry(inner.lease) / 4;
        loop {
            if let Err(error) = self.reign.vouched(tries_for == Patience::Session).await {
                return error.loss().map_or_else(|| Applied::Unsettled(self.unsettled(past_deadline())), Applied::Lost);
            }
            let before = inner.witness.mark();
            let answer = inner.clock.timeout(patience(inner.lease), inner.patient.commit(make(self.at))).await;
            let error = match answer.unwrap_or_else(|_| Err(StoreError::unknown("a write of the office was not answered"))) {
                Ok(revision) => {
                    if inner.acknowledged(before, revision).is_err() {
                        return Applied::Lost(self.reign.hold.end(Loss::StoreReset));
                    }
                    self.found_at(revision);
                    return Applied::At(revision);
                }
                Err(error @ StoreError::Conflict { .. }) => {
                    match beyond(&*inner.patient, &self.reign.key, self.at).await {
                        Ok(Beyond::Entry(entry)) if landed(&entry) => {
                            self.found_at(entry.revision);
                            return Applied::At(entry.revision);
                        }
                        // An earlier write of ours, not answered then.
                        Ok(Beyond::Entry(entry)) if self.is_ours(&entry) => {
                            self.found_at(entry.revision);
                            continue;
                        }
                        Ok(Beyond::Entry(entry)) => return Applied::Lost(self.end_by(&entry)),
                        Ok(Beyond::Nothing(revision)) => {
                            // It may have gone with its bucket: then nobody has ended it, and we have not either.
                            let anew = inner.acknowledged(before, revision).is_err();
                            let loss = if anew { Loss::StoreReset } else { Loss::Deposed };
                            self.reign.hold.end(loss);
                            return Applied::Lost(loss);
                        }
                        Err(_) => {
                            let found = inner.patient.entry(&self.reign.key).await;
                            let loss = match found {
                                Ok(entry) => self.set_back_to(entry.as_ref(), true).await,
                                Err(_) => None,
                            };
                            return loss.map_or(Applied::Refused(error), Applied::Lost);
                        }
                    }
                }
                Err(error @ StoreError::Invalid { .. }) => return Applied::Refused(error),
                Err(error) => {
                    self.doubt |= !error.is_unavailable();
                    error
                }
            };
            if !self.may_go_on(tries_for) {
                return Applied::Unsettled(self.unsettled(error));
            }
            inner.clock.sleep_until(inner.clock.now() + pause).await;
            pause = (pause * 2).min(timing::renewal_interval(inner.lease));
        }
    }

    /// The last try may not have been applied, but an earlier one may.
    fn unsettled(&self, error: StoreError) -> StoreError {
        if self.doubt && !error.is_unknown() {
            StoreError::unknown("a write of the office was not answered").caused_by(error)
        } else {
            error
        }
    }

    /// As [`apply`](Self::apply), for a write without another precondition: refused, it is tried again.
    async fn insist(
        &mut self,
        tries_for: Patience,
        make: impl Fn(Revision) -> Batch,
        landed: impl Fn(&Entry) -> bool,
    ) -> Applied {
        let mut pause = Duration::from_millis(1);
        loop {
            match self.apply(tries_for, &make, &landed).await {
                Applied::Refused(error) if error.is_conflict() && self.may_go_on(tries_for) => {
                    self.inner.clock.sleep_until(self.inner.clock.now() + pause).await;
                    pause = (pause * 2).min(timing::renewal_interval(self.inner.lease));
                }
                Applied::Refused(error) => {
                    return Applied::Unsettled(self.unsettled(if error.is_conflict() {
                        super::withdrawal::lagging()
                    } else {
                        error
                    }));
                }
                outcome => return outcome,
            }
        }
    }

    /// Writes our record once more, with what it says now: whoever still leads after this is known.
    async fn write_record(&mut self) -> Applied {
        self.record.writes += 1;
        let (key, record) = (self.reign.key.clone(), self.record.clone());
        let (value, writes, id) = (record.encode(), record.writes, record.candidate);
        self.reign.state.send_modify(|state| state.moving = true);
        let outcome = self
            .insist(
                Patience::Lease,
                |at| Op::put(key.clone(), value.clone()).if_at(at).into(),
                |entry| Record::read(entry).is_some_and(|found| found.candidate == id && found.writes == writes),
            )
            .await;
        let ours = matches!(outcome, Applied::At(_));
        self.reign.state.send_modify(|state| (state.moving, state.aside) = (false, state.aside && !ours));
        outcome
    }

    async fn proclaim(&mut self, value: Bytes) -> Result<Revision> {
        if let Some(loss) = self.reign.hold.loss() {
            return Err(Error::lost(loss));
        }
        let before = self.record.clone();
        self.record = before.clone().with_value(&value)?;
        match self.write_record().await {
            Applied::At(revision) => Ok(revision),
            Applied::Lost(loss) => Err(Error::lost(loss)),
            Applied::Refused(error) | Applied::Unsettled(error) => {
                if !error.is_unknown() {
                    let writes = self.record.writes;
                    self.record = before;
                    self.record.writes = writes;
                }
                Err(error.into())
            }
        }
    }

    /// Where the key is. After a write of unknown outcome another one finds out.
    async fn verify(&mut self) -> Result<Revision> {
        if self.doubt {
            return match self.write_record().await {
                Applied::At(revision) => Ok(revision),
                Applied::Lost(loss) => Err(Error::lost(loss)),
                Applied::Refused(error) | Applied::Unsettled(error) => Err(error.into()),
            };
        }
        match self.inner.patient.entry(&self.reign.key).await? {
            Some(entry) if entry.revision >= self.at && !self.is_ours(&entry) => return Err(Error::lost(self.end_by(&entry))),
            Some(entry) if entry.revision > self.at => self.found_at(entry.revision),
            entry => {
                if let Some(loss) = self.set_back_to(entry.as_ref(), false).await {
                    return Err(Error::lost(loss));
                }
            }
        }
        Ok(self.at)
    }

    async fn transfer(&mut self, candidate: &str) -> Result<Revision> {
        if let Some(loss) = self.reign.hold.loss() {
            return Err(Error::lost(loss));
        }
        if self.doubt {
            // The office may be over by an earlier transfer.
            self.verify().await?;
        }
        if candidate == self.reign.candidate {
            return Err(Error::invalid(format!("the candidate {candidate} is the leader itself; name another one")));
        }
        let message = format!("there is no candidate {candidate} for {} any more; the leader stays", self.reign.name);
        let gone = || Error::Conflict { message: message.clone(), key: None, revision: None };
        let Ok(key) = self.ballot.name.candidate(candidate) else {
            return Err(Error::invalid(format!("{candidate:?} is no candidate's id; take one that is listed")));
        };
        let Some(entry) = self.inner.patient.entry(&key).await? else { return Err(gone()) };
        let Some(record) = Record::read(&entry).filter(|record| record.candidate == candidate) else { return Err(gone()) };
        if record.session != self.inner.id && self.inner.is_dead(&record.session).await? {
            return Err(gone());
        }
        // Still listed, we could be handed the office back when nobody runs it here any more.
        if let Err(error) = self.unlisted(Patience::Lease).await {
            return Err(StoreError::unavailable("the leader could not be taken off the list of candidates")
                .caused_by(error)
                .into());
        }
        // Before the write: whoever is named by it must not find us relying on the office.
        self.reign.state.send_modify(|state| (state.aside, state.moving) = (true, true));
        let outcome = self.hand_over(&key, entry.revision, record.elected(), gone()).await;
        if outcome.is_ok() {
            self.gone = true;
            self.reign.hold.end(Loss::Resigned);
        }
        // Of an unknown outcome nobody may rely on: a later look finds out.
        let unknown = matches!(outcome, Err(Error::Unknown { .. }));
        self.reign.state.send_modify(|state| (state.aside, state.moving) = (unknown, false));
        outcome
    }

    /// One batch: the candidate's key ends where it was written, and the election's names the candidate.
    async fn hand_over(&mut self, key: &Key, listed: Revision, record: Record, gone: Error) -> Result<Revision> {
        let (election, value) = (self.reign.key.clone(), record.encode());
        let make = |at: Revision| {
            let op = Op::delete(key.clone()).note(Bytes::from_static(TRANSFERRED)).if_at(listed).ttl(timing::forestall());
            Batch::new().and(op).and(Op::put(election.clone(), value.clone()).if_at(at))
        };
        // The term that a read shows: the successor may have proclaimed something since.
        let term = AtomicU64::new(0);
        let landed = |entry: &Entry| {
            let found = Record::read(entry).filter(|found| found.candidate == record.candidate);
            term.store(found.as_ref().map_or(0, |found| found.term_at(entry.revision).get()), Ordering::Relaxed);
            found.is_some()
        };
        let term_or = |revision| {
            Some(Revision::new(term.load(Ordering::Relaxed))).filter(|term| *term > Revision::ZERO).unwrap_or(revision)
        };
        match self.apply(Patience::Lease, make, landed).await {
            Applied::At(revision) => Ok(term_or(revision)),
            Applied::Lost(loss) => self.over_by(key, loss).await,
            // Either the candidate has withdrawn or an earlier try has landed. Another write of ours finds out.
            Applied::Refused(_) => {
                self.record.writes += 1;
                let (election, value) = (self.reign.key.clone(), self.record.encode());
                let (writes, own) = (self.record.writes, self.record.candidate.clone());
                let make = |at| Op::put(election.clone(), value.clone()).if_at(at).into();
                let landed = |entry: &Entry| {
                    landed(entry) || Record::read(entry).is_some_and(|found| found.candidate == own && found.writes == writes)
                };
                match self.insist(Patience::Lease, make, landed).await {
                    Applied::At(_) => Some(term_or(Revision::ZERO)).filter(|term| *term > Revision::ZERO).ok_or(gone),
                    Applied::Lost(loss) => self.over_by(key, loss).await,
                    Applied::Refused(error) | Applied::Unsettled(error) => Err(error.into()),
                }
            }
            Applied::Unsettled(error) => Err(error.into()),
        }
    }

    /// Somebody else leads than the candidate that was to. If a try went unanswered, that may have led
    /// in between: what stands in its key, which only it and the leader end, tells.
    async fn over_by(&mut self, candidate: &Key, loss: Loss) -> Result<Revision> {
        if !self.doubt {
            return Err(Error::lost(loss));
        }
        match self.inner.patient.entry(candidate).await {
            Ok(Some(entry)) if is_handed_over(&entry.state) => Ok(entry.revision.next()),
            Ok(Some(entry)) if !entry.is_live() => Err(Error::lost(loss)),
            _ => Err(StoreError::unknown("the office is over, and nothing tells whether the transfer was applied").into()),
        }
    }

    async fn resign(&mut self) -> Result<()> {
        self.unlisted(Patience::Lease).await?;
        match self.end(Patience::Lease).await {
            Applied::At(_) => Ok(()),
            // Nobody takes the office from a session that lives: a try that went unanswered has freed it.
            Applied::Lost(_) if self.doubt && self.inner.validity.lost().is_none() => Ok(()),
            Applied::Lost(loss) => Err(Error::lost(loss)),
            Applied::Refused(error) | Applied::Unsettled(error) => Err(error.into()),
        }
    }

    async fn end(&mut self, tries_for: Patience) -> Applied {
        let (key, id) = (self.reign.key.clone(), self.reign.candidate.clone());
        let outcome = self
            .insist(
                tries_for,
                |at| resignation(&key, &id, at).into(),
                |entry| matches!(&entry.state, State::Deleted(note) if note.as_ref() == id.as_bytes()),
            )
            .await;
        self.gone |= matches!(outcome, Applied::At(_) | Applied::Lost(_));
        outcome
    }

    /// Sees to it that nobody can hand the office to us any more: with our own key there, whoever leads next
    /// could name a leader whom nobody runs.
    async fn unlisted(&mut self, tries_for: Patience) -> std::result::Result<(), StoreError> {
        let mut pause = timing::renewal_retry(self.inner.lease) / 4;
        while let Err(error) = self.left.unlist(&*self.inner.patient).await {
            if error.is_invalid() || !self.may_go_on(tries_for) {
                return Err(error);
            }
            self.inner.clock.sleep_until(self.inner.clock.now() + pause).await;
            pause = (pause * 2).min(timing::renewal_interval(self.inner.lease));
        }
        Ok(())
    }

    /// Gives the office up for good, however long it takes: nothing is to name a leader whom nobody runs.
    async fn leave(&mut self) {
        if let Err(error) = self.unlisted(Patience::Session).await {
            tracing::warn!(election = self.reign.name, %error, "the candidature could not be ended");
        }
        while !self.gone {
            if let Applied::Refused(error) | Applied::Unsettled(error) = self.end(Patience::Session).await {
                tracing::warn!(election = self.reign.name, %error, "the office could not be given up");
                self.inner.clock.sleep_until(self.inner.clock.now() + self.inner.lease).await;
            }
        }
    }
}
