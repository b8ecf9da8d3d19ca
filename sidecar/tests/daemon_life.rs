//! Lives and deaths of clients, of their processes, and of their requests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use daemon_support::{Client, Daemon, PATIENCE, Wire, kind};
use nix::sys::signal::Signal;
use serde_json::json;

/// Not a test: the process of [`Client`].
#[test]
#[ignore = "the client process of other tests, started by them"]
#[expect(clippy::zombie_processes, reason = "the child is to live on when this process is killed")]
fn client_process() {
    let socket = std::env::var("CLIENT_SOCKET").expect("started by another test");
    let mut wire = Wire::connect(Path::new(&socket));
    let mode = std::env::var("CLIENT_MODE").unwrap();
    if mode == "heartbeat" {
        wire.call("hello", json!({ "protocol": [1], "heartbeat_ms": 1_000 })).unwrap();
    }
    if mode == "inherited" {
        // As a program does that starts a child without closing what it has open.
        rustix::io::fcntl_setfd(&wire.stream, rustix::io::FdFlags::empty()).unwrap();
        let child = Command::new("sleep").arg("60").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        println!("child: {}", child.id());
    }
    let (lease, _) = wire.acquire(&std::env::var("CLIENT_LOCK").unwrap());
    println!("holding: {lease}");
    if mode == "heartbeat" {
        // Pings, until the lease is lost.
        loop {
            if !wire.notices.is_empty() {
                let (_, params) = wire.notice();
                println!("told: {params}");
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
            wire.call("ping", json!({})).unwrap();
        }
    }
    std::thread::sleep(Duration::from_secs(60));
}

/// Waits for the lock of a client that is ended by `end`, and returns how long the hand-over took.
fn hand_over(daemon: &Daemon, lock: &str, end: impl FnOnce()) -> Duration {
    let mut next = daemon.connect();
    let waiting = next.send("lock.acquire", &json!({ "name": lock }));
    daemon.connect().await_waiters(lock, 1);
    let begun = Instant::now();
    end();
    let held = next.result(waiting).unwrap();
    let took = begun.elapsed();
    next.call("lock.release", json!({ "lease": held["lease"] })).unwrap();
    took
}

#[test]
fn a_closed_connection_frees_everything_at_once() {
    let daemon = Daemon::start();
    let mut holder = daemon.connect();
    for n in 0..200 {
        holder.acquire(&format!("n{n}"));
    }
    let took = hand_over(&daemon, "n77", move || drop(holder));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let mut wire = daemon.connect();
    for n in 0..200 {
        wire.acquire(&format!("n{n}"));
    }
}

#[test]
fn a_killed_client_frees_its_lock_in_milliseconds() {
    let daemon = Daemon::start();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut client = Client::start(&daemon, "a", "plain");
        client.await_word("holding");
        best = best.min(hand_over(&daemon, "a", || client.signal(Signal::SIGKILL)));
    }
    println!("hand-over after SIGKILL: {best:?}");
    // Other tests load the machine: the best of five tells what the daemon needs.
    assert!(best < Duration::from_millis(250), "{best:?}");
}

#[test]
fn a_killed_client_frees_its_lock_though_its_child_keeps_the_connection() {
    let daemon = Daemon::start();
    let mut client = Client::start(&daemon, "a", "inherited");
    let child: u32 = client.await_word("child").parse().unwrap();
    client.await_word("holding");
    let took = hand_over(&daemon, "a", || client.signal(Signal::SIGKILL));
    assert!(Path::new(&format!("/proc/{child}")).exists(), "the child lives on");
    assert!(took < Duration::from_secs(2), "{took:?}");
    nix::sys::signal::kill(daemon_support::pid(child), Signal::SIGKILL).unwrap();
}

#[test]
fn a_stopped_client_keeps_its_lock_unless_it_has_a_heartbeat() {
    let daemon = Daemon::start();
    let (mut plain, mut beating) = (Client::start(&daemon, "plain", "plain"), Client::start(&daemon, "beating", "heartbeat"));
    plain.await_word("holding");
    let lease = beating.await_word("holding");
    let mut wire = daemon.connect();
    // While it pings, it keeps the lock, for longer than its heartbeat.
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(wire.refused("lock.acquire", json!({ "name": "beating", "wait_ms": 0 })), "timeout");

    plain.signal(Signal::SIGSTOP);
    let took = hand_over(&daemon, "beating", || beating.signal(Signal::SIGSTOP));
    assert!(took > Duration::from_millis(800), "not before its heartbeat is due: {took:?}");
    assert_eq!(wire.refused("lock.acquire", json!({ "name": "plain", "wait_ms": 1_500 })), "timeout");
    // Back again, it is told why, and its connection still serves.
    beating.signal(Signal::SIGCONT);
    let told: serde_json::Value = serde_json::from_str(&beating.await_word("told")).unwrap();
    assert_eq!(told, json!({ "lease": lease, "state": "lost", "reason": "client_silent" }));
}

