//! Tenure for every language: the `tenured` daemon, the `tenure` command, and the wire protocol between
//! them and any client.
//!
//! [`protocol`] is the contract as types, [`server`] keeps it, [`Client`] speaks it; [`command`] is what people
//! type.

mod client;
pub mod command;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod protocol;
pub mod server;
mod sync;
mod usage;

pub use client::{CallError, Client, ConnectError, Notices, Notification, Subscription};
