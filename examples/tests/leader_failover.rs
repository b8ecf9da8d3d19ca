//! The leader failover example as a program: it passes, it fails when a rule is broken, and it leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{broken, interrupt, kill_the_daemon, refused, summary};
use tenure_tests::{NatsServer, unique_bucket};

fn nothing_is_broken((code, summary): &(Option<i32>, Value)) {
    assert_eq!((*code, broken(summary)), (Some(0), vec![]), "{summary:#}");
    for how in ["SIGKILL", "SIGSTOP"] {
        assert_eq!(summary["gaps"][how]["count"], 2, "{summary:#}");
    }
    assert!(summary["refused"].as_u64() >= Some(2) && summary["writes"].as_u64() > Some(80), "{summary:#}");
}

#[test]
fn leaders_are_killed_and_stopped_and_no_stale_write_passes() {
    nothing_is_broken(&summary("leader_failover", &["--rounds", "4"]));
}

#[tokio::test]
async fn leaders_are_killed_and_stopped_and_no_stale_write_passes_on_nats() {
    let server = NatsServer::start().await;
    nothing_is_broken(&summary("leader_failover", &["--rounds", "4", "--store", &server.url(&unique_bucket("leaders"))]));
}

#[tokio::test]
async fn without_fences_the_check_fails() {
    let stale = "no leader wrote after a later one was elected";
    let (code, said) = summary("leader_failover", &["--rounds", "2", "--store", "memory:", "--sabotage", "no-fence"]);
    assert_eq!(code, Some(1), "{said:#}");
    assert!(broken(&said).contains(&stale), "{said:#}");
    let server = NatsServer::start().await;
    let store = server.url(&unique_bucket("leaders"));
    let (code, said) = summary("leader_failover", &["--rounds", "2", "--store", &store, "--sabotage", "no-fence"]);
    assert_eq!(code, Some(1), "{said:#}");
    assert!(broken(&said).contains(&stale), "{said:#}");
}

#[test]
fn an_interrupt_ends_everybody() {
    let words = "ended 3 candidates and the daemon";
    interrupt("leader_failover", &["--rounds", "1000", "--store", "memory:"], "leads in term", words);
}

#[test]
fn a_daemon_that_is_killed_ends_the_run() {
    kill_the_daemon("leader_failover", &["--rounds", "1000"], "leads in term");
}

#[test]
fn wrong_usage_is_one_clear_error() {
    refused("leader_failover", &["--rounds", "1"], 64, "2..=10000");
    refused("leader_failover", &["--lease", "1ms"], 64, "between 150ms and 1day");
    refused("leader_failover", &["--store", "redis://x"], 2, "redis");
    refused("leader_failover", &["--role", "candidate"], 64, "--name");
}
