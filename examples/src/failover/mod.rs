//! Several worker processes append to one shared file under one lock, while holders are killed and paused.
//!
//! [`main`] is the director. It starts the daemon and the workers as processes of their own (this program
//! again, told what to be), sends SIGKILL to some holders and SIGSTOP to others, prints who holds and how long
//! each hand-over took, and at the end checks the file and what everybody reported.
//!
//! What the workers do is a read-modify-write: read the last total, work a little, append total + 1. Without
//! mutual exclusion updates get lost; without fencing a paused holder overwrites when it wakes up. Both can be
//! switched off (`--sabotage`) to see that the check notices.

mod check;
mod crew;
mod daemon;
mod director;
mod options;
mod record;
mod screen;
mod script;
mod shared_file;
mod summary;
mod worker;

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;

use options::{Options, Role};

/// What ends a process before its work is done: one sentence.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Runs the process that the command line asks for.
///
/// Ends with 0 when everything held, 1 when something did not, 2 when the run could not be made, 64 for a
/// command line that makes no sense, and 130 when it was interrupted.
pub fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    // One thread: a child asks to be killed when the thread that started it ends.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime does not start: {error}")),
    };
    let ended = runtime.block_on(async {
        match &options.role {
            None => director::run(&options).await,
            Some(role) => {
                die_with_the_director()?;
                match role {
                    Role::Daemon => daemon::run(&options).await,
                    Role::Worker => worker::run(&options).await,
                }
                .map(|()| ExitCode::SUCCESS)
            }
        }
    });
    ended.unwrap_or_else(|fault| fail(&fault.to_string()))
}

fn fail(message: &str) -> ExitCode {
    // With standard error closed the exit code has to do.
    let _ = writeln!(std::io::stderr(), "failover: {message}");
    ExitCode::from(2)
}

/// Has the kernel kill this process, stopped or not, when the director ends however it ends.
fn die_with_the_director() -> Result<(), Fault> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}
