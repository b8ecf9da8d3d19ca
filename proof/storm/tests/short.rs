//! One short history per kind of store: real servers, real faults, no violation.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use tenure_storm::{Faults, Options, Program, Store, run};

/// Runs one, and asks that something happened in it.
async fn storm(store: Store, faults: &str) {
    let out = tempfile::tempdir().unwrap();
    let options = Options {
        store,
        span: Duration::from_secs(9),
        calm: Duration::from_secs(2),
        seed: 7,
        faults: faults.parse::<Faults>().unwrap(),
        clients: 4,
        lease: Some(Duration::from_millis(1_200)),
        pace: 1,
        out: out.path().join("history"),
        keep: false,
    };
    let verdict = run(&Program::at(env!("CARGO_BIN_EXE_tenure-storm")), &options).await.unwrap();
    let totals = &verdict.totals;
    if !verdict.violations.is_empty() {
        let kept = out.keep();
        panic!("{:#?}\nThe history is in {}", verdict.violations, kept.display());
    }
    assert!(totals.grants > 20 && totals.hand_overs > 10, "hardly anything was granted: {totals:?}");
    assert!(totals.fenced > 20 && totals.writes > 100, "hardly anything was written: {totals:?}");
    assert!(totals.all_faults() > 3, "hardly anything went wrong: {totals:?}");
}

#[tokio::test]
#[ignore = "not in the checks before its recorder has proved itself: run with --ignored, on a quiet machine"]
async fn one_nats_server() {
    storm(Store::R1, "kill-client,pause-client,cut-client,mute-client,slow-client,kill-server,pause-server,power-cut").await;
}

#[tokio::test]
#[ignore = "not in the checks before its recorder has proved itself: run with --ignored, on a quiet machine"]
async fn three_nats_servers() {
    storm(Store::R3, "kill-client,pause-client,cut-client,kill-server,pause-server,cut-server,step-down").await;
}

#[tokio::test]
#[ignore = "not in the checks before its recorder has proved itself: run with --ignored, on a quiet machine"]
async fn a_file_behind_a_daemon() {
    storm(Store::File, "kill-client,pause-client,kill-daemon,pause-daemon,restart-daemon,starve-daemon").await;
}

#[tokio::test]
#[ignore = "not in the checks before its recorder has proved itself: run with --ignored, on a quiet machine"]
async fn the_memory_of_a_daemon() {
    storm(Store::Memory, "kill-client,pause-client,kill-daemon,pause-daemon,restart-daemon").await;
}
