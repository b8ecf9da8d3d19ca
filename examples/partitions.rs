//! Worker processes share partitions that move as workers join, leave and are killed.
//!
//! ```text
//! cargo run --release --example partitions
//! cargo run --release --example partitions -- --store nats://localhost/partitions
//! ```
//!
//! The story is told in [`tenure_examples::partitions`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tenure_examples::partitions::main()
}
