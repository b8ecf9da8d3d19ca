//! What a session's own acknowledged writes tell of the bucket, and from when it may be granted anything there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tenure_kv::{Entry, Key, Moment, Op, Revision, Ttl};

use super::{Inner, heights::Mark, witness::Witness};
use crate::{Error, Loss, Result, ids, layout, record::EpochRecord};

/// More writes than any server takes into one bucket in a microsecond.
const WRITES_IN_A_MICROSECOND: u128 = 4;

/// When a write was sent that is known to be in the bucket in which the session was opened: the latest of these.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Option<Moment>>);

impl Known {
    fn known(&self) -> MutexGuard<'_, Option<Moment>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a bucket that was made anew since then cannot have come to `revision` by `now`.
    fn rules_out(&self, revision: Revision, now: Moment) -> bool {
        let known = *self.known();
        known.is_some_and(|sent| u128::from(revision.get()) > now.saturating_since(sent).as_micros() * WRITES_IN_A_MICROSECOND)
    }

    /// A write that was `sent` then is there for certain.
    fn learn(&self, sent: Moment) {
        let mut known = self.known();
        *known = (*known).max(Some(sent));
    }

    /// A renewal that was `sent` then was taken. It is where the session's own key is, which is known once anything is.
    pub(super) fn renewed(&self, sent: Moment) {
        let mut known = self.known();
        *known = known.map(|known| known.max(sent));
    }
}

impl Inner {
    /// Takes note of a write that was acknowledged at `now`, when `before` was how far the bucket had come as it
    /// was sent.
    ///
    /// # Errors
    /// [`Error::Lost`] when it shows that the bucket has gone back; the session is over then.
    pub(crate) fn acknowledged(&self, before: Mark, now: Revision) -> Result<()> {
        if self.witness.committed(before, now) {
            return Ok(());
        }
        self.witness.went_back(&*self.clock, &self.epoch);
        Err(self.reset())
    }

