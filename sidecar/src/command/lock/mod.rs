//! `tenure lock`: run a command while holding a lock.

mod socket;
mod store;
mod waiting;

use std::{ffi::OsString, path::Path, time::Duration};

use tenure_kv::{BootClock, Clock, Moment};

pub(super) use self::socket::{connect, failure, unanswered};
use self::waiting::Seen;
use super::{
    End, Socket, exit,
    exit::Failure,
    run::{self, Hold, OnLost, Policy, Run, Signals},
    say::{printable, say, span},
    time,
};

/// Run a command while holding a lock
#[derive(Debug, clap::Args)]
#[command(override_usage = "tenure lock NAME [OPTIONS] -- COMMAND [ARGS]...", after_long_help = MORE, after_help = "`tenure lock --help` tells more: examples, exit codes, signals.")]
pub(super) struct Args {
    /// Name of the lock: letters, digits, - / _ = and single dots
    name: String,

    /// Do not wait: give up at once when somebody holds the lock
    #[arg(short = 'n', long = "no-wait", conflicts_with = "wait")]
    no_wait: bool,

    /// Wait at most this long, such as 30s [default: for ever]
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,

    /// Exit code when the lock was not acquired
    #[arg(short = 'E', long = "conflict-exit-code", value_name = "CODE", default_value_t = exit::NOT_ACQUIRED)]
    conflict: u8,

    /// How long the lock stays ours without a renewal [default: the daemon's, or the store's]
    #[arg(long, value_name = "TIME", value_parser = time)]
    lease: Option<Duration>,

    /// What happens to the command when the lock cannot be kept
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnLost::Term)]
    on_lost: OnLost,

    /// Time between TERM and KILL; at most half the lease [default: 5s or a third of the lease]
    #[arg(long, value_name = "TIME", value_parser = time)]
    kill_after: Option<Duration>,

    /// What others see as the holder [default: the name of the command]
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,

    /// Show no waiting line, and nothing when the lock was not acquired
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    socket: Socket,

    /// Keep the lock straight in this store, without a daemon: nats://HOST/BUCKET or file:PATH
    #[arg(long, value_name = "URL", conflicts_with = "socket")]
    store: Option<String>,

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
  TENURE_FENCE   the fencing token: larger for every later holder. The daemon's kv.put takes it
                 as `fence`, with TENURE_LOCK as `lock`, and refuses the write of a former holder
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

/// How long to wait for the lock.
#[derive(Clone, Copy, Debug)]
enum Patience {
    Once,
    Until(Moment),
    Forever,
}

impl Patience {
    /// What is left; `None` is for ever.
    fn left(self) -> Option<Duration> {
        match self {
            Self::Once => Some(Duration::ZERO),
            Self::Until(end) => Some(end.saturating_since(BootClock.now())),
            Self::Forever => None,
        }
    }
}

/// What is asked of the place where the lock is kept.
#[derive(Debug)]
struct Request {
    name: String,
    lease: Option<Duration>,
    label: String,
    patience: Patience,
}

/// Why there is no hold.
#[derive(Debug)]
enum Refused {
    /// Others hold it.
    Busy(Option<Seen>),
    Failed(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How a release went when it did not simply succeed.
#[derive(Debug)]
enum Unreleased {
    /// The lock had been lost before.
    Lost(String),
    /// Nobody confirmed it; the lease's end frees the lock.
    Unsure(String),
}

/// Where locks are kept.
trait Source {
    type Held: Held;

    /// Waits for the lock. Dropped, it gives up its place as soon as the source is closed.
    async fn acquire(&mut self, request: &Request) -> Result<Self::Held, Refused>;

    /// Who holds the lock and who waits, as far as that can be learned now.
    fn look(&self, name: &str) -> impl AsyncFn() -> Option<Seen> + 'static;

    /// Gives up whatever was begun.
    async fn close(self);
}

/// A lock that was acquired.
trait Held: Hold {
    /// The fencing token.
    fn token(&self) -> u64;
    /// The id of what keeps it.
    fn lease_id(&self) -> &str;
    /// Where a client finds the daemon that keeps it.
    fn socket(&self) -> Option<&Path>;
    /// Lets the next one have it.
    async fn release(self) -> Result<(), Unreleased>;
}

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    let patience = match (args.no_wait, args.wait) {
        (true, _) => Patience::Once,
        (false, Some(time)) => Patience::Until(BootClock.now() + time),
        (false, None) => Patience::Forever,
    };
    store::check_name(&args.name)?;
    if let Some(lease) = args.lease {
        store::check_lease(lease)?;
    }
    let program = args.command.first().map(Path::new);
    let label = args.label.clone().or_else(|| Some(printable(&program?.file_name()?.to_string_lossy()))).unwrap_or_default();
    let request = Request { name: args.name.clone(), lease: args.lease, label, patience };
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    match &args.store {
        Some(url) => {
            let source = interruptible(&mut signals, store::open(url, &request)).await?;
            hold_and_run(source, &request, &args, signals).await
        }
        None => {
            let source = interruptible(&mut signals, socket::open(args.socket.socket.as_deref())).await?;
            hold_and_run(source, &request, &args, signals).await
        }
    }
}

/// Does `work` unless a signal comes first.
async fn interruptible<T>(signals: &mut Signals, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        signal = signals.next_that_ends() => Err(Failure::silent(exit::by_signal(signal.as_raw()))),
        done = work => done,
    }
}

