//! The daemon as a process: its start, its socket, its output, and its ways to leave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::{
    collections::HashSet,
    fs,
    io::Read,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use daemon_support::{Daemon, Mortal, PATIENCE, Wire, await_socket, command, kind, may_open, wait};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn term_drains_and_exits_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::with(&["--store", "memory:", "--drain", "10s"]);
        let (mut holder, mut waiter) = (daemon.connect(), daemon.connect());
        let (lease, _) = holder.acquire("a");
        let waiting = waiter.send("lock.acquire", &json!({ "name": "a" }));
        holder.await_waiters("a", 1);
        daemon.signal(signal);
        assert_eq!(holder.notice(), ("goaway".to_owned(), json!({ "deadline_ms": 8_000 })));
        assert_eq!(kind(&waiter.result(waiting).unwrap_err()), "unavailable");
        assert_eq!(waiter.notice().0, "goaway");
        assert_eq!(waiter.refused("lock.acquire", json!({ "name": "b" })), "unavailable");
        assert_eq!(waiter.refused("kv.put", json!({ "key": "k", "value": "x" })), "unavailable");
        assert!(UnixStream::connect(daemon.socket()).is_err(), "no new connections");
        assert!(!daemon.socket().exists());
        // A holder ends its work in peace.
        assert_eq!(holder.call("status", json!({})).unwrap()["draining"], true);
        assert_eq!(holder.call("lock.check", json!({ "lease": lease })).unwrap()["held"], true);
        holder.call("kv.put", json!({ "key": "k", "value": "x", "fence_lease": lease })).unwrap();
        holder.call("lock.release", json!({ "lease": lease })).unwrap();
        // Nothing is held any more, so there is nothing to wait for.
        assert!(holder.at_end() && waiter.at_end());
        assert_eq!(daemon.wait().code(), Some(0));
    }
}

#[test]
fn a_drain_ends_in_time_whoever_holds_on() {
    let mut daemon = Daemon::with(&["--store", "memory:", "--drain", "500ms"]);
    let mut holder = daemon.connect();
    let (lease, _) = holder.acquire("a");
    let begun = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(holder.notice().0, "goaway");
    assert_eq!(holder.notice(), ("lease".to_owned(), json!({ "lease": lease, "state": "lost", "reason": "closed" })));
    assert!(holder.at_end());
    assert_eq!(daemon.wait().code(), Some(0));
    assert!((Duration::from_millis(300)..Duration::from_secs(15)).contains(&begun.elapsed()), "{:?}", begun.elapsed());

    // A second signal is impatience.
    let mut daemon = Daemon::with(&["--store", "memory:", "--drain", "60s"]);
    let mut holder = daemon.connect();
    holder.acquire("a");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(holder.notice().0, "goaway");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_second_daemon_is_refused_and_the_first_not_disturbed() {
    let mut daemon = Daemon::start();
    let output = command(&daemon.socket(), &["--store", "memory:"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("another tenured (process {})", daemon.child.id())) && said.lines().count() == 1, "{said}");
    daemon.connect().acquire("a");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn of_many_that_start_together_one_serves() {
    let directory = tempfile::tempdir().unwrap();
    // A stale socket file, which tempts each of them to remove it.
    drop(UnixListener::bind(directory.path().join("s.sock")).unwrap());
    let mut all: Vec<_> = (0..8)
        .map(|_| Mortal::spawn(command(&directory.path().join("s.sock"), &["--store", "memory:"]).stderr(Stdio::piped())))
        .collect();
    let begun = Instant::now();
    let mut lost = HashSet::new();
    while lost.len() < 7 {
        for child in &mut all {
            if let Some(status) = child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(1));
                lost.insert(child.id());
            }
        }
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    let winner = all.iter_mut().find(|child| !lost.contains(&child.id())).unwrap();
    let mut wire = loop {
        // It has the lock, and soon the socket.
        match UnixStream::connect(directory.path().join("s.sock")) {
            Ok(_) => break Wire::connect(&directory.path().join("s.sock")),
            Err(_) => assert!(begun.elapsed() < PATIENCE),
        }
    };
    assert_eq!(wire.call("status", json!({})).unwrap()["pid"], winner.id());
    winner.kill().unwrap();
    wait(winner);
}

#[test]
fn only_a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    let refused = |said: &str| {
        let output = command(&socket, &["--store", "memory:"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(said) && stderr.contains("--socket") && stderr.lines().count() == 1, "{stderr}");
    };
    fs::write(&socket, "precious").unwrap();
    refused("is no socket");
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
    fs::remove_file(&socket).unwrap();
    fs::create_dir(&socket).unwrap();
    refused("is no socket");
    fs::remove_dir(&socket).unwrap();

    let other = UnixListener::bind(&socket).unwrap();
    refused("another program listens");
    assert!(UnixStream::connect(&socket).is_ok(), "the other program still has its socket");
    drop(other);
    // Now it is stale.
    let daemon = Daemon::in_directory(directory, &["--store", "memory:"]);
    daemon.connect().acquire("a");
}

#[test]
fn the_socket_has_the_mode_and_the_place_it_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let group = rustix::process::getegid().as_raw();
    for (arguments, mode) in [(vec![], 0o660), (vec!["--socket-mode".to_owned(), "0600".into()], 0o600)] {
        let socket = directory.path().join("made/for/it").join(format!("{mode:o}.sock"));
        let mut child =
            Mortal::spawn(command(&socket, &["--store", "memory:", "--socket-group", &group.to_string()]).args(&arguments));
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(2));
        }
        let metadata = fs::metadata(&socket).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (mode, group));
        assert_eq!(fs::metadata(socket.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o750);
        child.kill().unwrap();
        wait(&mut child);
    }
}

