//! Parameters and results of `member.*`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use tenure::{Instance, InstanceState, MemberRecord};
use tenure_kv::Revision;

use super::{ErrorObject, value};

/// Parameters of `member.join`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberJoin {
    /// The group.
    pub group: String,
    /// The member's id in the group, one token; absent for one that the daemon makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Any text of the application's; nothing where neither form is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Any bytes of the application's, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// The lease length; absent for the daemon's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Where the member is reached, mostly `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its share of the work beside others; 1 unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Whatever else callers should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Whether it should be given work; `passing` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<MemberState>")]
    pub state: Option<InstanceState>,
    /// How the daemon finds out whether it is well; the worst of all counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<MemberCheck>,
    /// Leave when it has been critical for this long; it stays otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_when_critical_ms: Option<u64>,
    /// Shown to whoever looks at the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// One check of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberCheck {
    /// `tcp:HOST:PORT`, `http://…` or `heartbeat:SECONDS`; for the last the client sends `member.beat`.
    pub check: String,
    /// From one look to the next; 5 s unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// How long one look may take; 2 s unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Well again after so many good results in a row; 2 unless told, 1 for heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    /// Not well after so many bad results in a row; 3 unless told, 1 for heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
    /// What holds before the first result; `critical` unless told, `passing` for heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<MemberState>")]
    pub initially: Option<InstanceState>,
}

/// Result of `member.join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberJoined {
    /// The handle of this membership on this connection.
    pub lease: String,
    /// The member's id in the group.
    pub id: String,
    /// The store's revision of its record.
    pub revision: u64,
    /// How long the membership stays valid without another renewal.
    pub remaining_ms: u64,
    /// The lease length: how long a crash of the daemon would keep the member.
    pub lease_ms: u64,
}

/// Parameters of `member.update`: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberUpdate {
    /// The handle of the membership.
    pub lease: String,
    /// Any text of the application's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Any bytes of the application's, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// Where the member is reached; null for nowhere.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<Option<String>>,
    /// Where it stands; null for nowhere in particular.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub zone: Option<Option<String>>,
    /// Its share of the work beside others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// All of its metadata, in place of what was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Whether it should be given work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<MemberState>")]
    pub state: Option<InstanceState>,
}

/// Whether a member should be given work.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "for its schema")]
enum MemberState {
    /// Well.
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

/// Tells null from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Parameters of `member.list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberList {
    /// The group.
    pub group: String,
    /// Only members whose ids come after this one; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Parameters of `member.groups`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberGroups {
    /// Only names that begin with it; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// At most so many; absent for as many as fit into a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only names after this one: the `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Result of `member.groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Groups {
    /// The groups that have members, by name.
    pub groups: Vec<GroupView>,
    /// There are more: ask again `after` this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A group as the store shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupView {
    /// The group.
    pub name: String,
    /// How many members it has.
    pub members: usize,
}

/// Parameters of `member.watch`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberWatchParams {
    /// The group.
    pub group: String,
}

/// Result of `member.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberListed {
    /// The members, by id.
    pub members: Vec<MemberView>,
    /// Every change of the group up to this revision is in the list.
    pub revision: u64,
    /// Records that were passed over because something else wrote them.
    pub unreadable: usize,
    /// There are more than fit a line: ask again with `after` set to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberView {
    /// Its id in the group.
    pub id: String,
    /// The store's revision of its record; grows with each change.
    pub revision: u64,
    /// Its value, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The same in base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// Where it is reached.
    pub address: Option<String>,
    /// Where it stands.
    pub zone: Option<String>,
    /// Its share of the work beside others.
    pub weight: u32,
    /// Whatever else it says of itself.
    pub metadata: BTreeMap<String, String>,
    /// Whether it should be given work.
    #[schemars(with = "MemberState")]
    pub state: InstanceState,
    /// The store session that it lives by.
    pub session: String,
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// The label given when joining.
    pub label: Option<String>,
}

impl TryFrom<MemberView> for MemberRecord {
    type Error = ErrorObject;

    /// The member as Rust's own API shows it, for what works on such: a balancer, an assignment of partitions.
    ///
    /// # Errors
    /// [`Kind::InvalidParams`](super::Kind::InvalidParams) when the value is no base64.
    fn try_from(view: MemberView) -> Result<Self, ErrorObject> {
        let mut instance = Instance::new().weight(view.weight).state(view.state);
        instance.address = view.address;
        instance.zone = view.zone;
        instance.metadata = view.metadata;
        instance.value = value::decode_any(view.value, view.value_b64)?.unwrap_or_default();
        let mut record = Self::new(view.id, Revision::new(view.revision), view.session, instance);
        record.host = view.host;
        record.pid = view.pid;
        record.label = view.label;
        Ok(record)
    }
}
