//! Subjects, and what is read off the messages on them.

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::{HeaderMap, Message, header};

use crate::{Entry, Key, KeyRange, Revision, State};

/// The names that belong to one bucket.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) bucket: String,
    pub(super) stream: String,
    /// Before a key in the stream's subjects.
    prefix: String,
    /// Before a key in the subjects of committed writes.
    republished: String,
}

impl Names {
    pub(super) fn new(bucket: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            stream: format!("KV_{bucket}"),
            prefix: format!("$KV.{bucket}."),
            republished: format!("$TENURE.{bucket}."),
        }
    }

    pub(super) fn everything(&self) -> String {
        format!("{}>", self.prefix)
    }

    pub(super) fn republished_everything(&self) -> String {
        format!("{}>", self.republished)
    }

    pub(super) fn subject(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn republished(&self, key: &Key) -> String {
        format!("{}{key}", self.republished)
    }

    pub(super) fn filter(&self, range: &KeyRange) -> String {
        format!("{}{range}", self.prefix)
    }

    /// The subject of a message that only carries a fence. It is no key, so nobody sees it.
    pub(super) fn carrier(&self, id: impl std::fmt::Display) -> String {
        format!("{}_kv.fence.{id}", self.prefix)
    }

    /// The key of a subject of the stream, unless it is none of ours.
    pub(super) fn key(&self, subject: &str) -> Option<Key> {
        Key::new(subject.strip_prefix(&self.prefix)?).ok()
    }

    /// An entry from a message that tells its place in the stream by headers: a direct get or a republished
    /// write. `None` when it is not a key's.
    pub(super) fn entry(&self, message: &Message) -> Option<Entry> {
        let headers = message.headers.as_ref()?;
        let key = self.key(headers.get(header::NATS_SUBJECT)?.as_str())?;
        let revision = Revision::new(number(headers, header::NATS_SEQUENCE)?);
        let created = headers.get(header::NATS_TIME_STAMP).and_then(|stamp| time(stamp.as_str())).unwrap_or(UNIX_EPOCH);
        Some(Entry { key, revision, state: state(message), created })
    }
}

pub(super) fn number(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

/// What a stored message says of its key.
pub(super) fn state(message: &Message) -> State {
    let Some(headers) = message.headers.as_ref() else { return State::Live(message.payload.clone()) };
    let operation = headers.get("KV-Operation").map(|value| value.as_str());
    let reason = headers.get(header::NATS_MARKER_REASON).map(|value| value.as_str());
    match (operation, reason) {
        (Some("DEL"), _) => State::Deleted(message.payload.clone()),
        (Some("PURGE"), _) | (_, Some("Purge" | "Remove")) => State::Purged,
        (_, Some(_)) => State::Expired,
        _ => State::Live(message.payload.clone()),
    }
}

fn time(stamp: &str) -> Option<SystemTime> {
    async_nats::datetime::parse_rfc3339(stamp).ok().map(SystemTime::from)
}
