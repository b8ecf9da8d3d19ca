//! How a member joins.

use std::time::Duration;

use super::{
    Check, Instance,
    instance::{MAX_LABEL, text},
};
use crate::{Error, Result};

/// The most checks that one member may have.
pub const MAX_CHECKS: usize = 16;

/// How a member joins a group; an [`Instance`] alone will do.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct JoinOptions {
    pub(super) instance: Instance,
    pub(super) checks: Vec<Check>,
    pub(super) critical_for: Option<Duration>,
    pub(super) label: Option<String>,
    pub(super) owner: Option<(String, u32)>,
}

impl JoinOptions {
    /// Joins as `instance`.
    pub fn new(instance: Instance) -> Self {
        Self { instance, ..Self::default() }
    }

    /// Adds a check; the worst of all counts.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Has the member leave when it has been critical for this long; it stays otherwise.
    pub const fn leave_when_critical_for(mut self, limit: Duration) -> Self {
        self.critical_for = Some(limit);
        self
    }

    /// Shows `label` to people who ask who this is; the session's label otherwise.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Shows this machine and process as the member's, for whom somebody else holds the session.
    pub fn owner(mut self, host: impl Into<String>, pid: u32) -> Self {
        self.owner = Some((host.into(), pid));
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.instance.validate()?;
        if let Some(label) = &self.label {
            text("label", label, MAX_LABEL)?;
        }
        if let Some((host, _)) = &self.owner {
            text("host", host, MAX_LABEL)?;
        }
        if self.checks.len() > MAX_CHECKS {
            return Err(Error::invalid(format!("{} checks; one member may have at most {MAX_CHECKS}", self.checks.len())));
        }
        self.checks.iter().try_for_each(Check::validate)
    }
}

impl From<Instance> for JoinOptions {
    fn from(instance: Instance) -> Self {
        Self::new(instance)
    }
}
