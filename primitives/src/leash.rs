//! Taking back a guard that was handed out.

use tenure_kv::{Key, Revision};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Loss,
    hold::Hold,
    session::{Leaving, timing},
};

/// The other end of a guard that was handed out.
pub(crate) struct Leash {
    hold: Hold,
    ticket: Key,
    token: Revision,
    dropped: CancellationToken,
}

impl Leash {
    /// The leash of a hold, and what its guard drops with itself.
    pub(crate) fn new(hold: Hold, ticket: Key, token: Revision) -> (Self, DropGuard) {
        let dropped = CancellationToken::new();
        (Self { hold, ticket, token, dropped: dropped.clone() }, dropped.drop_guard())
    }

    /// Resolves when the guard was released or dropped, or its hold is lost.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = self.dropped.cancelled() => {}
            _ = self.hold.clone().lost() => {}
        }
    }

    /// Ends the hold, however long the guard lives. It tells of the loss first; the lock passes on after the time
    /// that a lease leaves a holder to stop, too.
    ///
    /// # Cancel safety
    /// Dropping may leave the lock with the guard, as long as that lives.
    pub(crate) async fn revoke(self) {
        if self.dropped.is_cancelled() {
            return;
        }
        let inner = &self.hold.inner;
        self.hold.end(Loss::Reassigned);
        tokio::select! {
            () = self.dropped.cancelled() => return,
            () = inner.clock.sleep_until(inner.clock.now() + (inner.lease - timing::validity(inner.lease))) => {}
        }
        // The guard, should it be dropped now, finds the ticket ended.
        // Its tombstone is soon forgotten, and then nothing there must not be taken for a loss of the server's.
        inner.giving_up(&self.ticket);
        inner.leave(Leaving { held: true, ..Leaving::new(self.ticket, Some(self.token)) });
    }
}
