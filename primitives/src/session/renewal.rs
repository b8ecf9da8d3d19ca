//! The one task that keeps a session alive: it alone writes `session.<id>`, by compare-and-set.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tenure_kv::{
    ClockExt, Entry, Expect, Moment, Op, Revision, State,
    mutants::{self, Mutant},
};

use super::{Inner, SessionState, heights::Mark, timing, witness::Witness};
use crate::{
    Error, Loss, Result,
    record::{SessionRecord, decode, encode},
};

/// What the store last said of our key, and the renewals whose answers are still out.
#[derive(Debug)]
pub(super) struct Renewal {
    inner: Arc<Inner>,
    record: SessionRecord,
    revision: Revision,
    /// When the last renewal that was answered had been sent.
    sent: Moment,
    /// Renewals that may have been applied: their beats and when each was sent.
    unanswered: VecDeque<(u64, Moment)>,
    /// How many outages the store had had before the present attempt.
    asked: u64,
}

/// Renewals without an answer that are remembered; older ones are long refused or forgotten.
const UNANSWERED: usize = 64;

enum Next {
    At(Moment),
    Lost(Loss),
}

impl Renewal {
    pub(super) fn new(inner: Arc<Inner>, record: SessionRecord, revision: Revision, sent: Moment) -> Self {
        let asked = inner.store.outages();
        Self { inner, record, revision, sent, unanswered: VecDeque::new(), asked }
    }

    /// Renews until the session is lost or closed.
    pub(super) async fn run(mut self) {
        let lease = self.inner.lease;
        let mut next = self.sent + timing::renewal_interval(lease);
        let mut turns = self.inner.witness.turns();
        let loss = loop {
            turns.mark_unchanged();
            if !self.inner.witness.is_in(&self.inner.epoch) {
                break Loss::StoreReset;
            }
            tokio::select! {
                biased;
                () = self.inner.stop.cancelled() => break Loss::Closed,
                Ok(()) = turns.changed() => continue,
                () = self.inner.clock.sleep_until(next) => {}
                // One server that is back may have lost its last writes: the sooner it is known the better.
                () = self.inner.hurry.notified(), if self.inner.store.outages() != *self.inner.outlived.borrow() => {}
            }
            let inner = self.inner.clone();
            let attempt = self.attempt();
            let outcome = tokio::select! {
                biased;
                () = inner.stop.cancelled() => break Loss::Closed,
                outcome = with_deadline_noticed(&inner, attempt) => outcome,
            };
            match outcome {
                Next::At(at) => next = at,
                Next::Lost(loss) => break loss,
            }
            inner.witness.settle(&inner.store, &*inner.clock).await;
        };
        self.inner.lose(loss);
        if matches!(loss, Loss::Closed) {
            self.bury().await;
        }
    }

