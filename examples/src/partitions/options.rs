//! The command line, of the director and of the workers it starts.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, ValueEnum};

use crate::stage::Way;

/// Worker processes share partitions that move as workers join, leave and are killed.
#[derive(Clone, Debug, Parser)]
#[command(name = "partitions")]
pub(super) struct Options {
    /// Where the group lives: nats://HOST/BUCKET, file:PATH or memory: [default: a file: store in a temporary directory]
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<String>,

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

    /// Print one JSON object at the end, and nothing on the way
    #[arg(long)]
    pub(super) json: bool,

    /// Break a rule on purpose, to see the check fail
    #[arg(long, hide = true)]
    pub(super) sabotage: Option<Sabotage>,

    /// Which process this is
    #[arg(long, hide = true, requires_all = ["name", "run", "dir"])]
    pub(super) role: Option<Role>,

    /// What this process is called
    #[arg(long, hide = true)]
    pub(super) name: Option<String>,

    /// The name of this run
    #[arg(long, hide = true)]
    pub(super) run: Option<String>,

    /// The directory of this run
    #[arg(long, hide = true)]
    pub(super) dir: Option<PathBuf>,
}

impl Options {
    /// How this process, which the director started, reaches the store.
    pub(super) fn way(&self) -> Way {
        Way::to(self.store.as_deref(), self.dir.as_deref().unwrap_or(Path::new(".")))
    }
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
