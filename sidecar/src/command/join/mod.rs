//! `tenure join`: be a member of a group, for as long as a command runs or until interrupted.

mod beats;
mod checks;
mod socket;
mod stay;
mod store;

use std::{collections::BTreeMap, ffi::OsString, sync::Arc, time::Duration};

use tenure_kv::{BootClock, Clock};

use self::{
    beats::Beats,
    checks::{Looks, Spec},
};
use super::{
    End, exit,
    exit::Failure,
    keep::{self, Held, Patience, Refused, Source, interruptible},
    run::{self, Signals},
    say::say,
    time,
};
use crate::Client;

/// Be a member of a group while a command runs, or until interrupted
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "tenure join GROUP [OPTIONS] [-- COMMAND [ARGS]...]",
    after_long_help = MORE,
    after_help = "`tenure join --help` tells more: examples, checks, what a loss means, exit codes."
)]
pub(super) struct Args {
    /// Name of the group: letters, digits, - / _ = and single dots
    group: String,

    /// The member's id in the group: letters, digits, - / _ = [default: the host's name and a random part]
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Option<String>,

    /// Where it is reached, mostly HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<String>,

    /// Where it stands, for callers that prefer what is near
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,

    /// Its share of the work beside others [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(tenure::membership::MAX_WEIGHT)))]
    weight: Option<u32>,

    /// Whatever else callers should know; may be given several times
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,

    /// Any text of the application's
    #[arg(long, value_name = "TEXT")]
    value: Option<String>,

    /// How to find out whether it is well: tcp:HOST:PORT, http://HOST:PORT/PATH or ttl:TIME; may be given
    /// several times, the worst counts
    #[arg(long = "check", value_name = "CHECK")]
    checks: Vec<Spec>,

    #[command(flatten)]
    looks: Looks,

    /// Do not wait: give up at once when a member with this id is there
    #[arg(short = 'n', long = "no-wait", conflicts_with = "wait")]
    no_wait: bool,

    /// Wait at most this long for the id to be free [default: as long as one that crashed is there]
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,

    /// Exit code when the id is not free
    #[arg(short = 'E', long = "conflict-exit-code", value_name = "CODE", default_value_t = exit::NOT_ACQUIRED)]
    conflict: u8,

    #[command(flatten)]
    lease: keep::Lease,

    /// What happens when the membership is lost
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    on_lost: OnLost,

    #[command(flatten)]
    place: keep::Place,

    /// The command and its arguments, after `--`; no shell is involved
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const MORE: &str = "\
Examples:
  tenure join web --addr 10.0.0.7:8080 -- ./server     a member while it runs
  tenure join web --id w1 --addr 10.0.0.7:8080 --check http://10.0.0.7:8080/health -- ./server
  tenure join workers --meta version=1.9 --zone eu-1a  a member until interrupted; prints its id
  tenure join web --check ttl:10s -- ./server          a member that has to say it is well

Checks move the member between passing, warning (HTTP status 429) and critical. A member with a tcp
or http check is critical until the first look, which counts at once. It is the daemon that looks,
with --store this process. With ttl the command itself tells that it is well at least so often, as
services tell systemd's watchdog: `WATCHDOG=1` to the socket that NOTIFY_SOCKET names
(`systemd-notify WATCHDOG=1` does it); whatever listened there before is told, too.

A membership is lost when the daemon goes away or is cut off from the store for longer than the
lease. The command does not depend on it as on a lock, so by default it runs on and the member joins
again as soon as that can be done (--on-lost rejoin). `term` and `kill` stop the command as
`tenure lock` does, and `ignore` lets it run on without being a member.

An id that somebody has is waited for, since one that crashed has it until its lease has run out:
for one lease and 2s, or as -w says.

Exit code:
  the command's own, or 128 + the signal that ended it; 0 left after a signal, without a command;
  64 wrong usage; 75 the id was not free (see -E); 79 stopped because the membership was lost
  (--on-lost term, kill); 125 Tenure failed; 126 the command cannot be executed; 127 it was not
  found.

Environment of the command:
  TENURE_GROUP   the group's name
  TENURE_MEMBER  the member's id
  TENURE_SOCKET  the daemon's socket; with --store it is left as it was

Signals and the terminal are as `tenure lock --help` has them. INT, TERM and QUIT make the member
draining, so that it gets no new work while the command ends; the group is left when it has. If tenure is killed with KILL the command is killed too, and the member is gone at once
through the daemon, after its lease with --store.
";

/// What to do when the membership is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum OnLost {
    /// Say so, and join again
    #[default]
    Rejoin,
    /// Stop the command: TERM, then KILL
    Term,
    /// Stop the command: KILL
    Kill,
    /// Say so, and let the command run on
    Ignore,
}

/// What is asked of the place where the group is kept.
#[derive(Debug)]
struct Request {
    group: String,
    id: String,
    address: Option<String>,
    zone: Option<String>,
    weight: Option<u32>,
    metadata: BTreeMap<String, String>,
    value: Option<String>,
    checks: Vec<Spec>,
    looks: Looks,
    lease: Option<Duration>,
    label: String,
}

