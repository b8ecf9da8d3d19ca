//! The command line, of the director and of the workers it starts.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::stage::Setting;

/// Three processes and a job that runs once per round, only on the leader, whoever dies.
#[derive(Clone, Debug, Parser)]
#[command(name = "singleton_job")]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) setting: Setting,

    /// How many processes there are
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=50))]
    pub(super) workers: u16,

    /// How long it goes on at least
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,

    /// From one round to the next
    #[arg(long, default_value = "250ms", value_name = "DURATION", value_parser = round)]
    pub(super) round: Duration,

    /// How long a killed leader keeps its office
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = crate::stage::lease)]
    pub(super) lease: Duration,

    /// Break a rule on purpose, to see the check fail
    #[arg(long, hide = true)]
    pub(super) sabotage: Option<Sabotage>,

    /// Which process this is
    #[arg(long, hide = true, requires_all = ["name", "run", "dir"])]
    pub(super) role: Option<Role>,
}

/// What a process started by the director is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// The daemon that the others talk to, where they cannot share the store.
    Daemon,
    /// One of those who campaign.
    Worker,
}

/// How workers misbehave, to prove that the check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sabotage {
    /// All run the job, whoever leads.
    Everyone,
}

fn round(text: &str) -> Result<Duration, String> {
    let round = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 2s or 500ms"))?;
    let limits = Duration::from_millis(100)..=Duration::from_secs(3_600);
    if limits.contains(&round) { Ok(round) } else { Err("it lies between 100ms and 1h".to_owned()) }
}
