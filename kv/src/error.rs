//! What went wrong, sorted by what the caller should do about it.

use crate::{Key, Revision};

/// The result of every store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failed operation. The variant says what to do next; the message says why, for people.
///
/// [`Error::Unknown`] is the default for anything that went wrong after a write may have left this
/// process. The other variants are claims that the write was **not** applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not applied: a precondition did not hold. Read again and decide.
    #[error("{message}")]
    Conflict {
        /// What was expected and what was found, where known.
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
    /// Not applied: the call itself is wrong. Retrying cannot help; mend it as the message says.
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
    /// A failed precondition on `key`.
    pub fn conflict(key: &Key, found: Option<Revision>) -> Self {
        let message = match found {
            Some(revision) => format!("{key} is at revision {revision}, not as expected"),
            None => format!("{key} is not as expected"),
        };
        Self::Conflict { message, key: Some(key.clone()), revision: found }
    }

    /// The store cannot be reached and nothing was applied.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into(), source: None }
    }

    /// The call is wrong; `message` says how to mend it.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }

    /// The write may or may not have been applied.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::Unknown { message: message.into(), source: None }
    }

    /// Attaches the cause, where the variant carries one.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Cause>) -> Self {
        if let Self::Unavailable { source, .. } | Self::Unknown { source, .. } = &mut self {
            *source = Some(cause.into());
        }
        self
    }

    /// Whether this is [`Error::Conflict`].
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Whether this is [`Error::Unavailable`].
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether this is [`Error::Unknown`].
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Whether this is [`Error::Invalid`].
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid { .. })
    }
}
