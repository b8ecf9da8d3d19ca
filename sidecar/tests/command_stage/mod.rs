//! What the tests of the command share: processes that do not outlive their test, and a daemon that
//! does only what it is told.

#![allow(dead_code)]

pub(crate) mod daemon;
pub(crate) mod screen;

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `condition`, and fails the test when it does not come true.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process runs; one that ended and was not waited for does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// `tenure` with these arguments, in a session of its own: the terminal that the tests are run from is not
/// part of them.
pub(crate) fn tenure<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Command {
    // Under `nohup` or in the background of a script signals are ignored, and `tenure` would leave them so.
    let mut command = Command::new("env");
    command
        .args(["--default-signal", "setsid", env!("CARGO_BIN_EXE_tenure")])
        .args(arguments)
        .env_remove("TENURE_SOCKET")
        .env_remove("NOTIFY_SOCKET");
    command
}

/// `tenure lock` with these arguments.
pub(crate) fn lock<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Command {
    let mut command = tenure(["lock"]);
    command.args(arguments);
    command
}

/// `script` run by bash under the lock `x`, kept as `place` says: `--store URL` or `--socket PATH`.
pub(crate) fn under_lock(place: [&str; 2], options: &[&str], script: &str) -> Command {
    let mut arguments = vec!["x", place[0], place[1]];
    arguments.extend(options);
    arguments.extend(["--", "bash", "-c", script]);
    lock(arguments)
}

/// A process with its output read line by line; killed when dropped.
pub(crate) struct Job {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Arc<Mutex<String>>,
    errors: Option<thread::JoinHandle<()>>,
}

impl Job {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::<Mutex<String>>::default();
        let heard = said.clone();
        let errors = thread::spawn(move || {
            let mut line = Vec::new();
            while errors.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { child, lines, said, errors: Some(errors) }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, kind: Signal) {
        signal(self.pid(), kind);
    }

    /// The next line of output.
    pub(crate) fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        line.unwrap_or_else(|error| panic!("a line of output: {error}; what it said: {}", self.said.lock().unwrap()))
    }

