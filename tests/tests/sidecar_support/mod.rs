//! The daemon and the command as processes, on a store that a URL names.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test binary uses its part; helpers of tests are tests"
)]

use std::{
    future::Future,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tenure::Session;
use tenure_kv::Store;
use tenure_sidecar::{
    Client, Notices,
    protocol::{Kind, LockAcquired, LockView},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

pub(crate) const MS: Duration = Duration::from_millis(1);
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// Longer than any test: what is free earlier was not freed by the end of a lease.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// What `work` comes to, within [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Repeats `check` until it gives something.
pub(crate) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(2 * MS).await;
        }
    })
    .await
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().expect("it runs").try_into().unwrap()), signal).unwrap();
}

/// Opens the store, and has its bucket make its first grant, for which every new bucket waits one lease.
pub(crate) async fn settle(url: &str) -> Arc<dyn Store> {
    let store = tenure_kv::open(url).await.unwrap();
    let session = Session::builder(store.clone()).lease(500 * MS).open().await.unwrap();
    let guard = soon("the first grant", session.mutex("first").unwrap().lock()).await.unwrap();
    // Whether this short lease lasted until here does not matter.
    let _ = guard.release().await;
    let _ = session.close().await;
    store
}

/// A running `tenured`, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    directory: TempDir,
}

impl Daemon {
    /// Starts one whose leases are `lease` long where nothing else is asked for, and waits until it serves.
    pub(crate) async fn start(store: &str, lease: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_test-tenured"))
            .args(["--store", store, "--log", "warn", "--lease", &format!("{}ms", lease.as_millis()), "--socket"])
            .arg(directory.path().join("s.sock"))
            .env_remove("TENURE_STORE")
            .env_remove("TENURE_SOCKET")
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut daemon = Self { child, directory };
        until("tenured listens", async || {
            assert_eq!(daemon.child.try_wait().unwrap(), None, "tenured did not start");
            Client::connect(daemon.socket()).await.ok()
        })
        .await;
        daemon
    }

    /// As [`start`](Self::start), with leases that no test uses up, on a bucket that grants at once.
    pub(crate) async fn settled(store: &str) -> Self {
        settle(store).await;
        Self::start(store, LONG).await
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("s.sock")
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.socket()).await.unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        soon("tenured ends", self.child.wait()).await.unwrap()
    }
}

/// The lock `name` for `client`, however long it takes.
pub(crate) async fn acquire(client: &Client, name: &str) -> LockAcquired {
    soon(name, client.call_as("lock.acquire", json!({ "name": name }))).await.unwrap()
}

/// The lock `name` with a lease of its own length.
pub(crate) async fn acquire_for(client: &Client, name: &str, lease: Duration) -> LockAcquired {
    let params = json!({ "name": name, "lease_ms": u64::try_from(lease.as_millis()).unwrap() });
    soon(name, client.call_as("lock.acquire", params)).await.unwrap()
}

pub(crate) async fn release(client: &Client, held: &LockAcquired) {
    soon("the release", client.call("lock.release", json!({ "lease": held.lease }))).await.unwrap();
}

/// A value written under a lock.
pub(crate) fn put(key: &str, value: &str, held: &LockAcquired) -> Json {
    json!({ "key": key, "value": value, "fence_lease": held.lease })
}

pub(crate) async fn value(client: &Client, key: &str) -> Json {
    let mut entry = client.call("kv.get", json!({ "key": key })).await.unwrap();
    entry["entry"]["value"].take()
}

/// Why a call is refused.
pub(crate) async fn refused(client: &Client, method: &str, params: Json) -> Kind {
    soon(method, client.call(method, params)).await.expect_err(method).kind().expect(method)
}

pub(crate) async fn view(client: &Client, name: &str) -> LockView {
    client.call_as("lock.get", json!({ "name": name })).await.unwrap()
}

/// Waits until `count` wait for the lock.
pub(crate) async fn await_waiters(client: &Client, name: &str, count: usize) {
    until("enough wait", async || (view(client, name).await.waiters.len() == count).then_some(())).await;
}

/// The parameters of the next notification, which must be of `method`.
pub(crate) async fn next(notices: &mut Notices, method: &str) -> Json {
    let notice = soon(method, notices.recv()).await.expect("the connection lasts");
    assert_eq!(notice.method, method, "{:?}", notice.params);
    notice.params
}

/// The next word on `held`: its state, and the reason where there is one.
pub(crate) async fn fate(notices: &mut Notices, held: &LockAcquired) -> (String, Json) {
    loop {
        let mut notice = next(notices, "lease").await;
        if notice["lease"] == held.lease {
            return (notice["state"].as_str().unwrap().to_owned(), notice["reason"].take());
        }
    }
}

/// `tenure`, killed when dropped.
pub(crate) struct Job {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    errors: ChildStderr,
}

impl Job {
    /// Runs `script` by bash under the lock `name`, kept where `place` says: `--store URL` or `--socket PATH`.
    pub(crate) fn lock(name: &str, place: [&str; 2], options: &[&str], script: &str) -> Self {
        Self::tenure(&[&["lock", name], &place[..], options, &["--", "bash", "-c", script]].concat())
    }

    /// Runs `tenure` with these arguments.
    pub(crate) fn tenure(arguments: &[&str]) -> Self {
        // In a session of its own and with no signal ignored, whatever the tests are run from.
        let mut child = Command::new("env")
            .args(["--default-signal", "setsid", env!("CARGO_BIN_EXE_test-tenure")])
            .args(arguments)
            .env_remove("TENURE_SOCKET")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { stdin: child.stdin.take(), errors: child.stderr.take().unwrap(), lines, child }
    }

    /// The next line of output.
    pub(crate) async fn line(&mut self) -> String {
        self.next_line().await.expect("a line of output")
    }

    /// The next line of output, which is a number.
    pub(crate) async fn number(&mut self) -> u64 {
        self.line().await.parse().unwrap()
    }

    /// Writes a line to the command.
    pub(crate) async fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// The next line of output, or `None` when nobody can write any more.
    pub(crate) async fn next_line(&mut self) -> Option<String> {
        soon("a line of output or its end", self.lines.next_line()).await.unwrap()
    }

    /// As [`end`](Self::end), for a command that is not told to end.
    pub(crate) async fn end_at_its_leisure(mut self) -> (Option<i32>, String) {
        let _open = self.stdin.take();
        self.end().await
    }

    /// Fails with what was said on standard error when it has ended.
    pub(crate) async fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            let mut said = String::new();
            soon("standard error ends", self.errors.read_to_string(&mut said)).await.unwrap();
            panic!("tenure ended with {status}: {said}");
        }
    }

    /// Exit code, `None` for a signal, and what was said on standard error.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        drop(self.stdin.take());
        let status = soon("tenure ends", self.child.wait()).await.unwrap();
        let mut said = String::new();
        soon("standard error ends", self.errors.read_to_string(&mut said)).await.unwrap();
        (status.code(), said)
    }
}
