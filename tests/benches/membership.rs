//! The figures of membership.
//!
//! `cargo bench -p tenure-tests --bench membership` runs all on one server and on three; names after `--` pick
//! (`r1`, `r3`). `long` watches a quiet group for 60 s instead of 5.

use std::{
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tenure::{Instance, Member, MemberEvent, MemberWatch, Session, View, membership};
use tenure_kv::{KeyRange, Store, nats};
use tenure_tests::{NatsCluster, NatsServer, unique_bucket};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const MEMBERS: usize = 1_000;
const WATCHERS: usize = 100;
const CROWD: usize = 10_000;
/// Asks this program for nothing but the memory of one view: the URLs, the bucket, the copies.
const WEIGH: &str = "--weigh-view";

#[global_allocator]
static ALLOCATED: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

fn main() -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let [first, urls, bucket, replicas, ..] = wanted.as_slice()
        && first == WEIGH
    {
        let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
        return runtime.block_on(weigh(&urls, bucket, replicas.parse()?));
    }
    let has = |name: &str| wanted.iter().any(|arg| arg == name);
    let quiet = Duration::from_secs(if has("long") { 60 } else { 5 });
    let any = has("r1") || has("r3");
    if !any || has("r1") {
        runtime.block_on(async {
            let server = NatsServer::start().await;
            on_nats("R1", &server.client_urls(), 1, quiet).await
        })?;
    }
    if !any || has("r3") {
        runtime.block_on(async {
            let cluster = NatsCluster::start(3).await;
            on_nats("R3", &cluster.client_urls(), 3, quiet).await
        })?;
    }
    Ok(())
}

/// A store on a connection of its own, as a process has it, and that connection.
async fn connect(urls: &[String], bucket: &str, replicas: u16) -> Outcome<(Arc<dyn Store>, async_nats::Client)> {
    let client = async_nats::connect(urls.to_vec()).await?;
    let options = nats::Options { replicas: Some(replicas), ..nats::Options::default() };
    let store = nats::Nats::with_client(client.clone(), bucket, options).await?;
    Ok((Arc::new(store), client))
}

fn received<'a>(clients: impl IntoIterator<Item = &'a async_nats::Client>) -> u64 {
    clients.into_iter().map(|client| client.statistics().in_messages.load(Ordering::Relaxed)).sum()
}

fn instance(n: usize) -> Instance {
    Instance::at(format!("10.0.{}.{}:8080", n / 256, n % 256)).zone(format!("zone-{}", n % 3)).with("version", "1.9.2")
}

/// `count` members of one session, many at a time.
async fn fill(session: &Session, name: &str, count: usize) -> Outcome<Vec<Member>> {
    let group = session.group(name)?;
    let joins = stream::iter(0..count).map(|n| {
        let group = group.clone();
        async move { group.join(&format!("member-{n}"), instance(n)).await }
    });
    Ok(joins.buffer_unordered(64).try_collect().await?)
}

/// Reads until the group is told, and says how many are there.
async fn caught_up(watch: &mut MemberWatch) -> Outcome<usize> {
    let mut count = 0;
    loop {
        match watch.next().await? {
            MemberEvent::Insert(_) => count += 1,
            MemberEvent::CaughtUp { .. } => return Ok(count),
            _ => {}
        }
    }
}

async fn on_nats(name: &str, urls: &[String], replicas: u16, quiet: Duration) -> Outcome {
    let bucket = unique_bucket("members");
    let (store, _client) = connect(urls, &bucket, replicas).await?;
    let session = Session::builder(store.clone()).lease(Duration::from_secs(5)).open().await?;
    let begun = Instant::now();
    let members = fill(&session, "web", MEMBERS).await?;
    println!("{name}: {MEMBERS} joins of one session, 64 at a time, in {:.0} ms", ms(begun));
    watching(name, urls, &bucket, replicas, &session, quiet).await?;
    drop(members);
    crowd(name, urls, &bucket, replicas, &session).await?;
    session.close().await?;
    Ok(())
}

