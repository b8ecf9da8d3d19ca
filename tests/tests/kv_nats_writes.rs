//! What a commit's outcome proves on NATS: fences, tombstones, lost acknowledgements, servers that are gone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use tenure_kv::{Batch, Event, Expect, Key, KeyRange, Op, Revision, Since, State, Store, StoreExt, Ttl, nats::Nats};
use tenure_tests::{NatsCluster, NatsServer, Proxy, unique_bucket};

fn key(text: impl AsRef<str>) -> Key {
    Key::new(text).unwrap()
}

/// Waits for a condition, and fails when it does not come.
async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let begun = Instant::now();
    while !check().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn both(hint: &str) -> [Nats; 2] {
    [
        Nats::open(&NatsServer::shared().await.url(&unique_bucket(hint))).await.unwrap(),
        Nats::open(&NatsCluster::shared().await.url(&unique_bucket(hint))).await.unwrap(),
    ]
}

#[tokio::test]
async fn a_stale_fence_refuses_in_every_place() {
    for store in both("fences").await {
        let guard = key("guard");
        let stale = store.put(&guard, "first holder").await.unwrap();
        let held = store.put(&guard, "second holder").await.unwrap();
        let mine = store.put(&key("mine"), "0").await.unwrap();
        let put = |name: &str| Op::put(key(name), "x");
        // The place of the fenced operation, alone and among others, with and without an expectation of its own.
        let mut shapes: Vec<(String, Batch, Batch)> = Vec::new();
        let mut shape = |name: String, make: &dyn Fn(Revision) -> Batch| shapes.push((name, make(stale), make(held)));
        shape("a single put".into(), &|at| put("single").fenced(guard.clone(), at).into());
        shape("a put with an expectation".into(), &|at| Op::put(key("mine"), "1").if_at(mine).fenced(guard.clone(), at).into());
        shape("a create".into(), &|at| put("made").if_absent().fenced(guard.clone(), at).into());
        shape("a delete".into(), &|at| Op::delete(key("gone")).ttl(Ttl::MIN).fenced(guard.clone(), at).into());
        for place in 0..5 {
            for expectation in [Expect::Any, Expect::Absent] {
                shape(format!("operation {place} of 5, {expectation:?}"), &|at| {
                    let name = |i: usize| format!("batch.{place}.{}.{i}", matches!(expectation, Expect::Any));
                    (0..5)
                        .map(|i| {
                            let op = Op::put(key(name(i)), "x").expect(if i == place { expectation } else { Expect::Absent });
                            if i == place { op.fenced(guard.clone(), at) } else { op }
                        })
                        .collect()
                });
            }
        }
        for (name, refused, passes) in shapes {
            let keys: Vec<Key> = refused.ops.iter().map(|op| op.key.clone()).collect();
            let before = store.entries(&keys).await.unwrap();
            let error = store.commit(refused).await.unwrap_err();
            assert!(error.is_conflict(), "{name}: {error:?}");
            assert_eq!(store.entries(&keys).await.unwrap(), before, "{name}: something of it was applied");
            let at = store.commit(passes).await.unwrap_or_else(|e| panic!("{name} with a fence that holds: {e}"));
            let last = keys.last().unwrap();
            eventually("the read of an applied write", || async {
                store.entry(last).await.unwrap().is_some_and(|entry| entry.revision == at)
            })
            .await;
        }
    }
}

#[tokio::test]
async fn who_carries_a_fence_is_seen_by_nobody_and_soon_gone() {
    let server = NatsServer::shared().await;
    let bucket = unique_bucket("carrier");
    let store = Nats::open(&server.url(&bucket)).await.unwrap();
    let guard = store.put(&key("guard"), "x").await.unwrap();
    let mut watch = store.watch(KeyRange::All, Since::After(guard)).await.unwrap();
    let at = store.commit(Op::put(key("data"), "x").if_absent().fenced(key("guard"), guard).into()).await.unwrap();
    assert_eq!(at.get(), guard.get() + 2, "a carrier and the write");
    let after = store.put(&key("data"), "y").await.unwrap();
    let mut told = Vec::new();
    while told.last() != Some(&after) {
        if let Event::Entry(entry) = watch.next().await.unwrap().unwrap() {
            told.push(entry.revision);
        }
    }
    assert_eq!(told, [at, after]);
    let keys: Vec<_> = store.list(&KeyRange::All).await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [key("guard"), key("data")]);
    assert!(store.scan(&KeyRange::All, guard.next(), 1).await.unwrap().entries.is_empty(), "a page that holds just a carrier");

    let client = async_nats::connect(server.client_url()).await.unwrap();
    let messages = async || {
        let reply = client.request(format!("$JS.API.STREAM.INFO.KV_{bucket}"), "".into()).await.unwrap();
        let info: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
        info["state"]["messages"].as_u64().unwrap()
    };
    eventually("the end of the carrier", || async { messages().await == 2 }).await;
}

