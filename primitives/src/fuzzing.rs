//! A door for fuzz targets to what is parsed inside, with no promises.

use std::fmt::Debug;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tenure_kv::{Entry, Key};

use crate::{
    Result, election, layout, membership,
    record::{self, EpochRecord, SessionRecord, TicketRecord},
};

/// What a record says, in words, and as it is written anew.
#[derive(Debug)]
pub struct Read {
    /// The record's fields.
    pub said: String,
    /// The record.
    pub written: Bytes,
}

fn read<T: Serialize + DeserializeOwned + Debug>(value: &Bytes) -> Option<Read> {
    let record: T = record::decode(value)?;
    Some(Read { said: format!("{record:?}"), written: record::encode(&record) })
}

/// The value of `session.<id>`.
pub fn session(value: &Bytes) -> Option<Read> {
    read::<SessionRecord>(value)
}

/// The value of a ticket.
pub fn ticket(value: &Bytes) -> Option<Read> {
    read::<TicketRecord>(value)
}

/// The value of `meta.epoch`.
pub fn epoch(value: &Bytes) -> Option<Read> {
    read::<EpochRecord>(value)
}

/// What `election.<name>`, or a candidate's own key, says.
pub fn election(entry: &Entry) -> Option<Read> {
    election::fuzzing::read(entry).map(|(said, written)| Read { said, written })
}

/// The record of an election that proclaims `value`, and what is read out of it.
///
/// # Errors
/// When it would be too long for the store.
pub fn proclaimed(value: &[u8]) -> Result<(Bytes, Bytes)> {
    election::fuzzing::proclaimed(value)
}

/// What a member's key says.
pub fn member(entry: &Entry) -> Option<Read> {
    membership::fuzzing::read(entry).map(|(said, written)| Read { said, written })
}

/// The lock's name and the session's id in a ticket's key.
pub fn parse_ticket(key: &Key) -> Option<(&str, &str)> {
    layout::parse_ticket(key)
}

/// The group and the id in a member's key.
pub fn parse_member(key: &Key) -> Option<(&str, &str)> {
    membership::fuzzing::parse_member(key)
}
