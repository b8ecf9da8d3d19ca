//! What the keys of an election say, and how that is shown.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tenure_kv::{Entry, MAX_VALUE, Revision};

use crate::{
    Error, Holder, Result, layout,
    record::{TicketRecord, decode, encode},
};

/// The note in a candidate's tombstone when the leader handed its office to it: the next revision is the
/// write that names it.
pub(super) const TRANSFERRED: &[u8] = b"transferred";

/// The value of `election.<name>`, and of a candidate's own key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) session: String,
    /// `<session>-<n>`, made for one campaign and never used for another.
    pub(super) candidate: String,
    #[serde(flatten)]
    pub(super) owner: TicketRecord,
    #[serde(default)]
    pub(super) priority: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_b64: Option<String>,
    /// Where it was won; absent in the winning write itself, whose own revision is the term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) term: Option<u64>,
    /// Counts the leader's writes of this key, so that one whose answer was lost can be told from others.
    #[serde(default)]
    pub(super) writes: u64,
    /// Since when, by the writer's wall clock. For people.
    #[serde(default)]
    pub(super) since_ms: u64,
}

impl Record {
    pub(super) fn new(session: &str, candidate: String, owner: TicketRecord, priority: i32) -> Self {
        Self {
            session: session.to_owned(),
            candidate,
            owner,
            priority,
            value: None,
            value_b64: None,
            term: None,
            writes: 0,
            since_ms: now_ms(),
        }
    }

    /// Sets the value.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the record would be too long for the store.
    pub(super) fn with_value(mut self, value: &[u8]) -> Result<Self> {
        match std::str::from_utf8(value) {
            Ok(text) => (self.value, self.value_b64) = (Some(text.to_owned()), None),
            Err(_) => (self.value, self.value_b64) = (None, Some(STANDARD.encode(value))),
        }
        // Room for the term and the count, which grow.
        let length = self.encode().len() + 64;
        if length > MAX_VALUE {
            let message = format!(
                "the value has {} bytes and makes a record of {length}; the limit of a record is {MAX_VALUE}: keep what is \
                 long under a key of your own and name that here",
                value.len()
            );
            return Err(Error::invalid(message));
        }
        Ok(self)
    }

    /// What a candidate's record becomes when the office is handed to it.
    pub(super) fn elected(mut self) -> Self {
        self.term = None;
        self.since_ms = now_ms();
        self
    }

    pub(super) fn value(&self) -> Bytes {
        match (&self.value, &self.value_b64) {
            (Some(text), _) => Bytes::copy_from_slice(text.as_bytes()),
            (None, Some(coded)) => STANDARD.decode(coded).unwrap_or_default().into(),
            (None, None) => Bytes::new(),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        encode(self)
    }

    /// What a live entry says; `None` when it was written by something else.
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        decode(entry.value()?).filter(|record: &Self| layout::session_key(&record.session).is_ok())
    }

    /// The term of the leader that this record, found at `revision`, names.
    pub(super) fn term_at(&self, revision: Revision) -> Revision {
        self.term.map_or(revision, Revision::new)
    }

    pub(super) fn leader(self, revision: Revision) -> Leader {
        Leader {
            value: self.value(),
            term: self.term_at(revision),
            revision,
            since: time(self.since_ms),
            session: self.session,
            candidate: self.candidate,
            label: self.owner.label,
            host: self.owner.host,
            pid: self.owner.pid,
            priority: self.priority,
        }
    }

    /// The candidate whose listing, found at `revision`, this is.
    pub(super) fn candidate(self, revision: Revision) -> Candidate {
        Candidate {
            revision,
            value: self.value(),
            since: time(self.since_ms),
            id: self.candidate,
            session: self.session,
            label: self.owner.label,
            host: self.owner.host,
            pid: self.owner.pid,
            priority: self.priority,
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

fn time(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Who leads an election.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// What it proclaims.
    pub value: Bytes,
    /// The revision at which it won: higher than that of every earlier leader, constant while it leads.
    pub term: Revision,
    /// Where its record was last written; grows with each proclamation.
    pub revision: Revision,
    /// The id of the session behind it.
    pub session: String,
    /// The id of its candidature.
    pub candidate: String,
    /// What it calls itself.
    pub label: Option<String>,
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its priority.
    pub priority: i32,
    /// Since when it leads, by its own wall clock. For people to read only.
    pub since: SystemTime,
}

impl Leader {
    pub(super) fn holder(self) -> Holder {
        Holder { token: self.term, session: self.session, label: self.label, host: self.host, pid: self.pid, since: self.since }
    }
}

impl fmt::Display for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clone().holder().fmt(f)
    }
}

/// One who waits to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// The id of this candidature, made for one campaign.
    pub id: String,
    /// Where it was listed: whoever has waited for longer has a lower one.
    pub revision: Revision,
    /// What it would proclaim.
    pub value: Bytes,
    /// The id of the session behind it.
    pub session: String,
    /// What it calls itself.
    pub label: Option<String>,
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its priority.
    pub priority: i32,
    /// Since when it waits, by its own wall clock. For people to read only.
    pub since: SystemTime,
}

/// The records, for [`crate::fuzzing`].
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::*;

    pub(crate) fn read(entry: &Entry) -> Option<(String, Bytes)> {
        let record = Record::read(entry)?;
        let said =
            format!("{record:?} {:?} {:?}", record.clone().leader(entry.revision), record.clone().candidate(entry.revision));
        Some((said, record.encode()))
    }

    pub(crate) fn proclaimed(value: &[u8]) -> Result<(Bytes, Bytes)> {
        let record = Record::new("s", "s-1".to_owned(), TicketRecord::default(), 0).with_value(value)?;
        Ok((record.encode(), record.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new("s", "s-1".into(), TicketRecord::default(), 3)
    }

    #[test]
    fn any_bytes_are_a_value() {
        for value in [&b"text"[..], b"", b"\xff\x00"] {
            let written = record().with_value(value).unwrap().encode();
            let read: Record = decode(&written).unwrap();
            assert_eq!(read.value(), value);
            assert_eq!((read.priority, read.term_at(Revision::new(7)).get()), (3, 7));
        }
    }

    #[test]
    fn a_value_that_is_too_long_is_refused() {
        assert!(record().with_value(&vec![b'x'; MAX_VALUE]).unwrap_err().to_string().contains("the value has"));
        assert!(record().with_value(&vec![0xff; MAX_VALUE * 4 / 5]).is_err());
    }
}
