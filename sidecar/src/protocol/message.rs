//! Parameters, results and notifications: one type each, named after its method.
//!
//! Parameters refuse unknown members; results ignore them, so that a later daemon may add some.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of the methods that take none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// The result of the methods that return nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {}

/// Parameters of `hello`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The protocol versions the client speaks.
    pub protocol: Vec<u32>,
    /// What the client calls itself; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Let everything go when no line has come from the client for that long. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
}

/// Result of `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelloResult {
    /// The protocol version spoken from here on.
    pub protocol: u32,
    /// Name and version of the daemon, such as `tenured/0.1.0`.
    pub server: String,
    /// This connection's session: everything it acquires lives as long as the connection.
    pub session: String,
    /// The store behind the daemon.
    pub store: StoreInfo,
    /// The methods this daemon serves, and `buckets` where `kv.*` takes a `bucket`.
    pub capabilities: Vec<String>,
    /// The limits of this daemon.
    pub limits: Limits,
}

/// The store behind the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreInfo {
    /// Its URL, without secrets.
    pub url: String,
    /// Whether other processes can write to it at the same time.
    pub shared: bool,
    /// How many servers keep a copy.
    pub replicas: u16,
}

/// What one connection and the daemon allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Bytes of a line, its end not counted.
    pub line_bytes: usize,
    /// Requests in flight on one connection.
    pub requests: usize,
    /// Subscriptions on one connection.
    pub subscriptions: usize,
    /// How long the events of a subscription may wait for the client to read before it ends.
    pub stall_ms: u64,
    /// Leases on one connection.
    pub leases: usize,
    /// Connections.
    pub connections: usize,
    /// Connections of one user.
    #[serde(default = "no_limit")]
    pub connections_per_uid: usize,
    /// Requests in flight on all connections of one user.
    #[serde(default = "no_limit")]
    pub requests_per_uid: usize,
    /// Leases on all connections of one user, waits for one included.
    #[serde(default = "no_limit")]
    pub leases_per_uid: usize,
    /// Subscriptions on all connections of one user.
    #[serde(default = "no_limit")]
    pub subscriptions_per_uid: usize,
    /// Checks of members that the daemon runs for one user.
    #[serde(default = "no_limit")]
    pub checks_per_uid: usize,
    /// The shortest `interval_ms` of a check for which the daemon connects somewhere.
    #[serde(default)]
    pub min_check_interval_ms: u64,
    /// Different lengths of leases in use at the same time, by all connections.
    pub lease_lengths: usize,
    /// The `lease_ms` of a request that names none.
    pub default_lease_ms: u64,
    /// The shortest `lease_ms`.
    pub min_lease_ms: u64,
    /// The longest `lease_ms`.
    pub max_lease_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line_bytes: 2 << 20,
            requests: 64,
            subscriptions: 256,
            stall_ms: 10_000,
            leases: 1_024,
            connections: 10_000,
            connections_per_uid: 10_000,
            requests_per_uid: 16_384,
            leases_per_uid: 16_384,
            subscriptions_per_uid: 4_096,
            checks_per_uid: 1_024,
            min_check_interval_ms: 1_000,
            lease_lengths: 64,
            default_lease_ms: 5_000,
            min_lease_ms: 150,
            max_lease_ms: 86_400_000,
        }
    }
}

/// What a daemon allows that does not say.
const fn no_limit() -> usize {
    usize::MAX
}

/// Result of `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Name and version of the daemon.
    pub server: String,
    /// The daemon's process id.
    pub pid: u32,
    /// How long the daemon has been up.
    pub uptime_ms: u64,
    /// Whether the daemon is leaving.
    pub draining: bool,
    /// The store behind the daemon.
    pub store: StoreInfo,
    /// The daemon's sessions with the store, one per lease length in use.
    pub sessions: Vec<SessionStatus>,
    /// Connections open now.
    pub connections: usize,
    /// How many connections there may be: those there are, and as many more as have descriptors if each is of another process.
    #[serde(default = "no_limit")]
    pub connections_max: usize,
    /// Leases held now by all connections: locks, leaderships and memberships.
    pub leases: usize,
    /// Leaderships among them.
    pub leaderships: usize,
    /// Memberships among them.
    pub members: usize,
    /// Subscriptions of all connections.
    pub subscriptions: usize,
    /// Requests in flight now on all connections.
    pub requests: usize,
    /// The rules that say who may do what, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// The connection that asks.
    pub connection: ConnectionStatus,
}

