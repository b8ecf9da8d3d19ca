//! HTTP servers come, drain and crash; a client balances over them and loses no request.
//!
//! ```text
//! cargo run --release --example service_discovery
//! cargo run --release --example service_discovery -- --store nats://localhost/discovery
//! ```
//!
//! The story is told in [`tenure_examples::service_discovery`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tenure_examples::service_discovery::main()
}
