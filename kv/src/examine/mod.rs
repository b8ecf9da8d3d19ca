//! A look at a store for those who run it: what is well, what is not, and what nobody can see from here.

mod embedded;
pub(crate) mod timing;

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

pub use self::timing::judge_round_trips;
use crate::open::{Named, named};

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It cannot be seen from here; where to look is said.
    Unseen,
    /// It works, and is worth a change.
    Warning,
    /// It does not work, or promises are broken.
    Critical,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Unseen => "unseen",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at: a short name that stays the same.
    pub check: String,
    /// How it is.
    pub level: Level,
    /// One sentence.
    pub says: String,
    /// What mends it, where something does: a command, or what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// What was measured, in milliseconds, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub measured_ms: BTreeMap<String, f64>,
}

impl Finding {
    /// A finding that is mended by nothing and measured nothing.
    pub fn new(check: impl Into<String>, level: Level, says: impl Into<String>) -> Self {
        Self { check: check.into(), level, says: says.into(), mend: None, measured_ms: BTreeMap::new() }
    }

    /// Says what mends it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// Says what was measured.
    #[must_use]
    pub fn measured(mut self, measured_ms: BTreeMap<String, f64>) -> Self {
        self.measured_ms = measured_ms;
        self
    }

    pub(crate) fn ok(check: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, says)
    }

    pub(crate) fn critical(check: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(check, Level::Critical, says)
    }

    pub(crate) fn warning(check: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(check, Level::Warning, says)
    }

    pub(crate) fn unseen(check: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(check, Level::Unseen, says)
    }
}

/// Looks at the store that `url` names, as far as this user can, for sessions with leases of `lease`.
///
/// Never creates a bucket or a file. Writes a few messages that are no keys and go by themselves after a second, and
/// reads as often; changes nothing else. A store that is out of reach is a finding, not an error.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) when the URL itself is wrong.
///
/// # Cancel safety
/// Safe to drop.
pub async fn examine(url: &str, lease: Duration) -> crate::Result<Vec<Finding>> {
    crate::check_url(url)?;
    Ok(match named(url)? {
        Named::Memory => embedded::memory(),
        Named::File(path, options) => embedded::file(&path, options, lease).await,
        Named::Nats => crate::nats::examine(url, lease).await?,
    })
}