#[tokio::test]
async fn a_key_is_free_as_soon_as_it_is_deleted_and_after_its_tombstone_is_gone() {
    for store in both("tombstones").await {
        let lock = key("lock");
        let first = store.create(&lock, "1").await.unwrap();
        let error = store.create(&lock, "2").await.unwrap_err();
        assert!(matches!(error, tenure_kv::Error::Conflict { revision: Some(at), .. } if at == first), "{error:?}");
        let tombstone = store.commit(Op::delete(lock.clone()).if_at(first).ttl(Ttl::MIN).note("done").into()).await.unwrap();
        // At once, over the tombstone.
        let second = store.create(&lock, "2").await.unwrap();
        assert!(second > tombstone);
        store.commit(Op::delete(lock.clone()).if_at(second).ttl(Ttl::MIN).into()).await.unwrap();
        eventually("the end of the tombstone", || async { store.entry(&lock).await.unwrap().is_none() }).await;
        let third = store.create(&lock, "3").await.unwrap();
        // In a batch too.
        store.commit(Op::delete(lock.clone()).if_at(third).ttl(Ttl::from_secs(60).unwrap()).into()).await.unwrap();
        let batch = Batch::new().and(Op::put(key("other"), "x").if_absent()).and(Op::put(lock.clone(), "4").if_absent());
        let fourth = store.commit(batch.clone()).await.unwrap();
        let error = store.commit(batch).await.unwrap_err();
        assert!(error.is_conflict(), "{error:?}");
        eventually("the batch", || async { store.entry(&lock).await.unwrap().is_some_and(|e| e.revision == fourth) }).await;
    }
}

#[tokio::test]
async fn writers_that_share_a_fence_do_not_refuse_each_other() {
    for store in both("shared").await {
        let store = Arc::new(store);
        let guard = store.put(&key("guard"), "x").await.unwrap();
        let writes = (0..64).map(|i| {
            let store = store.clone();
            async move { store.commit(Op::put(key(format!("data.{i}")), "x").fenced(key("guard"), guard).into()).await }
        });
        for (i, result) in futures::future::join_all(writes).await.into_iter().enumerate() {
            result.unwrap_or_else(|e| panic!("write {i} under a fence that holds: {e:?}"));
        }
    }
}

/// Holders write the same value again and again, and find each other in the way, until one of them is no longer the
/// holder. What stands there then looks like what it wrote, and is not.
#[tokio::test]
async fn what_looks_like_the_write_itself_is_told_from_it() {
    for store in both("alike").await {
        let store = Arc::new(store);
        for round in 0..20 {
            let (guard, value) = (key(format!("guard.{round}")), key(format!("value.{round}")));
            let held = store.put(&guard, "first holder").await.unwrap();
            let writers = (0..8).map(|_| {
                let (store, guard, value) = (store.clone(), guard.clone(), value.clone());
                tokio::spawn(async move {
                    loop {
                        let write = Op::put(value.clone(), "same").fenced(guard.clone(), held);
                        if let Err(error) = store.commit(write.into()).await {
                            return error;
                        }
                    }
                })
            });
            let writers: Vec<_> = writers.collect();
            // They are at it: as many writes as there are writers.
            eventually("the writes", || async {
                store.entry(&value).await.is_ok_and(|entry| entry.is_some_and(|entry| entry.revision.get() > held.get() + 8))
            })
            .await;
            store.put(&guard, "second holder").await.unwrap();
            for error in futures::future::join_all(writers).await {
                let error = error.unwrap();
                assert!(error.is_conflict(), "round {round}: {error:?}");
            }
        }
    }
}

/// Any server of a cluster answers reads, also one that has not got the last write yet.
#[tokio::test]
async fn who_writes_reads_what_was_written() {
    for store in both("own").await {
        let (range, others) = (KeyRange::new("mine.>").unwrap(), store.clone());
        let noise = tokio::spawn(async move {
            for n in 0_u64.. {
                let _ = others.put(&key(format!("noise.{}", n % 16)), vec![0; 2_048]).await;
            }
        });
        for round in 0..100_u32 {
            let (one, two) = (key(format!("mine.{}", round % 7)), key("mine.batch"));
            let at = store.put(&one, round.to_string()).await.unwrap();
            let found = store.entry(&one).await.unwrap().unwrap();
            assert_eq!((found.revision, found.value().unwrap().as_ref()), (at, round.to_string().as_bytes()), "round {round}");
            let batch = Batch::new().and(Op::put(one.clone(), "batch")).and(Op::put(two.clone(), "batch"));
            let at = store.commit(batch).await.unwrap();
            let found = store.entries(&[one.clone(), two.clone()]).await.unwrap();
            let found: Vec<_> = found.into_iter().map(|entry| entry.map(|entry| entry.revision.get())).collect();
            assert_eq!(found, [Some(at.get() - 1), Some(at.get())], "round {round}");
            let at = store.put(&two, "listed").await.unwrap();
            let page = store.scan(&range, Revision::ZERO, 100).await.unwrap();
            assert!(page.entries.iter().any(|entry| entry.key == two && entry.revision == at), "round {round}: {page:?}");
            store.commit(Op::delete(one.clone()).ttl(Ttl::MIN).into()).await.unwrap();
            let page = store.scan(&range, Revision::ZERO, 100).await.unwrap();
            assert!(page.entries.iter().all(|entry| entry.key != one), "round {round}: {page:?}");
            assert!(store.entry(&one).await.unwrap().is_none_or(|entry| !entry.is_live()), "round {round}");
        }
        noise.abort();
    }
}

