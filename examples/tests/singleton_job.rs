//! The singleton job example as a program: it passes, it fails when a rule is broken, and it leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod support;

use support::{broken, interrupt, refused, summary};
use tenure_tests::{NatsServer, unique_bucket};

#[tokio::test]
async fn every_round_runs_once_whoever_dies() {
    let server = NatsServer::start().await;
    let (code, summary) = summary("singleton_job", &["--seconds", "3", "--store", &server.url(&unique_bucket("jobs"))]);
    assert_eq!((code, broken(&summary)), (Some(0), vec![]), "{summary:#}");
    assert_eq!(summary["take_overs"].as_array().unwrap().len(), 2, "{summary:#}");
    assert!(summary["jobs"].as_u64() > Some(6), "{summary:#}");
}

#[tokio::test]
async fn where_everyone_runs_the_job_the_check_fails() {
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("jobs"));
    let (code, summary) = summary("singleton_job", &["--seconds", "3", "--store", &store, "--sabotage", "everyone"]);
    assert_eq!(code, Some(1), "{summary:#}");
    assert!(broken(&summary).contains(&"no round ran twice"), "{summary:#}");
}

#[tokio::test]
async fn an_interrupt_ends_everybody() {
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("jobs"));
    interrupt("singleton_job", &["--seconds", "60", "--store", &store], "leads in term", "ended 3 workers", &store);
}

#[test]
fn wrong_usage_is_one_clear_error() {
    refused("singleton_job", &[], 64, "--store");
    refused("singleton_job", &["--store", "memory:"], 2, "only one process");
    refused("singleton_job", &["--store", "nats://x/y", "--round", "1ms"], 64, "between 100ms and 1h");
    refused("singleton_job", &["--store", "nats://x/y", "--role", "worker"], 64, "--name");
}
