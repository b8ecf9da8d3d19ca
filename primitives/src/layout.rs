//! Where things live in the bucket.
//!
//! | key | what |
//! |---|---|
//! | `meta.epoch` | the random id of this incarnation of the bucket |
//! | `session.<id>` | one session, renewed by compare-and-set |
//! | `broken.<id>` | written to tell a session that one of its holds was broken |
//! | `lock.<name>.<session>-<n>` | one ticket in the queue of a lock |
//! | `election.<name>` | who leads an election |
//! | `candidate.<name>.<session>-<n>` | one who waits to lead |
//! | `challenge.<name>` | tells the leader that somebody with a higher priority waits |
//! | `data.<key>` | the range for applications |
//! | `bucket.<name>.<key>` | what stands for the bucket `name` where the store has no others beside it |

use std::{fmt, sync::Arc};

use tenure_kv::{Bucket, Key, KeyRange, RangeBucket, Store};

use crate::{Error, Result};

/// The longest name of a lock in bytes.
pub const MAX_NAME: usize = 512;

/// First tokens of keys that only this crate writes.
const OWN: [&str; 8] = ["meta", "session", "broken", "lock", "election", "candidate", "challenge", "member"];

/// The key in the bucket for an application's own `key`: `data.<key>`.
///
/// # Errors
/// [`Error::Invalid`] when `key` breaks the rules of [`Key`].
///
/// ```
/// assert_eq!(tenure::data_key("jobs/last")?.as_str(), "data.jobs/last");
/// # Ok::<(), tenure::Error>(())
/// ```
pub fn data_key(key: &str) -> Result<Key> {
    // Parsed alone first, so that the message speaks of the key that the caller wrote.
    let key = Key::new(key)?;
    Ok(Key::new(format!("data.{key}"))?)
}

/// The range for applications in `store` as a bucket; with `name`, the range that stands for the bucket of that name where
/// the store has no others beside it.
///
/// # Errors
/// [`Error::Invalid`] when `name` is no name of a bucket.
pub fn range_bucket(store: Arc<dyn Store>, name: Option<&str>) -> Result<Arc<dyn Bucket>> {
    let parent = match name {
        None => Key::new("data")?,
        Some(name) => {
            tenure_kv::check_bucket(name)?;
            Key::new(format!("bucket.{name}"))?
        }
    };
    Ok(Arc::new(RangeBucket::new(store, parent)))
}

pub(crate) fn is_own(key: &Key) -> bool {
    key.tokens().next().is_some_and(|first| OWN.contains(&first))
}

pub(crate) fn epoch_key() -> Result<Key> {
    Ok(Key::new("meta.epoch")?)
}

pub(crate) fn session_key(id: &str) -> Result<Key> {
    Ok(Key::new(format!("session.{id}"))?)
}

pub(crate) fn broken_key(id: &str) -> Result<Key> {
    Ok(Key::new(format!("broken.{id}"))?)
}

pub(crate) fn every_lock() -> Result<KeyRange> {
    Ok(KeyRange::Under(Key::new("lock")?))
}

/// The checked name of a lock.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name(Key);

impl Name {
    pub(crate) fn new(text: &str) -> Result<Self> {
        Self::of("lock name", text)
    }

    /// `what` is how messages call it.
    pub(crate) fn of(what: &str, text: &str) -> Result<Self> {
        if text.len() > MAX_NAME {
            return Err(Error::invalid(format!("the {what} has {} bytes; the limit is {MAX_NAME}", text.len())));
        }
        match Key::new(text) {
            Ok(key) => Ok(Self(key)),
            Err(error) => Err(Error::invalid(error.to_string().replace("key", what))),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name alone as a key, for tables of what is known about locks.
    pub(crate) const fn key(&self) -> &Key {
        &self.0
    }

    /// The range of all tickets: exactly one token below the name, so `a` does not hold `a.b`'s.
    pub(crate) fn tickets(&self) -> Result<KeyRange> {
        Ok(KeyRange::children(&Key::new(format!("lock.{}", self.0))?)?)
    }

    pub(crate) fn election(&self) -> Result<Key> {
        Ok(Key::new(format!("election.{}", self.0))?)
    }

    pub(crate) fn challenge(&self) -> Result<Key> {
        Ok(Key::new(format!("challenge.{}", self.0))?)
    }

    /// The range of all candidates of an election: exactly one token below the name.
    pub(crate) fn candidates(&self) -> Result<KeyRange> {
        Ok(KeyRange::children(&Key::new(format!("candidate.{}", self.0))?)?)
    }

    pub(crate) fn candidate(&self, id: &str) -> Result<Key> {
        Ok(Key::new(format!("candidate.{}.{id}", self.0))?)
    }

    pub(crate) fn ticket(&self, session: &str, n: u64) -> Result<Key> {
        Ok(Key::new(format!("lock.{}.{session}-{n}", self.0))?)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// The lock's name and the session's id in a ticket's key, or `None` when the key is no ticket.
pub(crate) fn parse_ticket(key: &Key) -> Option<(&str, &str)> {
    let (name, ticket) = key.under("lock")?.rsplit_once('.')?;
    let (session, n) = ticket.split_once('-')?;
    let hex = session.len() == 32 && session.bytes().all(|b| b.is_ascii_hexdigit());
    (hex && !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())).then_some((name, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_tells_its_lock_and_its_session() {
        let session = "0123456789abcdef0123456789abcdef";
        let name = Name::new("orders.eu").unwrap();
        let key = name.ticket(session, 7).unwrap();
        assert_eq!(parse_ticket(&key), Some(("orders.eu", session)));
        assert!(name.tickets().unwrap().contains(&key));
        assert!(!Name::new("orders").unwrap().tickets().unwrap().contains(&key));
        for stray in ["lock.orders", "lock.orders.x-1", "lock.a.0123456789abcdef0123456789abcdef", "data.orders.x"] {
            assert_eq!(parse_ticket(&Key::new(stray).unwrap()), None, "{stray}");
        }
    }

    #[test]
    fn names_are_refused_by_what_is_wrong_with_them() {
        let message = Name::new("a b").unwrap_err().to_string();
        assert!(message.contains("lock name") && message.contains("' '"), "{message}");
        assert!(Name::new("").is_err() && Name::new(&"x".repeat(MAX_NAME + 1)).is_err());
    }
}
