//! What running a command needs to know of what it runs under: a lock, an office.

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
    /// Somebody asks for it, and is to have it once the command has ended: who.
    pub(crate) wanted: Option<String>,
}

/// Why a hold that nobody renews ends.
pub(crate) const UNRENEWED: &str = "the lease could not be renewed in time";

/// Something that is held, wherever it is kept.
pub(crate) trait Hold {
    /// How long it stays ours without a renewal.
    fn lease(&self) -> Duration;

    /// What is known now; asks nobody.
    fn validity(&self) -> Validity;

    /// Resolves when [`validity`](Self::validity) may have become shorter, or somebody asks for it. May be dropped at any time.
    async fn changed(&mut self);

    /// Asks whether it is still held, for at most `limit`, and takes the answer into account.
    /// No answer leaves what was known.
    async fn confirm(&mut self, limit: Duration);
}
