//! `kv.*` on NATS: in buckets that other clients use too, and `kv.watch` of the coordination bucket.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod sidecar_support;

use async_nats::jetstream::{
    self,
    kv::{Config, Operation, Store},
    stream::StorageType,
};
use futures::TryStreamExt;
use serde_json::{Value as Json, json};
use sidecar_support::{Daemon, LONG, MS, refused, soon, until};
use tenure_sidecar::{Client, Subscription, protocol::Happening, protocol::Kind};
use tenure_tests::{NatsCluster, NatsServer, Proxy, unique_bucket};

/// A bucket as other clients make it.
async fn bucket(urls: Vec<String>, config: Config) -> Store {
    let client = async_nats::connect(urls).await.unwrap();
    let nats = jetstream::new(client);
    // A cluster that has just come up may not answer in time.
    until("the bucket is made", async || nats.create_key_value(config.clone()).await.ok()).await
}

fn settings(history: i64) -> Config {
    Config { bucket: unique_bucket("settings"), history, ..Config::default() }
}

/// What a call with these parameters of the bucket comes to.
async fn call(client: &Client, bucket: &str, method: &str, mut params: Json) -> Json {
    params["bucket"] = bucket.into();
    soon(method, client.call(method, params)).await.unwrap_or_else(|error| panic!("{method}: {error}"))
}

async fn write(client: &Client, bucket: &str, method: &str, params: Json) -> u64 {
    call(client, bucket, method, params).await["revision"].as_u64().unwrap()
}

/// Operations and values, oldest first.
fn told(history: &Json) -> Vec<(&str, &str)> {
    let entries = history["entries"].as_array().unwrap().iter();
    entries.map(|entry| (entry["operation"].as_str().unwrap(), entry["value"].as_str().unwrap_or_default())).collect()
}

/// The next event of keys as one line; revisions grow.
async fn next(events: &mut Subscription, last: &mut u64) -> String {
    let event = soon("an event", events.recv()).await.expect("the watch lasts");
    let (revision, said) = match event {
        Happening::Put { key, revision, value, .. } => (revision, format!("{key}={}", value.unwrap())),
        Happening::Delete { key, revision } => (revision, format!("-{key}")),
        Happening::Purge { key, revision } => (revision, format!("--{key}")),
        Happening::Expire { key, revision } => (revision, format!("x{key}")),
        Happening::Sync { .. } => return "sync".to_owned(),
        Happening::Gap {} => return "gap".to_owned(),
        other => panic!("{other:?}"),
    };
    assert!(revision > *last, "{said} at {revision} after {last}");
    *last = revision;
    said
}

