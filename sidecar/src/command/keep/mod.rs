//! Running a command for as long as something is held: a lock, an office, a place in a group.
//!
//! What is held, and where, is a [`Source`]; the wait for it, the command's environment and what the end
//! means are the same for all.

mod forever;
mod leased;
pub(super) mod store;
mod waiting;

use std::{ffi::OsString, path::Path, time::Duration};

use tenure_kv::{BootClock, Clock, Moment};

pub(super) use self::{
    leased::{LeasedHeld, Ways},
    waiting::{Person, Seen, interject},
};
use super::{
    End, Socket, exit,
    exit::Failure,
    run::{self, Hold, OnLost, Policy, Run, Signals},
    say::{printable, say, span},
    time,
};

/// Options of every wait for what one process holds at a time.
#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// Do not wait: give up at once when somebody else has it
    #[arg(short = 'n', long = "no-wait", conflicts_with = "wait")]
    pub(super) no_wait: bool,

    /// Wait at most this long, such as 30s [default: for ever]
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    pub(super) wait: Option<Duration>,

    /// Exit code when that was in vain
    #[arg(short = 'E', long = "conflict-exit-code", value_name = "CODE", default_value_t = exit::NOT_ACQUIRED)]
    pub(super) conflict: u8,

    /// Show no waiting line, and nothing when the wait was in vain
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// Options of everything that is kept by a lease while a command runs.
#[derive(Debug, clap::Args)]
pub(super) struct Lease {
    /// How long it stays ours without a renewal [default: the daemon's, or the store's]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) lease: Option<Duration>,

    /// Time between TERM and KILL; at most half the lease [default: a fifth of the lease, 5s at most]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) kill_after: Option<Duration>,

    /// What others see as whose it is [default: the name of the command]
    #[arg(long, value_name = "TEXT")]
    pub(super) label: Option<String>,
}

/// Where it is kept.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    pub(super) socket: Socket,

    /// Straight in this store, without a daemon: nats://HOST/BUCKET or file:PATH
    #[arg(long, value_name = "URL", conflicts_with = "socket")]
    pub(super) store: Option<String>,
}

impl Wait {
    pub(super) fn patience(&self) -> Patience {
        match (self.no_wait, self.wait) {
            (true, _) => Patience::Once,
            (false, Some(time)) => Patience::Until(BootClock.now() + time),
            (false, None) => Patience::Forever,
        }
    }
}

impl Lease {
    /// What others see, for whom `command` runs.
    pub(super) fn label(&self, command: &[OsString]) -> String {
        let program = || Some(printable(&Path::new(command.first()?).file_name()?.to_string_lossy()));
        self.label.clone().or_else(program).unwrap_or_default()
    }

