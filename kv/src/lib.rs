//! A small key-value contract for coordination, and the stores that keep it.
//!
//! Everything Tenure does rests on three verbs: read the latest entry of a key, commit a batch whose
//! preconditions all hold or change nothing, and watch a range. [`Store`] is that contract;
//! [`StoreExt`] adds conveniences that nobody else implements. Four kinds of store keep it and are
//! told apart by URL only (see [`open`]): `memory:`, `file:PATH` and `nats://HOST/BUCKET`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> tenure_kv::Result<()> {
//! use tenure_kv::{Key, StoreExt};
//!
//! let store = tenure_kv::open("memory:").await?;
//! let key = Key::new("data.greeting")?;
//! let first = store.create(&key, "hello").await?;
//! store.update(&key, "hello again", first).await?;
//! assert!(store.update(&key, "too late", first).await.is_err());
//! # Ok(()) }
//! ```
//!
//! What an [`Error`] means is a promise: only [`Error::Unknown`] leaves open whether a write happened.

mod access;
mod batch;
mod bucket;
mod clock;
#[cfg(feature = "testing")]
pub mod conformance;
mod embedded;
mod entry;
mod error;
mod examine;
#[cfg(feature = "testing")]
pub mod faults;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "testing")]
mod hand_clock;
mod key;
#[doc(hidden)]
pub mod mutants;
pub mod nats;
mod open;
mod range_bucket;
mod store;
mod sync;

pub use access::{Permissions, Subjects, permissions};
pub use batch::{Batch, Change, Expect, Fence, MAX_BATCH, MAX_VALUE, Op};
pub use bucket::{Beside, Bucket, check_bucket};
pub use clock::{BootClock, Clock, ClockExt, Elapsed, Moment};
pub use embedded::{File, FileOptions, Memory, Sync};
pub use entry::{Entry, Revision, State, Ttl};
pub use error::{Error, Result};
pub use examine::{Finding, Level, examine, judge_round_trips};
#[cfg(feature = "testing")]
pub use hand_clock::HandClock;
pub use key::{Key, KeyRange, MAX_KEY, Pattern};
pub use open::{check_url, open};
pub use range_bucket::RangeBucket;
pub use store::{Event, Info, Notice, Page, Since, Store, StoreExt};

/// The bytes of a value; cheap to clone.
pub use bytes::Bytes;
