//! A daemon that looks again in place of going to sleep comes to rest when nobody waits for the store any more.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;
mod http_rig;

use std::{
    net::SocketAddr,
    num::NonZero,
    path::Path,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use daemon_support::PATIENCE;
use http_rig::{get, sample, start};
use serde_json::json;

/// One on a file, whose store answers from another thread.
fn on_file(directory: &Path, busy_poll: &str) -> (daemon_support::Daemon, SocketAddr) {
    let store = format!("file:{}", directory.join("tenure.db").display());
    start(&["--store", &store, "--lease", "60s", "--busy-poll", busy_poll])
}

/// How often it has looked, and its processor time in seconds.
fn looks(http: SocketAddr) -> (f64, f64) {
    let page = get(http, "/metrics").body;
    (sample(&page, "tenure_busy_polls_total"), sample(&page, "process_cpu_seconds_total"))
}

/// Waits until it does not look for a while, and needs less than a fifth of a processor for that.
fn until_at_rest(http: SocketAddr) {
    const WHILE: Duration = Duration::from_millis(200);
    let begun = Instant::now();
    loop {
        let before = looks(http);
        std::thread::sleep(WHILE);
        let after = looks(http);
        if after.0 == before.0 && after.1 - before.1 < WHILE.as_secs_f64() / 5.0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "still looking: {before:?}, then {after:?}");
    }
}

#[test]
fn who_looks_for_an_answer_comes_to_rest_when_it_has_come() {
    let directory = tempfile::tempdir().unwrap();
    let (daemon, http) = on_file(directory.path(), "10ms");
    let mut one = daemon.connect();
    let begun = Instant::now();
    while looks(http).0 < 100.0 && available_parallelism().is_ok_and(|processors| processors > NonZero::<usize>::MIN) {
        let (lease, _) = one.acquire("x");
        one.call("lock.release", json!({ "lease": lease })).unwrap();
        assert!(begun.elapsed() < PATIENCE, "it never looked: {:?}", looks(http));
    }
    until_at_rest(http);
    // Nor is a wait for a lock a wait for the store.
    one.acquire("x");
    let mut two = daemon.connect();
    two.send("lock.acquire", &json!({ "name": "x" }));
    one.await_waiters("x", 1);
    until_at_rest(http);
}

#[test]
fn it_looks_only_for_a_store_that_may_answer_soon_and_if_it_is_let() {
    let directory = tempfile::tempdir().unwrap();
    let never = on_file(directory.path(), "0");
    let memory = start(&["--lease", "60s", "--busy-poll", "10ms"]);
    for (daemon, http) in [never, memory] {
        let mut one = daemon.connect();
        for _ in 0..20 {
            let (lease, _) = one.acquire("x");
            one.call("lock.release", json!({ "lease": lease })).unwrap();
        }
        assert_eq!(looks(http).0, 0.0);
    }
}
