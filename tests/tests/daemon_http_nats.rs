//! What load balancers see of a daemon whose store is stopped and comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod sidecar_support;

use std::{net::SocketAddr, process::Stdio};

use serde_json::{Value as Json, json};
use sidecar_support::{soon, until};
use tenure_sidecar::Client;
use tenure_tests::{NatsServer, unique_bucket};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::Command,
};

/// A stream of events.
struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    async fn of(http: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        Self(BufReader::new(stream).lines())
    }

    /// Reads to the next event of that kind.
    async fn until(&mut self, kind: &str) {
        let line = format!("event: {kind}");
        soon(&line, async { while self.0.next_line().await.unwrap().expect("it goes on") != line {} }).await;
    }
}

/// The status and the page of an answer; nothing where there is none.
async fn get(http: SocketAddr, path: &str) -> Option<(u16, Json)> {
    let mut stream = TcpStream::connect(http).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).unwrap()))
}

async fn until_status(http: SocketAddr, path: &str, status: u16) -> Json {
    let what = format!("{path} comes to {status}");
    until(&what, async || get(http, path).await.filter(|(found, _)| *found == status).map(|(_, page)| page)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_stopped_shows_and_so_does_its_return() {
    let mut server = NatsServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_test-tenured"))
        .args(["--store", &server.url(&unique_bucket("http")), "--lease", "1s", "--http", "127.0.0.1:0", "--socket"])
        .arg(&socket)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let serving = soon("the HTTP listener", async {
        loop {
            let line = log.next_line().await.unwrap().expect("it logs");
            if let Some((_, address)) = line.split_once("serving HTTP address=") {
                return address.parse::<SocketAddr>().unwrap();
            }
        }
    });
    let http = serving.await;
    // Nobody reading the log is no reason to stop; what follows in it is dropped.
    let client = until("tenured listens", async || Client::connect(socket.clone()).await.ok()).await;
    let elected = soon("an election", client.call("election.campaign", json!({ "name": "e", "value": "x" }))).await.unwrap();

    until_status(http, "/readyz", 200).await;
    let led = until_status(http, "/v1/leader/e?value=x", 200).await;
    assert_eq!(led["leader"]["fence"], elected["fence"], "{led}");
    until_status(http, "/v1/members/g", 200).await;

    let mut told = Events::of(http, "/v1/leader/e/events").await;
    told.until("sync").await;

    server.kill();
    let blind = until_status(http, "/v1/leader/e", 503).await;
    let kind = blind["error"]["kind"].as_str().unwrap();
    assert!(["stale", "unavailable"].contains(&kind), "{blind}");
    let unready = until_status(http, "/readyz", 503).await;
    assert!(unready["age_ms"].as_u64().unwrap() >= 5_000 && unready["error"]["kind"] == "unavailable", "{unready}");
    until_status(http, "/v1/members/g", 503).await;
    assert_eq!(get(http, "/healthz").await.unwrap().0, 200);

    told.until("gap").await;

    server.restart().await;
    told.until("leader").await;
    until_status(http, "/readyz", 200).await;
    until_status(http, "/v1/members/g", 200).await;
    // The leader's session may or may not have lived through it: somebody leads again in either case.
    let seen = until("the leader is known again, or that there is none", async || {
        let (status, page) = get(http, "/v1/leader/e").await?;
        (status == 200 || page["error"]["kind"] == "no_leader").then_some(status)
    })
    .await;
    if seen == 503 {
        let again = json!({ "name": "e", "value": "y" });
        soon("another election", client.call("election.campaign", again)).await.unwrap();
    }
    until_status(http, "/v1/leader/e", 200).await;
}
