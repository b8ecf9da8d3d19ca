//! HTTP servers come, drain and crash; a client balances over them and loses no request.
//!
//! [`main`] is the director and the client. It starts HTTP servers as processes of their own (this program again,
//! told what to be), which join a group, and sends requests to them through a [`Balancer`](tenure::discovery::Balancer)
//! all the time. A server that is asked to end drains: it says so in the group, answers what still comes, and leaves.
//! One that is killed is set aside at the first failed connection, its requests are tried again elsewhere, and it is
//! removed from the group.
//!
//! On `nats://` each process opens the store with Tenure's Rust API, and a janitor removes who was killed once the lease
//! is over. On an embedded store, the default, a daemon has it and all others speak to that over its socket: whoever is
//! killed is removed at once.
//!
//! With `--sabotage no-drain` servers end at once when asked to, to see that the check notices.

mod client;
mod coordination;
mod director;
mod options;
mod server;
mod tally;

use std::process::ExitCode;

use crate::stage;

/// Runs the process that the command line asks for.
///
/// Ends with 0 when everything held, 1 when something did not, 2 when the run could not be made, 64 for a
/// command line that makes no sense, and 130 when it was interrupted.
pub fn main() -> ExitCode {
    stage::main("service_discovery", |options: options::Options| async move {
        match options.role {
            None => director::run(&options).await,
            Some(options::Role::Daemon) => stage::daemon::run(&options.setting.way(), options.lease).await,
            Some(options::Role::Server) => server::run(&options).await,
        }
    })
}
