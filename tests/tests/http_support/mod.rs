//! A daemon that answers over HTTP, and a client that speaks just enough of it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test binary uses its part; helpers of tests are tests"
)]

use std::{net::SocketAddr, path::Path, process::Stdio};

use serde_json::Value as Json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, Command},
};

use crate::sidecar_support::{soon, until};

/// Starts a daemon on this store and this socket, killed when dropped.
pub(crate) async fn start(store: &str, socket: &Path, arguments: &[&str]) -> (Child, SocketAddr) {
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_test-tenured"))
        .args(["--store", store, "--http", "127.0.0.1:0", "--socket"])
        .arg(socket)
        .args(arguments)
        .env_remove("TENURE_STORE")
        .env_remove("TENURE_SOCKET")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let http = soon("the HTTP listener", async {
        loop {
            let line = log.next_line().await.unwrap().expect("it logs");
            if let Some((_, address)) = line.split_once("serving HTTP address=") {
                return address.parse().unwrap();
            }
        }
    });
    // Nobody reading the log is no reason to stop; what follows in it is dropped.
    let http = http.await;
    (daemon, http)
}

/// A stream of events.
pub(crate) struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    pub(crate) async fn of(http: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        Self(BufReader::new(stream).lines())
    }

    /// Reads to the next event of that kind, and gives its data.
    pub(crate) async fn until(&mut self, kind: &str) -> Json {
        let line = format!("event: {kind}");
        soon(&line, async { while self.0.next_line().await.unwrap().expect("it goes on") != line {} }).await;
        let data = soon("its data", self.0.next_line()).await.unwrap().expect("it goes on");
        serde_json::from_str(data.strip_prefix("data: ").expect("data")).unwrap()
    }
}

/// The status and the page of an answer; nothing where there is none.
pub(crate) async fn get(http: SocketAddr, path: &str) -> Option<(u16, Json)> {
    let mut stream = TcpStream::connect(http).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).unwrap()))
}

pub(crate) async fn until_status(http: SocketAddr, path: &str, status: u16) -> Json {
    let what = format!("{path} comes to {status}");
    until(&what, async || get(http, path).await.filter(|(found, _)| *found == status).map(|(_, page)| page)).await
}
