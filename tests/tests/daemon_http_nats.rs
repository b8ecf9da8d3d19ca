//! What load balancers see of a daemon whose store is stopped and comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod http_support;
mod sidecar_support;

use http_support::{Events, get, until_status};
use serde_json::json;
use sidecar_support::{soon, until};
use tenure_sidecar::Client;
use tenure_tests::{NatsServer, unique_bucket};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_stopped_shows_and_so_does_its_return() {
    let mut server = NatsServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    let (_daemon, http) = http_support::start(&server.url(&unique_bucket("http")), &socket, &["--lease", "1s"]).await;
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
