//! The daemon under a service manager: the socket that is handed over, and what the manager is told.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::{
    io::Read,
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use daemon_support::{Mortal, PATIENCE, Wire, command, pid, wait};
use nix::sys::signal::{Signal, kill};
use serde_json::json;
use tempfile::TempDir;

/// What a service manager hears.
struct Ear(UnixDatagram);

impl Ear {
    fn in_directory(directory: &TempDir) -> Self {
        let ear = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        ear.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(ear)
    }

    fn next(&self) -> String {
        let mut said = [0; 4096];
        let length = self.0.recv(&mut said).expect("the service manager is told something");
        String::from_utf8(said[..length].to_vec()).unwrap()
    }

    /// The next that is not only a sign of life.
    fn news(&self) -> String {
        loop {
            let said = self.next();
            if said.trim_end() != "WATCHDOG=1" {
                return said;
            }
        }
    }

    fn command(&self, directory: &TempDir) -> Command {
        self.command_on("memory:", directory)
    }

    fn command_on(&self, store: &str, directory: &TempDir) -> Command {
        let mut command = command(&directory.path().join("s.sock"), &["--store", store]);
        command.env("NOTIFY_SOCKET", directory.path().join("notify"));
        command
    }
}

/// `tenured` with `listener` as the descriptor that a service manager hands over.
fn activated(mut tenured: Command, listener: &UnixListener) -> Command {
    let script = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(tenured.get_program()).args(tenured.get_args());
    for (name, value) in tenured.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    tenured.stdin(Stdio::null());
    shell.stdin(OwnedFd::from(listener.try_clone().unwrap()));
    shell
}

fn signal(child: &Mortal, signal: Signal) {
    kill(pid(child.id()), signal).unwrap();
}

#[test]
fn the_service_manager_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let ear = Ear::in_directory(&directory);
    let mut daemon = Mortal::spawn(&mut ear.command(&directory));
    let ready = ear.next();
    assert!(ready.contains("READY=1") && ready.contains("STATUS="), "{ready}");
    // Ready means that clients are served.
    let mut holder = Wire::connect(&directory.path().join("s.sock"));
    let (lease, _) = holder.acquire("a");
    signal(&daemon, Signal::SIGHUP);
    let (reloading, ready) = (ear.next(), ear.next());
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(ready.contains("READY=1"), "{ready}");
    signal(&daemon, Signal::SIGTERM);
    let stopping = ear.next();
    assert!(stopping.contains("STOPPING=1") && stopping.contains("EXTEND_TIMEOUT_USEC=10000000"), "{stopping}");
    holder.call("lock.release", json!({ "lease": lease })).unwrap();
    assert_eq!(wait(&mut daemon).code(), Some(0));
}

#[test]
fn a_daemon_that_hangs_gives_no_sign_of_life() {
    let directory = tempfile::tempdir().unwrap();
    let ear = Ear::in_directory(&directory);
    let mut command = ear.command(&directory);
    let daemon = Mortal::spawn(command.env("WATCHDOG_USEC", "300000"));
    assert!(ear.news().contains("READY=1"));
    for _ in 0..5 {
        assert_eq!(ear.next().trim_end(), "WATCHDOG=1");
    }
    signal(&daemon, Signal::SIGSTOP);
    // What was said before it stood still is still to be heard.
    ear.0.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
    let mut late = 0;
    while ear.0.recv(&mut [0; 4096]).is_ok() {
        late += 1;
        assert!(late < 10, "it hangs and says that it is alive");
    }
    ear.0.set_read_timeout(Some(PATIENCE)).unwrap();
    signal(&daemon, Signal::SIGCONT);
    assert_eq!(ear.next().trim_end(), "WATCHDOG=1");
}

fn connects_at_once(socket: &Path) -> Wire {
    let begun = Instant::now();
    let wire = Wire::connect(socket);
    assert!(begun.elapsed() < PATIENCE);
    wire
}

#[test]
fn nobody_is_refused_while_a_daemon_takes_over_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    let ear = Ear::in_directory(&directory);
    let kept = UnixListener::bind(&socket).unwrap();
    let store = format!("file:{}", directory.path().join("tenure.db").display());

    // Whoever connects before there is a daemon waits for it.
    let mut early = connects_at_once(&socket);
    let asked = early.send("ping", &json!({}));
    let mut first = Mortal::spawn(&mut activated(ear.command_on(&store, &directory), &kept));
    assert!(ear.next().contains("READY=1"));
    early.result(asked).unwrap();
    let (lease, _) = early.acquire("a");

    signal(&first, Signal::SIGTERM);
    assert_eq!(early.notice().0, "goaway");
    // The socket stays, and whoever connects now is served by the next.
    let mut late = connects_at_once(&socket);
    let asked = late.send("lock.acquire", &json!({ "name": "a" }));
    early.call("lock.release", json!({ "lease": lease })).unwrap();
    assert_eq!(wait(&mut first).code(), Some(0));
    assert!(socket.exists());

    let mut second = Mortal::spawn(&mut activated(ear.command_on(&store, &directory), &kept));
    let granted = late.result(asked).unwrap();
    late.call("lock.release", json!({ "lease": granted["lease"] })).unwrap();
    signal(&second, Signal::SIGTERM);
    assert_eq!(wait(&mut second).code(), Some(0));

    // A third that would serve there by itself is told who does.
    let output = command(&socket, &["--store", "memory:"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("another program listens on") && said.lines().count() == 1, "{said}");
}

#[test]
fn what_is_no_socket_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let tenured = command(&directory.path().join("s.sock"), &["--store", "memory:"]);
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@""#, "sh"]);
    command.arg(tenured.get_program()).args(tenured.get_args()).stdin(OwnedFd::from(stream));
    let mut daemon = Mortal::spawn(command.stderr(Stdio::piped()));
    let code = wait(&mut daemon).code();
    let mut said = String::new();
    daemon.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ListenStream=") && said.lines().count() == 1, "{said}");
}

#[test]
fn two_daemons_on_one_socket_cannot_each_have_a_store_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let kept = UnixListener::bind(directory.path().join("s.sock")).unwrap();
    let mut command = activated(command(&directory.path().join("s.sock"), &["--store", "memory:"]), &kept);
    let mut daemon = Mortal::spawn(command.stderr(Stdio::piped()));
    let code = wait(&mut daemon).code();
    let mut said = String::new();
    daemon.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("use file: or nats:") && said.lines().count() == 1, "{said}");
}
