//! The figures of the lock, each as a ratio to what the same store costs in the same run.
//!
//! `cargo bench -p tenure-tests --bench lock` runs all; names after `--` pick stores (`memory`, `file`, `r1`,
//! `r3`) and parts of the runs on NATS (`uncontended`, `hand-over`, `renewals`, `waiters`). Times are medians unless they say otherwise, in microseconds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use tenure::{Session, data_key};
use tenure_kv::{Event, KeyRange, Since, Store, StoreExt, nats};
use tenure_tests::{NatsCluster, NatsServer, unique_bucket};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const PARTS: [&str; 4] = ["uncontended", "hand-over", "renewals", "waiters"];

fn main() -> Outcome {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let any = |names: &[&str]| names.iter().any(|name| wanted.iter().any(|arg| arg == name));
    let wants = |name: &str| any(&[name]) || !any(&["memory", "file", "r1", "r3"]);
    let part = |name: &str| any(&[name]) || !any(&PARTS);
    let parts: Vec<&str> = PARTS.into_iter().filter(|name| part(name)).collect();
    if wants("memory") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(embedded("memory:", 200_000))?;
    }
    if wants("file") {
        let folder = tempfile::tempdir()?;
        let url = format!("file:{}", folder.path().join("bench.db").display());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(embedded(&url, 2_000))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if wants("r1") {
        runtime.block_on(async {
            let server = NatsServer::start().await;
            on_nats("R1", &server.client_urls(), 1, [2.2, 1.2], &parts).await
        })?;
    }
    if wants("r3") {
        runtime.block_on(async {
            let cluster = NatsCluster::start(3).await;
            on_nats("R3", &cluster.client_urls(), 3, [1.7, 1.2], &parts).await
        })?;
    }
    Ok(())
}

