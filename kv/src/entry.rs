//! What a store holds under a key.

use std::{fmt, time::Duration, time::SystemTime};

use bytes::Bytes;

use crate::{Error, Key, Result};

/// A position in the store's single order of writes, from 1. 0 means "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// Before every write.
    pub const ZERO: Self = Self(0);

    /// The revision numbered `n`.
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long an entry lives before the store may forget it: whole seconds, at least one.
///
/// A TTL is garbage collection. Nothing in Tenure decides by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u32);

impl Ttl {
    /// The shortest TTL a store takes.
    pub const MIN: Self = Self(1);

    /// `seconds` seconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `seconds` is 0.
    pub fn from_secs(seconds: u32) -> Result<Self> {
        if seconds == 0 {
            return Err(Error::invalid("a TTL is at least 1 second; leave it out for no expiry"));
        }
        Ok(Self(seconds))
    }

    /// The shortest TTL that is not below `duration` (rounded up to whole seconds).
    pub fn at_least(duration: Duration) -> Self {
        let whole = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
        Self(u32::try_from(whole).unwrap_or(u32::MAX).max(1))
    }

    /// The TTL in seconds.
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// The TTL as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

/// Whether a key has a value, and why not where the store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The key has this value.
    Live(Bytes),
    /// Deleted by a client, which may have left a note (mostly empty).
    Deleted(Bytes),
    /// Purged by a client.
    Purged,
    /// Removed by the store when its TTL ran out. Not every store can tell.
    Expired,
}

impl State {
    /// Whether the key has a value. Every other state is a tombstone.
    pub const fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }
}

/// The latest write to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Where in the store's order this was written.
    pub revision: Revision,
    /// Value or tombstone.
    pub state: State,
    /// When, by the store's wall clock. For people to read; never to decide by.
    pub created: SystemTime,
}

impl Entry {
    /// The value, unless this is a tombstone.
    pub const fn value(&self) -> Option<&Bytes> {
        match &self.state {
            State::Live(value) => Some(value),
            _ => None,
        }
    }

    /// Whether the key has a value.
    pub const fn is_live(&self) -> bool {
        self.state.is_live()
    }
}
