//! Locks, elections and groups on a key-value bucket, right under crashes, pauses, partitions and lost answers.
//!
//! | for | use |
//! |---|---|
//! | being known to be alive | [`Session`] |
//! | only one of us may do this | [`Mutex`], [`Guard`] |
//! | one of us leads, and everybody knows who | [`Election`], [`Leadership`] |
//! | who is there, at which address, in which state | [`Group`], [`Member`], [`membership`] |
//! | who holds what, and ending a hold | [`locks`] |
//! | a live mirror of a range | [`View`] |
//! | which instance a request goes to | [`discovery`] |
//! | who of a group does which part of the work | [`partitions`] |
//!
//! Everything works on any [`tenure_kv::Store`]: in memory, in a file, or on a NATS cluster.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tenure::{Session, data_key};
//! use tenure_kv::Op;
//!
//! let store = tenure_kv::open("memory:").await?;
//! let session = Session::open(store).await?;
//! let guard = session.mutex("billing")?.lock().await?;
//! // Refused by the store itself once somebody else holds the lock.
//! guard.commit(Op::put(data_key("billing/last")?, "2031-04").into()).await?;
//! guard.release().await?;
//! session.close().await?;
//! # Ok(()) }
//! ```

mod access;
pub mod discovery;
mod election;
mod error;
mod fencing;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod hold;
mod ids;
mod janitor;
mod layout;
mod leash;
mod living;
pub mod locks;
pub mod membership;
mod mutex;
pub mod partitions;
mod queue;
mod record;
mod rendezvous;
mod roster;
mod session;
mod sync;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
mod view;

pub use access::Role;
pub use election::{Candidate, Election, Leader, Leadership, Look, Standing, standings};
pub use error::{Error, Loss, Result};
pub use guard::Guard;
pub use hold::OnLoss;
pub use layout::{MAX_NAME, data_key, range_bucket};
pub use locks::{Holder, LockState, Queue};
pub use membership::{
    Check, Group, Instance, InstanceState, JoinOptions, Member, MemberEvent, MemberRecord, MemberWatch, Members,
};
pub use mutex::Mutex;
pub use session::{MAX_LEASE, MIN_LEASE, Renewals, Session, SessionBuilder, SessionState};
pub use view::{Change, Changes, Snapshot, View};
