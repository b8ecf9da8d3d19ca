//! A daemon on a private socket, and a client that speaks lines, for tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    ops::{Deref, DerefMut},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// Longer than anything that works takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running `tenured`, killed when dropped.
pub(crate) struct Daemon {
    pub(crate) child: Mortal,
    pub(crate) directory: TempDir,
}

impl Daemon {
    /// On `memory:`, with leases that no load of this machine can use up.
    pub(crate) fn start() -> Self {
        Self::with(&["--store", "memory:", "--lease", "60s"])
    }

    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), arguments)
    }

    /// In a directory that may have seen a daemon before.
    pub(crate) fn in_directory(directory: TempDir, arguments: &[&str]) -> Self {
        let child = Mortal::spawn(&mut command(&directory.path().join("s.sock"), arguments));
        let mut daemon = Self { child, directory };
        let begun = Instant::now();
        while UnixStream::connect(daemon.socket()).is_err() {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("tenured did not start: {status}");
            }
            assert!(begun.elapsed() < PATIENCE, "tenured does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("s.sock")
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(&self.socket())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(pid(self.child.id()), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Kills it at once and keeps what it left.
    pub(crate) fn kill(mut self) -> TempDir {
        self.signal(Signal::SIGKILL);
        self.wait();
        self.directory
    }
}

/// `tenured` on `socket`, not started.
pub(crate) fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = bare();
    command.arg("--socket").arg(socket).args(["--log", "warn"]).args(arguments);
    command
}

/// `tenured` that finds no setting in the environment, not started.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenured"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TENURE_")) {
        command.env_remove(name);
    }
    command
}

/// The first connection to a daemon that has just been started.
pub(crate) fn await_socket(child: &mut Mortal, socket: &Path) -> Wire {
    let begun = Instant::now();
    while UnixStream::connect(socket).is_err() {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("tenured did not start: {status}");
        }
        assert!(begun.elapsed() < PATIENCE, "tenured does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
    Wire::connect(socket)
}

/// Takes from a process that runs what it could open, but for so many files.
pub(crate) fn may_open(child: &Child, files: u64) {
    let limit = Rlimit { current: Some(files), maximum: Some(files) };
    prlimit(rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()), Resource::Nofile, limit).unwrap();
}

/// A process that is killed when its test ends, whichever way.
pub(crate) struct Mortal(Child);

impl Mortal {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Deref for Mortal {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Mortal {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the end of a process.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "the process does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// A connection that sends and receives lines.
pub(crate) struct Wire {
    pub(crate) stream: UnixStream,
    reader: BufReader<UnixStream>,
    last: u64,
    /// Notifications that came while an answer was awaited.
    pub(crate) notices: Vec<Json>,
    /// Answers that came while another was awaited.
    answers: Vec<Json>,
}

impl Wire {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader, last: 0, notices: Vec::new(), answers: Vec::new() }
    }

    pub(crate) fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request and returns its id.
    pub(crate) fn send(&mut self, method: &str, params: &Json) -> u64 {
        self.last += 1;
        let line = json!({ "jsonrpc": "2.0", "id": self.last, "method": method, "params": params });
        self.raw(format!("{line}\n"));
        self.last
    }

