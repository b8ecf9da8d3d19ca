//! A simulation of processes that use Tenure: one thread, one seed, every primitive at once, and everything that can
//! go wrong. The code under test is Tenure's own; what is simulated is time, the network and the server.
//!
//! Each process has a runtime of its own that runs only when something has happened to it, so a pause is a runtime
//! that is not run, and a crash is one that is dropped. The server behaves as NATS was measured to behave (see
//! `docs/architecture.md`), at its worst: reads lag, answers are lost, requests land late or twice.

mod actors;
mod agenda;
mod bucket;
mod clock;
mod judge;
mod over;
mod plan;
mod process;
mod run;
mod store;
mod stream_record;
mod streams;
mod wire;
mod world;

pub use judge::{Shrunk, Verdict, judge, shrink};
pub use plan::{Plan, Planned};
pub use run::{Played, run};
