//! The servers that other tests rely on: they start, restart with their data, and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use tenure_tests::{NatsCluster, NatsServer, NatsSetup, nats_server_binary};

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

/// Servers tell each other of the others: none may be reached past its wire, which could not be cut.
#[tokio::test]
async fn wired_servers_know_no_other_way() {
    // Who hears of whom depends on who was up first.
    let start = || NatsCluster::start_as(3, NatsSetup { wired: true, ..NatsSetup::default() });
    let clusters = tokio::join!(start(), start(), start());
    for cluster in [clusters.0, clusters.1, clusters.2] {
        let dirs: Vec<_> = (0..cluster.size()).map(|i| cluster.store_dir(i).parent().unwrap().to_owned()).collect();
        let listening: Vec<_> = dirs
            .iter()
            .map(|dir| {
                let config = std::fs::read_to_string(dir.join("server.conf")).unwrap();
                let (_, port) =
                    config.split_once("listen: \"127.0.0.1:").and_then(|(_, rest)| rest.split_once("listen: \"")).unwrap();
                port.split_once('"').unwrap().0.to_owned()
            })
            .collect();
        for dir in &dirs {
            let log = std::fs::read_to_string(dir.join("server.log")).unwrap();
            let routes: Vec<_> = log.lines().filter(|line| line.contains("Route connection created")).collect();
            assert!(routes.len() > 1, "{log}");
            for port in &listening {
                assert!(
                    !routes.iter().any(|line| line.contains(&format!(" {port} - "))),
                    "{port} was reached past its wire:\n{log}"
                );
            }
        }
    }
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
