//! A daemon that answers over HTTP, and a client that speaks just enough of it, for tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::Value as Json;

use crate::daemon_support::{Daemon, Mortal, PATIENCE};

/// A daemon that also answers over HTTP, on `memory:` unless told.
pub(crate) fn start(arguments: &[&str]) -> (Daemon, SocketAddr) {
    let (daemon, address, _) = start_with(arguments, |_| {});
    (daemon, address)
}

/// The same, with what it has logged so far and a say in how it is started.
pub(crate) fn start_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> (Daemon, SocketAddr, Log) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenured"));
    command.arg("--socket").arg(directory.path().join("s.sock"));
    if !arguments.contains(&"--store") {
        command.args(["--store", "memory:"]);
    }
    command.args(["--http", "127.0.0.1:0"]).args(arguments).stderr(Stdio::piped());
    for name in ["TENURE_STORE", "TENURE_SOCKET", "TENURE_HTTP"] {
        command.env_remove(name);
    }
    change(&mut command);
    let mut child = Mortal::spawn(&mut command);
    let log = Log::of(child.stderr.take().unwrap());
    let line = log.find("serving HTTP");
    let address = line.split(|letter: char| letter != '.' && letter != ':' && !letter.is_ascii_digit());
    let address = address.rev().find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"));
    let daemon = Daemon { child, directory };
    log.find("lease_ms");
    (daemon, address, log)
}

/// Lines of a daemon's log.
pub(crate) struct Log(std::sync::mpsc::Receiver<String>);

impl Log {
    fn of(from: impl Read + Send + 'static) -> Self {
        let (sender, lines) = std::sync::mpsc::channel();
        // It ends with the daemon.
        std::thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self(lines)
    }

    /// The next line with `part` in it.
    pub(crate) fn find(&self, part: &str) -> String {
        let begun = Instant::now();
        loop {
            let line = self.0.recv_timeout(PATIENCE.saturating_sub(begun.elapsed()));
            let line = line.unwrap_or_else(|error| panic!("no line with {part:?} in the log: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The kind of an error, which must come with a message.
    pub(crate) fn kind(&self) -> String {
        let page = self.json();
        assert!(page["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{page}");
        page["error"]["kind"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
}

/// Sends `request` and reads to the end.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = open(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {request:?}: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Asks until the answer has that status.
pub(crate) fn until(address: SocketAddr, path: &str, status: u16) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = get(address, path);
        if answer.status == status {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{path} never came to {status}: {answer:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A stream of events.
pub(crate) struct Events(BufReader<TcpStream>);

impl Events {
    pub(crate) fn of(address: SocketAddr, path: &str) -> Self {
        let mut stream = open(address);
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut events = Self(BufReader::new(stream));
        assert!(events.line().unwrap().starts_with("HTTP/1.1 200"), "{path}");
        let head: Vec<_> = std::iter::from_fn(|| events.line().filter(|line| !line.is_empty())).collect();
        assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
        events
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    }

    /// The next event and its data, or `None` at the end.
    pub(crate) fn next(&mut self) -> Option<(String, Json)> {
        let kind = loop {
            // Lengths of chunks, comments and what belongs to no event.
            if let Some(kind) = self.line()?.strip_prefix("event: ") {
                break kind.to_owned();
            }
        };
        let data = self.line()?;
        let data: Json = serde_json::from_str(data.strip_prefix("data: ").unwrap_or_else(|| panic!("{data}"))).unwrap();
        assert_eq!(data["kind"], kind.as_str());
        Some((kind, data))
    }
}

/// The value of a sample, by its name and labels as they are written.
pub(crate) fn sample(page: &str, sample: &str) -> f64 {
    let found = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {sample} in {page}")).parse().unwrap()
}
