//! What the records in the bucket say, as JSON that any client can read.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tenure_kv::Entry;

/// The note that a holder leaves in its ticket's tombstone: it was granted, so every ticket before it
/// was gone already. Whoever reads it behind that ticket is next without another look.
pub(crate) const HELD: &[u8] = b"held";

/// The note in the tombstone of a ticket that was broken, to tell it from one whose session was deposed.
pub(crate) const BROKEN: &[u8] = b"broken";

/// The note in a tombstone that was put where nothing stood, be it that what had stood there was forgotten. It
/// says nothing of how a ticket came to its end.
pub(crate) const ABSENT: &[u8] = b"absent";

/// The value of `session.<id>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) lease_ms: u64,
    /// Counts renewals, so that one whose answer was lost can be told from the others.
    pub(crate) beat: u64,
    pub(crate) host: String,
    pub(crate) pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
}

impl SessionRecord {
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

/// The value of a ticket: whom to show as its owner.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TicketRecord {
    pub(crate) host: String,
    pub(crate) pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
}

/// The value of `meta.epoch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EpochRecord {
    pub(crate) id: String,
    /// One lease has passed since the bucket was made: nobody still relies on a lease of one before it.
    pub(crate) settled: bool,
}

impl EpochRecord {
    /// Whether `entry` says that the bucket is in the epoch `id`.
    pub(crate) fn is_of(entry: &Entry, id: &str) -> bool {
        entry.value().and_then(decode::<Self>).is_some_and(|record| record.id == id)
    }
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    // These types have no map keys or values that JSON cannot hold.
    serde_json::to_vec(record).unwrap_or_default().into()
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(value: &'a Bytes) -> Option<T> {
    serde_json::from_slice(value).ok()
}
