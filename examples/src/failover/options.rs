//! The command line, of the director and of the processes it starts.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use super::shared_file::Sabotage;

/// One lock, several processes that die and stall, one shared file that stays whole.
///
/// Starts a daemon and workers, kills and pauses lock holders, prints each hand-over and every stale write
/// refused, and checks at the end that no two holders overlapped, that tokens strictly increase and that
/// nothing was lost.
#[derive(Clone, Debug, Parser)]
#[command(name = "failover")]
pub(super) struct Options {
    /// Where the lock lives: memory:, file:PATH or nats://HOST/BUCKET [default: a file: store in a temporary directory]
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<String>,

    /// How many worker processes compete for the lock
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=100))]
    pub(super) workers: u16,

    /// How long it goes on
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,

    /// How long a crash of the daemon would keep the lock
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = lease)]
    pub(super) lease: Duration,

    /// How long a silent worker keeps the lock [default: a quarter of the lease, at least 200ms]
    #[arg(long, value_name = "DURATION", value_parser = heartbeat)]
    pub(super) heartbeat: Option<Duration>,

    /// Print one JSON object at the end, and nothing on the way
    #[arg(long)]
    pub(super) json: bool,

    /// Keep the shared file and the store
    #[arg(long)]
    pub(super) keep: bool,

    /// Break a rule on purpose, to see the check fail
    #[arg(long, hide = true)]
    pub(super) sabotage: Option<Sabotage>,

    /// Which process this is
    #[arg(long, hide = true, requires_all = ["dir", "run"])]
    pub(super) role: Option<Role>,

    /// The directory of this run
    #[arg(long, hide = true)]
    pub(super) dir: Option<PathBuf>,

    /// The name of this run
    #[arg(long, hide = true)]
    pub(super) run: Option<String>,
}

/// What a process started by the director is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// The daemon that the workers talk to.
    Daemon,
    /// One of those who want the lock.
    Worker,
}

impl Options {
    /// How long a silent worker keeps the lock.
    pub(super) fn heartbeat(&self) -> Duration {
        self.heartbeat.unwrap_or_else(|| (self.lease / 4).max(Duration::from_millis(200)))
    }
}

/// Where the processes of one run meet.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) run: String,
}

impl Place {
    /// Where the director told this process to go.
    pub(super) fn of(options: &Options) -> Result<Self, &'static str> {
        match (&options.dir, &options.run) {
            (Some(dir), Some(run)) => Ok(Self { dir: dir.clone(), run: run.clone() }),
            _ => Err("--role is for processes that the director starts; leave it out"),
        }
    }

    /// The daemon's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("tenured.sock")
    }

    /// The shared file.
    pub(super) fn shared_file(&self) -> PathBuf {
        self.dir.join("shared.jsonl")
    }

    /// The store of a run that was not given one.
    pub(super) fn store(&self) -> String {
        format!("file:{}", self.dir.join("store").display())
    }

    /// The lock, one per run: others may use the same bucket.
    pub(super) fn lock(&self) -> String {
        format!("failover.{}", self.run)
    }

    /// Where holders put the total in the store.
    pub(super) fn key(&self) -> String {
        format!("failover.{}.total", self.run)
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    between(text, tenure::MIN_LEASE, tenure::MAX_LEASE)
}

fn heartbeat(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(100), Duration::from_secs(3_600))
}

fn between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 2s or 500ms"))?;
    if duration < least || duration > most {
        let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
        return Err(format!("it lies between {least} and {most}"));
    }
    Ok(duration)
}
