//! What running a command needs to know of the lock it runs under.

use std::{borrow::Cow, time::Duration};

use tenure_kv::Moment;

/// What is known of the end of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// Nobody else can be granted before this moment of the boot-time clock, as last heard.
    pub(crate) until: Moment,
    /// The hold is over already, or nobody vouches for it any more.
    pub(crate) over: bool,
    /// Why it is over, or will be at its end.
    pub(crate) why: Cow<'static, str>,
}

/// Why a hold that nobody renews ends.
pub(crate) const UNRENEWED: &str = "the lease could not be renewed in time";

/// A lock that is held, wherever it is kept.
pub(crate) trait Hold {
    /// How long the lock stays ours without a renewal.
    fn lease(&self) -> Duration;

    /// What is known now; asks nobody.
    fn validity(&self) -> Validity;

    /// Resolves when [`validity`](Self::validity) may have become shorter. May be dropped at any time.
    async fn changed(&mut self);

    /// Asks whether the lock is still held, for at most `limit`, and takes the answer into account.
    /// No answer leaves what was known.
    async fn confirm(&mut self, limit: Duration);
}