    async fn attempt(&mut self) -> Next {
        let (lease, clock) = (self.inner.lease, self.inner.clock.clone());
        let patience = timing::renewal_interval(lease).min(Duration::from_secs(5));
        self.asked = self.inner.store.outages();
        let last = self.unanswered.back().map_or(self.sent, |(_, sent)| *sent);
        if clock.now() >= last + timing::garbage(lease).as_duration() && !mutants::is_on(Mutant::RevivedSession) {
            // The key is gone by its TTL, and so may be the tombstone of a deposed session: what is there all the same
            // was brought back. But a store that does not answer says nothing of it.
            let answer = clock.timeout(patience, Witness::is_epoch(&self.inner.store, &self.inner.epoch)).await;
            return match answer {
                Ok(Ok(true)) => Next::Lost(Loss::Expired),
                Ok(Ok(false)) => self.reset(),
                Ok(Err(_)) | Err(_) => {
                    self.inner.suspect();
                    self.again(clock.now())
                }
            };
        }
        if self.inner.validity.remaining(&*clock).is_zero()
            && !mutants::is_on(Mutant::RevivedSession)
            && let Some(next) = self.look_first(patience).await
        {
            return next;
        }
        self.record.beat += 1;
        let op = Op::put(self.inner.key.clone(), encode(&self.record)).if_at(self.revision).ttl(timing::garbage(lease));
        let op = if mutants::is_on(Mutant::RevivedSession) { op.expect(Expect::Any) } else { op };
        let before = self.inner.witness.mark();
        // Counted from before the send: the store may take it at any moment from here on.
        let sent = clock.now();
        let answer = clock.timeout(patience, self.inner.store.commit(op.into())).await;
        let proven = match answer {
            Ok(Ok(revision)) => {
                let sent = if mutants::is_on(Mutant::DeadlineFromAnswer) { clock.now() } else { sent };
                return self.renewed(before, revision, sent);
            }
            Ok(Err(error)) if error.is_unknown() && mutants::is_on(Mutant::UnknownIsSuccess) => {
                return self.renewed(before, before.next(), sent);
            }
            Err(_) if mutants::is_on(Mutant::UnknownIsSuccess) => return self.renewed(before, before.next(), sent),
            // Ours is the higher revision, so it was a server that lags which refused; or the bucket went back.
            Ok(Err(tenure_kv::Error::Conflict { revision: Some(found), .. }))
                if found < self.revision && !self.inner.validity.remaining(&*clock).is_zero() =>
            {
                self.inner.suspect();
                return if self.is_set_back(found).await { Next::Lost(Loss::StoreReset) } else { self.again(sent) };
            }
            Ok(Err(tenure_kv::Error::Conflict { .. })) => self.unanswered.is_empty(),
            Ok(Err(error @ (tenure_kv::Error::Unavailable { .. } | tenure_kv::Error::Invalid { .. }))) => {
                tracing::debug!(session = %self.inner.id, %error, "renewal not taken");
                self.inner.renewals.miss();
                self.inner.suspect();
                return self.again(sent);
            }
            Ok(Err(error)) => {
                tracing::debug!(session = %self.inner.id, %error, "renewal unanswered");
                self.unanswered(sent);
                false
            }
            Err(_) => {
                self.unanswered(sent);
                false
            }
        };
        if !proven {
            self.inner.suspect();
        }
        match clock.timeout(patience, self.read_back(before, proven)).await {
            Ok(next) => next,
            // The conflict alone is the proof; only its reason is not known.
            Err(_) if proven => Next::Lost(Loss::Deposed),
            Err(_) => self.again(sent),
        }
    }

    /// Past the deadline: what to do instead of a renewal, unless a read shows the last one just where it was.
    ///
    /// By now the session may have been ended, in a bucket that was set back or made anew. There the tombstone may
    /// happen to stand at the very revision that a renewal would replace, and the dead session would live again.
    async fn look_first(&mut self, patience: Duration) -> Option<Next> {
        let clock = self.inner.clock.clone();
        let (now, before) = (clock.now(), self.inner.witness.mark());
        let look = async {
            match self.inner.store.entry(&self.inner.key).await {
                Ok(Some(entry)) if entry.is_live() && entry.revision == self.revision => None,
                Ok(entry) => Some(self.found(before, entry, false).await),
                Err(_) => Some(self.again(now)),
            }
        };
        let next = match clock.timeout(patience, look).await {
            Ok(next) => next?,
            Err(_) => self.again(now),
        };
        if let Next::At(_) = next
            && self.inner.validity.remaining(&*clock).is_zero()
        {
            self.inner.suspect();
        }
        Some(next)
    }

