//! Where a group's records live: `member.<group>.<id>`.

use std::fmt;

use tenure_kv::{Key, KeyRange};

use crate::{Error, MAX_NAME, Result};

/// The longest id of a member in bytes.
pub const MAX_ID: usize = 256;

/// The checked name of a group.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct GroupName(Key);

impl GroupName {
    pub(crate) fn new(text: &str) -> Result<Self> {
        if text.len() > MAX_NAME {
            return Err(Error::invalid(format!("the group name has {} bytes; the limit is {MAX_NAME}", text.len())));
        }
        match Key::new(text) {
            Ok(key) => Ok(Self(key)),
            Err(error) => Err(Error::invalid(error.to_string().replacen("key", "group name", 1))),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Exactly one token below the name, so `a` does not hold the members of `a.b`.
    pub(crate) fn members(&self) -> Result<KeyRange> {
        Ok(KeyRange::children(&Key::new(format!("member.{}", self.0))?)?)
    }

    pub(crate) fn member(&self, id: &str) -> Result<Key> {
        if id.len() > MAX_ID {
            return Err(Error::invalid(format!("the id has {} bytes; the limit is {MAX_ID}", id.len())));
        }
        if id.contains('.') {
            return Err(Error::invalid(format!("the id {id:?} has a dot; an id is one token: letters, digits, - / _ =")));
        }
        if let Err(error) = Key::new(id) {
            return Err(Error::invalid(error.to_string().replacen("key", "id", 1)));
        }
        Ok(Key::new(format!("member.{}.{id}", self.0))?)
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Every member of every group.
pub(crate) fn every_member() -> Result<KeyRange> {
    Ok(KeyRange::Under(Key::new("member")?))
}

/// The group and the id in a member's key, or `None` when the key is no member's.
pub(crate) fn parse_member(key: &Key) -> Option<(&str, &str)> {
    key.under("member")?.rsplit_once('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_group_and_its_id() {
        let group = GroupName::new("web.eu").unwrap();
        let key = group.member("w1").unwrap();
        assert_eq!(parse_member(&key), Some(("web.eu", "w1")));
        assert!(group.members().unwrap().contains(&key) && every_member().unwrap().contains(&key));
        assert!(!GroupName::new("web").unwrap().members().unwrap().contains(&key));
        assert_eq!(parse_member(&Key::new("member.web").unwrap()), None);
    }

    #[test]
    fn names_and_ids_are_refused_by_what_is_wrong_with_them() {
        let group = GroupName::new("web").unwrap();
        for bad in ["", "a b", "x..y", &"x".repeat(MAX_NAME + 1)] {
            let message = GroupName::new(bad).unwrap_err().to_string();
            assert!(message.contains("group name"), "{message}");
        }
        for bad in ["", "a.b", "a*", "ä", &"x".repeat(MAX_ID + 1)] {
            let message = group.member(bad).unwrap_err().to_string();
            assert!(message.contains("id"), "{message}");
        }
        let longest = GroupName::new(&"x".repeat(MAX_NAME)).unwrap();
        longest.member(&"y".repeat(MAX_ID)).unwrap();
    }
}
