//! The one task that writes a member's record: from the join to the leaving, by compare-and-set.

use std::{sync::Arc, time::Duration};

use tenure_kv::{ClockExt, Entry, Error as StoreError, Expect, Moment, Op, Revision, Ttl};
use tokio::sync::oneshot;

use super::{Instance, InstanceState, Seat, member::Refused, record::Written};
use crate::{
    Error, Loss, Result,
    session::{Inner, timing},
};

/// How long one write may go unanswered before it counts as unknown.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the record's tombstone stays, for the benefit of writes that are late and readers that lag.
const FAREWELL: Duration = Duration::from_secs(60);
/// Refusals of the store that are remembered, for callers that have not asked yet.
const REFUSALS: usize = 16;
/// Tries to join before the trouble is told to the caller.
const TRIES: u32 = 8;

/// The end of a record, whoever writes it.
pub(crate) fn farewell() -> Ttl {
    Ttl::at_least(FAREWELL)
}

/// Where our record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere, and it cannot come to be.
    Out,
    /// A write against this expectation was sent and not answered.
    Open(Revision),
    /// Written here, or later by an update that was not answered.
    In(Revision),
}

/// What became of a first write that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// It is here.
    In(Revision),
    /// It has not landed and never will.
    Never,
    /// It is not there, but may have been.
    Gone,
}

type Said = (Instance, InstanceState);

pub(super) struct Keeper {
    inner: Arc<Inner>,
    seat: Arc<Seat>,
    place: Place,
    /// Counts our writes.
    write: u64,
    /// What the record says, if that is known.
    written: Option<Said>,
    /// What the application said in the last write that the store took for certain; what it joined with at first.
    taken: Instance,
    /// The last write that was sent: its number, the wish behind it, and what it says.
    sent: Option<(u64, u64, Said)>,
    critical_for: Option<Duration>,
    critical_since: Option<Moment>,
    /// How many outages the one server that keeps the bucket had had before.
    outages: u64,
}

impl Drop for Keeper {
    /// However the task ends, be it with its runtime, the handles hear of it.
    fn drop(&mut self) {
        self.inner.give_up_seat(&self.seat.key, &self.seat.author.nonce);
        self.seat.done.send_modify(|done| {
            done.ended.get_or_insert(Loss::Closed);
            done.gone = self.place == Place::Out;
            done.over = true;
        });
    }
}

impl Keeper {
    pub(super) fn new(inner: Arc<Inner>, seat: Arc<Seat>, critical_for: Option<Duration>) -> Self {
        let taken = seat.wish.borrow().instance.clone();
        let (written, sent, critical_since, outages) = (None, None, None, inner.store.outages());
        Self { inner, seat, place: Place::Out, write: 0, written, taken, sent, critical_for, critical_since, outages }
    }

    /// Joins, tells `answer` how that went, and keeps the record until the member leaves or is lost.
    pub(super) async fn run(mut self, answer: oneshot::Sender<Result<Revision>>) {
        let inner = self.inner.clone();
        let lost = inner.lost();
        let end = tokio::select! {
            biased;
            end = self.live(answer) => Ok(end),
            loss = lost => Err(loss),
        };
        let lost = match end {
            Ok(loss) => {
                self.ended(loss);
                // Until it is done, or the session's end does it.
                let lost = inner.lost();
                tokio::select! {
                    biased;
                    () = inner.ending(self.withdraw(true)) => None,
                    loss = lost => Some(loss),
                }
            }
            Err(loss) => {
                self.ended(loss);
                Some(loss)
            }
        };
        if let Some(loss) = lost {
            self.withdraw_in_passing(loss).await;
        }
    }

    fn ended(&self, loss: Loss) {
        self.inner.give_up_seat(&self.seat.key, &self.seat.author.nonce);
        self.seat.done.send_modify(|done| {
            done.ended.get_or_insert(loss);
        });
    }