    /// The next line, or `None` at the end of the connection.
    pub(crate) fn line(&mut self) -> Option<Json> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(_) if !line.ends_with('\n') => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line came: {error}"),
        }
    }

    /// Whether nothing comes for `time`.
    pub(crate) fn is_quiet(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let quiet = self.answers.is_empty()
            && self.notices.is_empty()
            && matches!(self.reader.fill_buf(), Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        quiet
    }

    /// The answer to `id`, whole.
    pub(crate) fn answer(&mut self, id: impl Into<Json>) -> Json {
        let id = id.into();
        if let Some(at) = self.answers.iter().position(|answer| answer["id"] == id) {
            return self.answers.remove(at);
        }
        loop {
            let line = self.line().unwrap_or_else(|| panic!("the connection ended before the answer to {id}"));
            assert_eq!(line["jsonrpc"], "2.0", "{line}");
            if line.get("method").is_some() {
                assert!(line.get("id").is_none(), "{line}");
                self.notices.push(line);
            } else if line["id"] == id {
                assert!(line.get("result").is_some() != line.get("error").is_some(), "{line}");
                return line;
            } else {
                self.answers.push(line);
            }
        }
    }

    pub(crate) fn result(&mut self, id: u64) -> Result<Json, Json> {
        let mut answer = self.answer(id);
        match answer.get_mut("error") {
            Some(error) => Err(error.take()),
            None => Ok(answer["result"].take()),
        }
    }

    pub(crate) fn call(&mut self, method: &str, params: Json) -> Result<Json, Json> {
        let id = self.send(method, &params);
        self.result(id)
    }

    /// A call to a daemon that may die meanwhile: `None` when the connection ended before the answer.
    pub(crate) fn attempt(&mut self, method: &str, params: &Json) -> Option<Result<Json, Json>> {
        self.last += 1;
        let id = self.last;
        let line = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.stream.write_all(format!("{line}\n").as_bytes()).ok()?;
        loop {
            let mut line = self.line()?;
            if line["id"] == id {
                return Some(if line.get("error").is_some() { Err(line["error"].take()) } else { Ok(line["result"].take()) });
            }
            self.notices.push(line);
        }
    }

    /// The `data.kind` of an error, whose code must fit it.
    pub(crate) fn refused(&mut self, method: &str, params: Json) -> String {
        let error = self.call(method, params.clone()).expect_err(&format!("{method} {params}"));
        kind(&error)
    }

    /// The next notification's method and parameters.
    pub(crate) fn notice(&mut self) -> (String, Json) {
        while self.notices.is_empty() {
            let line = self.line().expect("the connection ended before the notification");
            if line.get("method").is_some() { self.notices.push(line) } else { self.answers.push(line) }
        }
        let mut notice = self.notices.remove(0);
        (notice["method"].as_str().unwrap().to_owned(), notice["params"].take())
    }

    pub(crate) fn acquire(&mut self, name: &str) -> (String, u64) {
        let held = self.call("lock.acquire", json!({ "name": name, "wait_ms": 15_000 })).unwrap();
        (held["lease"].as_str().unwrap().to_owned(), held["fence"].as_u64().unwrap())
    }

    pub(crate) fn holder(&mut self, name: &str) -> Option<u64> {
        self.call("lock.get", json!({ "name": name })).unwrap()["holder"]["fence"].as_u64()
    }

    /// Waits until `count` wait for the lock.
    pub(crate) fn await_waiters(&mut self, name: &str, count: usize) {
        let begun = Instant::now();
        while self.call("lock.get", json!({ "name": name })).unwrap()["waiters"].as_array().unwrap().len() != count {
            assert!(begun.elapsed() < PATIENCE, "there are never {count} waiters");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether the connection ends with nothing more said.
    pub(crate) fn at_end(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// The kind of an error, checked against its code.
pub(crate) fn kind(error: &Json) -> String {
    let kind = error["data"]["kind"].as_str().unwrap_or_else(|| panic!("{error}"));
    let code = match kind {
        "parse_error" => -32700,
        "invalid_request" => -32600,
        "method_not_found" => -32601,
        "invalid_params" => -32602,
        "internal" => -32603,
        "cancelled" => -32800,
        "timeout" => 1,
        "conflict" => 2,
        "not_held" => 3,
        "lost" => 4,
        "not_found" => 5,
        "unavailable" => 6,
        "denied" => 7,
        "limit" => 8,
        "unknown_outcome" => 9,
        "unsupported" => 10,
        _ => panic!("{error}"),
    };
    assert_eq!(error["code"], code, "{error}");
    assert!(error["data"]["retryable"].is_boolean() && !error["message"].as_str().unwrap().is_empty(), "{error}");
    kind.to_owned()
}

/// A client in a process of its own: the test named `client_process` of this very binary.
pub(crate) struct Client {
    pub(crate) child: Mortal,
    said: BufReader<ChildStdout>,
}

impl Client {
    /// Starts one that takes `lock`; `mode` is for `client_process` to read.
    pub(crate) fn start(daemon: &Daemon, lock: &str, mode: &str) -> Self {
        let mut child = Mortal::spawn(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "client_process", "--ignored", "--nocapture"])
                .env("CLIENT_SOCKET", daemon.socket())
                .env("CLIENT_LOCK", lock)
                .env("CLIENT_MODE", mode)
                .stdout(Stdio::piped()),
        );
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Waits until it says `word`, and returns what follows on that line.
    pub(crate) fn await_word(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the client process ended before it said {word}");
            // The test harness writes the test's name before the first line.
            if let Some((_, rest)) = line.split_once(&format!("{word}: ")) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(pid(self.child.id()), signal).unwrap();
    }
}
