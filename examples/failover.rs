//! Several processes, one lock, one shared file; holders are killed and paused, and the file is checked.
//!
//! ```text
//! cargo run --release --example failover
//! cargo run --release --example failover -- --store nats://localhost/failover
//! ```
//!
//! The story is told in [`tenure_examples::failover`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tenure_examples::failover::main()
}