#[test]
fn a_silent_client_stops_waiting_and_may_come_back() {
    let daemon = Daemon::start();
    let (mut holder, mut wire) = (daemon.connect(), daemon.connect());
    let (lease, _) = holder.acquire("a");
    wire.call("hello", json!({ "protocol": [1], "heartbeat_ms": 100 })).unwrap();
    let waiting = wire.send("lock.acquire", &json!({ "name": "a" }));
    let error = wire.result(waiting).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["reason"]), ("lost", &json!("client_silent")));
    holder.await_waiters("a", 0);
    holder.call("lock.release", json!({ "lease": lease })).unwrap();
    wire.acquire("a");
    assert_eq!(wire.notice().1["reason"], "client_silent");
    holder.acquire("a");
    // Without a heartbeat it may be as silent as it likes.
    wire.call("hello", json!({ "protocol": [1] })).unwrap();
    wire.acquire("b");
    assert!(wire.is_quiet(Duration::from_millis(400)));
}

#[test]
fn a_stopped_daemon_does_not_take_its_clients_for_silent() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    wire.call("hello", json!({ "protocol": [1], "heartbeat_ms": 1_000 })).unwrap();
    let (lease, _) = wire.acquire("a");
    daemon.signal(Signal::SIGSTOP);
    let pings: Vec<u64> = (0..20)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(100));
            wire.send("ping", &json!({}))
        })
        .collect();
    daemon.signal(Signal::SIGCONT);
    for ping in pings {
        wire.result(ping).unwrap();
    }
    assert_eq!(wire.call("lock.check", json!({ "lease": lease })).unwrap()["held"], true);
    assert!(wire.notices.is_empty(), "{:?}", wire.notices);
}

#[test]
fn a_stopped_daemon_loses_its_leases_aloud() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "1s"]);
    let mut wire = daemon.connect();
    let (lease, fence) = wire.acquire("a");
    daemon.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(2_500));
    daemon.signal(Signal::SIGCONT);
    loop {
        let (method, params) = wire.notice();
        assert_eq!((method.as_str(), &params["lease"]), ("lease", &json!(lease)));
        if params["state"] == "lost" {
            assert_eq!(params["reason"], "renewal_timeout");
            break;
        }
    }
    assert_eq!(wire.refused("lock.check", json!({ "lease": lease })), "lost");
    assert_eq!(wire.refused("kv.put", json!({ "key": "k", "value": "x", "fence_lease": lease })), "lost");
    assert!(wire.acquire("a").1 > fence, "a new hold is to be had");
}

#[test]
fn cancelled_requests_hold_nothing() {
    let daemon = Daemon::start();
    let (mut holder, mut wire, mut witness) = (daemon.connect(), daemon.connect(), daemon.connect());
    assert_eq!(wire.refused("cancel", json!({ "id": 77 })), "not_found");
    let mut granted = 0;
    for round in 0..300 {
        let (lease, _) = holder.acquire("a");
        let waiting = wire.send("lock.acquire", &json!({ "name": "a" }));
        if round % 3 == 0 {
            witness.await_waiters("a", 1);
        }
        // The grant and the cancel race.
        let release = holder.send("lock.release", &json!({ "lease": lease }));
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_micros(round * 2));
        }
        let cancel = wire.send("cancel", &json!({ "id": waiting }));
        let outcome = wire.result(waiting);
        match (outcome, wire.result(cancel)) {
            (Ok(held), Err(error)) => {
                assert_eq!(kind(&error), "not_found");
                granted += 1;
                wire.call("lock.release", json!({ "lease": held["lease"] })).unwrap();
            }
            (Err(error), Ok(_)) => assert_eq!(kind(&error), "cancelled"),
            other => panic!("round {round}: {other:?}"),
        }
        holder.result(release).unwrap();
        // Nothing of the cancelled request stands in the way of somebody who tries once.
        let held = witness.call("lock.acquire", json!({ "name": "a", "wait_ms": 0 })).unwrap();
        witness.call("lock.release", json!({ "lease": held["lease"] })).unwrap();
    }
    println!("{granted} of 300 were granted first");
    witness.acquire("a");
    let status = witness.call("status", json!({})).unwrap();
    assert_eq!(
        (&status["leases"], &status["requests"], &status["sessions"][0]["users"]),
        (&json!(1), &json!(0), &json!(1)),
        "{status}"
    );
}