    /// The session is over: the janitor would do this too, only later.
    async fn withdraw_in_passing(&mut self, loss: Loss) {
        let same = match loss {
            // In a bucket that is not the same any more the revision may be somebody else's.
            Loss::StoreReset => false,
            // Past the deadline it may be another bucket, and no renewal will tell.
            Loss::Closed => self.inner.clock.now() < self.inner.validity.deadline(),
            // Found in this very bucket.
            _ => true,
        };
        if same {
            let _ = self.inner.clock.clone().timeout(self.inner.lease.min(PATIENCE), self.withdraw(false)).await;
        }
    }

    async fn live(&mut self, answer: oneshot::Sender<Result<Revision>>) -> Loss {
        let entered = self.enter().await;
        let failed = entered.is_err();
        let unheard = answer.send(entered).is_err();
        if failed || unheard {
            return Loss::Closed;
        }
        self.keep().await
    }

    fn left(&self) -> Option<Loss> {
        self.seat.wish.borrow().leave
    }

    async fn pause(&self, tries: u32) {
        let pause = Duration::from_millis(5 << tries.min(7));
        self.inner.clock.sleep_until(self.inner.clock.now() + pause).await;
    }

    /// Sends one batch. Whoever calls has noted what that may leave behind.
    async fn commit(&self, op: Op) -> Result<Revision, StoreError> {
        let before = self.inner.witness.mark();
        let answer = self.inner.clock.timeout(PATIENCE, self.inner.store.commit(op.into())).await;
        let revision = answer.unwrap_or_else(|_| Err(StoreError::unknown("the write of a member was not answered")))?;
        match self.inner.acknowledged(before, revision) {
            Ok(()) => Ok(revision),
            Err(_) => Err(StoreError::unknown("the bucket was set back to an earlier state")),
        }
    }

    async fn look(&self) -> Result<Option<Entry>, StoreError> {
        let answer = self.inner.clock.timeout(PATIENCE, self.inner.store.entry(&self.seat.key)).await;
        answer.unwrap_or_else(|_| Err(StoreError::unavailable("the read of a member was not answered")))
    }

    /// A bucket that was set back has lost our last writes: then we go on from the earlier one that is there, or the
    /// membership is over with the session that relied on it. Our own record is worth a try where a write was `refused`
    /// for it, or there was an outage: if it is a replica that lags, that is refused, too.
    async fn set_back_to(&mut self, entry: Option<&Entry>, refused: bool) -> Option<Loss> {
        let Place::In(at) = self.place else { return None };
        let ours = entry.filter(|entry| self.ours(entry).is_some());
        if entry.is_some_and(|entry| entry.revision > at) || ours.is_some_and(|entry| entry.revision == at) {
            return None;
        }
        if let Some(entry) = ours {
            if refused || self.inner.store.outages() != self.outages {
                self.place = Place::In(entry.revision);
                // It says what was said before.
                self.written = None;
            }
            return None;
        }
        if !self.inner.is_set_back_to(self.outages, &self.seat.key, entry).await {
            return None;
        }
        self.place = Place::Out;
        Some(Loss::StoreReset)
    }

    /// Looks whether an outage has taken our last writes.
    async fn look_after_outage(&mut self) -> Result<Option<Loss>, StoreError> {
        let entry = self.look().await?;
        if let Some(loss) = self.set_back_to(entry.as_ref(), false).await {
            self.inner.lost_its_past();
            return Ok(Some(loss));
        }
        match self.place {
            Place::In(at) if entry.is_none_or(|entry| entry.revision < at) => {
                Err(StoreError::unavailable("a read that may lag does not show the member"))
            }
            _ => Ok(None),
        }
    }

    /// The number of our write that `entry` is, if it is one.
    fn ours(&self, entry: &Entry) -> Option<u64> {
        Written::read(entry).filter(|written| written.nonce == self.seat.author.nonce).map(|written| written.write)
    }