    /// The next line, which must be this.
    pub(crate) fn expect(&self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// All lines up to the end of the output, which is the end of everybody who could write to it.
    pub(crate) fn rest(&self) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return lines,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the output does not end; so far {lines:?}"),
            }
        }
    }

    /// Waits until this has been said on standard error.
    pub(crate) fn says(&self, text: &str) {
        until(text, || self.said.lock().unwrap().contains(text));
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Exit code and standard error.
    pub(crate) fn end(mut self) -> (i32, String) {
        let status = self.wait();
        self.errors.take().unwrap().join().unwrap();
        let errors = std::mem::take(&mut *self.said.lock().unwrap());
        (status.code().unwrap_or_else(|| panic!("ended by signal {:?}: {errors}", status.signal())), errors)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit code, standard output and standard error of a command.
pub(crate) fn result(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Exit code and standard error of a command.
pub(crate) fn outcome(command: &mut Command) -> (i32, String) {
    Job::start(command.stdin(Stdio::null())).end()
}

/// A request that a [`Puppet`] was sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) at: Instant,
}

/// A daemon of strings: it grants at once, vouches while it is told to, and keeps a record.
pub(crate) struct Puppet {
    directory: tempfile::TempDir,
    shared: Arc<Mutex<Strings>>,
    requests: mpsc::Receiver<Request>,
}

struct Strings {
    grants: bool,
    vouches: bool,
    lease: Duration,
    peer: Option<UnixStream>,
    /// The request for a lock that was not answered.
    asked: Option<Value>,
    /// The end of what the last answer to `lock.check` vouched for.
    vouched: Option<Instant>,
}

impl Puppet {
    pub(crate) fn new(lease: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let shared = Arc::new(Mutex::new(Strings { grants: true, vouches: true, lease, peer: None, asked: None, vouched: None }));
        let (sender, requests) = mpsc::channel();
        let strings = shared.clone();
        // Ends with the test process; a listener cannot be woken.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                strings.lock().unwrap().peer = Some(stream.try_clone().unwrap());
                let (strings, sender) = (strings.clone(), sender.clone());
                thread::spawn(move || serve(stream, &strings, &sender));
            }
        });
        Self { directory, shared, requests }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub(crate) fn run(&self, options: &[&str], script: &str) -> Job {
        Job::start(under_lock(["--socket", self.path().to_str().unwrap()], options, script).stdin(Stdio::null()))
    }

    /// Leaves requests for a lock unanswered from now on.
    pub(crate) fn hold_back(&self) {
        self.shared.lock().unwrap().grants = false;
    }

    /// Grants the request that was held back.
    pub(crate) fn grant(&self) {
        let mut strings = self.shared.lock().unwrap();
        let id = strings.asked.take().unwrap();
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": granted(strings.lease)});
        writeln!(strings.peer.as_ref().unwrap(), "{answer}").unwrap();
    }

    /// Leaves every further request unanswered; returns the end of what was vouched for.
    pub(crate) fn hang(&self) -> Instant {
        let mut strings = self.shared.lock().unwrap();
        (strings.grants, strings.vouches) = (false, false);
        strings.vouched.unwrap()
    }

    pub(crate) fn notify(&self, method: &str, params: &Value) {
        let strings = self.shared.lock().unwrap();
        writeln!(strings.peer.as_ref().unwrap(), "{}", json!({"jsonrpc": "2.0", "method": method, "params": params})).unwrap();
    }

    pub(crate) fn cut(&self) {
        self.shared.lock().unwrap().peer.as_ref().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Waits for a request of this method. The end of the connection counts as `end`.
    pub(crate) fn request(&self, method: &str) -> Request {
        let end = Instant::now() + PATIENCE;
        loop {
            let request = self.requests.recv_timeout(end.saturating_duration_since(Instant::now()));
            let request = request.unwrap_or_else(|_| panic!("no {method}"));
            if request.method == method {
                return request;
            }
        }
    }
}

fn granted(lease: Duration) -> Value {
    let ms = u64::try_from(lease.as_millis()).unwrap();
    json!({"lease": "l_1", "fence": 7, "waited_ms": 0, "remaining_ms": ms, "lease_ms": ms})
}

fn serve(stream: UnixStream, strings: &Mutex<Strings>, sender: &mpsc::Sender<Request>) {
    let mut answers = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let at = Instant::now();
        let message: Value = serde_json::from_str(&line).unwrap();
        let method = message["method"].as_str().unwrap().to_owned();
        let mut strings = strings.lock().unwrap();
        let lease_ms = u64::try_from(strings.lease.as_millis()).unwrap();
        let result = match method.as_str() {
            "lock.acquire" if strings.grants => Some(granted(strings.lease)),
            "lock.acquire" => {
                strings.asked = Some(message["id"].clone());
                None
            }
            "lock.check" if strings.vouches => {
                strings.vouched = Some(at + strings.lease);
                // As the real one: a twentieth less than what keeps others out.
                Some(json!({"held": true, "remaining_ms": lease_ms - lease_ms / 20, "fence": 7}))
            }
            "lock.release" => Some(json!({})),
            "lock.get" => Some(json!({"name": "x", "holder": {"fence": 6, "label": "other job", "session": "s",
                "host": "web1", "pid": 42, "since_ms": 0}, "waiters": []})),
            _ => None,
        };
        let _ = sender.send(Request { method, params: message["params"].clone(), at });
        if let Some(result) = result {
            let _ = writeln!(answers, "{}", json!({"jsonrpc": "2.0", "id": message["id"], "result": result}));
        }
    }
    let _ = sender.send(Request { method: "end".to_owned(), params: Value::Null, at: Instant::now() });
}

/// The lines of a file, which may not exist.
pub(crate) fn lines_of(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}
