//! The stores that need no server: `memory:` and `file:PATH`.

mod backend;
#[cfg(test)]
mod crash;
mod disk;
mod file;
mod medium;
mod memory;
mod path;
mod queue;
mod record;
mod shared;
mod state;
mod watch;
mod writer;

pub use file::{File, FileOptions, Sync};
pub use memory::Memory;

/// The records, for [`crate::fuzzing`].
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{record, state::Write};
    use crate::{Bytes, Entry, Ttl};

    pub(crate) fn decode(key: &str, text: &[u8]) -> Option<(Entry, Option<Ttl>)> {
        record::decode(key, text).map(|write| (write.entry, write.ttl))
    }

    pub(crate) fn encode(entry: &Entry, ttl: Option<Ttl>) -> Option<Bytes> {
        record::encode(&Write { entry: entry.clone(), ttl }).map(Bytes::from)
    }
}
