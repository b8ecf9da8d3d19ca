//! The wire protocol: JSON-RPC 2.0, one message per line, over a Unix stream socket. Types only, no I/O.

mod election;
mod error;
pub mod frame;
mod kv;
mod member;
mod message;
mod methods;
mod openrpc;
mod subscription;
pub mod value;

use std::path::PathBuf;

pub use election::{
    CandidateView, ElectionCampaign, ElectionCampaigned, ElectionCandidateList, ElectionCandidates, ElectionLeader, ElectionList,
    ElectionName, ElectionProclaim, ElectionTransfer, ElectionTransferred, ElectionView, Elections, LeaderView,
};
pub use error::{ErrorObject, Kind};
pub use frame::Id;
pub use kv::{Entry, KvDelete, KvEntries, KvEntry, KvGet, KvHistory, KvKeys, KvKeysListed, KvPut, KvUpdate, KvWatch};
pub use member::{
    GroupView, Groups, MemberCheck, MemberGroups, MemberJoin, MemberJoined, MemberList, MemberListed, MemberUpdate, MemberView,
    MemberWatchParams,
};
pub use message::{
    Cancel, ConnectionStatus, Done, Goaway, Hello, HelloResult, LeaseNotice, LeaseRef, LeaseState, Limits, LockAcquire,
    LockAcquired, LockBreak, LockCheck, LockGet, LockList, LockStanding, LockView, Locks, NoParams, Owner, PolicyStatus,
    SessionStatus, Status, StoreInfo, Written,
};
pub use methods::{CAPABILITIES, METHODS};
pub use openrpc::document;
pub use subscription::{Event, Happening, Subscribed, SubscriptionCancel};

/// The version of the protocol.
pub const VERSION: u32 = 1;

/// Where the daemon listens unless told otherwise: `$TENURE_SOCKET`, else
/// `$XDG_RUNTIME_DIR/tenure/tenured.sock`, else `/run/tenure/tenured.sock`.
pub fn default_socket() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TENURE_SOCKET")
        .unwrap_or_else(|| set("XDG_RUNTIME_DIR").unwrap_or_else(|| "/run".into()).join("tenure").join("tenured.sock"))
}
