//! A door for fuzz targets to what is parsed inside, with no promises.

use bytes::Bytes;

use crate::{Entry, Result, Ttl, embedded, open};

/// The entry and its TTL that an embedded store's record says.
pub fn decode_record(key: &str, record: &[u8]) -> Option<(Entry, Option<Ttl>)> {
    embedded::fuzzing::decode(key, record)
}

/// The record of an entry, or `None` when nothing of it stays.
pub fn encode_record(entry: &Entry, ttl: Option<Ttl>) -> Option<Bytes> {
    embedded::fuzzing::encode(entry, ttl)
}

/// How a store shows the URL that it was opened with, secrets left out; nothing is opened.
///
/// # Errors
/// As [`check_url`](crate::check_url).
pub fn shown_url(url: &str) -> Result<String> {
    open::shown(url)
}
