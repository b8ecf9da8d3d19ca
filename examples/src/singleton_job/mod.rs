//! Three processes and a job that runs once per round, only on the leader, whoever dies.
//!
//! [`main`] is the director. It starts the workers as processes of their own (this program again, told what to be),
//! kills the leader, and asks the next one to end. Each worker campaigns; the one elected claims a round by a write that
//! is fenced with its term, and then runs the job of that round. Rounds that went by while nobody led are made up for.
//! What ran is appended to one file, which at the end tells whether every round ran once.
//!
//! On `nats://` each worker opens the store with Tenure's Rust API, and a killed leader keeps its office for the lease. On
//! an embedded store, the default, a daemon has it and the workers speak to that over its socket: a killed leader's office
//! is free at once.
//!
//! With `--sabotage everyone` workers do not ask who leads, to see that the check notices.

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
    stage::main("singleton_job", |options: options::Options| async move {
        match options.role {
            None => director::run(&options).await,
            Some(options::Role::Daemon) => stage::daemon::run(&options.setting.way(), options.lease).await,
            Some(options::Role::Worker) => worker::run(&options).await,
        }
    })
}