#[tokio::test]
async fn a_lost_acknowledgement_is_unknown() {
    let server = NatsServer::start().await;
    let proxy = Proxy::to(&server.client_url()).await;
    let bucket = unique_bucket("ack");
    let store = Nats::open(&format!("{}?timeout=2s", proxy.url(&bucket))).await.unwrap();
    let direct = Nats::open(&server.url(&bucket)).await.unwrap();
    let op = |name: &str| Op::put(key(name), "x").if_absent();
    let guard = store.create(&key("guard"), "x").await.unwrap();

    // Not heard in time.
    proxy.mute();
    let single: Batch = op("a").into();
    let several = Batch::new().and(op("b")).and(op("c").fenced(key("guard"), guard));
    for (batch, written) in [(single, "a"), (several, "c")] {
        let error = store.commit(batch).await.unwrap_err();
        assert!(error.is_unknown(), "{error:?}");
        assert!(error.to_string().contains("2s"), "{error}");
        assert!(direct.entry(&key(written)).await.unwrap().is_some_and(|entry| entry.is_live()), "it was applied all the same");
    }
    // The connection is lost while waiting: told at once.
    let waiting = store.commit(op("d").into());
    let cutting = async {
        eventually("the write", || async { direct.entry(&key("d")).await.unwrap().is_some() }).await;
        proxy.cut();
        Instant::now()
    };
    let (error, cut) = futures::join!(waiting, cutting);
    assert!(error.unwrap_err().is_unknown());
    assert!(cut.elapsed() < Duration::from_millis(1_500), "the end of the connection was not noticed");

    // Known to be out of reach: nothing is sent.
    eventually("a certain refusal", || async { store.put(&key("e"), "x").await.is_err_and(|error| error.is_unavailable()) })
        .await;
    let error = store.put(&key("e"), "x").await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(store.entry(&key("a")).await.unwrap_err().is_unavailable());
    proxy.mend();
    eventually("the reconnect", || async { store.put(&key("f"), "x").await.is_ok() }).await;
    assert_eq!(direct.entry(&key("e")).await.unwrap(), None, "what was refused as out of reach must not turn up");
}

#[tokio::test]
async fn a_paused_server_makes_writes_unknown_and_applies_them_later() {
    let server = NatsServer::start().await;
    let store = Nats::open(&format!("{}?timeout=2s", server.url("paused"))).await.unwrap();
    let key = key("a");
    let first = store.create(&key, "1").await.unwrap();
    server.pause();
    let error = store.update(&key, "2", first).await.unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
    server.resume();
    eventually("the late write", || async {
        store.entry(&key).await.is_ok_and(|entry| entry.is_some_and(|entry| entry.state == State::Live("2".into())))
    })
    .await;
}

#[tokio::test]
async fn a_cluster_that_lost_its_leader_goes_on_with_the_next() {
    let mut cluster = NatsCluster::start(3).await;
    let store = Nats::open(&cluster.url("failover")).await.unwrap();
    let counter = key("counter");
    let mut at = store.create(&counter, "0").await.unwrap();
    for round in 1..=2 {
        let leader = cluster.leader("failover").await;
        cluster.kill(leader);
        // Every outcome that is not known is resolved by reading what the next write finds.
        let begun = Instant::now();
        loop {
            match store.update(&counter, round.to_string(), at).await {
                Ok(next) => break at = next,
                Err(tenure_kv::Error::Conflict { revision: Some(found), .. }) if found > at => at = found,
                Err(error) if error.is_unavailable() || error.is_unknown() => {
                    assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        cluster.restart(leader).await;
    }
    eventually("the last write", || async {
        store.entry(&counter).await.is_ok_and(|entry| entry.is_some_and(|entry| entry.state == State::Live("2".into())))
    })
    .await;
}
