//! How an entry is written down in the file.

use std::time::{Duration, SystemTime};

use super::state::Write;
use crate::{Bytes, Entry, Key, Revision, State, Ttl};

const LIVE: u8 = 0;
const DELETED: u8 = 1;
const PURGED: u8 = 2;

/// Kind, TTL in seconds (0 for none), revision, creation in nanoseconds since 1970; then value or note.
const HEAD: usize = 1 + 4 + 8 + 8;

/// The record of a write, or `None` when nothing of it stays.
pub(super) fn encode(write: &Write) -> Option<Vec<u8>> {
    let (kind, body): (u8, &[u8]) = match &write.entry.state {
        State::Live(value) => (LIVE, value),
        State::Deleted(note) => (DELETED, note),
        State::Purged => (PURGED, &[]),
        State::Expired => return None,
    };
    let since = write.entry.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut record = Vec::with_capacity(HEAD + body.len());
    record.push(kind);
    record.extend(write.ttl.map_or(0, Ttl::as_secs).to_le_bytes());
    record.extend(write.entry.revision.get().to_le_bytes());
    record.extend(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
    record.extend(body);
    Some(record)
}

/// What [`encode`] wrote, or `None` when it did not.
pub(super) fn decode(key: &str, record: &[u8]) -> Option<Write> {
    let (kind, rest) = record.split_first()?;
    let (ttl, rest) = rest.split_first_chunk()?;
    let (revision, rest) = rest.split_first_chunk()?;
    let (created, body) = rest.split_first_chunk()?;
    let state = match *kind {
        LIVE => State::Live(Bytes::copy_from_slice(body)),
        DELETED => State::Deleted(Bytes::copy_from_slice(body)),
        PURGED if body.is_empty() => State::Purged,
        _ => return None,
    };
    let ttl = match u32::from_le_bytes(*ttl) {
        0 => None,
        seconds => Some(Ttl::from_secs(seconds).ok()?),
    };
    let created = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(u64::from_le_bytes(*created)))?;
    let revision = Revision::new(u64::from_le_bytes(*revision));
    Some(Write { entry: Entry { key: Key::new(key).ok()?, revision, state, created }, ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_went() {
        let entry = |state| Entry {
            key: Key::new("a.b").unwrap(),
            revision: Revision::new(7),
            state,
            created: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123),
        };
        for (state, ttl) in [
            (State::Live("value".into()), None),
            (State::Live(Bytes::new()), Some(Ttl::MIN)),
            (State::Deleted("note".into()), Some(Ttl::from_secs(90).unwrap())),
            (State::Purged, None),
        ] {
            let write = Write { entry: entry(state), ttl };
            let record = encode(&write).unwrap();
            assert_eq!(decode("a.b", &record), Some(write));
            assert_eq!(decode("a..b", &record), None);
            assert_eq!(decode("a.b", &record[..HEAD - 1]), None);
        }
        assert_eq!(encode(&Write { entry: entry(State::Expired), ttl: None }), None);
        assert_eq!(decode("a.b", &[9; HEAD]), None);
    }
}
