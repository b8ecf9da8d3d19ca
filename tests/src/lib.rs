//! What cross-crate tests and benchmarks share: real NATS servers on this machine, and the
//! promises of the locks as tests.

mod nats_binary;
mod nats_server;
pub mod promises;
mod proxy;

pub use nats_binary::nats_server_binary;
pub use nats_server::{NatsCluster, NatsServer, unique_bucket};
pub use proxy::Proxy;