    /// Whether the key has no entry for certain, so that what expects a revision there never lands: a read may
    /// lag, a tombstone that was taken does not.
    async fn is_absent(&self) -> Result<(), StoreError> {
        self.commit(Op::purge(self.seat.key.clone()).if_absent().ttl(farewell())).await.map(drop)
    }

    fn record(&mut self) -> bytes::Bytes {
        self.write += 1;
        let wish = self.seat.wish.borrow();
        let said = (wish.instance.clone(), wish.state());
        let record = self.seat.author.write(&said.0, said.1, self.write);
        self.sent = Some((self.write, wish.version, said));
        record
    }

    /// Our write number `write` is there, at `revision`.
    fn landed(&mut self, revision: Revision, write: u64) {
        self.place = Place::In(revision);
        let last = self.sent.take_if(|(sent, ..)| *sent == write);
        self.seat.done.send_modify(|done| {
            done.revision = revision;
            if let Some((_, version, _)) = &last {
                done.version = done.version.max(*version);
            }
        });
        if let Some((.., (instance, _))) = &last {
            self.taken = instance.clone();
        }
        // What an earlier write said has been overtaken.
        self.written = last.map(|(_, _, said)| said);
    }

    /// The store will never take what was `said` last. What the application asked for is taken back, or nothing
    /// later could be written either, be it the verdict of a check.
    fn refused(&mut self, version: u64, said: Said, why: String) {
        if said.0 == self.taken {
            // It was taken before: not again until something changes.
            self.written = Some(said);
        } else {
            self.seat.wish.send_if_modified(|wish| {
                let last = wish.version == version;
                if last {
                    wish.instance = self.taken.clone();
                    wish.version += 1;
                }
                last
            });
        }
        self.seat.done.send_modify(|done| {
            if done.version < version {
                done.refused.push_back(Refused { versions: done.version + 1..=version, why });
                done.version = version;
            }
            if done.refused.len() > REFUSALS {
                done.refused.pop_front();
            }
        });
    }

    /// Takes the id, unless somebody has it who lives.
    async fn enter(&mut self) -> Result<Revision> {
        let mut passed = false;
        match self.take_the_id(&mut passed).await {
            // Whoever saw the session die has removed it.
            Err(error) if passed && !matches!(error, Error::Lost { .. } | Error::Unknown { .. }) => {
                let what = "an earlier write of the join may have been there for a while";
                Err(StoreError::unknown(format!("{what}, and now: {error}")).into())
            }
            outcome => outcome,
        }
    }

    /// `passed` is set when a write may have landed and have been removed since.
    ///
    /// A write where there is nothing is sent once: of two copies one could land when the other has come and
    /// gone. One that is not answered is settled before anything else is tried.
    async fn take_the_id(&mut self, passed: &mut bool) -> Result<Revision> {
        let mut trouble: Option<Error> = None;
        for tries in 0..TRIES {
            if tries > 0 {
                self.pause(tries).await;
            }
            if let Some(loss) = self.left() {
                return Err(Error::lost(loss));
            }
            if let Place::Open(_) = self.place {
                self.inner.vouched().await?;
                match self.settle().await {
                    Ok(Settled::In(revision)) => return Ok(revision),
                    Ok(Settled::Never) => {}
                    Ok(Settled::Gone) => *passed = true,
                    Err(error) => {
                        tracing::debug!(member = %self.seat.key, %error, "what became of a join is not known yet");
                        continue;
                    }
                }
            }
            let expect = match self.look().await? {
                None => Revision::ZERO,
                Some(entry) if !entry.is_live() => entry.revision,
                Some(entry) => {
                    self.claim(&entry).await?;
                    entry.revision
                }
            };
            // Past the deadline the bucket may be another one.
            self.inner.vouched().await?;
            self.inner.traces.member(&self.seat.key);
            let record = self.record();
            self.place = Place::Open(expect);
            match self.commit(Op::put(self.seat.key.clone(), record).if_at(expect)).await {
                Ok(revision) => {
                    self.landed(revision, self.write);
                    return Ok(revision);
                }
                Err(error) if error.is_unknown() => trouble = Some(error.into()),
                Err(error) => {
                    self.place = Place::Out;
                    if !error.is_conflict() {
                        return Err(error.into());
                    }
                    // Somebody was first, or the read lagged.
                    trouble = Some(error.into());
                }
            }
        }
        Err(trouble.unwrap_or_else(|| StoreError::unknown("the join was not answered").into()))
    }

