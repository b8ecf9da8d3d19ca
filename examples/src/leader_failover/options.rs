//! The command line, of the director and of the processes it starts.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::stage::Setting;

/// Three processes campaign; the leader is killed or stopped again and again, and another takes over.
#[derive(Clone, Debug, Parser)]
#[command(name = "leader_failover")]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) setting: Setting,

    /// How many processes campaign
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=50))]
    pub(super) candidates: u16,

    /// How often a leader is killed or stopped, in turn
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=10_000))]
    pub(super) rounds: u16,

    /// How long a leader that is silent keeps the office
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
    Candidate,
}

/// How leaders misbehave, to prove that the check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sabotage {
    /// They write without their term.
    NoFence,
}
