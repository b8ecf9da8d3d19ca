//! What a session's own acknowledged writes tell of the bucket, and from when it may be granted anything there.

use tenure_kv::Revision;

use super::{Inner, heights::Mark, witness::Witness};
use crate::{Error, Loss, Result};

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

    fn reset(&self) -> Error {
        self.lose(Loss::StoreReset);
        Error::lost(Loss::StoreReset)
    }
}
