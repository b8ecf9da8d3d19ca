//! Worker processes share partitions that move as workers join, leave and are killed.
//!
//! [`main`] is the director. It starts the workers as processes of their own (this program again, told what to be),
//! has one join, asks one to leave and kills one, and prints what moved and how long that took. Each worker
//! appends to one file, time and again, for every partition it owns; at the end the file tells whether a partition ever
//! had two owners at once.
//!
//! On `nats://` each worker opens the store with Tenure's Rust API. On an embedded store, the default, a daemon has it and
//! the workers speak to that over its socket: `member.watch` tells who is there, all come to the same assignment, and
//! `lock.acquire` has the last word about each partition. What a killed worker owned moves at once there, and after the
//! lease on `nats://`.
//!
//! With `--sabotage keep` workers go on with partitions that they have lost, to see that the check notices.

mod check;
mod coordination;
mod director;
mod options;
mod worker;

use std::process::ExitCode;

use crate::stage;

/// Runs the process that the command line asks for.
///
/// Ends with 0 when everything held, 1 when something did not, 2 when the run could not be made, 64 for a
/// command line that makes no sense, and 130 when it was interrupted.
pub fn main() -> ExitCode {
    stage::main("partitions", |options: options::Options| async move {
        match options.role {
            None => director::run(&options).await,
            Some(options::Role::Daemon) => stage::daemon::run(&options.setting.way(), options.lease).await,
            Some(options::Role::Worker) => worker::run(&options).await,
        }
    })
}
