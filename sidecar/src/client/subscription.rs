//! The events of one subscription.

use std::{fmt, sync::Arc};

use tokio::sync::mpsc;

use super::shared::Shared;
use crate::protocol::Happening;

/// A subscription's events. Dropping it cancels the subscription.
pub struct Subscription {
    pub(super) handle: String,
    pub(super) events: mpsc::Receiver<Happening>,
    pub(super) shared: Arc<Shared>,
}

impl Subscription {
    /// Its handle on this connection.
    pub fn handle(&self) -> &str {
        &self.handle
    }

    /// The next event. After [`Happening::End`] there is `None`; without one, when the connection is closed or this
    /// receiver fell so far behind that events are gone: subscribe again.
    ///
    /// # Cancel safety
    /// Safe to drop; no event is lost.
    pub async fn recv(&mut self) -> Option<Happening> {
        self.events.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.unsubscribe(&self.handle);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("handle", &self.handle).finish_non_exhaustive()
    }
}
