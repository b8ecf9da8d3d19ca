//! What is written down: lines of the shared file, and what workers report to the director.

use serde::{Deserialize, Serialize};
use tenure_kv::{BootClock, Clock};

/// Nanoseconds on the boot-time clock, the same in every process of this machine.
pub(super) type Nanos = u64;

/// Now.
pub(super) fn now() -> Nanos {
    u64::try_from(BootClock.now().since_origin().as_nanos()).unwrap_or(Nanos::MAX)
}

/// One line of the shared file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The fencing token of the writer.
    pub(super) token: u64,
    /// 0 for the line with which a holder makes its token known, then 1, 2, …
    pub(super) seq: u64,
    /// One more than the writer read before it began its work; unchanged where `seq` is 0.
    pub(super) total: u64,
    /// The writer's process.
    pub(super) pid: u32,
    /// When the writer read the total.
    pub(super) begin: Nanos,
    /// When its work was done, just before it wrote.
    pub(super) end: Nanos,
}

/// What keeps a stale write out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Guard {
    /// The shared file, which remembers the highest token it has seen.
    File,
    /// The store, by way of the daemon.
    Store,
}

/// A report and who sends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) pid: u32,
    pub(super) at: Nanos,
    #[serde(flatten)]
    pub(super) news: News,
}

/// What happened to a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(super) enum News {
    /// The daemon listens on its socket.
    Listening,
    /// The lock is ours; `held` as the client judges it at the time of the report.
    Granted { token: u64, held: bool },
    /// The shared file knows our token.
    Entered { token: u64 },
    /// The file has our record; `held` at its end.
    Appended { record: Record, held: bool },
    /// The store has our total.
    Stored { token: u64, total: u64 },
    /// About to call release.
    Releasing { token: u64, held: bool },
    /// The release is done.
    Released { token: u64 },
    /// The lock is lost.
    Lost { token: u64, reason: String },
    /// A write with our token did not pass.
    Refused { token: u64, by: Guard, reason: String },
    /// A write to the store with our lost lock passed.
    Passed { token: u64 },
    /// The process gives up.
    Failed { message: String },
}
