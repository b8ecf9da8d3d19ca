//! What cross-crate tests and benchmarks share: real NATS servers on this machine, and the
//! promises of the locks as tests.

mod nats_binary;
mod nats_node;
mod nats_server;
pub mod promises;
mod proxy;

pub use nats_binary::{nats_server_before, nats_server_binary, nats_server_newest};
pub use nats_server::{NatsCluster, NatsServer, NatsSetup, unique_bucket};
pub use proxy::Proxy;
