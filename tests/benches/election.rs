//! The figures of the election: how long nobody leads after a leader was killed, after one resigned, and after a client
//! of the daemon that led was killed.
//!
//! `cargo bench -p tenure-tests --bench election` runs all; names after `--` pick servers (`r1`, `r3`) and parts
//! (`killed`, `resigned`, `client`), a number sets the rounds of each. Figures are asked for one server.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use serde_json::json;
use tenure::{Election, Leadership, Session, data_key};
use tenure_kv::{Event, KeyRange, Since, Store, StoreExt};
use tenure_sidecar::{
    Client,
    protocol::{ElectionCampaigned, ElectionCandidates},
};
use tenure_tests::{NatsCluster, NatsServer, unique_bucket};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How this program is told to be the leader that is killed.
const VICTIM: &str = "victim";
/// How this program is told to be the client of a daemon that leads and is killed.
const CLIENT: &str = "client-victim";
const LEASE: Duration = Duration::from_millis(300);

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let [word, place, name] = args.as_slice() {
        match word.as_str() {
            VICTIM => return runtime.block_on(lead_until_killed(place, name)),
            CLIENT => return runtime.block_on(lead_as_client_until_killed(place, name)),
            _ => {}
        }
    }
    let any = |names: &[&str]| names.iter().any(|name| args.iter().any(|arg| arg == name));
    let wants = |name: &str, all: &[&str]| any(&[name]) || !any(all);
    let rounds = args.iter().find_map(|arg| arg.parse().ok());
    runtime.block_on(async {
        if wants("r1", &["r1", "r3"]) {
            let server = NatsServer::start().await;
            on_nats("R1", &server.url(&unique_bucket("bench")), rounds, |part| wants(part, &["killed", "resigned", "client"]))
                .await?;
        }
        if wants("r3", &["r1", "r3"]) {
            let cluster = NatsCluster::start(3).await;
            on_nats("R3", &cluster.url(&unique_bucket("bench")), rounds, |part| wants(part, &["killed", "resigned", "client"]))
                .await?;
        }
        Ok(())
    })
}

async fn on_nats(name: &str, url: &str, rounds: Option<usize>, wants: impl Fn(&str) -> bool) -> Outcome {
    // A new bucket elects nobody for one lease; that is over after this.
    let settling = open(url, LEASE).await?;
    settling.election("settle")?.campaign("x").await?.resign().await?;
    settling.close().await?;
    if wants("killed") {
        killed(name, url, rounds.unwrap_or(100)).await?;
    }
    if wants("resigned") {
        resigned(name, url, rounds.unwrap_or(1_000)).await?;
    }
    if wants("client") {
        client_killed(name, url, rounds.unwrap_or(200)).await?;
    }
    Ok(())
}

async fn open(url: &str, lease: Duration) -> Outcome<Session> {
    Ok(Session::builder(tenure_kv::open(url).await?).lease(lease).open().await?)
}

/// A process of its own that is elected, says so, and works until it is killed.
async fn lead_until_killed(url: &str, name: &str) -> Outcome {
    let session = open(url, LEASE).await?;
    let leadership = session.election(name)?.campaign("victim").await?;
    println!("{}", leadership.term());
    leadership.lost().await;
    Ok(())
}

/// The same as a client of the daemon that listens on `socket`.
async fn lead_as_client_until_killed(socket: &str, name: &str) -> Outcome {
    let client = Client::connect(socket).await?;
    let elected: ElectionCampaigned = client.call_as("election.campaign", json!({ "name": name, "value": "victim" })).await?;
    println!("{}", elected.fence);
    client.closed().await;
    Ok(())
}

/// A child that is killed in any case.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn victim(kind: &str, place: &str, name: &str) -> Outcome<Victim> {
    let mut child = Command::new(std::env::current_exe()?).args([kind, place, name]).stdout(Stdio::piped()).spawn()?;
    let said = child.stdout.take().ok_or("the victim has no output")?;
    let victim = Victim(child);
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    line.trim().parse::<u64>()?;
    Ok(victim)
}

async fn waiting(election: Election) -> Outcome<tokio::task::JoinHandle<tenure::Result<(Leadership, Instant)>>> {
    let campaign = tokio::spawn({
        let election = election.clone();
        async move { Ok((election.campaign("heir").await?, Instant::now())) }
    });
    while election.candidates().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It also has to hear of what follows; its own first reads take well under this.
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(campaign)
}

