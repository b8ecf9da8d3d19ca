//! `tenure wait`: until somebody leads, a lock is free, or a key has a value.

use std::time::Duration;

use serde_json::Value as Json;
use tenure_kv::{BootClock, Clock};

use super::{
    End, Socket,
    daemon::Daemon,
    exit::{self, Failure},
    keep::{Patience, interject, store::check_name},
    live::until_interrupted,
    refusal,
    run::Signals,
    say::{say, span},
    time,
};
use crate::{
    CallError,
    protocol::{ElectionLeader, ElectionName, Happening, Kind, KvEntry, KvGet, KvWatch, LockGet, LockView},
};

/// Wait until an election has a leader, a lock is free, or a key has a value
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// What to wait for
    #[arg(value_enum)]
    what: What,

    /// Name of the election, the lock or the key
    name: String,

    /// Wait at most this long, such as 30s; 0s looks once [default: for ever]
    #[arg(short = 'w', long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,

    /// Exit code when that was in vain
    #[arg(short = 'E', long = "conflict-exit-code", value_name = "CODE", default_value_t = exit::NOT_ACQUIRED)]
    conflict: u8,

    /// The key is one of this key-value bucket instead of the coordination bucket
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,

    /// Say nothing when it was in vain
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    socket: Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Until somebody leads the election
    Leader,
    /// Until nobody holds the lock
    Lock,
    /// Until the key has a value
    Key,
}

const MORE: &str = "\
Examples:
  tenure wait leader scheduler --timeout 1m && ./client
  tenure wait key config/ready && tenure kv get config/color --raw
  tenure wait key schema --bucket settings       another bucket, made with `nats kv add settings`
  tenure wait lock nightly --timeout 0s || echo 'a backup runs'

Nothing is printed. What was waited for may be over again by the time the next command runs: to do
something while a lock is yours use `tenure lock`.

A daemon that goes away meanwhile is waited for, as long as --timeout allows. What comes and goes again in
the meantime is not noticed.

Exit code:
  0   it is so
  64  wrong usage
  75  not within --timeout (see -E)
  125 Tenure failed: no daemon, no such bucket
  128 + the signal that ended the wait
";

/// The first pause before another look.
const SHORTEST: Duration = Duration::from_millis(20);
/// The pause between two looks when nothing has come of many.
const LONGEST: Duration = Duration::from_millis(500);

/// What came of one look.
enum Look {
    Yes,
    No,
    /// The store is out of reach.
    Blind(String),
    Gone,
}

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    let subject = match args.what {
        What::Leader => "election name",
        What::Lock => "lock name",
        What::Key => "key",
    };
    check_name(subject, &args.name)?;
    if let Some(bucket) = &args.bucket {
        if args.what != What::Key {
            return Err(Failure::usage("--bucket is for keys: write `tenure wait key KEY --bucket NAME`"));
        }
        tenure_kv::check_bucket(bucket).map_err(|error| Failure::usage(error.to_string()))?;
    }
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    until_interrupted(&mut signals, wait(&args)).await
}

async fn wait(args: &Args) -> Result<End, Failure> {
    let patience = match args.timeout {
        Some(Duration::ZERO) => Patience::Once,
        Some(timeout) => Patience::Until(BootClock.now() + timeout),
        None => Patience::Forever,
    };
    let daemon = Daemon::at(&args.socket).await?;
    let mut pause = SHORTEST;
    let mut blind = None;
    loop {
        match look(&daemon, args).await? {
            Look::Yes => return Ok(0.into()),
            Look::No => blind = None,
            Look::Blind(why) => {
                if blind.is_none() && patience.left() != Some(Duration::ZERO) {
                    say(&format!("{why}; looking again"));
                }
                blind = Some(why);
            }
            Look::Gone if matches!(patience, Patience::Once) => {
                return Err(Failure::failed("tenured closed the connection; see its log, and try again"));
            }
            Look::Gone => {
                interject(&format!("tenured went away while {} was waited for; waiting for the next one", args.name));
                daemon.reconnect(patience).await?;
                continue;
            }
        }
        let left = patience.left();
        if left == Some(Duration::ZERO) {
            return Err(blind.map_or_else(|| in_vain(args), Failure::failed));
        }
        let limit = left.unwrap_or(Duration::MAX);
        if blind.is_none()
            && let Ok(told) = tokio::time::timeout(limit, until_told(&daemon, args)).await
            && told?
        {
            return Ok(0.into());
        }
        tokio::time::sleep(pause.min(patience.left().unwrap_or(pause))).await;
        pause = (pause * 2).min(LONGEST);
    }
}

