//! The wire protocol: JSON-RPC 2.0, one message per line, over a Unix stream socket. Types only, no I/O.

mod error;
pub mod frame;
mod message;
pub mod value;

use std::path::PathBuf;

pub use error::{ErrorObject, Kind};
pub use frame::Id;
pub use message::{
    Cancel, ConnectionStatus, Done, Entry, Goaway, Hello, HelloResult, KvEntry, KvGet, KvPut, LeaseNotice, LeaseRef, LeaseState,
    Limits, LockAcquire, LockAcquired, LockBreak, LockCheck, LockGet, LockList, LockView, Locks, NoParams, Owner, SessionStatus,
    Status, StoreInfo, Written,
};

/// The version of the protocol.
pub const VERSION: u32 = 1;

/// The methods this version of the daemon serves.
pub const METHODS: [&str; 12] = [
    "hello",
    "ping",
    "status",
    "cancel",
    "lock.acquire",
    "lock.release",
    "lock.check",
    "lock.get",
    "lock.list",
    "lock.break",
    "kv.get",
    "kv.put",
];

/// The methods of the protocol that this version of the daemon does not serve yet.
pub const LATER: [&str; 19] = [
    "rpc.discover",
    "election.campaign",
    "election.proclaim",
    "election.resign",
    "election.leader",
    "election.observe",
    "member.join",
    "member.update",
    "member.leave",
    "member.list",
    "member.watch",
    "kv.create",
    "kv.update",
    "kv.delete",
    "kv.purge",
    "kv.keys",
    "kv.history",
    "kv.watch",
    "subscription.cancel",
];

/// Where the daemon listens unless told otherwise: `$TENURE_SOCKET`, else
/// `$XDG_RUNTIME_DIR/tenure/tenured.sock`, else `/run/tenure/tenured.sock`.
pub fn default_socket() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TENURE_SOCKET")
        .unwrap_or_else(|| set("XDG_RUNTIME_DIR").unwrap_or_else(|| "/run".into()).join("tenure").join("tenured.sock"))
}
