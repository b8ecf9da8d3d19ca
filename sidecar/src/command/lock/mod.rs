//! `tenure lock`: run a command while holding a lock.

mod socket;
mod store;

use std::{ffi::OsString, time::Duration};

use super::{
    End,
    exit::Failure,
    keep::{self, Job, Words, hold_and_run, interruptible},
    run::{OnLost, Signals},
};

/// Run a command while holding a lock
#[derive(Debug, clap::Args)]
#[command(override_usage = "tenure lock NAME [OPTIONS] -- COMMAND [ARGS]...", after_long_help = MORE, after_help = "`tenure lock --help` tells more: examples, exit codes, signals.")]
pub(super) struct Args {
    /// Name of the lock: letters, digits, - / _ = and single dots
    name: String,

    #[command(flatten)]
    wait: keep::Wait,

    #[command(flatten)]
    lease: keep::Lease,

    /// What happens to the command when the lock cannot be kept
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnLost::Term)]
    on_lost: OnLost,

    #[command(flatten)]
    place: keep::Place,

    /// The command and its arguments, after `--`; no shell is involved
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const MORE: &str = "\
Examples:
  tenure lock nightly -- ./backup.sh           wait for the lock, then run
  tenure lock nightly -n -- ./backup.sh        run now or not at all (exit 75)
  tenure lock deploy.web -w 30s -- make deploy wait at most 30 seconds
  tenure lock x --store nats://n1/locks -- job no daemon: keep the lock in NATS

Exit code:
  the command's own, or 128 + the signal that ended it or the wait; 64 wrong usage;
  75 not acquired (see -E); 79 stopped because the lock could not be kept; 125 Tenure
  failed; 126 the command cannot be executed; 127 it was not found.

Environment of the command:
  TENURE_LOCK    the lock's name
  TENURE_FENCE   the fencing token: larger for every later holder. What `tenure kv put --fence`
                 writes with it, through the daemon, is refused to a former holder
  TENURE_LEASE   the lease's id on the connection of tenure; with --store the session's id
  TENURE_SOCKET  the daemon's socket; with --store it is left as it was

The command runs in a process group of its own, with standard input and the terminal. INT, TERM,
HUP, QUIT, USR1, USR2 and WINCH sent to tenure reach the whole group; a signal that was ignored
when tenure started (HUP under nohup) stays ignored for both. While the lock is waited for there
is no command: INT, TERM, HUP and QUIT give up the place in the queue, the others do nothing.

A daemon that goes away while the lock is waited for is waited for, too, as long as -w allows; the
place in the queue is lost.

When the lock cannot be kept (no renewal gets through, the daemon hangs or shuts down) the group
gets TERM, and KILL after --kill-after, both before anybody else can be granted: TERM comes that
much before the lease runs out. When the hold is over already (broken by an administrator, the
daemon gone from the socket) KILL follows TERM after 0.1s. A third INT, TERM or QUIT meanwhile
kills at once. The lock is released only after the command has ended; what it leaves running in
the background is left alone.

If tenure itself is killed with KILL, the command and its whole group are killed too; what has left
the group, or runs as another user (sudo), is not: let that check TENURE_FENCE where it counts.
A command stopped with ^Z keeps the lock through the daemon; with --store nobody renews meanwhile,
and a command whose lease ran out is killed instead of continued.
";

const WORDS: Words = Words {
    held: "held",
    acquired: "acquired",
    nobody: "not granted yet",
    without: "without the lock",
    giving_up: "the release of",
    variable: "TENURE_LOCK",
};

/// What is asked of the place where the lock is kept.
#[derive(Debug)]
struct Request {
    name: String,
    lease: Option<Duration>,
    label: String,
}

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    keep::store::check_name("lock name", &args.name)?;
    keep::store::check_lease(args.lease.lease)?;
    let request = Request { name: args.name, lease: args.lease.lease, label: args.lease.label(&args.command) };
    let job = Job {
        name: &request.name,
        words: &WORDS,
        wait: &args.wait,
        lease: &args.lease,
        on_lost: args.on_lost,
        command: &args.command,
        forever: false,
    };
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    match &args.place.store {
        Some(url) => {
            let source = interruptible(&mut signals, store::open(url, &request)).await?;
            hold_and_run(source, &job, signals).await
        }
        None => {
            let source = interruptible(&mut signals, socket::open(args.place.socket.path(), &request)).await?;
            hold_and_run(source, &job, signals).await
        }
    }
}