fn in_vain(args: &Args) -> Failure {
    if args.quiet {
        return Failure::silent(args.conflict);
    }
    let state = match args.what {
        What::Leader => "has no leader",
        What::Lock => "is held",
        What::Key => "has no value",
    };
    let within = match args.timeout {
        Some(Duration::ZERO) | None => String::new(),
        Some(time) => format!(" after {}", span(time)),
    };
    let message = format!("{} {state}{within}; try again later, or wait longer with --timeout", args.name);
    Failure::new(args.conflict, message)
}

async fn look(daemon: &Daemon, args: &Args) -> Result<Look, Failure> {
    let name = args.name.clone();
    let (method, params) = match args.what {
        What::Leader => ("election.leader", serde_json::json!(ElectionName { name })),
        What::Lock => ("lock.get", serde_json::json!(LockGet { name })),
        What::Key => ("kv.get", serde_json::json!(KvGet { key: name, bucket: args.bucket.clone(), revision: None })),
    };
    let client = daemon.client();
    let answer = tokio::time::timeout(super::daemon::PATIENCE, client.call(method, params)).await;
    match answer.map_err(|_| super::daemon::unanswered(daemon.path()))? {
        Ok(told) => match is_so(args.what, told) {
            Ok(true) => Ok(Look::Yes),
            Ok(false) => Ok(Look::No),
            Err(error) => Err(Failure::failed(format_args!("tenured: {error}"))),
        },
        Err(CallError::Closed) => Ok(Look::Gone),
        Err(error) if is_passing(&error) => Ok(Look::Blind(format!("tenured: {error}"))),
        Err(error) => Err(refusal::failure(method, &error)),
    }
}

fn is_so(what: What, told: Json) -> serde_json::Result<bool> {
    Ok(match what {
        What::Leader => serde_json::from_value::<ElectionLeader>(told)?.leader.is_some(),
        // Between two holders nobody holds it, and it is not free.
        What::Lock => {
            let lock: LockView = serde_json::from_value(told)?;
            lock.holder.is_none() && lock.waiters.is_empty()
        }
        What::Key => serde_json::from_value::<KvEntry>(told)?.entry.is_some(),
    })
}

/// Waits until the daemon tells that it is so; false when it has no more to tell, or hears nothing of the store itself.
/// What is so already is told first, so nothing is missed between a look and this.
async fn until_told(daemon: &Daemon, args: &Args) -> Result<bool, Failure> {
    let name = args.name.clone();
    let (method, params) = match args.what {
        What::Lock => ("lock.observe", serde_json::json!(LockGet { name })),
        What::Leader => ("election.observe", serde_json::json!(ElectionName { name })),
        What::Key => {
            let watch = KvWatch { key: Some(name), bucket: args.bucket.clone(), ..KvWatch::default() };
            ("kv.watch", serde_json::json!(watch))
        }
    };
    let client = daemon.client();
    let answer = tokio::time::timeout(super::daemon::PATIENCE, client.subscribe(method, params)).await;
    let mut events = match answer.map_err(|_| super::daemon::unanswered(daemon.path()))? {
        Ok(events) => events,
        // The next look says so.
        Err(CallError::Closed) => return Ok(false),
        // Looking still tells.
        Err(error) if is_passing(&error) => return Ok(false),
        Err(error) => return Err(refusal::failure(method, &error)),
    };
    while let Some(what) = events.recv().await {
        match what {
            Happening::Leader { leader: Some(_) } | Happening::Put { .. } => return Ok(true),
            Happening::Lock(lock) if lock.holder.is_none() && lock.waiting == 0 => return Ok(true),
            // A watch of keys tells a gap when it is over, and what changed in it afterwards.
            Happening::Gap {} if args.what != What::Key => return Ok(false),
            Happening::End { .. } => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

/// Whether asking again may do.
fn is_passing(error: &CallError) -> bool {
    matches!(error.kind(), Some(Kind::Unavailable | Kind::UnknownOutcome | Kind::Limit))
}
