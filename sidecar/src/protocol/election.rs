//! Parameters and results of `election.*`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `election.campaign`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectionCampaign {
    /// The election.
    pub name: String,
    /// What to proclaim when elected, as text; nothing where neither form is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The same as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// How long to wait: absent for ever, 0 to try once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// The lease length; absent for the daemon's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Shown to whoever looks at the election.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// A leader with a lower one is asked to step down; 0 unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// As leader, is not asked to step down before having led for so long; 0 unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tenure_ms: Option<u64>,
}

/// Result of `election.campaign`: elected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElectionCampaigned {
    /// The handle of this leadership on this connection.
    pub lease: String,
    /// The term, which is the fencing token: the same as long as the leadership lasts.
    pub fence: u64,
    /// The id of the candidature that won.
    pub candidate: String,
    /// How long the request waited.
    pub waited_ms: u64,
    /// How long the leadership stays valid without another renewal.
    pub remaining_ms: u64,
    /// The lease length: how long a crash of the daemon would keep the office.
    pub lease_ms: u64,
}

/// Parameters of `election.proclaim`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectionProclaim {
    /// The handle of the leadership.
    pub lease: String,
    /// What to proclaim, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The same as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
}

/// Parameters of `election.transfer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectionTransfer {
    /// The handle of the leadership.
    pub lease: String,
    /// The id of the candidate to hand the office to, as `election.candidates` has it.
    pub candidate: String,
}

/// Result of `election.transfer`: the leadership is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElectionTransferred {
    /// The term of the new leader.
    pub fence: u64,
}

/// Parameters of `election.leader` and `election.observe`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectionName {
    /// The election.
    pub name: String,
}

/// Result of `election.leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElectionLeader {
    /// Who leads, or null where nobody does.
    pub leader: Option<LeaderView>,
    /// How long ago at most the store said so.
    pub age_ms: u64,
}

/// Parameters of `election.list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectionList {
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

/// Result of `election.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Elections {
    /// The elections that somebody leads or waits to lead, by name.
    pub elections: Vec<ElectionView>,
    /// There are more: ask again `after` this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An election as the store shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElectionView {
    /// The election.
    pub name: String,
    /// Who leads, or null where nobody does. What it proclaims is left out: `election.leader` has it.
    pub leader: Option<LeaderView>,
    /// How many wait to lead.
    pub candidates: usize,
}

/// Who leads an election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaderView {
    /// What it proclaims, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The same in base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// The term: higher than that of every earlier leader, the same as long as it leads.
    pub fence: u64,
    /// Where its record was last written; grows with each proclamation.
    pub revision: u64,
    /// The store session behind it.
    pub session: String,
    /// The id of its candidature.
    pub candidate: String,
    /// The label given when campaigning.
    pub label: Option<String>,
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Its priority.
    pub priority: i32,
    /// Since when it leads: Unix time in milliseconds by its own wall clock, for people.
    pub since_ms: u64,
}

/// Parameters of `election.candidates`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectionCandidateList {
    /// The election.
    pub name: String,
    /// At most so many; absent for as many as fit into a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only those who came after: the `next` of the answer before, which is for nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Result of `election.candidates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElectionCandidates {
    /// Who waits to lead, longest first.
    pub candidates: Vec<CandidateView>,
    /// There are more: ask again `after` this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One who waits to lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateView {
    /// The id of its candidature, for `election.transfer`.
    pub id: String,
    /// What it would proclaim, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The same in base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// The store session behind it.
    pub session: String,
    /// The label given when campaigning.
    pub label: Option<String>,
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Its priority.
    pub priority: i32,
    /// Since when it waits: Unix time in milliseconds by its own wall clock, for people.
    pub since_ms: u64,
}
