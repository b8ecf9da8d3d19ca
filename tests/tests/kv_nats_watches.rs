//! Watches and notices on NATS heal: after restarts, cut wires, lost consumers and readers that sleep.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_nats::Client;
use futures::{FutureExt, StreamExt, stream::BoxStream};
use serde_json::Value;
use tenure_kv::{
    Batch, Entry, Error, Event, Key, KeyRange, Notice, Op, Result, Revision, Since, State, Store, StoreExt, Ttl, nats::Nats,
};
use tenure_tests::{NatsCluster, NatsServer, NatsSetup, Proxy, unique_bucket};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

fn key(text: impl AsRef<str>) -> Key {
    Key::new(text).unwrap()
}

fn range(text: &str) -> KeyRange {
    KeyRange::new(text).unwrap()
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let begun = Instant::now();
    while !check().await {
        assert!(begun.elapsed() < LONG, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A watch that checks that revisions never go back and that it catches up once.
struct Watched {
    events: BoxStream<'static, Result<Event>>,
    last: Revision,
    caught_up: usize,
    state: HashMap<Key, Entry>,
}

impl Watched {
    async fn new(store: &Nats, over: &str, since: Since) -> Self {
        let events = store.watch(range(over), since).await.unwrap();
        Self { events, last: Revision::ZERO, caught_up: 0, state: HashMap::new() }
    }

    async fn next(&mut self) -> Option<Result<Event>> {
        let event = timeout(LONG, self.events.next()).await.expect("the watch is silent");
        match &event {
            Some(Ok(Event::Entry(entry))) => {
                let expired = entry.state == State::Expired;
                assert!(entry.revision > self.last || expired && entry.revision >= self.last, "{entry:?} after {}", self.last);
                self.last = entry.revision;
                self.state.insert(entry.key.clone(), entry.clone());
            }
            Some(Ok(Event::CaughtUp)) => {
                self.caught_up += 1;
                assert_eq!(self.caught_up, 1, "caught up twice");
            }
            _ => {}
        }
        event
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < LONG, "{what} did not come");
            self.next().await.expect("the watch ended").unwrap_or_else(|e| panic!("waiting for {what}: {e}"));
        }
    }

    fn shows(&self, name: &str, value: &str) -> bool {
        self.state.get(&key(name)).is_some_and(|entry| entry.state == State::Live(value.to_owned().into()))
    }

    fn lacks(&self, name: &str) -> bool {
        self.state.get(&key(name)).is_none_or(|entry| !entry.is_live())
    }
}

async fn api(client: &Client, call: String) -> Value {
    let reply = client.request(format!("$JS.API.{call}"), "".into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

async fn consumers(client: &Client, bucket: &str) -> u64 {
    api(client, format!("STREAM.INFO.KV_{bucket}")).await["state"]["consumer_count"].as_u64().unwrap()
}

#[tokio::test]
async fn a_watch_outlives_a_restart_of_the_server() {
    let mut server = NatsServer::start().await;
    let store = Nats::open(&server.url("b")).await.unwrap();
    store.put(&key("a.kept"), "1").await.unwrap();
    let mut watches = Vec::new();
    for since in [Since::Current, Since::History, Since::After(Revision::ZERO), Since::Now] {
        let mut watch = Watched::new(&store, "a.>", since).await;
        watch.until("the beginning", |watch| watch.caught_up == 1).await;
        watches.push((since, watch));
    }
    for round in 0..3 {
        let value = round.to_string();
        server.kill();
        server.restart().await;
        eventually("the reconnect", || async { store.put(&key("a.moved"), value.clone()).await.is_ok() }).await;
        for (since, watch) in &mut watches {
            watch.until(&format!("the write after restart {round} ({since:?})"), |watch| watch.shows("a.moved", &value)).await;
        }
    }
}

#[tokio::test]
async fn what_vanished_during_an_outage_is_told() {
    let server = NatsServer::start().await;
    let proxy = Proxy::to(&server.client_url()).await;
    let store = Nats::open(&proxy.url("b")).await.unwrap();
    let direct = Nats::open(&server.url("b")).await.unwrap();
    for name in ["a.deleted", "a.expired", "a.forgotten", "a.kept", "a.changed"] {
        direct.put(&key(name), "1").await.unwrap();
    }
    direct.commit(Op::put(key("a.expired"), "1").ttl(Ttl::MIN).into()).await.unwrap();
    let mut watch = Watched::new(&store, "a.>", Since::Current).await;
    watch.until("the beginning", |watch| watch.caught_up == 1 && watch.shows("a.expired", "1")).await;

    proxy.cut();
    direct.delete(&key("a.deleted"), tenure_kv::Expect::Any).await.unwrap();
    direct.commit(Op::delete(key("a.forgotten")).ttl(Ttl::MIN).into()).await.unwrap();
    direct.put(&key("a.changed"), "2").await.unwrap();
    direct.put(&key("elsewhere"), "x").await.unwrap();
    for name in ["a.forgotten", "a.expired"] {
        eventually("the end of a TTL", || async { direct.entry(&key(name)).await.unwrap().is_none() }).await;
    }
    proxy.mend();
    watch
        .until("the state after the outage", |watch| {
            ["a.deleted", "a.expired", "a.forgotten"].iter().all(|name| watch.lacks(name)) && watch.shows("a.changed", "2")
        })
        .await;
    assert!(watch.shows("a.kept", "1"));
    assert_eq!(watch.state[&key("a.forgotten")].state, State::Expired);
    // And it goes on.
    direct.put(&key("a.forgotten"), "3").await.unwrap();
    watch.until("a later write", |watch| watch.shows("a.forgotten", "3")).await;
}

#[tokio::test]
async fn what_vanished_is_told_of_a_range_that_is_never_quiet() {
    let server = NatsServer::start().await;
    let proxy = Proxy::to(&server.client_url()).await;
    let store = Nats::open(&proxy.url("b")).await.unwrap();
    let direct = Nats::open(&server.url("b")).await.unwrap();
    direct.put(&key("a.forgotten"), "1").await.unwrap();
    let mut watch = Watched::new(&store, "a.>", Since::Current).await;
    watch.until("the beginning", |watch| watch.caught_up == 1).await;
    proxy.cut();
    direct.commit(Op::delete(key("a.forgotten")).ttl(Ttl::MIN).into()).await.unwrap();
    eventually("the end of a TTL", || async { direct.entry(&key("a.forgotten")).await.unwrap().is_none() }).await;
    let busy = tokio::spawn(async move {
        for n in 0_u64.. {
            direct.put(&key("a.busy"), n.to_string()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    proxy.mend();
    let mut writes = 0;
    while !watch.lacks("a.forgotten") {
        writes += usize::from(matches!(watch.next().await, Some(Ok(Event::Entry(entry))) if entry.key == key("a.busy")));
        assert!(writes < 100, "{writes} writes were told and not what vanished before them");
    }
    busy.abort();
}

/// A process that stands still is not sent everything, and what it was not sent may be forgotten.
#[tokio::test]
async fn what_vanished_while_the_process_stood_still_is_told() {
    let server = NatsServer::shared().await;
    let url = server.url(&unique_bucket("still"));
    let store = Nats::open(&url).await.unwrap();
    store.put(&key("a.forgotten"), "1").await.unwrap();
    let mut watch = Watched::new(&store, "a.>", Since::Current).await;
    watch.until("the beginning", |watch| watch.caught_up == 1).await;
    // Nothing else runs on this runtime meanwhile.
    let last = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let other = Nats::open(&url).await.unwrap();
            for part in 0..16 {
                let batch: Batch = (0..100).map(|i| Op::put(key(format!("a.{part}.{i}")), vec![b'x'; 8_192])).collect();
                other.commit(batch).await.unwrap();
            }
            other.commit(Op::delete(key("a.forgotten")).ttl(Ttl::MIN).into()).await.unwrap();
            eventually("the end of a TTL", || async { other.entry(&key("a.forgotten")).await.unwrap().is_none() }).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            other.put(&key("a.last"), "x").await.unwrap()
        })
    })
    .join()
    .unwrap();
    watch.until("the last write", |watch| watch.last >= last).await;
    let missed = async { watch.until("the end of a key", |watch| watch.lacks("a.forgotten")).await };
    timeout(Duration::from_secs(10), missed).await.expect("what vanished is not told");
}

#[tokio::test]
async fn the_beginning_is_told_whole_even_if_it_is_written_again_meanwhile() {
    let server = NatsServer::shared().await;
    let url = server.url(&unique_bucket("again"));
    let (store, other) = (Nats::open(&url).await.unwrap(), Nats::open(&url).await.unwrap());
    for part in 0..20 {
        other.commit((0..1_000).map(|i| Op::put(key(format!("a.{part}.{i}")), "1")).collect::<Batch>()).await.unwrap();
    }
    let mut watch = Watched::new(&store, "a.>", Since::Current).await;
    // New keys first, so that the last of the old ones comes after as many as there were.
    let again: Batch = (0..300).map(|i| Op::put(key(format!("a.new.{i}")), "1")).chain([Op::put(key("a.19.999"), "2")]).collect();
    other.commit(again).await.unwrap();
    watch.until("the end of the beginning", |watch| watch.caught_up == 1).await;
    assert!(!watch.lacks("a.19.999") && watch.state.contains_key(&key("a.19.999")), "caught up without a key that was there");
}

#[tokio::test]
async fn a_watch_outlives_its_consumer() {
    let server = NatsServer::shared().await;
    let bucket = unique_bucket("consumer");
    let store = Nats::open(&server.url(&bucket)).await.unwrap();
    let client = async_nats::connect(server.client_url()).await.unwrap();
    let mut watch = Watched::new(&store, "a.>", Since::Current).await;
    watch.until("the beginning", |watch| watch.caught_up == 1).await;
    let names = api(&client, format!("CONSUMER.NAMES.KV_{bucket}")).await;
    let name = names["consumers"][0].as_str().unwrap();
    api(&client, format!("CONSUMER.DELETE.KV_{bucket}.{name}")).await;
    store.put(&key("a.x"), "1").await.unwrap();
    watch.until("a write that no consumer delivered", |watch| watch.shows("a.x", "1")).await;
}

/// A replica that takes nothing in any more goes on to send heartbeats for its consumers; so does a server for one that
/// an operator has paused.
#[tokio::test]
async fn a_watch_whose_consumer_stands_still_is_begun_anew() {
    let cluster = NatsCluster::shared().await;
    let bucket = unique_bucket("still");
    let writer = Nats::open(&cluster.url(&bucket)).await.unwrap();
    let reader = Nats::open(&cluster.url(&bucket)).await.unwrap();
    let client = async_nats::connect(cluster.client_urls()).await.unwrap();
    let mut watches = [Watched::new(&writer, "a.>", Since::Current).await, Watched::new(&reader, "a.>", Since::Current).await];
    for watch in &mut watches {
        watch.until("the beginning", |watch| watch.caught_up == 1).await;
    }
    let names = api(&client, format!("CONSUMER.NAMES.KV_{bucket}")).await;
    let names = names["consumers"].as_array().unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
    for name in names.iter().map(|name| name.as_str().unwrap()) {
        let call = format!("$JS.API.CONSUMER.PAUSE.KV_{bucket}.{name}");
        client.request(call, r#"{"pause_until":"2999-01-01T00:00:00Z"}"#.into()).await.unwrap();
        let info = || api(&client, format!("CONSUMER.INFO.KV_{bucket}.{name}"));
        eventually("the pause", || async { info().await["paused"] == true }).await;
    }
    // It is noticed by what is written elsewhere; who writes nothing asks.
    writer.put(&key("b.x"), "1").await.unwrap();
    for watch in &mut watches {
        assert!(matches!(watch.next().await, Some(Ok(Event::Gap))));
    }
    writer.put(&key("a.x"), "1").await.unwrap();
    for watch in &mut watches {
        watch.until("a write after that", |watch| watch.shows("a.x", "1")).await;
    }
    // Who has looked at everything is not begun anew, be it in the range or not.
    writer.put(&key("b.x"), "2").await.unwrap();
    let [of_writer, of_reader] = &mut watches;
    let anything = futures::future::select(of_writer.events.next(), of_reader.events.next());
    assert!(timeout(Duration::from_secs(8), anything).await.is_err(), "a watch was begun anew for nothing");
}

#[tokio::test]
async fn a_watch_of_a_bucket_that_was_made_anew_ends_with_an_error() {
    let server = NatsServer::start().await;
    let store = Nats::open(&server.url("b")).await.unwrap();
    let client = async_nats::connect(server.client_url()).await.unwrap();
    let mut watch = Watched::new(&store, ">", Since::Current).await;
    store.put(&key("a"), "1").await.unwrap();
    watch.until("a write", |watch| watch.shows("a", "1")).await;
    api(&client, "STREAM.DELETE.KV_b".to_owned()).await;
    Nats::open(&server.url("b")).await.unwrap();
    let error = loop {
        match watch.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the watch ended without a word"),
        }
    };
    assert!(error.is_unavailable() && error.to_string().contains("anew"), "{error}");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn dropped_watches_leave_no_consumer() {
    let server = NatsServer::shared().await;
    let bucket = unique_bucket("drops");
    let store = Nats::open(&server.url(&bucket)).await.unwrap();
    let client = async_nats::connect(server.client_url()).await.unwrap();
    for name in ["a", "b"] {
        store.put(&key(name), "x").await.unwrap();
    }
    // The server takes 1,000 consumers for a stream.
    for round in 0..40 {
        let watches = futures::future::join_all((0..50).map(|_| store.watch(KeyRange::All, Since::Current))).await;
        for (i, watch) in watches.into_iter().enumerate() {
            let mut watch = watch.unwrap_or_else(|e| panic!("watch {i} of round {round}: {e}"));
            if i % 2 == 0 {
                timeout(LONG, watch.next()).await.unwrap().unwrap().unwrap();
            }
        }
    }
    // One that is dropped while it is opened.
    for _ in 0..50 {
        let _ = timeout(Duration::from_micros(200), store.watch(KeyRange::All, Since::Current)).await;
    }
    eventually("the end of every consumer", || async { consumers(&client, &bucket).await == 0 }).await;
}

#[tokio::test]
async fn an_unread_watch_costs_the_server_nothing_and_loses_no_final_state() {
    let server = NatsServer::shared().await;
    let bucket = unique_bucket("unread");
    let store = Nats::open(&server.url(&bucket)).await.unwrap();
    let client = async_nats::connect(server.client_url()).await.unwrap();
    store.put(&key("a.gone"), "x").await.unwrap();
    let mut watch = Watched::new(&store, "a.>", Since::Current).await;
    watch.until("the beginning", |watch| watch.caught_up == 1).await;
    for round in 0..4 {
        let batch =
            |part: usize| -> Batch { (0..500).map(|i| Op::put(key(format!("a.{part}.{i}")), format!("{round}"))).collect() };
        for part in 0..3 {
            store.commit(batch(part)).await.unwrap();
        }
    }
    store.commit(Op::delete(key("a.gone")).ttl(Ttl::MIN).into()).await.unwrap();
    eventually("a watch that nobody reads to give its consumer back", || async { consumers(&client, &bucket).await == 0 }).await;
    eventually("the end of the tombstone", || async { store.entry(&key("a.gone")).await.unwrap().is_none() }).await;
    let last = store.put(&key("a.last"), "x").await.unwrap();
    watch.until("the last write", |watch| watch.last >= last).await;
    watch.until("the end of a key whose tombstone is gone", |watch| watch.lacks("a.gone")).await;
    for part in 0..3 {
        for i in 0..500 {
            assert!(watch.shows(&format!("a.{part}.{i}"), "3"), "a.{part}.{i}");
        }
    }
}

#[tokio::test]
async fn a_beginning_that_expires_before_it_is_told_still_ends() {
    let server = NatsServer::shared().await;
    let store = Nats::open(&server.url(&unique_bucket("expiring"))).await.unwrap();
    // So many that a watch is still telling them when they go.
    let tombstones: Batch = (0..900).map(|i| Op::delete(key(format!("a.{i}"))).ttl(Ttl::MIN)).collect();
    store.commit(tombstones).await.unwrap();
    let mut watches = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        watches.push(Watched::new(&store, "a.>", Since::Current).await);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    for mut watch in watches {
        watch.until("the end of the beginning", |watch| watch.caught_up == 1).await;
    }
}

#[tokio::test]
async fn a_watch_outlives_the_streams_leader() {
    let mut cluster = NatsCluster::start(3).await;
    let store = Nats::open(&cluster.url("b")).await.unwrap();
    let mut watch = Watched::new(&store, "a.>", Since::Current).await;
    let mut quiet = Watched::new(&store, "quiet.>", Since::Current).await;
    quiet.until("the beginning", |watch| watch.caught_up == 1).await;
    for round in 0..2 {
        let writing = tokio::spawn({
            let store = store.clone();
            async move {
                for i in 0..300 {
                    let begun = Instant::now();
                    while let Err(error) = store.put(&key(format!("a.{}", i % 20)), format!("{round}.{i}")).await {
                        assert!(error.is_unavailable() || error.is_unknown(), "{error:?}");
                        assert!(begun.elapsed() < LONG, "{error}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        });
        let leader = cluster.leader("b").await;
        cluster.kill(leader);
        writing.await.unwrap();
        watch
            .until(&format!("the last writes of round {round}"), |watch| {
                (280..300).all(|i| watch.shows(&format!("a.{}", i % 20), &format!("{round}.{i}")))
            })
            .await;
        eventually("a write elsewhere", || async { store.put(&key("quiet.x"), round.to_string()).await.is_ok() }).await;
        quiet.until("a write after silence", |watch| watch.shows("quiet.x", &round.to_string())).await;
        cluster.restart(leader).await;
    }
}

#[tokio::test]
async fn a_follower_hears_at_once_and_is_told_of_reconnects() {
    let server = NatsServer::start().await;
    let proxy = Proxy::to(&server.client_url()).await;
    let store = Nats::open(&proxy.url("b")).await.unwrap();
    let other = Nats::open(&server.url("b")).await.unwrap();
    let k = key("ticket");
    let mut notices = store.follow(&k).await.unwrap();
    // The read after it makes sure that the server knows the follower.
    assert_eq!(store.entry(&k).await.unwrap(), None);
    let writes = [
        Op::put(k.clone(), "x"),
        Op::delete(k.clone()).ttl(Ttl::MIN).note("done"),
        Op::purge(k.clone()),
        Op::put(k.clone(), "y").ttl(Ttl::MIN),
    ];
    for op in writes {
        let at = other.commit(op.clone().into()).await.unwrap();
        let notice = timeout(LONG, notices.next()).await.unwrap();
        let Some(Notice::Entry(entry)) = notice else { panic!("{notice:?} for {op:?}") };
        assert_eq!((&entry.key, entry.revision), (&k, at));
        assert_eq!(Some(entry), store.entry(&k).await.unwrap(), "a notice tells what a read tells");
    }
    // Refused writes and other keys are not heard of.
    other.create(&key("ticket.other"), "x").await.unwrap();
    other.update(&k, "z", Revision::new(1)).await.unwrap_err();
    // A batch is.
    let at = other.commit(Batch::new().and(Op::put(k.clone(), "b")).and(Op::put(key("z"), "b"))).await.unwrap();
    let Some(Notice::Entry(entry)) = timeout(LONG, notices.next()).await.unwrap() else { panic!() };
    assert_eq!(entry.revision.next(), at);

    proxy.cut();
    eventually("the loss of the connection", || async { store.entry(&k).await.is_err() }).await;
    let missed = other.put(&k, "missed").await.unwrap();
    assert!(notices.next().now_or_never().is_none(), "a reconnect that has not happened");
    proxy.mend();
    assert_eq!(timeout(LONG, notices.next()).await.unwrap(), Some(Notice::Reconnected));
    assert_eq!(store.entry(&k).await.unwrap().unwrap().revision, missed);
    let at = other.put(&k, "heard again").await.unwrap();
    let Some(Notice::Entry(entry)) = timeout(LONG, notices.next()).await.unwrap() else { panic!() };
    assert_eq!(entry.revision, at);

    // Over a client that was made elsewhere too.
    let client = async_nats::connect(proxy.client_url()).await.unwrap();
    let theirs = Nats::with_client(client, "b", tenure_kv::nats::Options::default()).await.unwrap();
    let mut notices = theirs.follow(&k).await.unwrap();
    proxy.cut();
    proxy.mend();
    assert_eq!(timeout(LONG, notices.next()).await.unwrap(), Some(Notice::Reconnected));
}

#[tokio::test]
async fn in_a_cluster_a_follower_rechecks_until_it_is_sure() {
    let cluster = NatsCluster::shared().await;
    let store = Nats::open(&cluster.url(&unique_bucket("follow"))).await.unwrap();
    let k = key("ticket");
    let mut notices = store.follow(&k).await.unwrap();
    for _ in 0..2 {
        assert_eq!(timeout(LONG, notices.next()).await.unwrap(), Some(Notice::Recheck));
    }
    for i in 0..20 {
        let at = store.put(&k, i.to_string()).await.unwrap();
        let Some(Notice::Entry(entry)) = timeout(LONG, notices.next()).await.unwrap() else { panic!() };
        assert_eq!(entry.revision, at);
    }
}

#[tokio::test]
async fn a_follower_that_may_not_listen_is_told_to_read() {
    let users = r#"authorization { users: [
        { user: all, password: x }
        { user: deaf, password: x, permissions: { publish: ">", subscribe: { deny: ["$TENURE.>"] } } }
    ] }"#;
    let server = NatsServer::start_with(users).await;
    let host = server.client_url().trim_start_matches("nats://").to_owned();
    Nats::open(&format!("nats://all:x@{host}/b")).await.unwrap();
    let store = Nats::open(&format!("nats://deaf:x@{host}/b")).await.unwrap();
    let mut notices = store.follow(&key("a")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(timeout(LONG, notices.next()).await.unwrap(), Some(Notice::Recheck));
    }
}

/// All that `dir` holds, into `to`.
fn copy_tree(dir: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_one_server_that_lost_its_last_writes_ends_even_if_others_have_written_since() {
    let setup = NatsSetup { jetstream: "sync_interval: always".to_owned(), ..NatsSetup::default() };
    let mut servers = NatsCluster::start_as(1, setup).await;
    let bucket = unique_bucket("lost");
    let wire = Proxy::to(&servers.client_urls()[0]).await;
    let straight = Nats::open(&servers.url(&bucket)).await.unwrap();
    straight.put(&key("a.kept"), "1").await.unwrap();
    let backup = tempfile::tempdir().unwrap();
    // What is acknowledged is in its files.
    servers.pause(0);
    copy_tree(servers.store_dir(0), backup.path());
    servers.resume(0);

    let far = Nats::open(&wire.url(&bucket)).await.unwrap();
    let mut watched = Watched::new(&far, "a.>", Since::Current).await;
    let last = straight.put(&key("a.lost"), "1").await.unwrap();
    while !watched.state.contains_key(&key("a.lost")) {
        watched.next().await.unwrap().unwrap();
    }
    let outages = far.outages();
    wire.cut();
    drop(straight);
    servers.kill(0);
    let store = servers.store_dir(0).to_owned();
    std::fs::remove_dir_all(&store).unwrap();
    copy_tree(backup.path(), &store);
    servers.restart(0).await;
    let straight = Nats::open(&servers.url(&bucket)).await.unwrap();
    let hidden = straight.put(&key("a.hidden"), "1").await.unwrap();
    assert!(hidden <= last, "nothing was lost");
    while straight.put(&key("b"), "1").await.unwrap() <= last {}
    wire.mend();
    let end = loop {
        match watched.next().await {
            Some(Ok(Event::Entry(entry))) => assert_ne!(entry.key, key("a.hidden"), "told below what was told before"),
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(Error::Unavailable { .. }))), "{end:?}");
    assert!(far.outages() > outages);
    let mut again = Watched::new(&far, "a.>", Since::Current).await;
    while again.caught_up == 0 {
        again.next().await.unwrap().unwrap();
    }
    assert!(again.state.contains_key(&key("a.hidden")) && !again.state.contains_key(&key("a.lost")));
}
