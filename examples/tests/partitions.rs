//! The partitions example as a program: it passes, it fails when a rule is broken, and it leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod support;

use support::{broken, interrupt, refused, summary};
use tenure_tests::{NatsServer, unique_bucket};

#[tokio::test]
async fn partitions_move_as_workers_join_leave_and_die() {
    let server = NatsServer::start().await;
    let (code, summary) = summary("partitions", &["--seconds", "2", "--store", &server.url(&unique_bucket("partitions"))]);
    assert_eq!((code, broken(&summary)), (Some(0), vec![]), "{summary:#}");
    let moves = summary["moves"].as_array().unwrap();
    assert_eq!(moves.len(), 4, "{summary:#}");
    assert!(moves.iter().all(|one| one["moved"].as_u64() > Some(0)), "{summary:#}");
}

#[tokio::test]
async fn workers_that_keep_what_they_lost_fail_the_check() {
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("partitions"));
    let (code, summary) = summary("partitions", &["--seconds", "2", "--store", &store, "--sabotage", "keep"]);
    assert_eq!(code, Some(1), "{summary:#}");
    assert!(broken(&summary).contains(&"no partition had two owners at once"), "{summary:#}");
}

#[tokio::test]
async fn an_interrupt_ends_everybody() {
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("partitions"));
    interrupt("partitions", &["--seconds", "60", "--store", &store], "all workers join", "ended 3 workers", &store);
    // They have left, too.
    let store = tenure_kv::open(&store).await.unwrap();
    let members = tenure_kv::StoreExt::list(&*store, &tenure_kv::KeyRange::new("member.>").unwrap()).await.unwrap();
    assert!(members.is_empty(), "{members:?}");
}

#[test]
fn wrong_usage_is_one_clear_error() {
    refused("partitions", &[], 64, "--store");
    refused("partitions", &["--store", "memory:"], 2, "only one process");
    refused("partitions", &["--store", "nats://x/y", "--partitions", "0"], 64, "1..=1024");
    refused("partitions", &["--store", "nats://x/y", "--role", "worker"], 64, "--name");
}
