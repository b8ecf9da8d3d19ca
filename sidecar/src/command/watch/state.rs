//! A state as it is told: to people, to programs as JSON, and to a command as variables.

use std::ffi::OsString;

use serde::Serialize;

use crate::{
    command::{
        keep::Person,
        output::{Cell, Colour, Column, value_of},
    },
    protocol::{LeaderView, MemberView, Owner},
};

/// Longer ones do not fit in the environment of a process.
const LONGEST: usize = 64 << 10;

/// Every variable that may be set, so that none of another watch is left in place.
pub(super) const VARIABLES: [&str; 12] = [
    "TENURE_KIND",
    "TENURE_NAME",
    "TENURE_EVENT",
    "TENURE_KEY",
    "TENURE_VALUE",
    "TENURE_REVISION",
    "TENURE_LEADER",
    "TENURE_TERM",
    "TENURE_HOLDER",
    "TENURE_TOKEN",
    "TENURE_WAITERS",
    "TENURE_MEMBERS",
];

/// How something that is watched is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum State {
    Lock {
        name: String,
        event: &'static str,
        holder: Option<Owner>,
        /// Who is next. Where many wait not all of them.
        waiters: Vec<Owner>,
        /// How many wait.
        waiting: usize,
    },
    Leader {
        name: String,
        event: &'static str,
        leader: Option<LeaderView>,
    },
    Members {
        name: String,
        event: &'static str,
        members: Vec<MemberView>,
    },
    Kv {
        event: &'static str,
        key: String,
        revision: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        value_b64: Option<String>,
    },
}

pub(super) const COLUMNS: [Column; 4] = [
    Column { head: "EVENT", width: 7, right: false },
    Column { head: "NAME", width: 16, right: false },
    Column { head: "REVISION", width: 8, right: true },
    Column { head: "STATE", width: 0, right: false },
];

impl State {
    /// Whether this is about the same as `other`, and so takes its place.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kv { key, .. }, Self::Kv { key: other, .. }) => key == other,
            (Self::Kv { .. }, _) | (_, Self::Kv { .. }) => false,
            _ => true,
        }
    }

    /// As a row of [`COLUMNS`].
    pub(super) fn row(&self) -> Vec<Cell> {
        let (colour, revision, state) = match self {
            Self::Lock { holder: None, .. } => (Colour::Warning, None, String::new()),
            Self::Lock { holder: Some(holder), waiting, .. } => {
                let waiting = if *waiting == 0 { String::new() } else { format!(", {waiting} waiting") };
                (Colour::Good, Some(holder.fence), Person::from(holder.clone()).to_string() + &waiting)
            }
            Self::Leader { leader: None, .. } => (Colour::Warning, None, String::new()),
            Self::Leader { leader: Some(leader), .. } => {
                let value = value_of(leader.value.as_deref(), leader.value_b64.as_deref());
                let value = if value.is_empty() { value } else { format!(": {value}") };
                (Colour::Good, Some(leader.fence), Person::from(leader.clone()).to_string() + &value)
            }
            Self::Members { members, .. } => {
                let ids: Vec<&str> = members.iter().map(|member| &*member.id).collect();
                (Colour::Good, None, format!("{}: {}", ids.len(), ids.join(" ")))
            }
            Self::Kv { event, revision, value, value_b64, .. } => {
                let colour = if *event == "put" { Colour::Good } else { Colour::Warning };
                (colour, Some(*revision), value_of(value.as_deref(), value_b64.as_deref()))
            }
        };
        let (_, name, event) = self.what();
        let revision = revision.map_or_else(|| Cell::from("-"), Cell::plain);
        vec![Cell::coloured(event, colour), Cell::plain(name), revision, Cell::plain(state)]
    }

    /// For a command. What does not fit, or cannot be in a variable, is left out: it stands in the JSON.
    pub(super) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let (kind, name, event) = self.what();
        let mut set =
            vec![("TENURE_KIND", kind.to_owned()), ("TENURE_NAME", name.to_owned()), ("TENURE_EVENT", event.to_owned())];
        match self {
            Self::Lock { holder, waiting, .. } => {
                set.push(("TENURE_WAITERS", waiting.to_string()));
                if let Some(holder) = holder {
                    set.push(("TENURE_TOKEN", holder.fence.to_string()));
                    set.push(("TENURE_HOLDER", ageless(holder.clone())));
                }
            }
            Self::Leader { leader, .. } => {
                if let Some(leader) = leader {
                    set.push(("TENURE_TERM", leader.fence.to_string()));
                    set.push(("TENURE_REVISION", leader.revision.to_string()));
                    set.push(("TENURE_LEADER", ageless(leader.clone())));
                    set.extend(leader.value.clone().map(|value| ("TENURE_VALUE", value)));
                }
            }
            Self::Members { members, .. } => {
                let ids: Vec<&str> = members.iter().map(|member| &*member.id).collect();
                set.push(("TENURE_MEMBERS", ids.join(" ")));
            }
            Self::Kv { key, revision, value, .. } => {
                set.push(("TENURE_KEY", key.clone()));
                set.push(("TENURE_REVISION", revision.to_string()));
                set.extend(value.clone().map(|value| ("TENURE_VALUE", value)));
            }
        }
        let fits = |value: &String| value.len() <= LONGEST && !value.contains('\0');
        set.into_iter().filter(|(_, value)| fits(value)).map(|(name, value)| (name, value.into())).collect()
    }

    /// Kind, name and event.
    fn what(&self) -> (&'static str, &str, &'static str) {
        match self {
            Self::Lock { name, event, .. } => ("lock", name, event),
            Self::Leader { name, event, .. } => ("leader", name, event),
            Self::Members { name, event, .. } => ("members", name, event),
            Self::Kv { key, event, .. } => ("kv", key, event),
        }
    }
}

/// Who, in words that stay the same.
fn ageless(who: impl Into<Person>) -> String {
    Person { since: None, ..who.into() }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> State {
        State::Kv { event: "put", key: key.to_owned(), revision: 7, value: Some(value.to_owned()), value_b64: None }
    }

    #[test]
    fn the_latest_state_of_one_thing_takes_the_place_of_the_one_before() {
        let free = || State::Lock { name: "x".to_owned(), event: "free", holder: None, waiters: Vec::new(), waiting: 0 };
        assert!(put("a", "1").replaces(&put("a", "2")) && free().replaces(&free()));
        assert!(!put("a", "1").replaces(&put("b", "1")));
    }

    #[test]
    fn a_variable_holds_what_a_variable_can_hold() {
        let value_of = |state: State| state.variables().into_iter().find(|(name, _)| *name == "TENURE_VALUE");
        assert_eq!(value_of(put("a", "x y")).unwrap().1, "x y");
        assert_eq!(value_of(put("a", "x\0y")), None);
        assert_eq!(value_of(put("a", &"x".repeat(LONGEST + 1))), None);
        assert!(put("a", "1").variables().iter().all(|(name, _)| VARIABLES.contains(name)));
    }

    #[test]
    fn nothing_that_is_set_could_fence_a_write() {
        assert!(!VARIABLES.iter().any(|name| ["TENURE_FENCE", "TENURE_LOCK", "TENURE_ELECTION"].contains(name)));
    }
}
