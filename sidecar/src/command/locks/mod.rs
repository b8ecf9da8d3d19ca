//! `tenure locks`: who holds what, who waits, and the end of a hold by force.

use std::{io::IsTerminal, time::Duration};

use serde_json::Value;

use super::{
    End, Socket,
    daemon::Daemon,
    exit::{self, Failure},
    keep::{Person, store::check_name},
    output::{Cell, Column, Format, Printer},
    say::{raw, say, span},
};
use crate::protocol::{LockBreak, LockGet, LockList, LockView, Owner};

/// See who holds which lock and who waits for it, and break a hold
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

const MORE: &str = "\
Examples:
  tenure locks ls
  tenure locks show nightly -o json | jq .holder
  tenure locks break nightly --fence 42

A lock is nothing but who holds it and who waits: one that is free is not there.

Exit code:
  0   done
  1   nobody holds the lock or waits for it (show); the question was answered with no (break)
  64  wrong usage
  73  conflict, nothing was broken: the lock is not held, or not with this token
  74  unknown: nobody said whether the hold was broken; see `tenure locks show`
  77  denied: breaking is for root and for the user who runs the daemon
  125 Tenure failed: no daemon, the store is out of reach
";

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the locks that somebody holds or waits for
    #[command(after_help = "Example:\n  tenure locks ls deploy. -o jsonl")]
    Ls(List),

    /// Show who holds a lock, and who waits in which order
    #[command(after_help = "Example:\n  tenure locks show nightly -o json | jq .holder.fence")]
    Show(Show),

    /// End somebody's hold: the next one is granted at once, while the work of the former may go on
    #[command(
        after_help = "Example:\n  tenure locks break nightly --fence \"$(tenure locks show nightly -o json | jq .holder.fence)\"\n\n\
        A holder that is well hears of it and stops; what it writes is refused where it is fenced. One that\n\
        has crashed needs no breaking: its hold ends with its lease."
    )]
    Break(Break),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only locks whose name begins with this
    prefix: Option<String>,

    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Name of the lock
    name: String,

    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, clap::Args)]
struct Break {
    /// Name of the lock
    name: String,

    /// The fencing token of the hold to break, as `show` has it, and of no other
    #[arg(long, value_name = "N")]
    fence: u64,

    /// Do not ask; where standard input is no terminal nothing is asked
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    socket: Socket,
}

const LOCKS: [Column; 7] = [
    Column { head: "LOCK", width: 0, right: false },
    Column { head: "TOKEN", width: 0, right: true },
    Column { head: "HOLDER", width: 0, right: false },
    Column { head: "HOST", width: 0, right: false },
    Column { head: "PID", width: 0, right: true },
    Column { head: "FOR", width: 0, right: true },
    Column { head: "WAITING", width: 0, right: true },
];

const QUEUE: [Column; 6] = [
    Column { head: "PLACE", width: 0, right: false },
    Column { head: "TOKEN", width: 0, right: true },
    Column { head: "OWNER", width: 0, right: false },
    Column { head: "HOST", width: 0, right: false },
    Column { head: "PID", width: 0, right: true },
    Column { head: "FOR", width: 0, right: true },
];

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    match args.verb {
        Verb::Ls(args) => list(args).await,
        Verb::Show(args) => show(args).await,
        Verb::Break(args) => break_hold(args).await,
    }
}

async fn list(args: List) -> Result<End, Failure> {
    let daemon = Daemon::at(&args.socket).await?;
    let params = serde_json::json!(LockList { prefix: args.prefix, ..LockList::default() });
    let found: Vec<LockView> = daemon.all("lock.list", params, "locks").await?;
    Printer::new(args.output, &LOCKS).all(&found, |lock| {
        let holder = lock.holder.as_ref().map_or_else(|| vec![Cell::from("-"); 5], owner);
        [vec![Cell::plain(&lock.name)], holder, vec![Cell::plain(lock.waiting())]].concat()
    });
    Ok(0.into())
}

async fn show(args: Show) -> Result<End, Failure> {
    let daemon = Daemon::at(&args.socket).await?;
    let lock = look(&daemon, &args.name).await?;
    let printer = Printer::new(args.output, &QUEUE);
    let queue: Vec<(String, &Owner)> = (lock.holder.iter().map(|holder| ("holds".to_owned(), holder)))
        .chain(lock.waiters.iter().enumerate().map(|(at, waiter)| (format!("waits {}", at + 1), waiter)))
        .collect();
    if queue.is_empty() {
        printer.value(&lock);
        say(&format!("nobody holds {} or waits for it", args.name));
        return Ok(exit::NOT_THERE.into());
    }
    if args.output == Format::Table {
        printer.all(&queue, |(place, who)| [vec![Cell::plain(place)], owner(who)].concat());
    } else {
        printer.value(&lock);
    }
    Ok(0.into())
}

async fn break_hold(args: Break) -> Result<End, Failure> {
    let daemon = Daemon::at(&args.socket).await?;
    check_name("lock name", &args.name)?;
    if !args.yes && std::io::stdin().is_terminal() {
        let holder = look(&daemon, &args.name).await?.holder;
        let Some(holder) = holder.filter(|holder| holder.fence == args.fence) else {
            return Err(stale(&args.name, args.fence));
        };
        if !confirmed(&args.name, holder).await {
            say(&format!("{} was left alone", args.name));
            return Ok(exit::NOT_THERE.into());
        }
    }
    let params = LockBreak { name: args.name.clone(), fence: args.fence };
    let broken: Result<Value, Failure> = daemon.call("lock.break", params).await;
    match broken {
        Ok(_) => Ok(0.into()),
        Err(Failure { code: exit::CONFLICT, .. }) => Err(stale(&args.name, args.fence)),
        Err(failure) => Err(failure),
    }
}

fn stale(name: &str, fence: u64) -> Failure {
    let message = format!("{name} is not held with token {fence}, and was left alone; see `tenure locks show {name}`");
    Failure::new(exit::CONFLICT, message)
}

/// Asks whether to break this hold. Without an answer it is not.
async fn confirmed(name: &str, holder: Owner) -> bool {
    let token = holder.fence;
    raw(&format!("{name} is held by {} with token {token}. Break this hold? [y/N] ", Person::from(holder)));
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_| answer)
    });
    matches!(answer.await, Ok(Ok(answer)) if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

async fn look(daemon: &Daemon, name: &str) -> Result<LockView, Failure> {
    check_name("lock name", name)?;
    daemon.call("lock.get", LockGet { name: name.to_owned() }).await
}

/// Token, label, host, process and age.
fn owner(owner: &Owner) -> Vec<Cell> {
    let since = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(owner.since_ms));
    let age = since.and_then(|since| since.elapsed().ok()).map(span).unwrap_or_default();
    vec![
        Cell::plain(owner.fence),
        Cell::plain(owner.label.as_deref().unwrap_or("-")),
        Cell::plain(&owner.host),
        Cell::plain(owner.pid),
        Cell::plain(age),
    ]
}