#[test]
fn connections_closed_in_mid_acquire_hold_nothing() {
    let daemon = Daemon::start();
    let mut witness = daemon.connect();
    for round in 0..200 {
        let mut wire = daemon.connect();
        wire.send("lock.acquire", &json!({ "name": "a" }));
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_micros(round * 3));
        }
        drop(wire);
    }
    let (lease, _) = witness.acquire("a");
    witness.await_waiters("a", 0);
    witness.call("lock.release", json!({ "lease": lease })).unwrap();
    assert_eq!(witness.holder("a"), None);
    assert_eq!(witness.call("status", json!({})).unwrap()["leases"], 0);
}

#[test]
fn a_client_that_does_not_read_hurts_nobody_and_costs_little() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let value = "x".repeat(500_000);
    wire.call("kv.put", json!({ "key": "big", "value": value })).unwrap();
    let (lease, fence) = wire.acquire("a");

    let mut slow = daemon.connect();
    slow.acquire("slow");
    let mut writer = slow.stream.try_clone().unwrap();
    writer.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    // Asks for big answers and reads none, until the daemon takes no more.
    let mut sent = 0_u64;
    let request =
        |n: u64| format!("{}\n", json!({ "jsonrpc": "2.0", "id": n + 1_000, "method": "kv.get", "params": { "key": "big" } }));
    while sent < 100_000 && std::io::Write::write_all(&mut writer, request(sent).as_bytes()).is_ok() {
        sent += 1;
    }
    assert!(sent < 100_000, "the daemon reads on and on from a client that does not read");
    let resident = resident(daemon.child.id());
    assert!(resident < 200 << 20, "{resident} bytes");

    // Everybody else is served as ever, and a notice does not wait behind what is queued.
    assert!(wire.call("ping", json!({})).is_ok());
    wire.call("lock.break", json!({ "name": "a", "fence": fence })).unwrap();
    assert_eq!(wire.notice().1["lease"], lease);
    drop(writer);
    let took = hand_over(&daemon, "slow", move || drop(slow));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

fn resident(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn lease_notices_overtake_answers_that_wait() {
    let daemon = Daemon::start();
    let (mut wire, mut witness) = (daemon.connect(), daemon.connect());
    witness.call("kv.put", json!({ "key": "big", "value": "x".repeat(900_000) })).unwrap();
    let (lease, fence) = wire.acquire("a");
    let gets: Vec<u64> = (0..40).map(|_| wire.send("kv.get", &json!({ "key": "big" }))).collect();
    let begun = Instant::now();
    // All but what is in the socket's buffer waits in the daemon.
    while witness.call("status", json!({})).unwrap()["requests"].as_u64().unwrap() < 30 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
    witness.call("lock.break", json!({ "name": "a", "fence": fence })).unwrap();
    while witness.call("status", json!({})).unwrap()["leases"] != 0 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut before = 0;
    loop {
        let line = wire.line().unwrap();
        if line["method"] == "lease" {
            assert_eq!(line["params"], json!({ "lease": lease, "state": "lost", "reason": "broken" }));
            break;
        }
        before += 1;
    }
    assert!(before < 5, "{before} of {} answers came first", gets.len());
}

#[test]
fn a_lease_taken_back_by_cancel_is_never_spoken_of() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    for _ in 0..100 {
        let id = wire.send("lock.acquire", &json!({ "name": "a" }));
        let cancel = wire.send("cancel", &json!({ "id": id }));
        if let Ok(held) = wire.result(id) {
            wire.call("lock.release", json!({ "lease": held["lease"] })).unwrap();
        }
        let _ = wire.result(cancel);
    }
    wire.acquire("a");
    assert!(wire.notices.is_empty());
    assert_eq!(wire.call("status", json!({})).unwrap()["leases"], 1);
}
