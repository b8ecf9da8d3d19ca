//! The conformance suite over the stores that need no server, bare and wrapped.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use tenure_kv::{
    Store,
    faults::{Faults, Faulty},
};

async fn memory() -> Arc<dyn Store> {
    tenure_kv::open("memory:").await.unwrap()
}

async fn wrapped() -> (Arc<dyn Store>, Faults) {
    let (store, faults) = Faulty::new(memory().await);
    (store, faults)
}

/// A store in a file whose name is gone already; the file goes with the store.
async fn file(query: &str) -> Arc<dyn Store> {
    let directory = tempfile::tempdir().unwrap();
    tenure_kv::open(&format!("file:{}/store{query}", directory.path().display())).await.unwrap()
}

mod on_memory {
    tenure_kv::conformance_tests!(super::memory());
}

mod on_a_wrapped_store {
    tenure_kv::conformance_tests!(super::wrapped());
}

mod on_file {
    tenure_kv::conformance_tests!(super::file(""));
}

mod on_file_synced_later {
    tenure_kv::conformance_tests!(super::file("?sync=20ms"));
}

/// The whole suite at once on one store: the behaviours keep out of each other's way.
#[tokio::test(flavor = "multi_thread")]
async fn all_at_once_on_one_store() {
    for store in [memory().await, file("").await] {
        tenure_kv::conformance::all(&store).await;
    }
}