/// Acquire and release, one after the other on one thread.
async fn embedded(url: &str, rounds: u32) -> Outcome {
    let store = tenure_kv::open(url).await?;
    let session = Session::builder(store).lease(Duration::from_secs(60)).open().await?;
    let mutex = session.mutex("bench")?;
    let mut rates = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        for _ in 0..rounds {
            mutex.lock().await?.release().await?;
        }
        rates.push(f64::from(rounds) / begun.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let name = url.split(':').next().unwrap_or(url);
    println!("{name}: acquire+release {:.0}/s on one thread (median of 5; {:.0} to {:.0})", rates[2], rates[0], rates[4]);
    session.close().await?;
    Ok(())
}

/// A store on a connection of its own, and that connection's count of messages sent.
async fn connect(urls: &[String], bucket: &str, replicas: u16) -> Outcome<(Arc<dyn Store>, async_nats::Client)> {
    let client = async_nats::connect(urls.to_vec()).await?;
    let options = nats::Options { replicas: Some(replicas), ..nats::Options::default() };
    let store = nats::Nats::with_client(client.clone(), bucket, options).await?;
    Ok((Arc::new(store), client))
}

fn sent(client: &async_nats::Client) -> u64 {
    client.statistics().out_messages.load(Ordering::Relaxed)
}

async fn open(store: &Arc<dyn Store>, lease: Duration) -> Outcome<Session> {
    Ok(Session::builder(store.clone()).lease(lease).open().await?)
}

async fn on_nats(name: &str, urls: &[String], replicas: u16, limits: [f64; 2], parts: &[&str]) -> Outcome {
    let bucket = unique_bucket("bench");
    let (store, _client) = connect(urls, &bucket, replicas).await?;
    settle(&store).await?;
    for part in parts {
        match *part {
            "uncontended" => uncontended(name, &store, limits).await?,
            "hand-over" => hand_over(name, &store, &connect(urls, &bucket, replicas).await?.0).await?,
            "renewals" => renewals(name, urls, &bucket, replicas).await?,
            _ => waiters(name, urls, &bucket, replicas).await?,
        }
    }
    Ok(())
}

/// Waits out the one lease during which a new bucket grants nothing.
async fn settle(store: &Arc<dyn Store>) -> Outcome {
    let session = open(store, Duration::from_millis(300)).await?;
    session.mutex("settle")?.lock().await?.release().await?;
    let key = tenure_kv::Key::new("meta.epoch")?;
    while !store.get(&key).await?.is_some_and(|(value, _)| value.windows(14).any(|part| part == b"\"settled\":true")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    session.close().await?;
    Ok(())
}

async fn uncontended(name: &str, store: &Arc<dyn Store>, [acquire_limit, release_limit]: [f64; 2]) -> Outcome {
    let session = open(store, Duration::from_secs(15)).await?;
    let (mut create, mut acquire, mut release) = (Times::default(), Times::default(), Times::default());
    for round in 0..3_000 {
        let key = data_key(&format!("bench.{round}"))?;
        let begun = Instant::now();
        store.create(&key, "x").await?;
        create.add(begun);
        // A name of its own each time: nothing that is known of an earlier round helps.
        let mutex = session.mutex(&format!("uncontended.{round}"))?;
        let begun = Instant::now();
        let guard = mutex.lock().await?;
        acquire.add(begun);
        let begun = Instant::now();
        guard.release().await?;
        release.add(begun);
    }
    let create = create.median();
    println!("{name}: acknowledged create {create:.0}");
    ratio(name, "uncontended acquire", acquire.median(), "create", create, acquire_limit);
    ratio(name, "release", release.median(), "create", create, release_limit);
    // At thousands of rounds a second the server is also busy with forgetting tombstones, for creates too.
    let (mut again, mut create, mutex) = (Times::default(), Times::default(), session.mutex("again")?);
    for round in 0..3_000 {
        let begun = Instant::now();
        store.create(&data_key(&format!("again.{round}"))?, "x").await?;
        create.add(begun);
        let begun = Instant::now();
        let guard = mutex.lock().await?;
        again.add(begun);
        guard.release().await?;
    }
    ratio(name, "acquire of the same lock again and again", again.median(), "create", create.median(), acquire_limit);
    session.close().await?;
    Ok(())
}

/// From the call of `release` to the next holder running, on two connections in turn.
async fn hand_over(name: &str, one: &Arc<dyn Store>, two: &Arc<dyn Store>) -> Outcome {
    let (first, second) = (open(one, Duration::from_secs(15)).await?, open(two, Duration::from_secs(15)).await?);
    let watched = data_key("bench.watched")?;
    let mut events = two.watch(KeyRange::One(watched.clone()), Since::Now).await?;
    let (mut passing, mut telling) = (Times::default(), Times::default());
    for round in 0..1_500 {
        let mutex = format!("pass.{}", round % 8);
        let guard = first.mutex(&mutex)?.lock().await?;
        let waiting = second.mutex(&mutex)?;
        let waiter = tokio::spawn(async move {
            let guard = waiting.lock().await?;
            let running = Instant::now();
            guard.release().await?;
            Ok::<_, tenure::Error>(running)
        });
        while first.mutex(&mutex)?.queue().await?.waiters.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // It also has to hear of the release; its own first reads take well under this.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let begun = Instant::now();
        guard.release().await?;
        passing.0.push(waiter.await??.saturating_duration_since(begun));

        let begun = Instant::now();
        let told = async {
            while let Some(event) = events.next().await {
                if matches!(event, Ok(Event::Entry(_))) {
                    return Instant::now();
                }
            }
            Instant::now()
        };
        let (_, told) = tokio::join!(one.put(&watched, round.to_string()), told);
        telling.0.push(told.saturating_duration_since(begun));
    }
    let telling = telling.median();
    println!("{name}: publish to watch {telling:.0}");
    ratio(name, "hand-over under contention", passing.median(), "publish to watch", telling, 1.5);
    first.close().await?;
    second.close().await?;
    Ok(())
}

/// What a connection sends in ten leases while its session holds few or many locks.
async fn renewals(name: &str, urls: &[String], bucket: &str, replicas: u16) -> Outcome {
    let lease = Duration::from_millis(1_500);
    let mut counts = Vec::new();
    for locks in [1_usize, 10_000] {
        let (store, client) = connect(urls, bucket, replicas).await?;
        let session = open(&store, lease).await?;
        let mutexes = (0..locks).map(|n| session.mutex(&format!("many.{n}"))).collect::<Result<Vec<_>, _>>()?;
        let guards: Vec<_> =
            futures::stream::iter(mutexes).map(|mutex| async move { mutex.lock().await }).buffer_unordered(64).collect().await;
        let guards = guards.into_iter().collect::<Result<Vec<_>, _>>()?;
        // What follows the acquiring is over after a lease.
        tokio::time::sleep(lease).await;
        let before = sent(&client);
        tokio::time::sleep(lease * 10).await;
        counts.push(sent(&client) - before);
        assert!(guards.iter().all(tenure::Guard::is_held), "a lease was lost while it was held");
        session.close().await?;
    }
    println!("{name}: messages sent in ten leases while holding 1 and 10,000 locks: {} and {}", counts[0], counts[1]);
    Ok(())
}

/// Hand-overs with few and with many waiters, who queue up again as soon as they have had their turn.
async fn waiters(name: &str, urls: &[String], bucket: &str, replicas: u16) -> Outcome {
    let mut rates = Vec::new();
    for (round, waiters) in [2_usize, 512, 2, 512].into_iter().enumerate() {
        let mut sessions = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..waiters.min(8) {
            let (store, client) = connect(urls, bucket, replicas).await?;
            sessions.push(open(&store, Duration::from_secs(15)).await?);
            clients.push(client);
        }
        let (stop, granted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut workers = tokio::task::JoinSet::new();
        for n in 0..waiters {
            let mutex = sessions[n % sessions.len()].mutex(&format!("queue.{round}"))?;
            let (stop, granted) = (stop.clone(), granted.clone());
            workers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let guard = mutex.lock().await?;
                    granted.fetch_add(1, Ordering::Relaxed);
                    guard.release().await?;
                }
                Ok::<_, tenure::Error>(())
            });
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let count = |clients: &[async_nats::Client]| clients.iter().map(sent).sum::<u64>();
        let (begun, before, messages) = (Instant::now(), granted.load(Ordering::Relaxed), count(&clients));
        tokio::time::sleep(Duration::from_secs(8)).await;
        let grants = granted.load(Ordering::Relaxed) - before;
        let messages = count(&clients) - messages;
        let rate = grants as f64 / begun.elapsed().as_secs_f64();
        println!("{name}: {waiters} waiters: {rate:.0} hand-overs/s, {:.2} requests each", messages as f64 / grants as f64);
        rates.push(rate);
        stop.store(true, Ordering::Relaxed);
        while let Some(done) = workers.join_next().await {
            done??;
        }
        for session in sessions {
            session.close().await?;
        }
    }
    let (few, many) = (rates[0].max(rates[2]), rates[1].max(rates[3]));
    println!("{name}: hand-overs/s with 512 waiters / with 2: {:.2} (asked: at least 0.8)", many / few);
    Ok(())
}

#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn add(&mut self, begun: Instant) {
        self.0.push(begun.elapsed());
    }

    fn median(mut self) -> f64 {
        self.0.sort_unstable();
        self.0.get(self.0.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }
}

fn ratio(name: &str, what: &str, time: f64, base_name: &str, base: f64, limit: f64) {
    println!("{name}: {what} {time:.0}, {:.2} × {base_name} (asked: at most {limit})", time / base);
}