    /// The policy for a lease of `length`; says what it changes of what was asked.
    pub(super) fn policy(&self, on_lost: OnLost, length: Duration) -> Policy {
        let policy = Policy::new(on_lost, self.kill_after, length);
        if let Some(asked) = self.kill_after
            && asked > policy.grace
            && on_lost == OnLost::Term
        {
            let (asked, grace, lease) = (span(asked), span(policy.grace), span(length));
            say(&format!(
                "warning: --kill-after {asked} is cut to {grace}, half of the {lease} lease; a longer --lease allows more"
            ));
        }
        policy
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    Once,
    Until(Moment),
    Forever,
}

impl Patience {
    /// What is left; `None` is for ever.
    pub(super) fn left(self) -> Option<Duration> {
        match self {
            Self::Once => Some(Duration::ZERO),
            Self::Until(end) => Some(end.saturating_since(BootClock.now())),
            Self::Forever => None,
        }
    }
}

/// What is said of a kind of thing that is held.
#[derive(Debug)]
pub(super) struct Words {
    /// `held`, as in "x is held by …".
    pub(super) held: &'static str,
    /// `acquired`, as in "not acquired within …".
    pub(super) acquired: &'static str,
    /// Of the time in which nobody has it.
    pub(super) nobody: &'static str,
    /// Without what a command runs on that is not stopped.
    pub(super) without: &'static str,
    /// How it is given up.
    pub(super) giving_up: &'static str,
    /// The variable that tells the command its name.
    pub(super) variable: &'static str,
}

/// Why nothing is held.
#[derive(Debug)]
pub(super) enum Refused {
    /// Others have it.
    Busy(Option<Seen>),
    /// Somebody has the name itself; who, in words.
    Taken(String),
    Failed(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How giving up went when it did not simply succeed.
#[derive(Debug)]
pub(super) enum Unreleased {
    /// It had been lost before.
    Lost(String),
    /// Nobody confirmed it; the lease's end frees it.
    Unsure(String),
}

/// Where something is kept that one process holds at a time.
pub(super) trait Source {
    type Held: Held;

    /// Waits for it. Dropped, it gives up its place as soon as the source is closed.
    async fn acquire(&mut self, patience: Patience) -> Result<Self::Held, Refused>;

    /// Who has it and who waits, as far as that can be learned now.
    fn look(&self) -> impl AsyncFn() -> Option<Seen> + 'static;

    /// Gives up whatever was begun.
    async fn close(self);
}

/// What is held.
pub(super) trait Held: Hold {
    /// The fencing token.
    fn token(&self) -> u64;
    /// The id of what keeps it.
    fn lease_id(&self) -> &str;
    /// Where a client finds the daemon that keeps it.
    fn socket(&self) -> Option<&Path>;
    /// Lets the next one have it.
    async fn release(self) -> Result<(), Unreleased>;
}

/// What to hold, and what to run meanwhile.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) name: &'a str,
    pub(super) words: &'static Words,
    pub(super) wait: &'a Wait,
    pub(super) lease: &'a Lease,
    pub(super) on_lost: OnLost,
    pub(super) command: &'a [OsString],
    /// Begins again when the command has ended or was stopped.
    pub(super) forever: bool,
}

/// How one turn went, from the wait to the end.
#[derive(Debug)]
struct Turn {
    end: Result<End, Failure>,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// A signal came, or others had it.
    Over,
    /// Nothing was run, because something failed.
    Failed,
    /// The command ran for so long, and was perhaps asked to end by a signal.
    Ran { time: Duration, asked: bool },
}

/// Somebody who asks for what is held, in words.
pub(super) fn challenger(label: Option<&str>, host: &str, pid: u32, priority: i32) -> String {
    let person = Person { token: 0, label: label.map(str::to_owned), host: host.to_owned(), pid, since: None };
    format!("{person} asks for it with priority {priority}")
}

/// Does `work` unless a signal comes first.
pub(super) async fn interruptible<T>(
    signals: &mut Signals,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        signal = signals.next_that_ends() => Err(Failure::silent(exit::by_signal(signal.as_raw()))),
        done = work => done,
    }
}

/// The end of a wait by a signal.
pub(super) fn interrupted(signal: i32) -> Result<End, Failure> {
    // With a shell above, its loop or script must see that ^C ended this.
    let typed = run::at_terminal_of_a_shell() && run::is_typed(signal);
    Ok(End { code: exit::by_signal(signal), signal: typed.then_some(signal) })
}

/// Waits, runs the command, and lets go; again and again if the job is such.
pub(super) async fn hold_and_run<S: Source>(mut source: S, job: &Job<'_>, mut signals: Signals) -> Result<End, Failure> {
    let ended = if job.forever {
        forever::run(&mut source, job, &mut signals).await
    } else {
        once(&mut source, job, &mut signals).await.end
    };
    tokio::select! {
        biased;
        _ = signals.next_that_ends() => {}
        () = source.close() => {}
    }
    ended
}

async fn once<S: Source>(source: &mut S, job: &Job<'_>, signals: &mut Signals) -> Turn {
    let acquired = {
        let show = waiting::show(job.name, job.words, source.look(), !job.wait.quiet);
        tokio::select! {
            biased;
            signal = signals.next_that_ends() => Err(signal.as_raw()),
            acquired = source.acquire(job.wait.patience()) => Ok(acquired),
            never = show => match never {},
        }
    };
    match acquired {
        Err(signal) => Turn { end: interrupted(signal), how: How::Over },
        Ok(Err(Refused::Failed(failure))) => Turn { end: Err(failure), how: How::Failed },
        Ok(Err(Refused::Taken(who))) => Turn { end: Err(Failure::new(job.wait.conflict, who)), how: How::Over },
        Ok(Err(Refused::Busy(seen))) => Turn { end: Err(busy(job, seen.as_ref())), how: How::Over },
        Ok(Ok(held)) => run_under(held, job, signals).await,
    }
}

fn busy(job: &Job<'_>, seen: Option<&Seen>) -> Failure {
    if job.wait.quiet {
        return Failure::silent(job.wait.conflict);
    }
    let (name, words) = (job.name, job.words);
    let state = seen.map_or_else(|| format!("{name} is taken"), |seen| format!("{name} is {}", seen.in_words(words)));
    let remedy = match job.wait.wait {
        Some(time) => format!("not {} within {}; try again later, or wait longer with -w", words.acquired, span(time)),
        None => "try again later, or wait for it with -w 30s".to_owned(),
    };
    Failure::new(job.wait.conflict, format!("{state}; {remedy}"))
}

async fn run_under<H: Held>(mut held: H, job: &Job<'_>, signals: &mut Signals) -> Turn {
    let (begun, lease) = (BootClock.now(), held.lease());
    let policy = job.lease.policy(job.on_lost, lease);
    let mut environment = vec![
        (job.words.variable, OsString::from(job.name)),
        ("TENURE_FENCE", held.token().to_string().into()),
        ("TENURE_LEASE", held.lease_id().into()),
    ];
    environment.extend(held.socket().map(|path| ("TENURE_SOCKET", path.into())));
    // A hold outside of this one has another token: its name must not be taken for this one's.
    let unset = ["TENURE_LOCK", "TENURE_ELECTION"];
    let run =
        Run { command: job.command, environment: &environment, policy, without: job.words.without, unset: &unset, ending: None };
    let outcome = run::run(&mut held, &run, signals).await;
    let released = held.release().await;
    match outcome {
        Err(failure) => Turn { end: Err(failure), how: How::Failed },
        Ok(outcome) => {
            let how = How::Ran { time: BootClock.now().saturating_since(begun), asked: outcome.asked };
            Turn { end: concluded(outcome, released, job, lease), how }
        }
    }
}

fn concluded(outcome: run::Outcome, released: Result<(), Unreleased>, job: &Job<'_>, lease: Duration) -> Result<End, Failure> {
    let name = job.name;
    if let Some(why) = outcome.lost {
        return Err(Failure::new(exit::LOST, format!("lost {name}: {why}; the command was stopped")));
    }
    match released {
        Ok(()) => {}
        Err(Unreleased::Lost(why)) if job.on_lost != OnLost::Ignore => {
            return Err(Failure::new(exit::LOST, format!("lost {name} before the command ended: {why}")));
        }
        Err(Unreleased::Lost(_)) => {}
        Err(Unreleased::Unsure(why)) => {
            let giving_up = job.words.giving_up;
            say(&format!("warning: {giving_up} {name} is not confirmed ({why}); it is free in {} at the latest", span(lease)));
        }
    }
    Ok(End { code: outcome.code, signal: outcome.typed.filter(|signal| run::pass_to_shell(*signal)) })
}
