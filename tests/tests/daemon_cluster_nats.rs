//! A daemon on three servers, as a user who may do what `tenure permissions` prints and nothing else, with a policy: what it
//! serves, shows and tells goes on when the server dies that leads its stream.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod http_support;
mod sidecar_support;

use http_support::{Events, get, until_status};
use serde_json::{Value as Json, json};
use sidecar_support::{Job, refused, settle, soon, until};
use tenure::Role;
use tenure_sidecar::{Client, protocol::Kind};
use tenure_tests::NatsCluster;

const BUCKET: &str = "locks";
const POLICY: &str = r#"
[[allow]]
user = "*"
methods = ["lock", "election", "member", "kv"]

[[deny]]
user = "*"
methods = "lock"
prefix = "secret."
"#;

/// Exit code of `tenure doctor`, and what it found.
async fn doctor(place: [&str; 2]) -> (Option<i32>, Vec<Json>) {
    let mut job = Job::tenure(&[&["doctor", "--format", "json"], &place[..]].concat());
    let mut text = String::new();
    while let Some(line) = job.next_line().await {
        text += &line;
    }
    (job.end().await.0, serde_json::from_str(&text).unwrap())
}

/// The levels of what was found about `check`.
fn levels<'a>(findings: &'a [Json], check: &str) -> Vec<&'a str> {
    findings.iter().filter(|finding| finding["check"] == check).map(|finding| finding["level"].as_str().unwrap()).collect()
}

/// Reads on to a line with `part` in it.
async fn line_with(job: &mut Job, part: &str) {
    while !job.line().await.contains(part) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_shown_and_told_goes_on_when_the_leader_of_the_stream_dies() {
    let granted = tenure_kv::permissions(&format!("nats://anywhere/{BUCKET}"), &Role::Daemon.writes(None).unwrap()).unwrap();
    let users = ["{ user: admin, password: secret }".to_owned(), format!("{{ user: daemon, password: secret\n{granted} }}")];
    let config = format!("authorization {{ users: [\n{}\n] }}\nno_auth_user: admin", users.join("\n"));
    let mut cluster = NatsCluster::start_with(3, &config).await;
    settle(&cluster.url(BUCKET)).await;
    let url = cluster.url(BUCKET).replacen("nats://", "nats://daemon:secret@", 1);

    let directory = tempfile::tempdir().unwrap();
    let (socket, policy) = (directory.path().join("s.sock"), directory.path().join("policy.toml"));
    std::fs::write(&policy, POLICY).unwrap();
    let (_daemon, http) = http_support::start(&url, &socket, &["--lease", "120s", "--policy", policy.to_str().unwrap()]).await;
    let client = until("tenured listens", async || Client::connect(socket.clone()).await.ok()).await;
    let call = async |method: &str, params: Json| soon(method, client.call(method, params)).await.expect(method);

    let held = call("lock.acquire", json!({ "name": "l" })).await;
    let office = call("election.campaign", json!({ "name": "e", "value": "x" })).await;
    let member = call("member.join", json!({ "group": "g", "id": "m" })).await;
    assert_eq!(refused(&client, "lock.acquire", json!({ "name": "secret.l", "wait_ms": 0 })).await, Kind::Denied);

    let place = ["--socket", socket.to_str().unwrap()];
    let watch = |what: &[&str]| Job::tenure(&[&["watch"], what, &["-o", "jsonl"], &place[..]].concat());
    let (mut leaders, mut keys) = (watch(&["leader", "e"]), watch(&["kv", "--prefix", ""]));
    let mut told = Events::of(http, "/v1/leader/e/events").await;
    line_with(&mut leaders, "\"value\":\"x\"").await;
    told.until("sync").await;
    call("kv.put", json!({ "key": "before", "value": "1" })).await;
    line_with(&mut keys, "\"before\"").await;
    let (code, findings) = doctor(["--store", &url]).await;
    assert_eq!((code, levels(&findings, "replica")), (Some(0), vec!["ok", "ok"]), "{findings:?}");

    let dead = cluster.leader(BUCKET).await;
    cluster.kill(dead);
    assert_eq!(get(http, "/healthz").await.unwrap().0, 200);
    // Not applied, or nobody knows: until the next leader is there.
    until("a write is taken", async || client.call("kv.put", json!({ "key": "after", "value": "1" })).await.ok()).await;

    line_with(&mut keys, "\"after\"").await;
    until_status(http, "/readyz", 200).await;
    assert_eq!(until_status(http, "/v1/leader/e?value=x", 200).await["leader"]["fence"], office["fence"]);
    assert_eq!(until_status(http, "/v1/members/g", 200).await["members"][0]["id"], "m");
    assert_eq!(call("lock.check", json!({ "lease": held["lease"] })).await["held"], true);
    assert_eq!(refused(&client, "lock.acquire", json!({ "name": "secret.l", "wait_ms": 0 })).await, Kind::Denied);
    until("the dead server is found", async || {
        let (code, findings) = doctor(["--store", &url]).await;
        (code == Some(2) && levels(&findings, "replica").contains(&"critical")).then_some(())
    })
    .await;
    assert_eq!(doctor(place).await.0, Some(0));

    call("election.resign", json!({ "lease": office["lease"] })).await;
    line_with(&mut leaders, "\"leader\":null").await;
    while !told.until("leader").await["leader"].is_null() {}
    for (method, lease) in [("member.leave", member), ("lock.release", held)] {
        call(method, json!({ "lease": lease["lease"] })).await;
    }

    cluster.restart(dead).await;
    until("every copy is current again", async || {
        let (_, findings) = doctor(["--store", &url]).await;
        (levels(&findings, "replica") == ["ok", "ok"]).then_some(())
    })
    .await;
}
