//! What a member says of itself, and the limits of each field; no I/O.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest address in bytes.
pub const MAX_ADDRESS: usize = 1_024;
/// The longest zone in bytes.
pub const MAX_ZONE: usize = 256;
/// The most metadata in bytes: all keys and values together.
pub const MAX_METADATA: usize = 32 << 10;
/// The longest label and the longest name of a host in bytes.
pub const MAX_LABEL: usize = 256;
/// The highest weight; the lowest is 1.
pub const MAX_WEIGHT: u32 = 65_535;
/// The longest value of a member in bytes.
pub const MAX_MEMBER_VALUE: usize = 64 << 10;

/// Whether a member should be given work.
///
/// In the order of preference: what comes later is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InstanceState {
    /// Well.
    #[default]
    Passing,
    /// It works, and something is not as it should be.
    Warning,
    /// It does not work.
    Critical,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// Taken out by an operator; its checks do not matter.
    Maintenance,
}

impl InstanceState {
    /// Whether checks may move a member out of this state.
    pub const fn is_checked(self) -> bool {
        matches!(self, Self::Passing | Self::Warning | Self::Critical)
    }

    /// Whether new work may go there.
    pub const fn is_available(self) -> bool {
        matches!(self, Self::Passing | Self::Warning)
    }

    /// The name in records and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }

    /// The state to show where the application says `self` and the checks say `checks`: the worse of both,
    /// but draining and maintenance are the application's alone.
    pub(crate) fn with(self, checks: Self) -> Self {
        if self.is_checked() { self.max(checks) } else { self }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a member says of itself: where it is and what it can take.
///
/// ```
/// use tenure::Instance;
///
/// let instance = Instance::at("10.0.0.7:8080").zone("eu-1a").weight(3).with("version", "1.9.2");
/// assert_eq!(instance.address.as_deref(), Some("10.0.0.7:8080"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Instance {
    /// Where it is reached, in the application's own form, mostly `host:port`.
    pub address: Option<String>,
    /// Whatever else callers should know.
    pub metadata: BTreeMap<String, String>,
    /// Where it stands, for callers that prefer what is near.
    pub zone: Option<String>,
    /// Its share of the work beside others, from 1 to [`MAX_WEIGHT`]; 1 unless told.
    pub weight: u32,
    /// Whether it should be given work.
    pub state: InstanceState,
    /// Any bytes of the application's.
    pub value: Bytes,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            address: None,
            metadata: BTreeMap::new(),
            zone: None,
            weight: 1,
            state: InstanceState::Passing,
            value: Bytes::new(),
        }
    }
}

impl Instance {
    /// An instance without an address.
    pub fn new() -> Self {
        Self::default()
    }

    /// An instance that is reached at `address`.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: Some(address.into()), ..Self::default() }
    }

    /// Sets the address.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Adds `key` to the metadata.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the zone.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the weight.
    #[must_use]
    pub const fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the state.
    #[must_use]
    pub const fn state(mut self, state: InstanceState) -> Self {
        self.state = state;
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = value.into();
        self
    }

    /// Refuses what is over a limit, by the field's name.
    pub(crate) fn validate(&self) -> Result<()> {
        if let Some(address) = &self.address {
            text("address", address, MAX_ADDRESS)?;
        }
        if let Some(zone) = &self.zone {
            text("zone", zone, MAX_ZONE)?;
        }
        let metadata: usize = self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        limit("metadata", metadata, MAX_METADATA)?;
        if self.metadata.contains_key("") {
            return Err(Error::invalid("the metadata has an empty key; give it a name"));
        }
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            return Err(Error::invalid(format!(
                "the weight is {}; it goes from 1 to {MAX_WEIGHT} (who wants no work is draining)",
                self.weight
            )));
        }
        limit("value", self.value.len(), MAX_MEMBER_VALUE)
    }
}

/// Refuses a text that is empty, too long, or not for one line.
pub(super) fn text(field: &str, text: &str, most: usize) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid(format!("the {field} is empty; leave it out or give one")));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(format!("the {field} {text:?} has a control character; leave it out")));
    }
    limit(field, text.len(), most)
}

fn limit(field: &str, size: usize, most: usize) -> Result<()> {
    if size > most {
        return Err(Error::invalid(format!("the {field} has {size} bytes; the limit is {most}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{InstanceState::*, *};

    #[test]
    fn checks_move_only_what_the_application_left_to_them() {
        assert_eq!(Passing.with(Critical), Critical);
        assert_eq!(Warning.with(Passing), Warning);
        assert_eq!(Critical.with(Passing), Critical);
        for own in [Draining, Maintenance] {
            for checks in [Passing, Warning, Critical] {
                assert_eq!(own.with(checks), own);
            }
        }
    }

    #[test]
    fn what_is_over_a_limit_is_refused_by_the_fields_name() {
        let long = |n: usize| "x".repeat(n + 1);
        let cases = [
            ("address", Instance::at(long(MAX_ADDRESS))),
            ("address", Instance::at("")),
            ("address", Instance::at("a\nb")),
            ("zone", Instance::new().zone(long(MAX_ZONE))),
            ("metadata", Instance::new().with("k", long(MAX_METADATA))),
            ("metadata", Instance::new().with("", "v")),
            ("weight", Instance::new().weight(0)),
            ("weight", Instance::new().weight(MAX_WEIGHT + 1)),
            ("value", Instance::new().value(long(MAX_MEMBER_VALUE))),
        ];
        for (field, instance) in cases {
            let error = instance.validate().unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(field), "{field}: {error}");
        }
        let full = Instance::at("x".repeat(MAX_ADDRESS)).weight(MAX_WEIGHT).value("x".repeat(MAX_MEMBER_VALUE)).with("k", "");
        full.validate().unwrap();
    }
}
