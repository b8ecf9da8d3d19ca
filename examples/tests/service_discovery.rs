//! The service discovery example as a program: it passes, it fails when a rule is broken, and it leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{broken, interrupt, kill_the_daemon, refused, summary};
use tenure_tests::{NatsServer, unique_bucket};

#[test]
fn servers_come_drain_and_crash_and_no_request_is_lost() {
    none_is_lost(&summary("service_discovery", &["--seconds", "6"]));
}

#[tokio::test]
async fn servers_come_drain_and_crash_and_no_request_is_lost_on_nats() {
    let server = NatsServer::start().await;
    none_is_lost(&summary("service_discovery", &["--seconds", "6", "--store", &server.url(&unique_bucket("discovery"))]));
}

fn none_is_lost((code, summary): &(Option<i32>, Value)) {
    assert_eq!((*code, broken(summary)), (Some(0), vec![]), "{summary:#}");
    let tally = &summary["tally"];
    assert!(tally["answered"].as_u64() > Some(100), "{summary:#}");
    for (what, count) in [("joined", 5), ("drained", 1), ("crashed", 1)] {
        assert_eq!(tally[what].as_array().unwrap().len(), count, "{what} in {summary:#}");
    }
}

#[test]
fn servers_that_do_not_drain_fail_the_check() {
    fails_while_draining(&summary("service_discovery", &["--seconds", "4", "--sabotage", "no-drain"]));
}

#[tokio::test]
async fn servers_that_do_not_drain_fail_the_check_on_nats() {
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("discovery"));
    fails_while_draining(&summary("service_discovery", &["--seconds", "6", "--store", &store, "--sabotage", "no-drain"]));
}

fn fails_while_draining((code, summary): &(Option<i32>, Value)) {
    assert_eq!((*code, broken(summary)), (Some(1), vec!["no request failed at a server that drained"]), "{summary:#}");
}

#[test]
fn an_interrupt_ends_everybody_and_removes_everything() {
    let words = "ended 3 servers and the daemon, removed";
    interrupt("service_discovery", &["--seconds", "60"], "answered in a second", words);
}

#[test]
fn a_daemon_that_is_killed_ends_the_run() {
    kill_the_daemon("service_discovery", &["--seconds", "60"], "answered in a second");
}

#[tokio::test]
async fn an_interrupt_ends_everybody_on_nats() {
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("discovery"));
    interrupt("service_discovery", &["--seconds", "60", "--store", &store], "answered in a second", "ended 3 servers, removed");
    // They have left, too: nobody is left in any group.
    let store = tenure_kv::open(&store).await.unwrap();
    let members = tenure_kv::StoreExt::list(&*store, &tenure_kv::KeyRange::new("member.>").unwrap()).await.unwrap();
    assert!(members.is_empty(), "{members:?}");
}

#[test]
fn wrong_usage_is_one_clear_error() {
    refused("service_discovery", &["--store", "redis://x"], 2, "redis");
    refused("service_discovery", &["--servers", "1"], 64, "3..=50");
    refused("service_discovery", &["--lease", "1ms"], 64, "between 150ms and 1day");
    refused("service_discovery", &["--role", "server"], 64, "--name");
}
