//! The servers that other tests rely on: they start, restart with their data, and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use tenure_tests::{NatsCluster, NatsServer, nats_server_binary};

fn config(replicas: usize) -> jetstream::stream::Config {
    jetstream::stream::Config { name: "KV_t".into(), subjects: vec!["t".into()], num_replicas: replicas, ..Default::default() }
}

#[tokio::test]
async fn a_server_restarts_with_its_data() {
    let mut server = NatsServer::start().await;
    let js = jetstream::new(async_nats::connect(server.client_url()).await.unwrap());
    js.create_stream(config(1)).await.unwrap();
    js.publish("t", "one".into()).await.unwrap().await.unwrap();
    server.restart().await;
    let js = jetstream::new(async_nats::connect(server.client_url()).await.unwrap());
    assert_eq!(js.get_stream("KV_t").await.unwrap().cached_info().state.messages, 1);
}

#[tokio::test]
async fn a_cluster_survives_its_leader() {
    let mut cluster = NatsCluster::start(3).await;
    let js = jetstream::new(async_nats::connect(cluster.client_urls()).await.unwrap());
    js.create_stream(config(3)).await.unwrap();
    js.publish("t", "one".into()).await.unwrap().await.unwrap();
    let first = cluster.leader("t").await;
    cluster.kill(first);
    let second = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let leader = cluster.leader("t").await;
            if leader != first {
                return leader;
            }
        }
    })
    .await
    .unwrap();
    cluster.restart(first).await;
    assert_ne!(first, second);
}

/// Runs itself again as a child that starts a shared server (which is never dropped) and then dies by
/// SIGKILL; the server must go too.
#[tokio::test]
async fn a_server_dies_with_its_test() {
    if std::env::var_os("TENURE_TEST_CHILD").is_some() {
        println!("url={} ", NatsServer::shared().await.client_url());
        nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_server_dies_with_its_test", "--nocapture"])
        .env("TENURE_TEST_CHILD", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    let url = text.split("url=").nth(1).unwrap_or_else(|| panic!("{text}")).split_whitespace().next().unwrap();
    let address = url.trim_start_matches("nats://").to_owned();
    let begun = Instant::now();
    while std::net::TcpStream::connect(&address).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the server at {address} outlived its test");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn the_binary_is_found() {
    let binary = nats_server_binary().unwrap();
    assert!(binary == Path::new("nats-server") || binary.exists());
}