/// The rules that say who may do what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyStatus {
    /// Their file.
    pub path: String,
    /// How many are in force.
    pub rules: usize,
    /// Why what the file says now is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One session of the daemon with its store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionStatus {
    /// Its id, as `lock.get` shows it.
    pub id: String,
    /// Its lease length.
    pub lease_ms: u64,
    /// `held`, `suspect`, `restored` or `lost`.
    pub state: String,
    /// How long it stays valid without another renewal.
    pub remaining_ms: u64,
    /// Leases and waits that rest on it.
    pub users: usize,
}

/// What the daemon knows of the asking connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionStatus {
    /// Its session, as `hello` gave it.
    pub session: String,
    /// The peer's process, as the kernel tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The peer's user.
    pub uid: u32,
    /// Leases held.
    pub leases: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Requests in flight, this one not counted.
    pub requests: usize,
    /// The heartbeat asked for in `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
}

/// Parameters of `lock.acquire`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockAcquire {
    /// The lock.
    pub name: String,
    /// How long to wait: absent for ever, 0 to try once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// The lease length; absent for the daemon's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Shown to whoever looks at the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Result of `lock.acquire`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockAcquired {
    /// The handle of this hold on this connection.
    pub lease: String,
    /// The fencing token.
    pub fence: u64,
    /// How long the request waited.
    pub waited_ms: u64,
    /// How long the hold stays valid without another renewal.
    pub remaining_ms: u64,
    /// The lease length: how long a crash of the daemon would keep the lock.
    pub lease_ms: u64,
}

/// Parameters of the methods that take a lease and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRef {
    /// The handle that acquiring returned.
    pub lease: String,
}

/// Result of `lock.check`, which takes any lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockCheck {
    /// Whether the hold is valid now; false while the lease is suspect past its validity.
    pub held: bool,
    /// How long it stays valid without another renewal.
    pub remaining_ms: u64,
    /// The fencing token of a lock, the term of a leadership, where a member's record was first written.
    pub fence: u64,
}

/// Parameters of `lock.get` and `lock.observe`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockGet {
    /// The lock.
    pub name: String,
}

/// Parameters of `lock.list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockList {
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

/// Result of `lock.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Locks {
    /// The locks somebody holds or waits for, by name.
    pub locks: Vec<LockView>,
    /// There are more: ask again `after` this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Result of `lock.get`: a lock as the store shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockView {
    /// The lock.
    pub name: String,
    /// Who holds it.
    pub holder: Option<Owner>,
    /// Who waits, in the order of grants to come.
    pub waiters: Vec<Owner>,
    /// How many more wait, where all of them would be longer than a line.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_waiters: usize,
}

impl LockView {
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len() + self.more_waiters
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What an `event` of `lock.observe` tells: how a lock is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockStanding {
    /// Who holds it, or null where nobody does.
    pub holder: Option<Owner>,
    /// Who is next, in the order of grants to come; not all of them where many wait.
    pub waiters: Vec<Owner>,
    /// How many wait, those that are not among `waiters` included.
    pub waiting: usize,
}

/// Who holds a lock or waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Owner {
    /// The fencing token of the hold, or the one a waiter will have.
    pub fence: u64,
    /// The label given when acquiring.
    pub label: Option<String>,
    /// The store session the hold rests on.
    pub session: String,
    /// The owner's machine.
    pub host: String,
    /// The owner's process there.
    pub pid: u32,
    /// When it asked for the lock: Unix time in milliseconds by the store's wall clock, for people.
    pub since_ms: u64,
}

/// Parameters of `lock.break`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockBreak {
    /// The lock.
    pub name: String,
    /// The fencing token of the hold to break, and of no other.
    pub fence: u64,
}

/// Result of the writing methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Written {
    /// The store's revision of the write.
    pub revision: u64,
}

/// Parameters of `cancel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The id of the request to cancel, on this connection.
    pub id: super::Id,
}

/// Where a lease stands, in a `lease` notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeaseState {
    /// Renewals are unanswered; the hold may be lost soon.
    Suspect,
    /// A renewal came through; nobody was granted in between.
    Restored,
    /// The hold is lost for good.
    Lost,
}

/// Parameters of the `lease` notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseNotice {
    /// The handle that acquiring returned.
    pub lease: String,
    /// Where it stands now.
    pub state: LeaseState,
    /// Why, for `lost`: `renewal_timeout`, `deposed`, `expired`, `store_reset`, `broken`, `critical`,
    /// `closed` or `client_silent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Parameters of the `goaway` notification: the daemon is leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Goaway {
    /// What is still held this long after is lost.
    pub deadline_ms: u64,
}