#[test]
fn the_socket_and_the_store_are_found_by_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (name, value, socket) in
        [("TENURE_SOCKET", at("named.sock"), at("named.sock")), ("XDG_RUNTIME_DIR", at("run"), at("run/tenure/tenured.sock"))]
    {
        let mut child = Mortal::spawn(
            Command::new(env!("CARGO_BIN_EXE_tenured"))
                .env_remove("TENURE_SOCKET")
                .env_remove("XDG_RUNTIME_DIR")
                .env(name, value)
                .env("TENURE_STORE", "memory:")
                .stderr(Stdio::null()),
        );
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{name}");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(Wire::connect(&socket).call("status", json!({})).unwrap()["store"]["url"], "memory:");
        child.kill().unwrap();
        wait(&mut child);
    }
}

#[test]
fn what_is_wrong_at_the_start_is_said_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("x".repeat(120));
    let socket = directory.path().join("s.sock");
    for (arguments, code, said) in [
        (vec!["--lease", "1ms"], 64, "150ms"),
        (vec!["--lease", "soon"], 64, "--lease"),
        (vec!["--nonsense"], 64, "--nonsense"),
        (vec!["stray"], 64, "stray"),
        (vec!["--socket-mode", "99"], 64, "octal"),
        (vec!["--max-requests", "0"], 64, "at least 1"),
        (vec!["--log", "=="], 64, "--log"),
        (vec!["--drain"], 64, "--drain"),
        (vec!["--store", "redis://localhost"], 64, "names no store"),
        (vec!["--store", "file:"], 64, "needs a path"),
        (vec!["--store", "nats://localhost/a.b"], 64, "no bucket name"),
        (vec!["--store", "file:/dev/null"], 1, "not a regular file"),
        (vec!["--store", "memory:", "--socket-group", "no-such-group"], 1, "no group"),
    ] {
        let output = command(&socket, &arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(
            stderr.starts_with("tenured: ") && stderr.contains(said) && stderr.lines().count() == 1,
            "{arguments:?}: {stderr}"
        );
        assert!(!socket.exists(), "{arguments:?}");
    }
    let output = command(&long, &["--store", "memory:"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("too long"), "{stderr}");
    let help = Command::new(env!("CARGO_BIN_EXE_tenured")).arg("--help").output().unwrap();
    assert!(
        help.status.success() && String::from_utf8(help.stdout).unwrap().contains("--socket-group") && help.stderr.is_empty()
    );
}

#[test]
fn nobody_reading_its_output_is_no_reason_to_die() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    let mut child = Mortal::spawn(
        Command::new(env!("CARGO_BIN_EXE_tenured"))
            .args(["--store", "memory:", "--log", "trace", "--socket"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    // The readers of both pipes go away.
    drop((child.stdout.take(), child.stderr.take()));
    let begun = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    Wire::connect(&socket).acquire("a");
    nix::sys::signal::kill(daemon_support::pid(child.id()), Signal::SIGTERM).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_does_not_stop_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    let mut child = Mortal::spawn(
        Command::new(env!("CARGO_BIN_EXE_tenured"))
            .args(["--store", "memory:", "--log", "trace", "--socket"])
            .arg(&socket)
            .stderr(Stdio::piped()),
    );
    let begun = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
    // Each of them is worth some lines: the pipe, 64 KiB, is full before the last.
    for _ in 0..500 {
        Wire::connect(&socket).call("hello", json!({ "protocol": [1], "client": "x".repeat(200) })).unwrap();
    }
    let mut wire = Wire::connect(&socket);
    let (lease, _) = wire.acquire("a");
    assert_eq!(wire.call("lock.check", json!({ "lease": lease })).unwrap()["held"], true);
    nix::sys::signal::kill(daemon_support::pid(child.id()), Signal::SIGTERM).unwrap();
    drop(wire);
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut said = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut said).unwrap();
    assert!(said.len() >= 60_000, "the pipe was not even full: {} bytes", said.len());
}

#[test]
fn a_killed_daemon_is_an_end_of_file_and_the_next_takes_its_place() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    wire.acquire("a");
    let directory = daemon.kill();
    assert!(wire.at_end());
    assert!(directory.path().join("s.sock").exists(), "it left its socket behind");
    let daemon = Daemon::in_directory(directory, &["--store", "memory:"]);
    daemon.connect().acquire("a");
}

#[test]
fn a_daemon_out_of_descriptors_serves_again_when_it_has_some() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    let mut child = Mortal::spawn(command(&socket, &["--store", "memory:"]).stderr(Stdio::piped()));
    let mut first = await_socket(&mut child, &socket);
    may_open(&child, 40);
    first.acquire("a");
    let crowd: Vec<UnixStream> = (0..60).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert!(first.call("ping", json!({})).is_ok(), "who is connected is served");
    drop(crowd);
    assert!(Wire::connect(&socket).call("ping", json!({})).is_ok());
    assert!(first.call("ping", json!({})).is_ok());
    nix::sys::signal::kill(daemon_support::pid(child.id()), Signal::SIGTERM).unwrap();
    drop(first);
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("cannot accept"), "it did run out: {said}");
}
