//! What the users of a bucket write, for a store that grants each only what it needs.

use std::fmt;

use tenure_kv::{Key, KeyRange};

use crate::{Error, Result};

/// A kind of user, by what it does. All read and watch the whole bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Holds locks, stands for election and writes fenced values.
    Holder,
    /// Looks on: writes nothing at all.
    Observer,
    /// Joins groups, and takes its turn at removing dead members of any.
    Registrar,
    /// Everything that `tenured` does for its clients, breaking holds included.
    Daemon,
}

impl Role {
    /// The ranges that it writes to. With `prefix` only those of names that are `prefix` or begin with it and a dot.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `prefix` is no name, or this role cannot be confined to one: whoever is elected to remove dead
    /// members removes those of every group.
    ///
    /// ```
    /// let ranges = tenure::Role::Holder.writes(Some("web"))?;
    /// assert!(ranges.iter().any(|range| range.contains(&"lock.web.eu.0-1".parse().unwrap())));
    /// assert!(!ranges.iter().any(|range| range.contains(&"lock.db.0-1".parse().unwrap())));
    /// # Ok::<(), tenure::Error>(())
    /// ```
    pub fn writes(self, prefix: Option<&str>) -> Result<Vec<KeyRange>> {
        if prefix.is_some() && matches!(self, Self::Registrar | Self::Daemon) {
            return Err(Error::invalid(format!(
                "a {self} cannot be confined to a prefix: whoever is elected to remove dead members removes those of every group"
            )));
        }
        if let Some(prefix) = prefix {
            Key::new(prefix).map_err(|error| Error::invalid(error.to_string().replacen("key", "prefix", 1)))?;
        }
        // Every session marks the bucket it finds new, and writes down whom it finds dead.
        let sessions = ["meta.epoch", "session.>"];
        let office = ["election.tenure/janitor", "candidate.tenure/janitor.*", "challenge.tenure/janitor", "member.>"];
        let (held, breaking) = (["lock", "election", "candidate", "challenge", "data"], ["broken.>"]);
        let held = held.iter().flat_map(|of| match prefix {
            None => vec![format!("{of}.>")],
            // A lock's tickets and an election's candidates are keys of their own below its name.
            Some(prefix) if ["lock", "candidate"].contains(of) => vec![format!("{of}.{prefix}.>")],
            Some(prefix) => vec![format!("{of}.{prefix}"), format!("{of}.{prefix}.>")],
        });
        let fixed = |ranges: &[&str]| ranges.iter().map(|range| (*range).to_owned()).collect::<Vec<_>>();
        let ranges = match self {
            Self::Observer => Vec::new(),
            Self::Holder => [fixed(&sessions), held.collect()].concat(),
            Self::Registrar => [fixed(&sessions), fixed(&office)].concat(),
            Self::Daemon => [fixed(&sessions), held.collect(), fixed(&office[3..]), fixed(&breaking)].concat(),
        };
        ranges.into_iter().map(|range| Ok(KeyRange::new(range)?)).collect()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holder => "holder",
            Self::Observer => "observer",
            Self::Registrar => "registrar",
            Self::Daemon => "daemon",
        })
    }
}