/// From SIGKILL of the leader's process to the next leader's `campaign` returning.
async fn killed(name: &str, url: &str, rounds: usize) -> Outcome {
    let heir = open(url, LEASE).await?;
    let mut gaps = Vec::new();
    for round in 0..rounds {
        let election = heir.election(&format!("killed.{round}"))?;
        let mut victim = tokio::task::block_in_place(|| victim(VICTIM, url, election.name()))?;
        let campaign = waiting(election).await?;
        // At any moment between two renewals.
        tokio::time::sleep(LEASE / 3 * (round % 10) as u32 / 10).await;
        let begun = Instant::now();
        victim.0.kill()?;
        let (leadership, elected) = campaign.await??;
        gaps.push(elected.saturating_duration_since(begun));
        leadership.resign().await?;
    }
    let [p50, p99] = quantiles(gaps);
    println!("{name}: leader killed, lease {LEASE:?}, {rounds} times: p50 {p50:.0} ms, p99 {p99:.0} ms (asked: 330 and 450)");
    heir.close().await?;
    Ok(())
}

/// From SIGKILL of a daemon's client that leads to the answer to the campaign of another client of it.
async fn client_killed(name: &str, url: &str, rounds: usize) -> Outcome {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("s.sock");
    let _daemon = Victim(
        Command::new(env!("CARGO_BIN_EXE_test-tenured"))
            .args(["--log", "warn", "--lease", "30s", "--store", url, "--socket"])
            .arg(&socket)
            .spawn()?,
    );
    let begun = Instant::now();
    let heir = loop {
        match Client::connect(&socket).await {
            Ok(client) => break client,
            Err(error) if begun.elapsed() > Duration::from_secs(20) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let place = socket.to_str().ok_or("the socket's path is no text")?;
    let mut gaps = Vec::new();
    for round in 0..rounds {
        let election = format!("client.{}", round % 8);
        let mut victim = tokio::task::block_in_place(|| victim(CLIENT, place, &election))?;
        let campaign = async {
            let elected: ElectionCampaigned = heir.call_as("election.campaign", json!({ "name": election })).await?;
            Ok::<_, tenure_sidecar::CallError>((elected.lease, Instant::now()))
        };
        let kill = async {
            loop {
                let listed: ElectionCandidates = heir.call_as("election.candidates", json!({ "name": election })).await?;
                if !listed.candidates.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            let begun = Instant::now();
            victim.0.kill()?;
            Outcome::Ok(begun)
        };
        let (campaigned, killed) = tokio::join!(campaign, kill);
        let (lease, elected) = campaigned?;
        gaps.push(elected.saturating_duration_since(killed?));
        heir.call("election.resign", json!({ "lease": lease })).await?;
    }
    let [p50, p99] = quantiles(gaps);
    println!("{name}: leading client of a daemon killed, {rounds} times: p50 {p50:.2} ms, p99 {p99:.2} ms (asked: at most 20)");
    Ok(())
}

/// From the call of `resign` to the next leader's `campaign` returning, on two connections.
async fn resigned(name: &str, url: &str, rounds: usize) -> Outcome {
    let long = Duration::from_secs(30);
    let (first, second) = (open(url, long).await?, open(url, long).await?);
    let (one, two): (Arc<dyn Store>, Arc<dyn Store>) = (first.store().clone(), second.store().clone());
    let watched = data_key("bench.watched")?;
    let mut events = two.watch(KeyRange::One(watched.clone()), Since::Now).await?;
    let (mut passing, mut telling) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let election = format!("resigned.{}", round % 8);
        let leadership = first.election(&election)?.campaign("first").await?;
        let campaign = waiting(second.election(&election)?).await?;
        let begun = Instant::now();
        let (resigned, elected) = tokio::join!(leadership.resign(), campaign);
        resigned?;
        let (leadership, elected) = elected??;
        passing.push(elected.saturating_duration_since(begun));
        leadership.resign().await?;

        let begun = Instant::now();
        let told = async {
            while let Some(event) = events.next().await {
                if matches!(event, Ok(Event::Entry(_))) {
                    break;
                }
            }
            Instant::now()
        };
        let (put, told) = tokio::join!(one.put(&watched, round.to_string()), told);
        put?;
        telling.push(told.saturating_duration_since(begun));
    }
    let ([passing, slow], [telling, _]) = (quantiles(passing), quantiles(telling));
    println!(
        "{name}: resign to the next leader, {rounds} times: p50 {passing:.3} ms, p99 {slow:.3} ms; publish to watch {telling:.3} \
         ms; {:.2} × (asked: at most 3)",
        passing / telling
    );
    first.close().await?;
    second.close().await?;
    Ok(())
}

/// The median and the 99th percentile, in milliseconds.
fn quantiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| times.get((times.len() * percent / 100).min(times.len() - 1)).map_or(0.0, |t| t.as_secs_f64() * 1e3))
}
