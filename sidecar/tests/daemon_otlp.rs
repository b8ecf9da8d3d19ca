//! Spans that arrive at a collector, which is here a listener that takes whatever is posted.
#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;
mod http_rig;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use daemon_support::PATIENCE;
use http_rig::start_with;
use serde_json::json;

/// A collector: the paths and bodies of what it was sent.
fn collector() -> (SocketAddr, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, posted) = channel();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                while let Some(post) = take(&stream)
                    && sender.send(post).is_ok()
                {}
            });
        }
    });
    (address, posted)
}

fn take(mut stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0).map(|_| line.trim_end().to_lowercase())
    };
    let path = line()?.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    while let Some(header) = line().filter(|header| !header.is_empty()) {
        length = header.strip_prefix("content-length: ").map_or(length, |digits| digits.parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").ok()?;
    Some((path, body))
}

fn has(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|part| part == text.as_bytes())
}

fn arrives(endpoint: impl FnOnce(SocketAddr, &mut std::process::Command)) {
    let (address, posted) = collector();
    let (daemon, _, _log) = start_with(&[], |command| {
        command.env("OTEL_BSP_SCHEDULE_DELAY", "50").env("OTEL_SERVICE_NAME", "the-service");
        endpoint(address, command);
    });
    let mut wire = daemon.connect();
    wire.call("lock.acquire", json!({ "name": "orders", "label": "secret" })).unwrap();
    wire.call("kv.put", json!({ "key": "k", "value": "secret" })).unwrap();
    let begun = Instant::now();
    let mut all = Vec::new();
    let whole = ["lock.acquire", "orders", "kv.put", "commit", "the-service"];
    while !whole.iter().all(|text| has(&all, text)) {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        let (path, body) = posted.recv_timeout(left).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&all)));
        assert_eq!(path, "/v1/traces");
        all.extend(body);
    }
    assert!(!has(&all, "secret"), "values are no one's business");
}

#[test]
fn spans_arrive_at_the_collector_that_a_flag_names() {
    arrives(|address, command| {
        command.args(["--otlp-endpoint", &format!("http://{address}")]);
    });
}

#[test]
fn spans_arrive_at_the_collector_that_the_environment_names() {
    arrives(|address, command| {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
    });
}

#[test]
fn a_collector_that_is_not_there_does_no_harm() {
    let (mut daemon, _, _log) = start_with(&["--otlp-endpoint", "http://127.0.0.1:1"], |_| {});
    daemon.connect().acquire("x");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon_support::wait(&mut daemon.child).success());
}
