//! What a session's own acknowledged writes tell of the bucket, and from when it may be granted anything there.

use tenure_kv::{Entry, Key, Op, Revision};

use super::{Inner, heights::Mark, timing, witness::Witness};
use crate::{Error, Loss, Result, layout, record::EpochRecord};

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

    /// How often the one server that keeps the bucket was out of touch, and may have lost its last writes since. Several
    /// servers do not lose what they acknowledged.
    pub(crate) fn outages(&self) -> u64 {
        if self.store.info().replicas <= 1 { self.store.outages() } else { 0 }
    }

    /// Whether `key` is at the earlier revision that a read `shows`, after there had been so many `outages` before: the
    /// bucket was set back. On one server the read is the truth. Of several that one may lag, but then no write
    /// goes through that is fenced by what it shows: `own` is a key that this session alone writes and has ended.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn is_set_back_to(&self, outages: u64, key: &Key, shows: Option<&Entry>, own: &Key) -> bool {
        if self.store.outages() == outages {
            return false;
        }
        let shown = shows.map_or(Revision::ZERO, |entry| entry.revision);
        let proof = || Op::purge(own.clone()).ttl(timing::forestall()).fenced(key.clone(), shown);
        self.store.info().replicas <= 1 || self.patient.commit(proof().into()).await.is_ok()
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

    /// Whether a read shows that what this session has written to `key` at `revision` stands in the bucket that the session
    /// was opened in; false when the read lags behind that write. One that was made anew may have come further than the
    /// session has seen of the former one, and then the write alone tells nothing.
    ///
    /// # Errors
    /// [`Error::Lost`] when it is another bucket, and the session is over with its own. As [`Store::entries`].
    ///
    /// [`Store::entries`]: tenure_kv::Store::entries
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn wrote_here(&self, key: &Key, revision: Revision) -> Result<bool> {
        // One that a single process keeps is not made anew under it.
        if !self.store.info().shared {
            return Ok(true);
        }
        // What shows that write is a state of the bucket in which it is, and so is what is beside it.
        let found = self.patient.entries(&[key.clone(), layout::epoch_key()?]).await?;
        let [Some(written), epoch] = &found[..] else { return Ok(false) };
        if written.revision < revision {
            return Ok(false);
        }
        if epoch.as_ref().is_some_and(|epoch| EpochRecord::is_of(epoch, &self.epoch)) {
            return Ok(true);
        }
        self.witness.went_back(&*self.clock, &self.epoch);
        Err(self.reset())
    }

    fn reset(&self) -> Error {
        self.lose(Loss::StoreReset);
        Error::lost(Loss::StoreReset)
    }
}
