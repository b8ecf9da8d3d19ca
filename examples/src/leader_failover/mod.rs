//! Three processes campaign; the leader is killed or stopped again and again, and another takes over.
//!
//! [`main`] is the director. It starts the candidates as processes of their own (this program again, told what to be).
//! Whoever is elected writes its name to one key again and again, each write fenced with its term. The director sends
//! SIGKILL to one leader and SIGSTOP to the next, in turn, tells how long nobody led, and wakes those that it stopped:
//! each goes on with the write that it was about to make, and that is refused.
//!
//! On `nats://` each candidate opens the store with Tenure's Rust API, and a killed leader keeps its office for the
//! lease. On an embedded store, the default, a daemon has it and the candidates speak to that over its socket: a killed
//! leader's office is free at once, a stopped one's after the time that its client may be silent.
//!
//! With `--sabotage no-fence` leaders write without their term, to see that the check notices.

mod candidate;
mod check;
mod coordination;
mod director;
mod options;

use std::process::ExitCode;

use crate::stage;

/// Runs the process that the command line asks for.
///
/// Ends with 0 when everything held, 1 when something did not, 2 when the run could not be made, 64 for a
/// command line that makes no sense, and 130 when it was interrupted.
pub fn main() -> ExitCode {
    stage::main("leader_failover", |options: options::Options| async move {
        match options.role {
            None => director::run(&options).await,
            Some(options::Role::Daemon) => stage::daemon::run(&options.setting.way(), options.lease).await,
            Some(options::Role::Candidate) => candidate::run(&options).await,
        }
    })
}
