//! A member's record in the bucket, as JSON that any client can read.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tenure_kv::{Entry, Revision};

use super::{Instance, InstanceState, names};
use crate::record::{decode, encode};

/// A member as the bucket shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberRecord {
    /// Its id in the group.
    pub id: String,
    /// Where its record was last written: grows with each update.
    pub revision: Revision,
    /// The session that it lives by.
    pub session: String,
    /// The machine that it runs on.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// What it calls itself.
    pub label: Option<String>,
    /// What it says of itself.
    pub instance: Instance,
}

impl MemberRecord {
    /// A member that was heard of in another way than from the bucket, such as over the daemon's socket. What belongs to
    /// people (`host`, `pid`, `label`) is empty until set.
    pub fn new(id: impl Into<String>, revision: Revision, session: impl Into<String>, instance: Instance) -> Self {
        Self { id: id.into(), revision, session: session.into(), host: String::new(), pid: 0, label: None, instance }
    }

    /// What `entry` says, or `None` when it is no readable record of a member.
    pub(crate) fn read(entry: &Entry) -> Option<Self> {
        let (_, id) = names::parse_member(&entry.key)?;
        let written = Written::read(entry)?;
        let value = match (written.value, written.value_b64) {
            (Some(text), _) => Bytes::from(text.into_owned()),
            (None, Some(coded)) => STANDARD.decode(coded.as_bytes()).ok()?.into(),
            (None, None) => Bytes::new(),
        };
        Some(Self {
            id: id.to_owned(),
            revision: entry.revision,
            session: written.session.into_owned(),
            host: written.host.into_owned(),
            pid: written.pid,
            label: written.label.map(Cow::into_owned),
            instance: Instance {
                address: written.address.map(Cow::into_owned),
                metadata: written.metadata.into_owned(),
                zone: written.zone.map(Cow::into_owned),
                weight: written.weight,
                state: written.state,
                value,
            },
        })
    }
}

/// The value of `member.<group>.<id>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Written<'a> {
    pub(crate) session: Cow<'a, str>,
    /// Made for one join, and never used for another.
    pub(crate) nonce: Cow<'a, str>,
    /// Counts the writes of one join, so that one whose answer was lost can be told from the others.
    pub(crate) write: u64,
    pub(crate) host: Cow<'a, str>,
    pub(crate) pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "no_metadata")]
    pub(crate) metadata: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<Cow<'a, str>>,
    #[serde(default = "one")]
    pub(crate) weight: u32,
    #[serde(default)]
    pub(crate) state: InstanceState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_b64: Option<Cow<'a, str>>,
}

const fn one() -> u32 {
    1
}

fn no_metadata(metadata: &BTreeMap<String, String>) -> bool {
    metadata.is_empty()
}

impl Written<'static> {
    /// `None` for what was not written by Tenure, and for tombstones.
    pub(crate) fn read(entry: &Entry) -> Option<Self> {
        decode(entry.value()?)
    }

    /// Who this is, for people.
    pub(crate) fn owner(&self) -> String {
        let label = self.label.as_deref().map_or_else(String::new, |label| format!("{label}, "));
        format!("{label}process {} on {}, session {}", self.pid, self.host, self.session)
    }
}

/// The session that `entry` belongs to, if it is a member's readable record.
pub(crate) fn owner_of(entry: &Entry) -> Option<String> {
    #[derive(Deserialize)]
    struct Owned {
        session: String,
    }
    names::parse_member(&entry.key)?;
    decode::<Owned>(entry.value()?).map(|owned| owned.session)
}

/// Who writes a record: the same for all writes of one join.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub(super) session: String,
    pub(super) nonce: String,
    pub(super) host: String,
    pub(super) pid: u32,
    pub(super) label: Option<String>,
}

impl Author {
    pub(super) fn write(&self, instance: &Instance, state: InstanceState, write: u64) -> Bytes {
        let text = std::str::from_utf8(&instance.value).ok();
        encode(&Written {
            session: Cow::Borrowed(&self.session),
            nonce: Cow::Borrowed(&self.nonce),
            write,
            host: Cow::Borrowed(&self.host),
            pid: self.pid,
            label: self.label.as_deref().map(Cow::Borrowed),
            address: instance.address.as_deref().map(Cow::Borrowed),
            metadata: Cow::Borrowed(&instance.metadata),
            zone: instance.zone.as_deref().map(Cow::Borrowed),
            weight: instance.weight,
            state,
            value: text.filter(|text| !text.is_empty()).map(Cow::Borrowed),
            value_b64: text.is_none().then(|| Cow::Owned(STANDARD.encode(&instance.value))),
        })
    }
}

/// The records, for [`crate::fuzzing`].
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::*;
    pub(crate) use crate::membership::names::parse_member;

    /// As a keeper writes it that has read it.
    pub(crate) fn read(entry: &Entry) -> Option<(String, Bytes)> {
        let (record, written) = (MemberRecord::read(entry)?, Written::read(entry)?);
        let author = Author {
            session: record.session.clone(),
            nonce: written.nonce.clone().into_owned(),
            host: record.host.clone(),
            pid: record.pid,
            label: record.label.clone(),
        };
        let anew = author.write(&record.instance, record.instance.state, written.write);
        Some((format!("{record:?} {:?}", owner_of(entry)), anew))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tenure_kv::{Key, State};

    use super::*;

    fn entry(value: Bytes) -> Entry {
        Entry {
            key: Key::new("member.web.w1").unwrap(),
            revision: Revision::new(7),
            state: State::Live(value),
            created: SystemTime::UNIX_EPOCH,
        }
    }

    fn author() -> Author {
        Author { session: "s".into(), nonce: "n".into(), host: "h".into(), pid: 3, label: Some("me".into()) }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for value in [&b""[..], b"plain", "t\u{e4}xt\0".as_bytes(), &[0xff, 0, 1]] {
            let instance = Instance::at("a:1").zone("z").weight(9).with("k", "v").value(value.to_vec());
            let entry = entry(author().write(&instance, InstanceState::Warning, 2));
            let read = MemberRecord::read(&entry).unwrap();
            assert_eq!(read.instance, instance.state(InstanceState::Warning));
            assert_eq!(owner_of(&entry).as_deref(), Some("s"));
            assert_eq!((read.id.as_str(), read.session.as_str(), read.pid), ("w1", "s", 3));
        }
    }

    #[test]
    fn what_was_not_written_by_tenure_is_not_read() {
        for value in [
            "",
            "x",
            "{}",
            "[1]",
            r#"{"session":1}"#,
            r#"{"session":"s","nonce":"n","write":0,"host":"h","pid":1,"value_b64":"*"}"#,
        ] {
            assert_eq!(MemberRecord::read(&entry(Bytes::from_static(value.as_bytes()))), None, "{value}");
        }
        let unknown = r#"{"session":"s","nonce":"n","write":0,"host":"h","pid":1,"later":true}"#;
        assert!(MemberRecord::read(&entry(Bytes::from_static(unknown.as_bytes()))).is_some(), "later versions may add fields");
    }
}