    /// Whether the id that `entry` has may be taken from it.
    async fn claim(&self, entry: &Entry) -> Result<()> {
        let (id, group) = (&self.seat.id, &self.seat.group);
        let conflict = |message| Err(Error::Conflict { message, key: Some(entry.key.clone()), revision: Some(entry.revision) });
        let Some(found) = Written::read(entry) else {
            return conflict(format!("the id {id} in the group {group} is taken by a record that Tenure cannot read"));
        };
        // The seats tell whether the session still wants its earlier record.
        if found.session == self.inner.id || self.inner.is_dead(&found.session).await? {
            return Ok(());
        }
        conflict(format!("the id {id} in the group {group} is taken by {}", found.owner()))
    }

    /// Finds out about a first write that was not answered: where it landed, or that it never will.
    ///
    /// It is only taken against what it expected; a tombstone in that place makes it fail.
    async fn settle(&mut self) -> Result<Settled, StoreError> {
        let Place::Open(expected) = self.place else { return Ok(Settled::Never) };
        let op = Op::purge(self.seat.key.clone());
        // Where nothing was, the late write would find nothing again once the tombstone is forgotten.
        let op = if expected == Revision::ZERO {
            op.expect(Expect::Absent).ttl(timing::forestall())
        } else {
            op.if_at(expected).ttl(farewell())
        };
        let settled = match self.commit(op).await {
            // Where nothing is, there may have been something.
            Ok(_) if expected == Revision::ZERO => Settled::Gone,
            Ok(_) => Settled::Never,
            Err(StoreError::Conflict { .. }) => match self.look().await? {
                Some(entry) if entry.revision > expected && (entry.is_live() || expected > Revision::ZERO) => {
                    match self.ours(&entry) {
                        Some(write) => {
                            self.landed(entry.revision, write);
                            return Ok(Settled::In(entry.revision));
                        }
                        None => Settled::Gone,
                    }
                }
                None if expected > Revision::ZERO => {
                    self.is_absent().await?;
                    Settled::Gone
                }
                _ => return Err(StoreError::unavailable("a lagging read does not show the member yet")),
            },
            Err(error) => return Err(error),
        };
        self.place = Place::Out;
        Ok(settled)
    }

