//! What a user of a store's own access control may be allowed, and no more.

use std::fmt;

use serde::Serialize;

use crate::{Error, KeyRange, Result, nats::Nats};

/// What a NATS user may publish to and subscribe to: everything that opening a bucket, reading and watching it, and
/// writing to some ranges takes, and nothing else.
///
/// Serialized it is what the tools for user JWTs know as `pub` and `sub`; shown, a block for a user in a server's
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Permissions {
    /// Subjects to publish to.
    #[serde(rename = "pub")]
    pub publish: Subjects,
    /// Subjects to subscribe to.
    #[serde(rename = "sub")]
    pub subscribe: Subjects,
}

/// Subjects that are allowed; all others are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Subjects {
    /// The subjects, which may have wildcards.
    pub allow: Vec<String>,
}

/// The least that a user needs who reads the bucket that `url` names and writes to `writes`. Opens no connection.
///
/// Reading is allowed or refused for a bucket as a whole. Who has no more than this can neither create the bucket, nor change,
/// empty or delete it: let somebody else open it once, or make it with their own tools. But NATS lets whoever may watch name the
/// subject that is delivered to, which may be any of the account: a bucket among strangers needs an account of its own.
///
/// # Errors
/// [`Error::Invalid`] when the URL is wrong or names no store that knows users.
///
/// ```
/// let ranges = [tenure_kv::KeyRange::new("data.>")?];
/// let granted = tenure_kv::permissions("nats://localhost/locks", &ranges)?;
/// assert!(granted.publish.allow.contains(&"$KV.locks.data.>".to_owned()));
/// # Ok::<(), tenure_kv::Error>(())
/// ```
pub fn permissions(url: &str, writes: &[KeyRange]) -> Result<Permissions> {
    match url.split(':').next() {
        Some("nats" | "tls") => Nats::permissions(url, writes),
        _ => {
            crate::check_url(url)?;
            Err(Error::invalid("only a store on NATS knows users; that of a file is whoever may read and write the file"))
        }
    }
}

impl Permissions {
    pub(crate) fn new(publish: Vec<String>, subscribe: Vec<String>) -> Self {
        Self { publish: Subjects { allow: publish }, subscribe: Subjects { allow: subscribe } }
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "permissions {{")?;
        for (what, subjects) in [("publish", &self.publish), ("subscribe", &self.subscribe)] {
            writeln!(f, "  {what}: {{ allow: [")?;
            for subject in &subjects.allow {
                writeln!(f, "    {subject:?}")?;
            }
            writeln!(f, "  ] }}")?;
        }
        write!(f, "}}")
    }
}