async fn hold_and_run<S: Source>(mut source: S, request: &Request, args: &Args, mut signals: Signals) -> Result<End, Failure> {
    let acquired = {
        let look = source.look(&request.name);
        let show = waiting::show(&request.name, look, !args.quiet);
        tokio::select! {
            biased;
            signal = signals.next_that_ends() => Err(signal.as_raw()),
            acquired = source.acquire(request) => Ok(acquired),
            never = show => match never {},
        }
    };
    let ended = match acquired {
        Err(signal) => Err(interrupted(signal)),
        Ok(Err(Refused::Failed(failure))) => Err(Err(failure)),
        Ok(Err(Refused::Busy(seen))) => Err(Err(busy(args, seen.as_ref()))),
        Ok(Ok(held)) => Ok(held),
    };
    let ended = match ended {
        Err(ended) => ended,
        Ok(held) => run_under(held, args, &mut signals).await,
    };
    tokio::select! {
        biased;
        _ = signals.next_that_ends() => {}
        () = source.close() => {}
    }
    ended
}

/// The end of a wait by a signal.
fn interrupted(signal: i32) -> Result<End, Failure> {
    // With a shell above, its loop or script must see that ^C ended this.
    let typed = run::at_terminal_of_a_shell() && run::is_typed(signal);
    Ok(End { code: exit::by_signal(signal), signal: typed.then_some(signal) })
}

fn busy(args: &Args, seen: Option<&Seen>) -> Failure {
    if args.quiet {
        return Failure::silent(args.conflict);
    }
    let name = &args.name;
    let state = seen.map_or_else(|| format!("{name} is taken"), |seen| format!("{name} is {seen}"));
    let remedy = match args.wait {
        Some(time) => format!("not acquired within {}; try again later, or wait longer with -w", span(time)),
        None => "try again later, or wait for it with -w 30s".to_owned(),
    };
    Failure::new(args.conflict, format!("{state}; {remedy}"))
}

async fn run_under<H: Held>(mut held: H, args: &Args, signals: &mut Signals) -> Result<End, Failure> {
    let lease = held.lease();
    let policy = Policy::new(args.on_lost, args.kill_after, lease);
    if let Some(asked) = args.kill_after
        && asked > policy.grace
        && args.on_lost == OnLost::Term
    {
        let (asked, grace, lease) = (span(asked), span(policy.grace), span(lease));
        say(&format!("warning: --kill-after {asked} is cut to {grace}, half of the {lease} lease; a longer --lease allows more"));
    }
    let mut environment = vec![
        ("TENURE_LOCK", OsString::from(&args.name)),
        ("TENURE_FENCE", held.token().to_string().into()),
        ("TENURE_LEASE", held.lease_id().into()),
    ];
    environment.extend(held.socket().map(|path| ("TENURE_SOCKET", path.into())));
    let run = Run { command: &args.command, environment: &environment, policy };
    let outcome = run::run(&mut held, &run, signals).await;
    let released = held.release().await;
    let outcome = outcome?;
    if let Some(why) = outcome.lost {
        return Err(Failure::new(exit::LOST, format!("lost {}: {why}; the command was stopped", args.name)));
    }
    match released {
        Ok(()) => {}
        Err(Unreleased::Lost(why)) if args.on_lost != OnLost::Ignore => {
            return Err(Failure::new(exit::LOST, format!("lost {} before the command ended: {why}", args.name)));
        }
        Err(Unreleased::Lost(_)) => {}
        Err(Unreleased::Unsure(why)) => {
            say(&format!(
                "warning: the release of {} is not confirmed ({why}); it is free in {} at the latest",
                args.name,
                span(lease)
            ));
        }
    }
    Ok(End { code: outcome.code, signal: outcome.typed.filter(|signal| run::pass_to_shell(*signal)) })
}