    /// Resolves when grants may be given: in a bucket that may have been made anew under a holder nobody is
    /// granted anything for one lease.
    ///
    /// # Errors
    /// [`Error::Lost`] when the session is, or the bucket is not the one it was opened in.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn until_grants(self: &std::sync::Arc<Self>) -> Result<()> {
        while let Some(from) = self.witness.grants_from(&*self.clock) {
            tokio::select! {
                loss = self.lost() => return Err(Error::lost(loss)),
                () = self.clock.sleep_until(from) => {}
            }
        }
        self.witness.settle(&self.store, &*self.clock).await;
        if self.witness.is_in(&self.epoch) { Ok(()) } else { Err(self.reset()) }
    }

    /// Whether `key` is at the earlier revision that a read `shows`, after there had been so many `outages` before: the
    /// bucket was set back. On one server the read is the truth. Of several that one may lag, but then no write goes through
    /// that is fenced by what it shows: a tombstone where never anything was.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn is_set_back_to(&self, outages: u64, key: &Key, shows: Option<&Entry>) -> bool {
        if self.store.outages() == outages {
            return false;
        }
        if self.store.info().replicas <= 1 {
            return true;
        }
        let Ok(probe) = nowhere(key, shows.map_or(Revision::ZERO, |entry| entry.revision)) else { return false };
        self.patient.commit(probe.into()).await.is_ok()
    }

    /// Whether `key` stands at this revision. No read tells, which may lag, but a write on that condition.
    ///
    /// # Errors
    /// As [`Store::commit`], where that does not tell.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn stands(&self, key: &Key, at: Revision) -> Result<bool> {
        match self.store.commit(nowhere(key, at)?.into()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The bucket has lost a write that this session relied on.
    pub(crate) fn lost_its_past(&self) {
        self.witness.went_back(&*self.clock, &self.epoch);
        self.lose(Loss::StoreReset);
    }

    /// Whether this is the bucket that the session was opened in, as far as one read tells. What follows from the order
    /// of revisions, and from no condition that the store checks, is only true if it is.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn is_same_bucket(&self) -> bool {
        Witness::is_epoch(&self.patient, &self.epoch).await.unwrap_or(false)
    }

    /// Whether a write at `revision` that was `sent` by this session and is acknowledged by now can only be in the bucket in
    /// which the session was opened: one that was made anew since the last that is known to be there has not come so far.
    /// After an outage nothing is sure: the bucket may have been set back, and have another epoch from a high revision on.
    pub(crate) fn is_surely_here(&self, revision: Revision, sent: Moment) -> bool {
        let surely = self.known.rules_out(revision, self.clock.now()) && self.store.outages() == self.outages;
        if surely {
            self.known.learn(sent);
        }
        surely
    }

    /// Whether what this session has `sent` then, and was written to `key` at `revision`, is in the bucket in which the session
    /// was opened; false when a read lags behind that write. One that was made anew may have come further than the session
    /// has seen of the former one, and then the write alone tells nothing.
    ///
    /// # Errors
    /// [`Error::Lost`] when it is another bucket, and the session is over with its own. As [`Store::entries`].
    ///
    /// [`Store::entries`]: tenure_kv::Store::entries
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn is_written_here(&self, key: &Key, revision: Revision, sent: Moment) -> Result<bool> {
        let here = if self.store.info().replicas > 1 {
            self.written_here(key, revision).await?.is_some()
        } else {
            // One server shows the bucket that there is now, and a former one does not come back.
            let epoch = self.patient.entry(&layout::epoch_key()?).await?;
            self.must_be_of(epoch.as_ref())?;
            true
        };
        if here {
            self.known.learn(sent);
        }
        Ok(here)
    }

    /// As [`is_written_here`](Self::is_written_here): what stands in `key` now, if it is that write or a later one.
    ///
    /// # Errors
    /// As [`is_written_here`](Self::is_written_here).
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn written_here(&self, key: &Key, revision: Revision) -> Result<Option<Entry>> {
        // What shows that write is a state of the bucket in which it is, and so is what is beside it.
        let found = self.patient.entries(&[key.clone(), layout::epoch_key()?]).await?;
        let Ok([Some(written), epoch]) = <[_; 2]>::try_from(found) else { return Ok(None) };
        if written.revision < revision {
            return Ok(None);
        }
        self.must_be_of(epoch.as_ref())?;
        Ok(Some(written))
    }

    fn must_be_of(&self, epoch: Option<&Entry>) -> Result<()> {
        if epoch.is_some_and(|epoch| EpochRecord::is_of(epoch, &self.epoch)) {
            return Ok(());
        }
        self.witness.went_back(&*self.clock, &self.epoch);
        Err(self.reset())
    }

    fn reset(&self) -> Error {
        self.lose(Loss::StoreReset);
        Error::lost(Loss::StoreReset)
    }
}

/// A tombstone where never anything was, which is written if `key` stands at this revision. Every role that has something to
/// lose may write it.
fn nowhere(key: &Key, at: Revision) -> Result<Op> {
    Ok(Op::purge(layout::session_key(&ids::fresh())?).ttl(Ttl::MIN).fenced(key.clone(), at))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_made_anew_needs_its_time_to_come_so_far() {
        let at = |micros| Moment::new(Duration::from_micros(micros));
        let known = Known::default();
        known.renewed(at(900));
        assert!(!known.rules_out(Revision::new(u64::MAX), at(900)), "nothing is known yet");
        known.learn(at(1_000));
        assert!(known.rules_out(Revision::new(401), at(1_100)));
        assert!(!known.rules_out(Revision::new(400), at(1_100)));
        known.renewed(at(1_050));
        known.learn(at(900));
        assert!(known.rules_out(Revision::new(201), at(1_100)));
        assert!(!known.rules_out(Revision::new(200), at(1_100)));
    }
}
