//! The singleton job example as a program: it passes, it fails when a rule is broken, and it leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{broken, interrupt, kill_the_daemon, refused, summary};
use tenure_tests::{NatsServer, unique_bucket};

#[test]
fn every_round_runs_once_whoever_dies() {
    runs_once(&summary("singleton_job", &["--seconds", "3"]));
}

#[tokio::test]
async fn every_round_runs_once_whoever_dies_on_nats() {
    let server = NatsServer::start().await;
    runs_once(&summary("singleton_job", &["--seconds", "3", "--store", &server.url(&unique_bucket("jobs"))]));
}

fn runs_once((code, summary): &(Option<i32>, Value)) {
    assert_eq!((*code, broken(summary)), (Some(0), vec![]), "{summary:#}");
    assert_eq!(summary["take_overs"].as_array().unwrap().len(), 2, "{summary:#}");
    assert!(summary["jobs"].as_u64() > Some(6), "{summary:#}");
}

#[test]
fn where_everyone_runs_the_job_the_check_fails() {
    let (code, summary) = summary("singleton_job", &["--seconds", "3", "--sabotage", "everyone"]);
    assert_eq!(code, Some(1), "{summary:#}");
    assert!(broken(&summary).contains(&"no round ran twice"), "{summary:#}");
}

#[test]
fn an_interrupt_ends_everybody_and_removes_everything() {
    interrupt("singleton_job", &["--seconds", "60"], "leads in term", "ended 3 workers and the daemon, removed");
}

#[test]
fn a_daemon_that_is_killed_ends_the_run() {
    kill_the_daemon("singleton_job", &["--seconds", "60"], "leads in term");
}

#[tokio::test]
async fn an_interrupt_ends_everybody_on_nats() {
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("jobs"));
    interrupt("singleton_job", &["--seconds", "60", "--store", &store], "leads in term", "ended 3 workers, removed");
}

#[test]
fn wrong_usage_is_one_clear_error() {
    refused("singleton_job", &["--store", "redis://x"], 2, "redis");
    refused("singleton_job", &["--store", "file:/proc/nothing/here"], 2, "/proc/nothing");
    refused("singleton_job", &["--round", "1ms"], 64, "between 100ms and 1h");
    refused("singleton_job", &["--role", "worker"], 64, "--name");
}
