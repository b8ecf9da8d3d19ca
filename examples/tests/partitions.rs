//! The partitions example as a program: it passes, it fails when a rule is broken, and it leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{broken, interrupt, kill_the_daemon, refused, summary};
use tenure_tests::{NatsServer, unique_bucket};

#[test]
fn partitions_move_as_workers_join_leave_and_die() {
    all_move(&summary("partitions", &["--seconds", "2"]));
}

#[tokio::test]
async fn partitions_move_as_workers_join_leave_and_die_on_nats() {
    let server = NatsServer::start().await;
    all_move(&summary("partitions", &["--seconds", "2", "--store", &server.url(&unique_bucket("partitions"))]));
}

fn all_move((code, summary): &(Option<i32>, Value)) {
    assert_eq!((*code, broken(summary)), (Some(0), vec![]), "{summary:#}");
    let moves = summary["moves"].as_array().unwrap();
    assert_eq!(moves.len(), 4, "{summary:#}");
    assert!(moves.iter().all(|one| one["moved"].as_u64() > Some(0)), "{summary:#}");
}

#[test]
fn workers_that_keep_what_they_lost_fail_the_check() {
    two_owners(&summary("partitions", &["--seconds", "2", "--sabotage", "keep"]));
}

#[tokio::test]
async fn workers_that_keep_what_they_lost_fail_the_check_on_nats() {
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("partitions"));
    two_owners(&summary("partitions", &["--seconds", "2", "--store", &store, "--sabotage", "keep"]));
}

fn two_owners((code, summary): &(Option<i32>, Value)) {
    assert_eq!(*code, Some(1), "{summary:#}");
    assert!(broken(summary).contains(&"no partition had two owners at once"), "{summary:#}");
}

#[test]
fn more_partitions_than_requests_in_flight_are_shared_over_the_socket() {
    let (code, summary) = summary("partitions", &["--seconds", "1", "--workers", "2", "--partitions", "300"]);
    assert_eq!((code, broken(&summary)), (Some(0), vec![]), "{summary:#}");
}

#[test]
fn an_interrupt_ends_everybody_and_removes_everything() {
    interrupt("partitions", &["--seconds", "60"], "all workers join", "ended 3 workers and the daemon, removed");
}

#[test]
fn a_daemon_that_is_killed_ends_the_run() {
    kill_the_daemon("partitions", &["--seconds", "60"], "all workers join");
}

#[tokio::test]
async fn an_interrupt_ends_everybody_on_nats() {
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("partitions"));
    interrupt("partitions", &["--seconds", "60", "--store", &store], "all workers join", "ended 3 workers, removed");
    // They have left, too.
    let store = tenure_kv::open(&store).await.unwrap();
    let members = tenure_kv::StoreExt::list(&*store, &tenure_kv::KeyRange::new("member.>").unwrap()).await.unwrap();
    assert!(members.is_empty(), "{members:?}");
}

#[test]
fn wrong_usage_is_one_clear_error() {
    refused("partitions", &["--store", "redis://x"], 2, "redis");
    refused("partitions", &["--partitions", "0"], 64, "1..=1024");
    refused("partitions", &["--role", "worker"], 64, "--name");
}
