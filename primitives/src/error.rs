//! What went wrong, sorted by what the caller should do about it.

use std::{fmt, time::Duration};

use tenure_kv::{Key, Revision};

use crate::Holder;

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failed operation. The variant says what to do next; the message says why, for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lock was not acquired in the time allowed, and nothing is held. Try again later.
    #[error("{message}")]
    NotAcquired {
        /// Which lock, and who holds it where known.
        message: String,
        /// How long it was tried.
        waited: Duration,
        /// Who was seen to hold it.
        holder: Option<Box<Holder>>,
    },
    /// The lease is lost: stop whatever it protected. Open a new session to go on.
    #[error("{message}")]
    Lost {
        /// Why.
        loss: Loss,
        /// The same for people.
        message: String,
    },
    /// Not applied: a precondition did not hold. Read again and decide.
    #[error("{message}")]
    Conflict {
        /// What was expected and what was found.
        message: String,
        /// The key whose precondition failed, where known.
        key: Option<Key>,
        /// The revision found there, where known.
        revision: Option<Revision>,
    },
    /// Not applied: the store is out of reach. Retry freely.
    #[error("{message}")]
    Unavailable {
        /// What was tried.
        message: String,
        /// The reason, where there is one.
        #[source]
        source: Option<Cause>,
    },
    /// Not applied: the call itself is wrong. Mend it as the message says.
    #[error("{message}")]
    Invalid {
        /// What is wrong and how to mend it.
        message: String,
    },
    /// Perhaps applied. Read back before assuming either.
    #[error("{message}")]
    Unknown {
        /// What was tried.
        message: String,
        /// The reason, where there is one.
        #[source]
        source: Option<Cause>,
    },
}

impl Error {
    pub(crate) fn lost(loss: Loss) -> Self {
        Self::Lost { loss, message: loss.to_string() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }

    /// The loss, when that is what this is.
    pub fn loss(&self) -> Option<Loss> {
        match self {
            Self::Lost { loss, .. } => Some(*loss),
            _ => None,
        }
    }
}

impl From<tenure_kv::Error> for Error {
    fn from(error: tenure_kv::Error) -> Self {
        match error {
            tenure_kv::Error::Conflict { message, key, revision } => Self::Conflict { message, key, revision },
            tenure_kv::Error::Unavailable { message, source } => Self::Unavailable { message, source },
            tenure_kv::Error::Invalid { message } => Self::Invalid { message },
            tenure_kv::Error::Unknown { message, source } => Self::Unknown { message, source },
            // Whatever a later store adds says least when it is taken as unknown.
            other => Self::Unknown { message: other.to_string(), source: None },
        }
    }
}

/// Why a lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// It could not be renewed in time.
    Deadline,
    /// Somebody who waited saw no renewal for the length of the lease and deposed the session.
    Deposed,
    /// The store has forgotten the session.
    Expired,
    /// The bucket was made anew or set back to an earlier state.
    StoreReset,
    /// An administrator broke this hold.
    Broken,
    /// The member was critical for longer than it was to be, and has left.
    Critical,
    /// The leader's own process said that it is unhealthy.
    Unhealthy,
    /// The leader has given up the office, or handed it over.
    Resigned,
    /// The session was closed by its own process, or the member has left.
    Closed,
    /// It was assigned to somebody else, and not let go of in time.
    Reassigned,
}

impl Loss {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Deadline,
        Self::Deposed,
        Self::Expired,
        Self::StoreReset,
        Self::Broken,
        Self::Critical,
        Self::Unhealthy,
        Self::Resigned,
        Self::Closed,
        Self::Reassigned,
    ];

    /// A word for programs; the `reason` of the socket's `lease` notification.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "renewal_timeout",
            Self::Deposed => "deposed",
            Self::Expired => "expired",
            Self::StoreReset => "store_reset",
            Self::Broken => "broken",
            Self::Critical => "critical",
            Self::Unhealthy => "unhealthy",
            Self::Resigned => "resigned",
            Self::Closed => "closed",
            Self::Reassigned => "reassigned",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "the lease could not be renewed before its deadline",
            Self::Deposed => "the session was silent for longer than its lease and has been deposed",
            Self::Expired => "the store has forgotten the session",
            Self::StoreReset => "the bucket was made anew or set back to an earlier state",
            Self::Broken => "an administrator broke this hold",
            Self::Critical => "the member was critical for too long and has left",
            Self::Unhealthy => "the leader is unhealthy and has given up the office",
            Self::Resigned => "the leader has given up the office",
            Self::Closed => "the session was closed",
            Self::Reassigned => "it was assigned to somebody else and not let go of in time",
        })
    }
}
