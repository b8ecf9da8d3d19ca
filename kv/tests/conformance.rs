//! The conformance suite over the stores that need no server, bare and wrapped.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use tenure_kv::{
    Key, Store,
    conformance::buckets::Tested,
    faults::{Fault, Faults, Faulty, Rule},
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

/// The range of a store that stands for a bucket.
fn range(store: Arc<dyn Store>) -> Tested {
    Tested::range(store, Key::new("bucket.b").unwrap())
}

mod bucket_on_memory {
    tenure_kv::bucket_conformance_tests!(async { super::range(super::memory().await) });
}

mod bucket_on_a_wrapped_store {
    tenure_kv::bucket_conformance_tests!(async {
        let (store, faults) = super::wrapped().await;
        (super::range(store), faults)
    });
}

mod bucket_on_file {
    tenure_kv::bucket_conformance_tests!(async { super::range(super::file("").await) });
}

/// The whole suite at once on one store: the behaviours keep out of each other's way.
#[tokio::test(flavor = "multi_thread")]
async fn all_at_once_on_one_store() {
    for store in [memory().await, file("").await] {
        tenure_kv::conformance::all(&store).await;
    }
}

/// A wrapper whose requests and answers are slow by chance and whose streams are cut all the time keeps
/// the contract to the letter: what it does to a store is bad luck, never a lie.
#[tokio::test(flavor = "multi_thread")]
async fn all_at_once_in_rough_weather() {
    for store in [memory().await, file("").await] {
        let (store, faults) = Faulty::new(store);
        let store: Arc<dyn Store> = store;
        faults.add(Rule::new(Fault::DelayBefore(Duration::from_millis(2))).chance(0.05));
        faults.add(Rule::new(Fault::DelayAfter(Duration::from_millis(2))).chance(0.05));
        let mut cuts = 0;
        let storm = async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                cuts += faults.cut("");
            }
        };
        tokio::select! {
            () = tenure_kv::conformance::all(&store) => {}
            () = storm => {}
        }
        assert!(cuts > 100, "only {cuts} streams were cut");
        faults.clear();
        faults.settle().await;
    }
}
