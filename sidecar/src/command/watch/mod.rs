//! `tenure watch`: what becomes of a lock, an election, a group or keys, printed or given to a command.

mod feed;
pub(super) mod keys;
mod runner;
mod state;

use std::ffi::OsString;

use tokio::sync::mpsc;

use self::feed::Teller;
use super::{
    End, Socket,
    daemon::Daemon,
    exit::Failure,
    keep::store::check_name,
    live::until_interrupted,
    output::{Format, Printer},
    run::Signals,
    say::say,
};
use crate::protocol::KvWatch;

/// Print how a lock, an election, a group or keys change, or run a command for each change
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "tenure watch lock|leader|members|kv NAME [OPTIONS] [-- COMMAND [ARGS]...]\n       tenure watch kv --prefix TEXT [OPTIONS] [-- COMMAND [ARGS]...]",
    after_long_help = MORE,
    after_help = "`tenure watch --help` tells more: examples, what a command is told, exit codes."
)]
pub(super) struct Args {
    /// What to watch
    #[arg(value_enum)]
    what: What,

    /// Name of the lock, the election or the group, or the key
    #[arg(required_unless_present = "prefix")]
    name: Option<String>,

    /// All keys that begin with this; '' is all there are
    #[arg(long, value_name = "TEXT", conflicts_with = "name")]
    prefix: Option<String>,

    /// Keys of this key-value bucket instead of the coordination bucket's
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,

    /// Leave out how it is at the beginning
    #[arg(long)]
    updates_only: bool,

    /// How to print it
    #[arg(short, long, value_enum, default_value_t, conflicts_with = "command")]
    output: Format,

    #[command(flatten)]
    socket: Socket,

    /// A command to run for each change, and its arguments, after `--`; no shell is involved
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Who holds a lock, and who waits
    Lock,
    /// Who leads an election
    Leader,
    /// Who is in a group
    Members,
    /// The value of a key, or of many
    Kv,
}

const MORE: &str = "\
Examples:
  tenure watch leader db -o jsonl
  tenure watch members web -- ./render-upstreams    the whole group as JSON on standard input
  tenure watch kv config/color -- sh -c 'echo \"now $TENURE_VALUE\"'
  tenure watch kv --prefix config/ --updates-only -- ./reload

First comes how it is, then every change until interrupted. These are states: changes in quick
succession may be told as the last of them. Of a lock `waiters` are the first of those who wait, and `waiting`
is how many there are. While the daemon or the store is out of reach it says so on standard error, and goes
on afterwards with what has changed.

A COMMAND runs once for each change, never two at a time: of what changes while one runs the latest
state is kept, of keys that of each key. It gets the state as one line of JSON on standard input, the
same as -o jsonl prints. When it fails that is said and the watch goes on; when it cannot be executed or
found the watch ends. INT, TERM, HUP and QUIT end the watch and the command: TERM, and KILL after 5s or at
the next signal. It is killed, too, when tenure is.

Environment of the command:
  TENURE_KIND      lock, leader, members or kv
  TENURE_NAME      what is watched: a name, or the key that changed
  TENURE_EVENT     held, free; led, vacant; members; put, delete, purge, expire
  TENURE_KEY, TENURE_VALUE, TENURE_REVISION  of a key: its value as text, and its last write
  TENURE_LEADER, TENURE_TERM, TENURE_VALUE   who leads, since which term, and what they proclaim
  TENURE_HOLDER, TENURE_TOKEN, TENURE_WAITERS  who holds the lock, with which token; how many wait
  TENURE_MEMBERS   the ids of the members, with blanks between
  TENURE_SOCKET    the daemon's socket

A variable that has nothing to say, or more than 64 KiB, is not set: read the JSON.

Exit code: 128 + the signal that ended the watch; 64 wrong usage; 125 Tenure failed; 126 the command
cannot be executed; 127 it was not found.
";

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    let subject = match args.what {
        What::Lock => "lock name",
        What::Leader => "election name",
        What::Members => "group name",
        What::Kv => "key",
    };
    if args.prefix.is_some() && args.what != What::Kv {
        return Err(Failure::usage("--prefix is for keys: write `tenure watch kv --prefix TEXT`"));
    }
    if let Some(bucket) = &args.bucket {
        if args.what != What::Kv {
            return Err(Failure::usage("--bucket is for keys: write `tenure watch kv KEY --bucket NAME`"));
        }
        tenure_kv::check_bucket(bucket).map_err(|error| Failure::usage(error.to_string()))?;
    }
    if let Some(name) = &args.name {
        check_name(subject, name)?;
    }
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    let connected = super::keep::interruptible(&mut signals, Daemon::at(&args.socket)).await;
    let daemon = connected?;
    let (sender, mut news) = mpsc::channel(1);
    let teller = Teller::new(sender, args.updates_only);
    let feed = async {
        match (args.prefix, args.name) {
            (prefix, key) if args.what == What::Kv => {
                feed::of_keys(&daemon, KvWatch { prefix, key, bucket: args.bucket, ..KvWatch::default() }, teller).await
            }
            (_, Some(name)) => feed::run(&daemon, args.what, name, teller).await,
            (_, None) => Err(Failure::usage("name what to watch; see `tenure watch --help`")),
        }
    };
    if !args.command.is_empty() {
        return runner::run(feed, news, &args.command, daemon.path(), &mut signals).await;
    }
    let mut printer = Printer::new(args.output, &state::COLUMNS);
    let print = async {
        while let Some(news) = news.recv().await {
            match news {
                Ok(state) => printer.event(&state, state.row()),
                Err(why) => say(&format!("{why}; what changes meanwhile is printed afterwards")),
            }
        }
    };
    until_interrupted(&mut signals, async {
        let (end, ()) = tokio::join!(feed, print);
        end.map(|never| match never {})
    })
    .await
}
