//! The command line, of the director and of the workers it starts.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::stage::Setting;

/// Worker processes share partitions that move as workers join, leave and are killed.
#[derive(Clone, Debug, Parser)]
#[command(name = "partitions")]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) setting: Setting,

    /// How many workers there are at the beginning
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=50))]
    pub(super) workers: u16,

    /// How many partitions they share
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(super) partitions: u32,

    /// How long it goes on at least
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,

    /// How long a killed worker keeps its partitions
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
    /// One of those who share the partitions.
    Worker,
}

/// How workers misbehave, to prove that the check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sabotage {
    /// They go on with what they have lost.
    Keep,
}
