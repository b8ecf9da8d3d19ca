//! A daemon on a store in a file: killed, drained, and asked for twice.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::time::{Duration, Instant};

use daemon_support::{Daemon, Wire, command, kind};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

fn start(directory: TempDir, lease: &str) -> Daemon {
    let store = format!("file:{}", directory.path().join("t.db").display());
    Daemon::in_directory(directory, &["--store", &store, "--lease", lease])
}

fn hand_over(holder: Wire, next: &mut Wire, witness: &mut Wire) -> Duration {
    let waiting = next.send("lock.acquire", &json!({ "name": "a" }));
    witness.await_waiters("a", 1);
    let begun = Instant::now();
    drop(holder);
    let held = next.result(waiting).unwrap();
    let took = begun.elapsed();
    next.call("lock.release", json!({ "lease": held["lease"] })).unwrap();
    took
}

#[test]
fn a_closed_connection_hands_over_in_milliseconds_with_every_write_on_disk() {
    let daemon = start(tempfile::tempdir().unwrap(), "60s");
    let (mut next, mut witness) = (daemon.connect(), daemon.connect());
    let best = (0..10).map(|_| {
        let mut holder = daemon.connect();
        holder.acquire("a");
        hand_over(holder, &mut next, &mut witness)
    });
    let best = best.min().unwrap();
    println!("hand-over on a file: {best:?}");
    assert!(best < Duration::from_secs(1), "{best:?}");
}

#[test]
fn what_was_acknowledged_survives_a_killed_daemon() {
    let mut directory = tempfile::tempdir().unwrap();
    let (mut known, mut last_fence) = (0_u64, 0);
    for round in 0..5 {
        let daemon = start(directory, "800ms");
        let mut wire = daemon.connect();
        let found =
            wire.call("kv.get", json!({ "key": "n" })).unwrap()["entry"]["value"].as_str().map_or(0, |n| n.parse().unwrap());
        // One more may have been on its way.
        assert!((known..=known + 1).contains(&found), "round {round}: {found} after {known} was acknowledged");
        known = found;
        // The hold of the killed daemon ends with its lease, and tokens go on from there.
        let (lease, fence) = wire.acquire("a");
        assert!(fence > last_fence);
        last_fence = fence;
        let killer = std::thread::spawn({
            let pid = daemon_support::pid(daemon.child.id());
            move || {
                std::thread::sleep(Duration::from_millis(20 + 17 * round));
                nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
            }
        });
        let put = |n: u64| json!({ "key": "n", "value": n.to_string(), "fence_lease": lease });
        while let Some(answer) = wire.attempt("kv.put", &put(known + 1)) {
            match answer {
                Ok(_) => known += 1,
                // A loaded machine may use such a short lease up.
                Err(error) => {
                    assert_eq!(kind(&error), "lost");
                    break;
                }
            }
        }
        killer.join().unwrap();
        directory = daemon.kill();
    }
}

#[test]
fn a_drained_daemon_leaves_nothing_to_wait_for() {
    let mut daemon = start(tempfile::tempdir().unwrap(), "60s");
    let mut holder = daemon.connect();
    let (_, fence) = holder.acquire("a");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(holder.notice().0, "goaway");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    let daemon = start(daemon.directory, "60s");
    let held = daemon.connect().call("lock.acquire", json!({ "name": "a", "wait_ms": 0 })).unwrap();
    assert!(held["fence"].as_u64().unwrap() > fence);
}

#[test]
fn one_file_serves_one_daemon() {
    let daemon = start(tempfile::tempdir().unwrap(), "60s");
    let store = format!("file:{}", daemon.directory.path().join("t.db").display());
    let other = daemon.directory.path().join("other.sock");
    let output = command(&other, &["--store", &store]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&daemon.child.id().to_string()) && said.lines().count() == 1, "{said}");
    assert!(!other.exists(), "it removed its socket");
    let mut wire = daemon.connect();
    wire.acquire("a");
    assert_eq!(kind(&wire.call("lock.acquire", json!({ "name": "a", "wait_ms": 0 })).unwrap_err()), "timeout");
}
