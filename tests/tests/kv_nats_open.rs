//! Opening a bucket on NATS: what is made, what is refused and with which remedy, and what is never shown.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use async_nats::Client;
use serde_json::{Value, json};
use tenure_kv::{
    Error, Key, Revision, Store, StoreExt,
    nats::{Nats, Options},
};
use tenure_tests::{NatsCluster, NatsServer, unique_bucket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

async fn api(client: &Client, call: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let reply = client.request(format!("$JS.API.{call}"), body.into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

async fn config(client: &Client, bucket: &str) -> Value {
    api(client, &format!("STREAM.INFO.KV_{bucket}"), &Value::Null).await["config"].take()
}

async fn refused(url: &str) -> Error {
    match Nats::open(url).await {
        Ok(store) => panic!("{url} was opened: {store:?}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_bucket_is_made_as_coordination_needs_it() {
    let server = NatsServer::shared().await;
    let bucket = unique_bucket("made");
    let store = Nats::open(&server.url(&bucket)).await.unwrap();
    let client = async_nats::connect(server.client_url()).await.unwrap();
    let made = config(&client, &bucket).await;
    for (setting, needed) in [
        ("subjects", json!([format!("$KV.{bucket}.>")])),
        ("storage", json!("file")),
        ("retention", json!("limits")),
        ("discard", json!("new")),
        ("max_msgs_per_subject", json!(1)),
        ("max_age", json!(0)),
        ("duplicate_window", json!(120_000_000_000_u64)),
        ("num_replicas", json!(1)),
        ("allow_direct", json!(true)),
        ("allow_msg_ttl", json!(true)),
        ("allow_atomic", json!(true)),
        ("allow_rollup_hdrs", json!(false)),
        ("deny_delete", json!(true)),
        ("deny_purge", json!(true)),
        ("subject_delete_marker_ttl", Value::Null),
        ("republish", json!({ "src": format!("$KV.{bucket}.>"), "dest": format!("$TENURE.{bucket}.>") })),
    ] {
        assert_eq!(made[setting], needed, "{setting}");
    }
    assert_eq!(store.info().url, server.url(&bucket));
    assert!(store.info().shared);
    assert_eq!(store.info().replicas, 1);

    let key = Key::new("a").unwrap();
    let at = store.create(&key, "x").await.unwrap();
    let again = Nats::open(&format!("{}?create=false&replicas=1", server.url(&bucket))).await.unwrap();
    assert_eq!(again.entry(&key).await.unwrap().unwrap().revision, at);
    let ours = Nats::with_client(client, &bucket, Options { create: false, ..Options::default() }).await.unwrap();
    assert_eq!(ours.update(&key, "y", at).await.unwrap(), at.next());
}

#[tokio::test]
async fn what_differs_is_refused_by_name_and_mended_by_the_command_it_names() {
    let server = NatsServer::shared().await;
    let client = async_nats::connect(server.client_url()).await.unwrap();
    let template = unique_bucket("template");
    Nats::open(&server.url(&template)).await.unwrap();
    let template = config(&client, &template).await;

    // Each change, the words that must name it, and whether the server lets it be mended in place.
    let changes: Vec<(Value, &str, &str)> = vec![
        (json!({ "storage": "memory" }), "storage is \"memory\"", "rm"),
        (json!({ "retention": "interest" }), "retention is \"interest\"", "rm"),
        (json!({ "persist_mode": "async", "allow_atomic": false }), "persist_mode is \"async\"", "rm"),
        (
            json!({ "allow_msg_schedules": true, "discard": "old", "allow_rollup_hdrs": true, "deny_purge": false }),
            "allow_msg_schedules is true",
            "rm",
        ),
        (json!({ "max_msgs_per_subject": 5 }), "max_msgs_per_subject is 5", "--max-msgs-per-subject=1"),
        (
            json!({ "max_age": 3_600_000_000_000_u64, "duplicate_window": 120_000_000_000_u64 }),
            "max_age is 3600000000000",
            "--max-age=0s",
        ),
        (json!({ "max_msg_size": 1_000 }), "max_msg_size is 1000", "--max-msg-size=-1"),
        (json!({ "discard": "old" }), "discard is \"old\"", "--discard=new"),
        (json!({ "discard_new_per_subject": true }), "discard_new_per_subject is true", "--no-discard-per-subject"),
        (json!({ "duplicate_window": 1_000_000_000_u64 }), "duplicate_window is 1000000000", "--dupe-window=2m"),
        (json!({ "no_ack": true, "allow_atomic": false }), "no_ack is true", "--ack"),
        (json!({ "allow_direct": false }), "allow_direct is false", "--allow-direct"),
        (json!({ "allow_msg_ttl": false }), "allow_msg_ttl is", "--allow-msg-ttl"),
        (
            json!({ "subject_delete_marker_ttl": 1_000_000_000_u64, "allow_rollup_hdrs": true, "deny_purge": false }),
            "subject_delete_marker_ttl is 1000000000",
            "--subject-del-markers-ttl=0s",
        ),
        (json!({ "allow_atomic": false }), "allow_atomic is", "--allow-batch"),
        (json!({ "allow_rollup_hdrs": true, "deny_purge": false }), "allow_rollup_hdrs is true", "--no-allow-rollup"),
        (json!({ "deny_delete": false }), "deny_delete is false", "--deny-delete"),
        (json!({ "deny_purge": false }), "deny_purge is false", "--deny-purge"),
        (json!({ "republish": null }), "republish is null", "--republish-source="),
        (json!({ "subjects": ["$KV.BUCKET.>", "more.BUCKET"] }), "subjects is [", "--subjects='$KV."),
    ];
    for (change, names, remedy) in changes {
        let bucket = unique_bucket("off");
        let right: Value = serde_json::from_str(&template.to_string().replace(&unique(&template), &bucket)).unwrap();
        let mut wrong = right.clone();
        for (setting, value) in change.as_object().unwrap() {
            wrong[setting] = serde_json::from_str(&value.to_string().replace("BUCKET", &bucket)).unwrap();
        }
        let made = api(&client, &format!("STREAM.CREATE.KV_{bucket}"), &wrong).await;
        assert!(made["error"].is_null(), "{change}: {made}");

        let error = refused(&server.url(&bucket)).await;
        let said = error.to_string();
        assert!(error.is_invalid() && said.contains(names), "{change}: {said}");
        if remedy == "rm" {
            assert!(said.contains(&format!("nats stream rm KV_{bucket}")), "{change}: {said}");
            continue;
        }
        assert!(said.contains(&format!("nats stream edit KV_{bucket} ")) && said.contains(remedy), "{change}: {said}");
        let edited = api(&client, &format!("STREAM.UPDATE.KV_{bucket}"), &right).await;
        assert!(edited["error"].is_null(), "{change} was said to be mended by an edit: {edited}");
        Nats::open(&server.url(&bucket)).await.unwrap_or_else(|e| panic!("{change}, mended: {e}"));
    }
}

/// The bucket's name in a configuration.
fn unique(config: &Value) -> String {
    config["name"].as_str().unwrap().trim_start_matches("KV_").to_owned()
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let server = NatsServer::shared().await;
    let error = refused(&format!("{}?create=false", server.url(&unique_bucket("absent")))).await;
    assert!(error.is_invalid() && error.to_string().contains("create=true"), "{error}");

    let error = refused(&format!("{}?replicas=3", server.url(&unique_bucket("three")))).await;
    assert!(error.is_invalid() && error.to_string().contains("fewer replicas"), "{error}");

    let error = refused(&server.url("b").replace("nats://", "tls://")).await;
    assert!(error.is_invalid() && error.to_string().contains("speaks TLS"), "{error}");

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = refused(&format!("nats://{nobody}/b")).await;
    assert!(error.is_unavailable() && error.to_string().contains("start one or check the address"), "{error}");
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
}

#[tokio::test]
async fn replicas_are_those_asked_for_or_refused() {
    let cluster = NatsCluster::shared().await;
    let bucket = unique_bucket("replicas");
    let store = Nats::open(&cluster.url(&bucket)).await.unwrap();
    assert_eq!(store.info().replicas, 3);
    let url = cluster.url(&bucket);
    assert_eq!(Nats::open(url.trim_end_matches("?replicas=3")).await.unwrap().info().replicas, 3);
    let error = refused(&url.replace("replicas=3", "replicas=1")).await;
    assert!(error.is_invalid() && error.to_string().contains("--replicas=1"), "{error}");
    let error = refused(&cluster.url(&unique_bucket("five")).replace("replicas=3", "replicas=5")).await;
    assert!(error.is_invalid() && error.to_string().contains("fewer replicas"), "{error}");
}

#[tokio::test]
async fn a_race_to_create_ends_with_one_bucket() {
    for url in [NatsServer::shared().await.url(&unique_bucket("race")), NatsCluster::shared().await.url(&unique_bucket("race"))] {
        let opened = futures::future::join_all((0..8).map(|_| Nats::open(&url))).await;
        let key = Key::new("counter").unwrap();
        let mut at = Revision::ZERO;
        for store in opened {
            at = store.unwrap().update(&key, "x", at).await.unwrap();
        }
    }
}

/// Answers as a NATS server of some version would, up to the point where JetStream is asked for.
#[tokio::test]
async fn an_old_server_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let info =
            r#"{"server_id":"x","server_name":"relic","version":"2.10.29","proto":1,"headers":true,"max_payload":1048576}"#;
        stream.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut said = vec![0; 4_096];
        while stream.read(&mut said).await.unwrap() > 0 {
            if stream.write_all(b"PONG\r\n").await.is_err() {
                break;
            }
        }
    });
    let error = refused(&format!("nats://{address}/b")).await;
    assert!(error.is_invalid(), "{error}");
    for part in ["relic", "2.10.29", "2.14.4", "upgrade"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    fake.abort();
}

const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const ACCOUNTS: &str = r#"
accounts {
  WITH {
    jetstream: enabled
    users: [
      { user: app, password: "s3cr3t/p@ss" }
      { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 }
      { user: reader, password: s3cr3t, permissions: { publish: { deny: ["$KV.*.secret.>"] }, subscribe: ">" } }
      { user: stranger, password: s3cr3t, permissions: { publish: { deny: ["$JS.API.STREAM.>"] }, subscribe: ">" } }
    ]
  }
  WITHOUT { users: [ { user: outside, password: s3cr3t } ] }
}
"#;

#[tokio::test]
async fn every_way_to_log_in_works_and_shows_no_secret() {
    let server = NatsServer::start_with(ACCOUNTS).await;
    let host = server.client_url().trim_start_matches("nats://").to_owned();
    let files = tempfile::tempdir().unwrap();
    let seed = files.path().join("app.nk");
    std::fs::write(&seed, SEED).unwrap();
    let key = Key::new("data.x").unwrap();

    let store = Nats::open(&format!("nats://app:s3cr3t%2Fp%40ss@{host}/b")).await.unwrap();
    store.put(&key, "x").await.unwrap();
    let shown = format!("{store:?} {}", store.info().url);
    assert!(shown.contains(&host) && !shown.contains("s3cr3t") && !shown.contains("app"), "{shown}");
    let nkey = Nats::open(&format!("nats://{host}/b?nkey={}", seed.display())).await.unwrap();
    nkey.put(&key, "y").await.unwrap();

    for (login, names) in
        [("app:s3cr3t@", "refuses the credentials"), ("", "refuses the credentials"), ("s3cr3t@", "refuses the credentials")]
    {
        let error = refused(&format!("nats://{login}{host}/b")).await;
        assert!(error.is_invalid() && error.to_string().contains(names), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error:?}");
    }
    let error = refused(&format!("nats://outside:s3cr3t@{host}/b")).await;
    assert!(error.is_invalid() && error.to_string().contains("JetStream"), "{error}");
    let begun = Instant::now();
    let error = refused(&format!("nats://stranger:s3cr3t@{host}/b")).await;
    assert!(error.is_invalid() && error.to_string().contains("STREAM.INFO.KV_b"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(4), "a refusal was waited out");
}

#[tokio::test]
async fn a_write_without_permission_is_refused_not_unknown() {
    let server = NatsServer::start_with(ACCOUNTS).await;
    let host = server.client_url().trim_start_matches("nats://").to_owned();
    let store = Nats::open(&format!("nats://reader:s3cr3t@{host}/b")).await.unwrap();
    let (open, closed) = (Key::new("data.x").unwrap(), Key::new("secret.x").unwrap());
    let at = store.create(&open, "x").await.unwrap();
    let op = || tenure_kv::Op::put(closed.clone(), "x");
    let fenced = op().if_absent().fenced(open.clone(), at);
    let batch = tenure_kv::Batch::new().and(tenure_kv::Op::put(open.clone(), "y")).and(op());
    for batch in [op().into(), fenced.into(), batch] {
        let error = store.commit(batch).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("Permissions Violation"), "{error}");
    }
    assert_eq!(store.entry(&closed).await.unwrap(), None);
    assert_eq!(store.entry(&open).await.unwrap().unwrap().revision, at, "nothing of a refused batch is applied");
}
