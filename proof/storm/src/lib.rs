//! Breaks Tenure on real servers with real faults, records what its clients see, and has the history checked.
//!
//! A *history* is one run: servers, a daemon where the store needs one, and client processes that use everything
//! Tenure has, all at once, while a *director* kills, stops, cuts off and fills up whatever it can. Everybody writes
//! down what happens on the machine's one boot-time clock; the director merges that, adds its faults and the
//! bucket's own stream, and asks `tenure-check`.

pub mod client;
mod clock;
pub mod command;
mod crew;
pub mod daemon;
mod faults;
mod growth;
mod night;
mod options;
mod order;
mod record;
mod run;
mod soak;
mod socket;
mod stage;
mod stream;
mod tape;
mod totals;
mod values;
mod verdicts;

pub use crew::Program;
pub use faults::TROUBLES;
pub use night::{Night, Nightly, night};
pub use options::{Faults, Options, Store};
pub use order::{Field, Order, Way};
pub use run::{Verdict, run};
pub use soak::{Soaked, soak};
pub use totals::Totals;

/// Why a history could not be recorded, in a sentence.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;
