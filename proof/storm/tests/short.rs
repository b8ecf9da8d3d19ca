//! One short history on a daemon's memory: real processes, real faults, no violation. The other stores have theirs in
//! `tenure-storm short`, which the checks run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use tenure_storm::{Faults, Options, Program, Store, run};

#[tokio::test]
async fn the_memory_of_a_daemon() {
    let out = tempfile::tempdir().unwrap();
    let options = Options {
        store: Store::Memory,
        span: Duration::from_secs(9),
        calm: Some(Duration::from_secs(2)),
        seed: 7,
        faults: "kill-client,pause-client,kill-daemon,pause-daemon,restart-daemon".parse::<Faults>().unwrap(),
        clients: 4,
        lease: Some(Duration::from_millis(1_200)),
        pace: 1.0,
        out: out.path().join("history"),
        keep: false,
    };
    // What a history that was killed has left is not taken for this one's.
    std::fs::create_dir(&options.out).unwrap();
    std::fs::write(options.out.join("client-2.tape"), "left behind\n").unwrap();
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
