//! Parameters and results of `kv.*`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `kv.get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvGet {
    /// The key.
    pub key: String,
    /// Another bucket than the coordination bucket, which must be there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Only this revision of the key, as long as the bucket keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// Result of `kv.get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvEntry {
    /// The entry, or null where the key has no value.
    pub entry: Option<Entry>,
}

/// One entry of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// The store's revision of this write.
    pub revision: u64,
    /// When, by the store's wall clock (RFC 3339).
    pub created: String,
    /// `put`, `delete`, `purge` or `expire`.
    pub operation: String,
}

/// Parameters of `kv.put` and of `kv.create`, which writes only where the key has no value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvPut {
    /// The key.
    pub key: String,
    /// The value as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// Another bucket than the coordination bucket, which must be there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Forget the value after this time, rounded up to whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Write only while this lease of this connection is the holder, checked by the store itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_lease: Option<String>,
    /// Write only while this lock is held with the token `fence` through this daemon, on whichever connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Write only while this election is led in the term `fence` through this daemon, on whichever connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election: Option<String>,
    /// The token of that hold, or that term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// Parameters of `kv.update`, which writes only where the latest write to the key is that of `revision`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvUpdate {
    /// The key.
    pub key: String,
    /// The value as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_b64: Option<String>,
    /// The key's latest revision, as the caller knows it.
    pub revision: u64,
    /// Another bucket than the coordination bucket, which must be there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Forget the value after this time, rounded up to whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Write only while this lease of this connection is the holder, checked by the store itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_lease: Option<String>,
    /// Write only while this lock is held with the token `fence` through this daemon, on whichever connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Write only while this election is led in the term `fence` through this daemon, on whichever connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election: Option<String>,
    /// The token of that hold, or that term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// Parameters of `kv.delete` and `kv.purge`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvDelete {
    /// The key.
    pub key: String,
    /// Another bucket than the coordination bucket, which must be there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Only where the latest write to the key is that of this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Write only while this lease of this connection is the holder, checked by the store itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_lease: Option<String>,
    /// Write only while this lock is held with the token `fence` through this daemon, on whichever connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Write only while this election is led in the term `fence` through this daemon, on whichever connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election: Option<String>,
    /// The token of that hold, or that term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// Parameters of `kv.keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvKeys {
    /// Only keys that begin with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only keys after this one: the `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Another bucket than the coordination bucket, which must be there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
}

/// Result of `kv.keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvKeysListed {
    /// The keys that have a value, sorted.
    pub keys: Vec<String>,
    /// There are more: ask again `after` this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Parameters of `kv.history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvHistory {
    /// The key.
    pub key: String,
    /// Another bucket than the coordination bucket, which must be there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
}

/// Result of `kv.history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvEntries {
    /// What the bucket still has of the key, oldest first, tombstones too; the coordination bucket keeps the latest write.
    pub entries: Vec<Entry>,
}

/// Parameters of `kv.watch`: one of `key` and `prefix`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvWatch {
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// All keys that begin with this; all of them where it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Another bucket than the coordination bucket, which must be there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Only writes of this revision or a later one: the last that was told and one more, or the `resume_revision` of a `gap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_revision: Option<u64>,
    /// Only writes that come after `sync`, which is told at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates_only: Option<bool>,
}