    /// Writes what is wished for until there is a reason to leave.
    async fn keep(&mut self) -> Loss {
        let mut wishes = self.seat.wish.subscribe();
        let mut outlived = self.inner.outlived();
        let mut tries = 0;
        loop {
            let (version, leave, wanted) = {
                let wish = wishes.borrow_and_update();
                (wish.version, wish.leave, (wish.instance.clone(), wish.state()))
            };
            if let Some(loss) = leave {
                return loss;
            }
            let now = self.inner.clock.now();
            self.critical_since = (wanted.1 == InstanceState::Critical).then(|| self.critical_since.unwrap_or(now));
            let removal = self.critical_since.zip(self.critical_for).map(|(since, limit)| since + limit);
            if removal.is_some_and(|at| at <= now) {
                tracing::warn!(member = %self.seat.key, "critical for too long; it leaves");
                return Loss::Critical;
            }
            if outlived.has_changed().unwrap_or(false) {
                outlived.mark_unchanged();
                match self.look_after_outage().await {
                    Ok(Some(loss)) => return loss,
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(member = %self.seat.key, %error, "whether the member is still there is looked at again");
                        outlived.mark_changed();
                        if self.written.as_ref() == Some(&wanted) {
                            self.pause(TRIES).await;
                            continue;
                        }
                        // A write tells more than a read.
                    }
                }
            }
            if self.written.as_ref() == Some(&wanted) {
                self.seat.done.send_if_modified(|done| {
                    let news = done.version < version;
                    done.version = done.version.max(version);
                    news
                });
            } else {
                match self.write().await {
                    Ok(Some(loss)) => return loss,
                    Ok(None) => tries = 0,
                    Err(error) => {
                        tracing::debug!(member = %self.seat.key, %error, "the member's record is not written yet");
                        tries += 1;
                        self.pause(tries).await;
                    }
                }
                continue;
            }
            let later = async {
                match removal {
                    Some(at) => self.inner.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return Loss::Closed },
                Ok(()) = outlived.changed() => outlived.mark_changed(),
                () = later => {}
            }
        }
    }

    /// Writes the latest wish once. `Some` when the record is not ours any more.
    ///
    /// A write that was not answered needs no settling: it and the next expect the same revision, so one of
    /// them fails, and then what is there tells which.
    async fn write(&mut self) -> Result<Option<Loss>, StoreError> {
        let Place::In(at) = self.place else { return Ok(Some(Loss::Closed)) };
        if self.inner.vouched().await.is_err() {
            return Err(StoreError::unavailable("the session is lost"));
        }
        let record = self.record();
        // What the record says is not known again before this is answered.
        let written = self.written.take();
        match self.commit(Op::put(self.seat.key.clone(), record).if_at(at)).await {
            Ok(revision) => self.landed(revision, self.write),
            Err(StoreError::Conflict { .. }) => match self.look().await? {
                Some(entry) if entry.revision > at => match self.ours(&entry) {
                    Some(write) => self.landed(entry.revision, write),
                    None => {
                        self.place = Place::Out;
                        return Ok(Some(if entry.is_live() { Loss::Deposed } else { Loss::Broken }));
                    }
                },
                None => {
                    self.is_absent().await?;
                    self.place = Place::Out;
                    return Ok(Some(Loss::Broken));
                }
                Some(entry) => {
                    return match self.set_back_to(Some(&entry), true).await {
                        Some(loss) => {
                            self.inner.lost_its_past();
                            Ok(Some(loss))
                        }
                        None => Err(StoreError::unavailable("a lagging read does not show what stood in the way")),
                    };
                }
            },
            Err(StoreError::Invalid { message }) => {
                self.written = written;
                if let Some((_, version, said)) = self.sent.take() {
                    self.refused(version, said, message);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    /// Tries until nothing of ours is left and nothing can come to be; with `vouched` only while the session
    /// lives, and for ever once it does not.
    async fn withdraw(&mut self, vouched: bool) {
        let mut tries = 0;
        while self.place != Place::Out {
            if vouched && self.inner.vouched().await.is_err() {
                return std::future::pending().await;
            }
            let Err(error) = self.withdraw_once().await else { return };
            tracing::debug!(member = %self.seat.key, %error, "the member could not be withdrawn; trying again");
            tries += 1;
            self.pause(tries).await;
        }
    }

    async fn withdraw_once(&mut self) -> Result<(), StoreError> {
        if let Place::Open(_) = self.place {
            self.settle().await?;
        }
        while let Place::In(at) = self.place {
            match self.commit(Op::purge(self.seat.key.clone()).if_at(at).ttl(farewell())).await {
                Ok(_) => self.place = Place::Out,
                Err(StoreError::Conflict { .. }) => match self.look().await? {
                    // An update that was not answered has landed, or somebody else has written since.
                    Some(entry) if entry.revision > at => {
                        self.place = self.ours(&entry).map_or(Place::Out, |_| Place::In(entry.revision));
                    }
                    None => {
                        self.is_absent().await?;
                        self.place = Place::Out;
                    }
                    Some(entry) => {
                        if self.set_back_to(Some(&entry), true).await.is_none() && self.place == Place::In(at) {
                            return Err(StoreError::unavailable("a lagging read still shows the member"));
                        }
                    }
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