/// What watchers are sent while nothing changes, and when one joins.
async fn watching(name: &str, urls: &[String], bucket: &str, replicas: u16, session: &Session, quiet: Duration) -> Outcome {
    let processes: Vec<_> =
        stream::iter(0..WATCHERS).map(|_| connect(urls, bucket, replicas)).buffer_unordered(16).try_collect().await?;
    let mut watches = Vec::new();
    for (store, _) in &processes {
        let mut watch = membership::watch(store, "web").await?;
        let count = caught_up(&mut watch).await?;
        if count != MEMBERS {
            return Err(format!("a watcher saw {count} members").into());
        }
        watches.push(watch);
    }
    // A second one in the same process shares the first one's watch.
    let mut shared = membership::watch(&processes[0].0, "web").await?;
    caught_up(&mut shared).await?;
    let clients = || processes.iter().map(|(_, client)| client);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = received(clients());
    tokio::time::sleep(quiet).await;
    let wire = received(clients()) - before;
    let told = watches.iter_mut().filter_map(|watch| watch.next().now_or_never()).count();
    println!(
        "{name}: {MEMBERS} members, {WATCHERS} watchers, nothing changing for {quiet:?}: {told} changes told (limit 0); {wire} messages \
         on the wire, of which the server sends one a second to each consumer to say that it is there"
    );

    let before = received(clients());
    let begun = Instant::now();
    let member = session.group("web")?.join("newcomer", instance(0)).await?;
    let mut slowest = Duration::ZERO;
    for watch in watches.iter_mut().chain([&mut shared]) {
        match watch.next().await? {
            MemberEvent::Insert(record) if record.id == "newcomer" => slowest = slowest.max(begun.elapsed()),
            other => return Err(format!("one joined, but a watcher was told {other:?}").into()),
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let told = received(clients()) - before;
    println!(
        "{name}: one join: {told} messages to {WATCHERS} processes, the last heard after {:.1} ms",
        slowest.as_secs_f64() * 1e3
    );
    member.leave().await?;
    Ok(())
}

/// How long a new follower of a large group needs, and what its view weighs.
async fn crowd(name: &str, urls: &[String], bucket: &str, replicas: u16, session: &Session) -> Outcome {
    let begun = Instant::now();
    let members = fill(session, "crowd", CROWD).await?;
    println!("{name}: {CROWD} joins of one session, 64 at a time, in {:.0} ms", ms(begun));
    let mut times = Vec::new();
    for _ in 0..5 {
        let (store, _client) = connect(urls, bucket, replicas).await?;
        let begun = Instant::now();
        let count = caught_up(&mut membership::watch(&store, "crowd").await?).await?;
        if count != CROWD {
            return Err(format!("a watcher of the crowd saw {count} members").into());
        }
        times.push(ms(begun));
    }
    times.sort_by(f64::total_cmp);
    println!("{name}: snapshot of {CROWD} members: {:.0} ms, at worst {:.0} ms of 5 (limit 1000)", times[2], times[4]);
    let (store, _client) = connect(urls, bucket, replicas).await?;
    let begun = Instant::now();
    membership::members(&*store, "crowd").await?;
    println!("{name}: list of {CROWD} members: {:.0} ms", ms(begun));
    let me = std::env::current_exe()?;
    let child = Command::new(me).args([WEIGH, &urls.join(","), bucket, &replicas.to_string()]).output()?;
    print!("{name}: {}", String::from_utf8_lossy(&child.stdout));
    if !child.status.success() {
        return Err(String::from_utf8_lossy(&child.stderr).into_owned().into());
    }
    drop(members);
    Ok(())
}

/// In a process of its own, so that nothing else comes and goes.
async fn weigh(urls: &[String], bucket: &str, replicas: u16) -> Outcome {
    let (store, _client) = connect(urls, bucket, replicas).await?;
    // What the first watch needs once, whatever is in it.
    drop(View::open(&store, KeyRange::new("member.none.*")?).await?);
    let before = ALLOCATED.current_usage();
    let view = View::open(&store, KeyRange::new("member.crowd.*")?).await?;
    let weight = ALLOCATED.current_usage().saturating_sub(before);
    let (count, bare) = view.read(|now| {
        let size = |entry: &tenure_kv::Entry| entry.key.as_str().len() + entry.value().map_or(0, |value| value.len());
        (now.len(), now.entries().map(size).sum::<usize>())
    });
    let beyond = weight.saturating_sub(bare) / count.max(1);
    println!(
        "view of {count} members: {weight} bytes allocated, {bare} of them keys and values, {beyond} beyond per member (limit 300)"
    );
    Ok(())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