async fn expect(events: &mut Subscription, last: &mut u64, wanted: &[&str]) {
    for wanted in wanted {
        assert_eq!(next(events, last).await, *wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_a_history_is_shared_with_other_clients() {
    let server = NatsServer::shared().await;
    share(server.client_urls(), &server.url(&unique_bucket("own")), settings(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_direct_gets_is_shared_with_other_clients() {
    let server = NatsServer::shared().await;
    let config = settings(5);
    let store = bucket(server.client_urls(), config.clone()).await;
    let mut info = store.stream.get_info().await.unwrap();
    info.config.allow_direct = false;
    let nats = jetstream::new(async_nats::connect(server.client_urls()).await.unwrap());
    nats.update_stream(info.config).await.unwrap();
    let store = nats.get_key_value(&config.bucket).await.unwrap();
    assert!(!store.stream.get_info().await.unwrap().config.allow_direct);
    share_in(&store, &server.url(&unique_bucket("own")), &config.bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_on_three_servers_is_shared_with_other_clients() {
    let cluster = NatsCluster::shared().await;
    let config = Config { num_replicas: 3, ..settings(5) };
    share(cluster.client_urls(), &cluster.url(&unique_bucket("own")), config).await;
}

async fn share(urls: Vec<String>, url: &str, config: Config) {
    let name = config.bucket.clone();
    let store = bucket(urls, config).await;
    share_in(&store, url, &name).await;
}

async fn share_in(store: &Store, url: &str, b: &str) {
    let daemon = Daemon::start(url, LONG).await;
    let client = daemon.connect().await;
    let theirs = store.put("k", "theirs".into()).await.unwrap();
    let read = until("a write is read", async || {
        let read = call(&client, b, "kv.get", json!({ "key": "k" })).await;
        (!read["entry"].is_null()).then_some(read)
    })
    .await;
    assert_eq!(
        (&read["entry"]["value"], &read["entry"]["revision"], &read["entry"]["operation"]),
        (&json!("theirs"), &json!(theirs), &json!("put"))
    );
    let ours = write(&client, b, "kv.update", json!({ "key": "k", "value_b64": "/wA=", "revision": theirs })).await;
    let seen = until("our write is read", async || store.entry("k").await.unwrap().filter(|entry| entry.revision == ours)).await;
    assert_eq!((&seen.value[..], seen.operation), (&b"\xff\x00"[..], Operation::Put));
    let stale = json!({ "bucket": b, "key": "k", "value": "x", "revision": theirs });
    let error = client.call("kv.update", stale).await.unwrap_err();
    assert_eq!((error.kind(), error.object().unwrap().data["revision"].as_u64()), (Some(Kind::Conflict), Some(ours)));
    assert_eq!(refused(&client, "kv.create", json!({ "bucket": b, "key": "k", "value": "x" })).await, Kind::Conflict);
    assert_eq!(refused(&client, "kv.delete", json!({ "bucket": b, "key": "k", "revision": theirs })).await, Kind::Conflict);

    // Beyond the latest: among several servers one that is behind may have said so.
    let clustered = store.stream.get_info().await.unwrap().config.num_replicas > 1;
    let beyond = json!({ "bucket": b, "key": "k", "value": "x", "revision": ours + 1_000 });
    let wanted = if clustered { Kind::UnknownOutcome } else { Kind::Conflict };
    assert_eq!(refused(&client, "kv.update", beyond).await, wanted);

    // An old revision, and none of another key.
    let old = until("an old revision is read", async || {
        let old = call(&client, b, "kv.get", json!({ "key": "k", "revision": theirs })).await;
        (!old["entry"].is_null()).then_some(old)
    })
    .await;
    assert_eq!(old["entry"]["value"], "theirs");
    for (key, revision) in [("other", theirs), ("k", 0), ("k", ours + 1_000)] {
        let none = call(&client, b, "kv.get", json!({ "key": key, "revision": revision })).await;
        assert_eq!(none["entry"], json!(null), "{key} {revision}");
    }

    // A tombstone, and what is made over it.
    let deleted = write(&client, b, "kv.delete", json!({ "key": "k", "revision": ours })).await;
    let gone =
        until("the tombstone is read", async || store.entry("k").await.unwrap().filter(|entry| entry.revision == deleted)).await;
    assert_eq!(gone.operation, Operation::Delete);
    until("it has no value", async || call(&client, b, "kv.get", json!({ "key": "k" })).await["entry"].is_null().then_some(()))
        .await;
    let again = write(&client, b, "kv.create", json!({ "key": "k", "value": "again" })).await;
    let history = call(&client, b, "kv.history", json!({ "key": "k" })).await;
    assert_eq!(told(&history), [("put", "theirs"), ("put", ""), ("delete", ""), ("put", "again")]);
    assert_eq!((&history["entries"][1]["value_b64"], &history["entries"][3]["revision"]), (&json!("/wA="), &json!(again)));
    for n in 0..4 {
        write(&client, b, "kv.put", json!({ "key": "k", "value": n.to_string() })).await;
    }
    let history = call(&client, b, "kv.history", json!({ "key": "k" })).await;
    assert_eq!(told(&history), [("put", "again"), ("put", "0"), ("put", "1"), ("put", "2"), ("put", "3")]);
    let theirs: Vec<_> = store.history("k").await.unwrap().try_collect().await.unwrap();
    let revisions: Vec<_> =
        history["entries"].as_array().unwrap().iter().map(|entry| entry["revision"].as_u64().unwrap()).collect();
    assert_eq!(theirs.iter().map(|entry| entry.revision).collect::<Vec<_>>(), revisions);

    // A purge takes what was before with it, and others see it for what it is.
    store.delete("k").await.unwrap();
    write(&client, b, "kv.create", json!({ "key": "k", "value": "over theirs" })).await;
    let purged = write(&client, b, "kv.purge", json!({ "key": "k" })).await;
    let history = call(&client, b, "kv.history", json!({ "key": "k" })).await;
    assert_eq!((told(&history), &history["entries"][0]["revision"]), (vec![("purge", "")], &json!(purged)));
    let theirs: Vec<_> = store.history("k").await.unwrap().try_collect().await.unwrap();
    assert_eq!(theirs.iter().map(|entry| entry.operation).collect::<Vec<_>>(), [Operation::Purge]);
    store.create("k", "theirs over ours".into()).await.unwrap();
    assert_eq!(refused(&client, "kv.create", json!({ "bucket": b, "key": "k", "value": "x" })).await, Kind::Conflict);

    for key in ["j.a", "j.b", "j.c"] {
        write(&client, b, "kv.put", json!({ "key": key, "value": "x" })).await;
    }
    store.delete("j.b").await.unwrap();
    assert_eq!(call(&client, b, "kv.keys", json!({})).await["keys"], json!(["j.a", "j.c", "k"]));
    assert_eq!(call(&client, b, "kv.keys", json!({ "prefix": "j." })).await["keys"], json!(["j.a", "j.c"]));
    let mut keys: Vec<String> = store.keys().await.unwrap().try_collect().await.unwrap();
    keys.sort();
    assert_eq!(keys, ["j.a", "j.c", "k"]);
    assert_eq!(call(&client, b, "kv.history", json!({ "key": "none" })).await["entries"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_bucket_begins_where_it_is_told_and_outlives_the_server() {
    let mut server = NatsServer::start().await;
    let config = Config { storage: StorageType::File, ..settings(5) };
    let b = config.bucket.clone();
    let store = bucket(server.client_urls(), config).await;
    let daemon = Daemon::start(&server.url("own"), LONG).await;
    let client = daemon.connect().await;
    let first = store.put("a", "1".into()).await.unwrap();
    store.put("a", "2".into()).await.unwrap();
    store.put("b", "1".into()).await.unwrap();
    store.delete("b").await.unwrap();
    let subscribe = async |params: Json| {
        let mut all = json!({ "bucket": b, "prefix": "" });
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        (client.subscribe("kv.watch", all).await.unwrap(), 0)
    };
    let (mut all, mut at) = subscribe(json!({})).await;
    expect(&mut all, &mut at, &["a=2", "sync"]).await;
    let (mut since, mut at_since) = subscribe(json!({ "from_revision": first })).await;
    expect(&mut since, &mut at_since, &["a=1", "a=2", "b=1", "-b", "sync"]).await;
    let (mut late, mut at_late) = subscribe(json!({ "from_revision": first + 1 })).await;
    expect(&mut late, &mut at_late, &["a=2", "b=1", "-b", "sync"]).await;
    let (mut new, mut at_new) = subscribe(json!({ "updates_only": true })).await;
    expect(&mut new, &mut at_new, &["sync"]).await;
    let mut watches = [(all, at), (since, at_since), (late, at_late), (new, at_new)];
    store.put("a", "3".into()).await.unwrap();
    write(&client, &b, "kv.purge", json!({ "key": "a" })).await;
    for (events, at) in &mut watches {
        expect(events, at, &["a=3", "--a"]).await;
    }
    for round in ["x", "y"] {
        server.kill();
        server.restart().await;
        until("a write after the restart", async || {
            let params = json!({ "bucket": b, "key": "c", "value": round });
            client.call("kv.put", params).await.ok()
        })
        .await;
        for (events, at) in &mut watches {
            // The write may come before the watch is there again or after it.
            let mut gaps = 0;
            loop {
                match &*next(events, at).await {
                    "gap" => gaps += 1,
                    said if said == format!("c={round}") => break,
                    said => assert!(said.starts_with("c="), "{said}"),
                }
            }
            assert!(gaps <= 1, "{gaps} gaps");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_bucket_on_three_servers_outlives_its_leader() {
    let mut cluster = NatsCluster::start(3).await;
    let config = Config { num_replicas: 3, storage: StorageType::File, ..settings(5) };
    let b = config.bucket.clone();
    let _store = bucket(cluster.client_urls(), config).await;
    let daemon = Daemon::start(&cluster.url("own"), LONG).await;
    let client = daemon.connect().await;
    write(&client, &b, "kv.put", json!({ "key": "k", "value": "0" })).await;
    let (mut events, mut at) = (client.subscribe("kv.watch", json!({ "bucket": b, "prefix": "" })).await.unwrap(), 0);
    expect(&mut events, &mut at, &["k=0", "sync"]).await;
    for round in ["1", "2"] {
        let leader = cluster.leader(&b).await;
        cluster.kill(leader);
        until("a write under another leader", async || {
            client.call("kv.put", json!({ "bucket": b, "key": "k", "value": round })).await.ok()
        })
        .await;
        while next(&mut events, &mut at).await != format!("k={round}") {}
        cluster.restart(leader).await;
    }
    let history = call(&client, &b, "kv.history", json!({ "key": "k" })).await;
    assert_eq!(told(&history).last(), Some(&("put", "2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_known_is_told_as_unknown_and_what_was_not_sent_is_not() {
    let server = NatsServer::start().await;
    let proxy = Proxy::to(&server.client_url()).await;
    let config = settings(5);
    let b = config.bucket.clone();
    let store = bucket(server.client_urls(), config).await;
    let daemon = Daemon::start(&format!("{}?timeout=1s", proxy.url("own")), LONG).await;
    let client = daemon.connect().await;
    let first = write(&client, &b, "kv.put", json!({ "key": "k", "value": "1" })).await;
    proxy.mute();
    let late = json!({ "bucket": b, "key": "k", "value": "2", "revision": first });
    assert_eq!(refused(&client, "kv.update", late).await, Kind::UnknownOutcome);
    assert_eq!(store.get("k").await.unwrap().unwrap(), "2", "it was applied all the same");
    proxy.cut();
    until("writes are refused as not applied", async || {
        let kind = refused(&client, "kv.put", json!({ "bucket": b, "key": "other", "value": "x" })).await;
        (kind == Kind::Unavailable).then_some(())
    })
    .await;
    assert_eq!(refused(&client, "kv.get", json!({ "bucket": b, "key": "k" })).await, Kind::Unavailable);
    // A watch of a bucket that cannot even be opened ends as one that was interrupted for good.
    let mut events = client.subscribe("kv.watch", json!({ "bucket": b, "key": "k" })).await.unwrap();
    let end = soon("the end", events.recv()).await.unwrap();
    assert!(matches!(&end, Happening::End { reason } if reason == "unavailable"), "{end:?}");
    proxy.mend();
    until("the reconnect", async || {
        let read = client.call("kv.get", json!({ "bucket": b, "key": "k" })).await.ok()?;
        (read["entry"]["value"] == "2").then_some(())
    })
    .await;
    let (mut events, mut at) = (client.subscribe("kv.watch", json!({ "bucket": b, "key": "k" })).await.unwrap(), 0);
    expect(&mut events, &mut at, &["k=2", "sync"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_the_coordination_bucket_outlives_the_server() {
    let mut server = NatsServer::start().await;
    let daemon = Daemon::start(&server.url("own"), LONG).await;
    let client = daemon.connect().await;
    let put = async |key: &str, value: &str| {
        let written = client.call("kv.put", json!({ "key": key, "value": value })).await.ok()?;
        written["revision"].as_u64()
    };
    let first = put("k.a", "1").await.unwrap();
    put("k.b", "1").await.unwrap();
    client.call("kv.delete", json!({ "key": "k.b" })).await.unwrap();
    let mut all = (client.subscribe("kv.watch", json!({ "prefix": "k." })).await.unwrap(), 0);
    expect(&mut all.0, &mut all.1, &["k.a=1", "sync"]).await;
    let since = json!({ "prefix": "k.", "from_revision": first + 1 });
    let mut since = (client.subscribe("kv.watch", since).await.unwrap(), 0);
    expect(&mut since.0, &mut since.1, &["-k.b", "sync"]).await;
    let mut new = (client.subscribe("kv.watch", json!({ "key": "k.a", "updates_only": true })).await.unwrap(), 0);
    expect(&mut new.0, &mut new.1, &["sync"]).await;
    put("j", "not this one").await.unwrap();
    put("k.a", "2").await.unwrap();
    let mut watches = [all, since, new];
    for (events, at) in &mut watches {
        expect(events, at, &["k.a=2"]).await;
    }
    server.kill();
    server.restart().await;
    until("a write after the restart", async || put("k.a", "3").await).await;
    for (events, at) in &mut watches {
        while next(events, at).await != "k.a=3" {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_named_with_what_makes_it() {
    let server = NatsServer::shared().await;
    let daemon = Daemon::start(&server.url(&unique_bucket("own")), LONG).await;
    let client = daemon.connect().await;
    let config = settings(1);
    let b = config.bucket.clone();
    let missing = async |method: &str, params: Json| {
        let mut all = json!({ "bucket": b });
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        let error = soon(method, client.call(method, all)).await.unwrap_err();
        assert_eq!(error.kind(), Some(Kind::NotFound), "{method}: {error}");
        assert!(error.to_string().contains(&format!("nats kv add {b}")), "{error}");
    };
    for (method, params) in [
        ("kv.get", json!({ "key": "k" })),
        ("kv.put", json!({ "key": "k", "value": "" })),
        ("kv.create", json!({ "key": "k", "value": "" })),
        ("kv.update", json!({ "key": "k", "value": "", "revision": 1 })),
        ("kv.delete", json!({ "key": "k" })),
        ("kv.purge", json!({ "key": "k" })),
        ("kv.keys", json!({})),
        ("kv.history", json!({ "key": "k" })),
        ("kv.watch", json!({ "key": "k" })),
    ] {
        missing(method, params).await;
    }
    // It is found as soon as it is there, and missed when it is not any more.
    let nats = jetstream::new(async_nats::connect(server.client_url()).await.unwrap());
    nats.create_key_value(config).await.unwrap();
    write(&client, &b, "kv.put", json!({ "key": "k", "value": "1" })).await;
    nats.delete_key_value(&b).await.unwrap();
    missing("kv.put", json!({ "key": "k", "value": "2" })).await;
    missing("kv.get", json!({ "key": "k" })).await;
    assert_eq!(client.call("status", json!({})).await.unwrap()["subscriptions"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_tenure_are_not_for_kv() {
    let server = NatsServer::shared().await;
    let (own, other) = (unique_bucket("own"), unique_bucket("other"));
    let daemon = Daemon::start(&server.url(&own), LONG).await;
    let _other = Daemon::start(&server.url(&other), LONG).await;
    let client = daemon.connect().await;
    let config = settings(1);
    let origin = bucket(server.client_urls(), config.clone()).await;
    let mirrored = unique_bucket("mirror");
    let nats = jetstream::new(async_nats::connect(server.client_url()).await.unwrap());
    let mirror = Config {
        bucket: mirrored.clone(),
        mirror: Some(jetstream::stream::Source { name: config.bucket.clone(), ..Default::default() }),
        ..Config::default()
    };
    nats.create_key_value(mirror).await.unwrap();
    origin.put("k", "x".into()).await.unwrap();
    for (bucket, word) in [(&own, "leave bucket out"), (&other, "Tenure"), (&mirrored, config.bucket.as_str())] {
        for (method, params) in [
            ("kv.put", json!({ "key": "lock.x", "value": "mine" })),
            ("kv.purge", json!({ "key": "meta.epoch" })),
            ("kv.get", json!({ "key": "meta.epoch" })),
            ("kv.watch", json!({ "prefix": "" })),
        ] {
            let mut params = params;
            params["bucket"] = bucket.as_str().into();
            let error = soon(method, client.call(method, params)).await.unwrap_err();
            assert_eq!(error.kind(), Some(Kind::InvalidParams), "{bucket} {method}: {error}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_needs_a_bucket_that_takes_one_and_brings_nothing_back() {
    let server = NatsServer::shared().await;
    let daemon = Daemon::start(&server.url(&unique_bucket("own")), LONG).await;
    let client = daemon.connect().await;
    let plain = settings(1);
    bucket(server.client_urls(), plain.clone()).await;
    let params = json!({ "bucket": plain.bucket, "key": "k", "value": "x", "ttl_ms": 1_000 });
    let error = client.call("kv.put", params).await.unwrap_err();
    assert!(error.kind() == Some(Kind::InvalidParams) && error.to_string().contains("--allow-msg-ttl"), "{error}");
    for history in [1, 5] {
        // The server lets no value go sooner than its markers.
        let config = Config { limit_markers: Some(1_000 * MS), ..settings(history) };
        let store = bucket(server.client_urls(), config.clone()).await;
        let b = &config.bucket;
        let made = write(&client, b, "kv.create", json!({ "key": "k", "value": "x", "ttl_ms": 1_000 })).await;
        let params = json!({ "bucket": b, "key": "k", "value": "y", "revision": made, "ttl_ms": 1_000 });
        match client.call("kv.update", params).await {
            Ok(_) => assert_eq!(history, 1),
            Err(error) => assert!(history == 5 && error.to_string().contains("come back"), "{error}"),
        }
        until("its time is up", async || {
            call(&client, b, "kv.get", json!({ "key": "k" })).await["entry"].is_null().then_some(())
        })
        .await;
        // Over the server's own marker.
        write(&client, b, "kv.create", json!({ "key": "k", "value": "z" })).await;
        assert_eq!(store.get("k").await.unwrap().unwrap(), "z");
        let purged = write(&client, b, "kv.purge", json!({ "key": "k" })).await;
        let marker = store.stream.get_raw_message(purged).await.unwrap();
        let header = |name: &str| marker.headers.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(
            [header("KV-Operation"), header("Nats-Rollup"), header("Nats-TTL")].map(Option::unwrap_or_default),
            ["PURGE", "sub", "3600s"]
        );
        let deleted = write(&client, b, "kv.delete", json!({ "key": "k" })).await;
        let marker = store.stream.get_raw_message(deleted).await.unwrap();
        assert!(marker.headers.get("KV-Operation").is_some_and(|value| value.as_str() == "DEL"));
        assert!(marker.headers.get("Nats-TTL").is_none());
    }
}