    fn unanswered(&mut self, sent: Moment) {
        self.inner.renewals.miss();
        if self.unanswered.len() == UNANSWERED {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back((self.record.beat, sent));
    }

    /// Whether the key is gone for certain: a read may lag behind, a tombstone that was taken does not.
    async fn is_absent(&self) -> bool {
        let op = Op::purge(self.inner.key.clone()).if_absent().ttl(timing::garbage(self.inner.lease));
        self.inner.store.commit(op.into()).await.is_ok()
    }

    fn renewed(&mut self, before: Mark, revision: Revision, sent: Moment) -> Next {
        if self.inner.acknowledged(before, revision).is_err() {
            return Next::Lost(Loss::StoreReset);
        }
        self.revision = revision;
        self.sent = sent;
        self.inner.renewals.acknowledge();
        self.unanswered.clear();
        self.inner.renewed(self.asked, revision, sent);
        let asked = self.asked;
        self.inner.outlived.send_if_modified(|outlived| std::mem::replace(outlived, asked) != asked);
        Next::At(sent + timing::renewal_interval(self.inner.lease))
    }

    /// Whether our key is at an earlier revision for certain: what is said by a server that lags is no condition that a
    /// commit goes through on. If it does, the session is over in every respect.
    async fn is_set_back(&self, found: Revision) -> bool {
        let op = Op::purge(self.inner.key.clone()).if_at(found).ttl(timing::garbage(self.inner.lease));
        let patience = timing::renewal_interval(self.inner.lease).min(Duration::from_secs(5));
        let set_back = matches!(self.inner.clock.timeout(patience, self.inner.store.commit(op.into())).await, Ok(Ok(_)));
        if set_back {
            self.inner.witness.went_back(&*self.inner.clock, &self.inner.epoch);
        }
        set_back
    }

    /// Reads say that the bucket is not what it was; a commit may yet show that only a replica lagged.
    fn reset(&self) -> Next {
        self.inner.witness.hold_off(&*self.inner.clock);
        Next::Lost(Loss::StoreReset)
    }

    async fn expired(&self) -> Next {
        match Witness::is_epoch(&self.inner.store, &self.inner.epoch).await {
            Ok(false) => self.reset(),
            Ok(true) | Err(_) => Next::Lost(Loss::Expired),
        }
    }

    fn again(&self, sent: Moment) -> Next {
        Next::At(self.inner.clock.now().max(sent) + timing::renewal_retry(self.inner.lease))
    }

    /// Finds out what became of a renewal that was refused (`proven`) or not answered.
    async fn read_back(&mut self, before: Mark, proven: bool) -> Next {
        let now = self.inner.clock.now();
        let entry = match self.inner.store.entry(&self.inner.key).await {
            Ok(entry) => entry,
            Err(_) if proven => return Next::Lost(Loss::Deposed),
            Err(_) => return self.again(now),
        };
        self.found(before, entry, proven).await
    }

    /// What follows from what a read shows.
    async fn found(&mut self, before: Mark, entry: Option<Entry>, proven: bool) -> Next {
        let now = self.inner.clock.now();
        let Some(entry) = entry else {
            if !proven && !self.is_absent().await {
                return self.again(now);
            }
            // Too early for the TTL, the key can only have gone with the bucket's past.
            let expiry = self.sent + timing::garbage(self.inner.lease).as_duration();
            return if now < expiry { self.reset() } else { self.expired().await };
        };
        match &entry.state {
            State::Live(value) if !proven => {
                let landed = decode::<SessionRecord>(value)
                    .filter(|_| entry.revision > self.revision)
                    .and_then(|record| self.unanswered.iter().find(|(beat, _)| *beat == record.beat).copied());
                match landed {
                    // Valid from when *that* one was sent.
                    Some((_, sent)) => self.renewed(before.at(self.revision), entry.revision, sent),
                    None if entry.revision < self.revision && self.is_set_back(entry.revision).await => {
                        Next::Lost(Loss::StoreReset)
                    }
                    None => self.again(now),
                }
            }
            // Only we write values here, so what refused our renewal is a tombstone that this read lags
            // behind, or the bucket has gone back.
            State::Live(_) if entry.revision < self.revision => self.reset(),
            State::Live(_) | State::Deleted(_) | State::Purged => Next::Lost(Loss::Deposed),
            State::Expired => Next::Lost(Loss::Expired),
        }
    }

    /// Leaves a tombstone, so that nobody has to wait for the lease to run out.
    async fn bury(&self) {
        let farewell = async {
            let mut revision = self.revision;
            for _ in 0..3 {
                let op = Op::delete(self.inner.key.clone()).if_at(revision).ttl(timing::garbage(self.inner.lease));
                match self.inner.store.commit(op.into()).await {
                    Ok(_) => return,
                    Err(tenure_kv::Error::Conflict { .. }) => match self.inner.store.entry(&self.inner.key).await {
                        Ok(Some(entry)) if entry.is_live() => revision = entry.revision,
                        _ => return,
                    },
                    Err(error) => {
                        tracing::debug!(session = %self.inner.id, %error, "the session's end could not be written");
                        let pause = self.inner.clock.now() + timing::renewal_retry(self.inner.lease);
                        self.inner.clock.sleep_until(pause).await;
                    }
                }
            }
        };
        // Past the lease the tombstone is of no use to anybody.
        let _ = self.inner.clock.timeout(self.inner.lease, farewell).await;
    }
}

impl Drop for Renewal {
    /// However the task ends, be it with its runtime: from now on nobody renews.
    fn drop(&mut self) {
        self.inner.lose(Loss::Closed);
    }
}

/// Waits for `attempt` and meanwhile says so when the deadline passes.
async fn with_deadline_noticed<F: Future>(inner: &Inner, attempt: F) -> F::Output {
    tokio::pin!(attempt);
    let deadline = inner.validity.deadline();
    tokio::select! {
        biased;
        outcome = &mut attempt => return outcome,
        () = inner.clock.sleep_until(deadline) => inner.suspect(),
    }
    attempt.await
}

impl SessionState {
    /// Whether a renewal that was answered now restores the session.
    pub(super) const fn is_suspect(self) -> bool {
        matches!(self, Self::Suspect)
    }
}

pub(super) async fn announce(inner: &Arc<Inner>, record: &SessionRecord) -> Result<(Revision, Moment)> {
    let mut unanswered: Option<Moment> = None;
    let mut tries = 0_u32;
    loop {
        let before = inner.witness.mark();
        let sent = inner.clock.now();
        // Not over a tombstone: a copy of this write that lands late must not revive a dead session.
        let op = Op::put(inner.key.clone(), encode(record)).if_at(Revision::ZERO).ttl(timing::garbage(inner.lease));
        match inner.store.commit(op.into()).await {
            Ok(revision) => {
                // Not a session yet that could be lost.
                if !inner.witness.committed(before, revision) {
                    inner.witness.went_back(&*inner.clock, &inner.epoch);
                    return Err(Error::lost(Loss::StoreReset));
                }
                return Ok((revision, sent));
            }
            // The id is random and ours alone, so what stands there is what we wrote.
            Err(error) if error.is_conflict() && unanswered.is_some() => {
                if let Some(entry) = inner.store.entry(&inner.key).await?.filter(tenure_kv::Entry::is_live) {
                    return Ok((entry.revision, unanswered.unwrap_or(sent)));
                }
            }
            Err(error) if error.is_unknown() => {
                unanswered.get_or_insert(sent);
                if tries >= 3 {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        // By now whoever waits for it may have deposed it, and once that is forgotten the next try would revive it.
        if unanswered.is_some_and(|first| inner.clock.now().saturating_since(first) >= inner.lease) {
            return Err(tenure_kv::Error::unknown("the session's first write was not answered while its lease lasted").into());
        }
        tries += 1;
        if tries > 20 {
            return Err(tenure_kv::Error::unknown("the session could not be read back after its first write").into());
        }
        inner.clock.sleep_until(inner.clock.now() + timing::renewal_retry(inner.lease)).await;
    }
}
