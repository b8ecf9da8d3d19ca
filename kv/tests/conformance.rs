//! The conformance suite over the stores that need no server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use tenure_kv::Store;

async fn memory() -> Arc<dyn Store> {
    tenure_kv::open("memory:").await.unwrap()
}

mod on_memory {
    tenure_kv::conformance_tests!(super::memory());
}

/// The whole suite at once on one store: the behaviours keep out of each other's way.
#[tokio::test(flavor = "multi_thread")]
async fn all_at_once_on_one_store() {
    tenure_kv::conformance::all(&memory().await).await;
}
