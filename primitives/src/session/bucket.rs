//! What a session's own acknowledged writes tell of the bucket, and from when it may be granted anything there.

use tenure_kv::{Entry, Key, Op, Revision, Ttl};

use super::{Inner, heights::Mark, witness::Witness};
use crate::{Error, Loss, Result, ids, layout, record::EpochRecord};

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
        // Every role that has something to lose may write this.
        let Ok(nowhere) = layout::session_key(&ids::fresh()) else { return false };
        let shown = shows.map_or(Revision::ZERO, |entry| entry.revision);
        self.patient.commit(Op::purge(nowhere).ttl(Ttl::MIN).fenced(key.clone(), shown).into()).await.is_ok()
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

    /// What stands in `key`, in which this session has written something at `revision`, if that is the bucket in which the
    /// session was opened; `None` when the read lags behind that write. One that was made anew may have come further than the
    /// session has seen of the former one, and then the write alone tells nothing.
    ///
    /// # Errors
    /// [`Error::Lost`] when it is another bucket, and the session is over with its own. As [`Store::entries`].
    ///
    /// [`Store::entries`]: tenure_kv::Store::entries
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
        if epoch.is_some_and(|epoch| EpochRecord::is_of(&epoch, &self.epoch)) {
            return Ok(Some(written));
        }
        self.witness.went_back(&*self.clock, &self.epoch);
        Err(self.reset())
    }

    fn reset(&self) -> Error {
        self.lose(Loss::StoreReset);
        Error::lost(Loss::StoreReset)
    }
}