/// A membership that can be told that the command is well.
trait Joining: Held {
    fn beater(&self) -> Beater;
}

/// How a membership is reached while a command runs.
#[derive(Clone, Debug)]
enum Beater {
    Member(tenure::Member),
    Lease(Arc<Client>, String),
}

/// How to be a member, beside what others see of it.
struct Plan<'a> {
    request: &'a Request,
    lease: &'a keep::Lease,
    on_lost: OnLost,
    command: &'a [OsString],
    patience: Patience,
    conflict: u8,
    /// How the command tells that it is well, and how often it has to.
    beats: Option<(Beats, Duration)>,
}

fn id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > tenure::membership::MAX_ID || text.contains('.') || tenure_kv::Key::new(text).is_err() {
        let most = tenure::membership::MAX_ID;
        return Err(format!("an id has 1 to {most} letters, digits, - / _ ="));
    }
    Ok(text.to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// An id that nobody else has, which says where the member is.
fn own_id() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().take(64).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}-{}", random.get(..8).unwrap_or_default())
}

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    keep::store::check_name("group name", &args.group)?;
    keep::store::check_lease(args.lease.lease)?;
    let ttl = args.checks.iter().filter_map(|spec| spec.ttl).min();
    if args.command.is_empty() {
        let needs =
            |what| Failure::usage(format!("{what} needs a command; write `tenure join GROUP [OPTIONS] -- COMMAND [ARGS]`"));
        if ttl.is_some() {
            return Err(needs("--check ttl"));
        }
        if args.on_lost == OnLost::Ignore {
            return Err(needs("--on-lost ignore"));
        }
    }
    let request = Request {
        group: args.group,
        id: args.id.unwrap_or_else(own_id),
        address: args.addr,
        zone: args.zone,
        weight: args.weight,
        metadata: args.metadata.into_iter().collect(),
        value: args.value,
        checks: args.checks,
        looks: args.looks,
        lease: args.lease.lease,
        label: args.lease.label(&args.command),
    };
    let beats = ttl.map(|ttl| Beats::open().map(|beats| (beats, ttl))).transpose();
    let beats = beats.map_err(|error| Failure::failed(format_args!("cannot make a socket for the beats: {error}")))?;
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    let mut plan = Plan {
        request: &request,
        lease: &args.lease,
        on_lost: args.on_lost,
        command: &args.command,
        patience: Patience::Once,
        conflict: args.conflict,
        beats,
    };
    // Unless told: as long as the janitors take to remove one that crashed, with the longest default lease.
    let wait = args.wait.unwrap_or(request.lease.unwrap_or(Duration::from_secs(15)) + Duration::from_secs(2));
    match &args.place.store {
        Some(url) => {
            let source = interruptible(&mut signals, store::open(url, &request)).await?;
            plan.patience = patience(args.no_wait, wait);
            be_a_member(source, &plan, signals).await
        }
        None => {
            let source = interruptible(&mut signals, socket::open(args.place.socket.path(), &request)).await?;
            plan.patience = patience(args.no_wait, wait);
            be_a_member(source, &plan, signals).await
        }
    }
}

fn patience(no_wait: bool, wait: Duration) -> Patience {
    if no_wait { Patience::Once } else { Patience::Until(BootClock.now() + wait) }
}

async fn be_a_member<S: Source<Held: Joining>>(mut source: S, plan: &Plan<'_>, mut signals: Signals) -> Result<End, Failure> {
    let joined = tokio::select! {
        biased;
        signal = signals.next_that_ends() => Err(if plan.command.is_empty() {
            Ok(left(signal.as_raw()))
        } else {
            keep::interrupted(signal.as_raw())
        }),
        joined = join(&mut source, plan) => joined.map_err(Err),
    };
    let ended = match joined {
        Err(ended) => ended,
        Ok(held) => stay::stay(&mut source, held, plan, &mut signals).await,
    };
    tokio::select! {
        biased;
        _ = signals.next_that_ends() => {}
        () = source.close() => {}
    }
    ended
}

/// The pause before an id that somebody has is asked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// Joins, waiting for the id if somebody has it.
async fn join<S: Source>(source: &mut S, plan: &Plan<'_>) -> Result<S::Held, Failure> {
    let mut told = false;
    loop {
        let who = match source.acquire(plan.patience).await {
            Ok(held) => return Ok(held),
            Err(Refused::Failed(failure)) => return Err(failure),
            Err(Refused::Taken(who)) => who,
            Err(Refused::Busy(_)) => "the id is taken".to_owned(),
        };
        let left = plan.patience.left().unwrap_or(AGAIN);
        if left.is_zero() {
            return Err(Failure::new(plan.conflict, format!("{who}; choose another --id, or wait longer with -w")));
        }
        if !std::mem::replace(&mut told, true) {
            say(&format!("{who}; waiting until it is free"));
        }
        tokio::time::sleep(left.min(AGAIN)).await;
    }
}

/// The end of a member without a command, by a signal: that is how it is meant to end.
fn left(signal: i32) -> End {
    let typed = run::at_terminal_of_a_shell() && run::is_typed(signal);
    End { code: 0, signal: typed.then_some(signal) }
}
