//! Three processes and a job that runs once per round, only on the leader, whoever dies.
//!
//! ```text
//! cargo run --release --example singleton_job
//! cargo run --release --example singleton_job -- --store nats://localhost/jobs
//! ```
//!
//! The story is told in [`tenure_examples::singleton_job`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tenure_examples::singleton_job::main()
}
