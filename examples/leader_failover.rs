//! Three processes campaign; the leader is killed or stopped again and again, and another takes over.
//!
//! ```text
//! cargo run --release --example leader_failover
//! cargo run --release --example leader_failover -- --store nats://localhost/leaders --lease 300ms
//! ```
//!
//! The story is told in [`tenure_examples::leader_failover`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tenure_examples::leader_failover::main()
}
