//! The conformance suite over NATS: one server, and a bucket with three replicas on three servers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use tenure_kv::Store;
use tenure_tests::{NatsCluster, NatsServer, unique_bucket};

async fn single() -> Arc<dyn Store> {
    tenure_kv::open(&NatsServer::shared().await.url(&unique_bucket("suite"))).await.unwrap()
}

async fn replicated() -> Arc<dyn Store> {
    tenure_kv::open(&NatsCluster::shared().await.url(&unique_bucket("suite"))).await.unwrap()
}

mod on_one_server {
    tenure_kv::conformance_tests!(super::single());
}

mod on_three_servers {
    tenure_kv::conformance_tests!(super::replicated());
}
