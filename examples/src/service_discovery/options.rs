//! The command line, of the director and of the servers it starts.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::stage::Setting;

/// HTTP servers come, drain and crash; a client balances over them and loses no request.
#[derive(Clone, Debug, Parser)]
#[command(name = "service_discovery")]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) setting: Setting,

    /// How many servers there are at the beginning
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=50))]
    pub(super) servers: u16,

    /// How many requests are under way at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(super) clients: u16,

    /// How long it goes on
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(3..=86_400))]
    pub(super) seconds: u64,

    /// How long a crashed server stays in the group
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
    /// An HTTP server of the group.
    Server,
}

/// How servers misbehave, to prove that the check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sabotage {
    /// Servers end at once when they are asked to.
    NoDrain,
}
