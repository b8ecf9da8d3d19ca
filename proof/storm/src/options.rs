//! How one history is to be.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// What the clients' store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// One NATS server.
    R1,
    /// Three NATS servers.
    R3,
    /// A file, behind a daemon.
    File,
    /// The memory of a daemon.
    Memory,
}

impl Store {
    /// By how many microseconds its reads may lag where nothing is wrong: any of three servers answers.
    pub(crate) const fn lag(self) -> u64 {
        match self {
            Self::R3 => 100_000,
            Self::R1 | Self::File | Self::Memory => 0,
        }
    }

    /// As the head of a history calls it.
    pub(crate) const fn in_history(self) -> &'static str {
        match self {
            Self::R1 => "nats-r1",
            Self::R3 => "nats-r3",
            Self::File => "file",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::R1 => "r1",
            Self::R3 => "r3",
            Self::File => "file",
            Self::Memory => "memory",
        })
    }
}

impl FromStr for Store {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::R1, Self::R3, Self::File, Self::Memory]
            .into_iter()
            .find(|store| store.to_string() == text)
            .ok_or_else(|| format!("{text:?} is no store; there are r1, r3, file and memory"))
    }
}

/// What is done to the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Faults {
    /// Nothing.
    None,
    /// Whatever keeps what was acknowledged: everything but rollback and recreate, and kill-alone, which nothing goes with.
    Mixed,
    /// Only these, by the names of [`crate::TROUBLES`].
    Only(Vec<String>),
}

impl Faults {
    /// Whether the fault called `name` is done.
    pub(crate) fn include(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Mixed => !matches!(name, "rollback" | "recreate" | "kill-alone"),
            Self::Only(names) => names.iter().any(|one| one == name),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Mixed => f.write_str("mixed"),
            Self::Only(names) => f.write_str(&names.join(",")),
        }
    }
}

impl FromStr for Faults {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Self::None),
            "mixed" => return Ok(Self::Mixed),
            _ => {}
        }
        let names: Vec<_> = text.split(',').map(str::to_owned).collect();
        match names.iter().find(|name| !crate::TROUBLES.contains(&name.as_str())) {
            Some(wrong) => Err(format!("{wrong:?} is no fault; there are none, mixed, and {}", crate::TROUBLES.join(", "))),
            None => Ok(Self::Only(names)),
        }
    }
}

/// One history.
#[derive(Clone, Debug)]
pub struct Options {
    /// The store.
    pub store: Store,
    /// How long faults are done; the calm after them is on top.
    pub span: Duration,
    /// How long it is calm after the faults; as long as it takes to see that everything converges if it is not told.
    pub calm: Option<Duration>,
    /// What everything is drawn from.
    pub seed: u64,
    /// What is done.
    pub faults: Faults,
    /// So many client processes at a time.
    pub clients: usize,
    /// The lease; drawn from the seed if there is none.
    pub lease: Option<Duration>,
    /// All pauses are so many times as long as usual: longer for what is to last long, shorter for many operations.
    pub pace: f64,
    /// Where everything is left: tapes, the history, logs.
    pub out: PathBuf,
    /// The tapes are left there even if nothing is wrong.
    pub keep: bool,
}
