//! The conformance suite over NATS: one server, and a bucket with three replicas on three servers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, kv::Config};
use tenure_kv::{Beside, Key, Op, Store, Ttl, conformance::buckets::Tested};
use tenure_tests::{NatsCluster, NatsServer, unique_bucket};

async fn single() -> Arc<dyn Store> {
    tenure_kv::open(&NatsServer::shared().await.url(&unique_bucket("suite"))).await.unwrap()
}

async fn replicated() -> Arc<dyn Store> {
    tenure_kv::open(&NatsCluster::shared().await.url(&unique_bucket("suite"))).await.unwrap()
}

/// An ordinary bucket as other clients make it, which is opened over the connection of `store`.
async fn beside(urls: Vec<String>, store: Arc<dyn Store>, replicas: usize, history: usize, ttls: bool) -> Tested {
    let nats = jetstream::new(async_nats::connect(urls).await.unwrap());
    let name = unique_bucket("plain");
    let limit_markers = ttls.then(|| Duration::from_secs(60));
    let config = Config {
        bucket: name.clone(),
        history: i64::try_from(history).unwrap(),
        num_replicas: replicas,
        limit_markers,
        ..Config::default()
    };
    let begun = Instant::now();
    while let Err(error) = nats.create_key_value(config.clone()).await {
        assert!(begun.elapsed() < Duration::from_secs(30), "the bucket is not made: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let Beside::There(bucket) = store.bucket(&name).await.unwrap() else { panic!("{name} is not there") };
    Tested { bucket, history, ttls, replicas: u16::try_from(replicas).unwrap() }
}

async fn beside_single(history: usize, ttls: bool) -> Tested {
    beside(NatsServer::shared().await.client_urls(), single().await, 1, history, ttls).await
}

async fn beside_replicated(history: usize, ttls: bool) -> Tested {
    beside(NatsCluster::shared().await.client_urls(), replicated().await, 3, history, ttls).await
}

mod bucket_with_a_history_on_one_server {
    tenure_kv::bucket_conformance_tests!(super::beside_single(5, false));
}

mod bucket_with_ttls_on_one_server {
    tenure_kv::bucket_conformance_tests!(super::beside_single(1, true));
}

mod bucket_on_three_servers {
    tenure_kv::bucket_conformance_tests!(super::beside_replicated(5, false));
}

mod bucket_with_ttls_on_three_servers {
    tenure_kv::bucket_conformance_tests!(super::beside_replicated(1, true));
}

/// Delete markers make every shorter TTL as long as they stay, where older values are kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_that_the_server_would_make_longer_is_refused() {
    let tested = beside_single(5, true).await;
    let create = |key: &str, seconds| Op::put(Key::new(key).unwrap(), "x").if_absent().ttl(Ttl::from_secs(seconds).unwrap());
    let refused = tested.bucket.write(create("short", 59)).await.unwrap_err();
    assert!(refused.is_invalid() && refused.to_string().contains("60 s or more"), "{refused}");
    tested.bucket.write(create("long", 60)).await.unwrap();
}

mod on_one_server {
    tenure_kv::conformance_tests!(super::single());
}

mod on_three_servers {
    tenure_kv::conformance_tests!(super::replicated());
}
