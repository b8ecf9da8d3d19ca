//! What threads share in Tenure, run in many orders in which they can meet.
//!
//! The files are the product's own, compiled a second time: in the product their locks, condition variables, counters
//! and threads come from a module `sync`; here that module gives those of `shuttle`, whose scheduler decides at each of
//! them who goes on. Channels, semaphores, tokens and wakers are the real ones: each use is one step, and their insides are
//! not looked at. Nor are memory orderings: what is counted without a lock is counted in one order for all.
//!
//! ```text
//! cargo test -p tenure-threads
//! TENURE_ORDERS=100000 cargo test -p tenure-threads
//! ```

// The files bring tests of their own, which are for other locks than those here.
#![cfg(not(test))]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "all of it is tests")]

mod embedded;
mod orders;
mod server;
pub mod session;
mod sync;

pub use embedded::{commits, listeners};
pub use orders::in_many_orders;
pub use server::{answers, lease, wakes};

// What the files name as their own crate's.
use tenure::Loss;
use tenure_kv::{
    Batch, Beside, BootClock, Bytes, Change, Clock, Entry, Error, Event, Expect, Info, Key, KeyRange, Moment, Notice, Op, Page,
    Result, Revision, Since, State, Store, Ttl, check_bucket,
};
use tenure_sidecar::protocol;
