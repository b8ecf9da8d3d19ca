//! `tenure elect`, `join` and `members` with `--store nats://…`: leaders and members with no daemon at all.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod sidecar_support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value as Json;
use sidecar_support::{Job, settle, until};
use tenure_tests::{NatsServer, unique_bucket};

/// Says its term, and ends when it is told to.
const LEAD: &str = "echo $TENURE_FENCE; read -r _";
const LEASE: Duration = Duration::from_secs(4);

/// A bucket that grants at once.
async fn bucket(name: &str) -> String {
    let url = NatsServer::shared().await.url(&unique_bucket(name));
    settle(&url).await;
    url
}

fn elect(url: &str, lease: &str, options: &[&str], script: &str) -> Job {
    Job::tenure(&[&["elect", "x", "--store", url, "--lease", lease], options, &["--", "bash", "-c", script]].concat())
}

fn join(url: &str, id: &str, script: &str) -> Job {
    Job::tenure(&["join", "web", "--store", url, "--lease", "4s", "-w", "30s", "--id", id, "--", "bash", "-c", script])
}

/// Waits until so many candidates wait.
async fn await_candidates(url: &str, count: usize) {
    let session = tenure::Session::open(tenure_kv::open(url).await.unwrap()).await.unwrap();
    let election = session.election("x").unwrap();
    until("enough wait", async || (election.candidates().await.unwrap().len() == count).then_some(())).await;
}

async fn json(job: &mut Job) -> Json {
    serde_json::from_str(&job.line().await).unwrap()
}

/// Who leads next, by label.
async fn leads(observer: &mut Job) -> Option<String> {
    json(observer).await["leader"]["label"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_follow_each_other_and_are_observed_down_to_nobody() {
    let url = bucket("elect").await;
    let mut observer = Job::tenure(&["elect", "x", "--store", &url, "--observe", "-o", "jsonl"]);
    assert_eq!(leads(&mut observer).await, None);
    let mut first = elect(&url, "4s", &["--label", "first", "--value", "10.0.0.1:1"], LEAD);
    let term = first.number().await;
    assert_eq!(leads(&mut observer).await.as_deref(), Some("first"));
    let (code, said) = elect(&url, "4s", &["-n"], "echo never").end().await;
    assert!(code == Some(75) && said.contains("x is led by first ("), "{code:?}: {said}");
    let mut second = elect(&url, "4s", &["--label", "second"], LEAD);
    await_candidates(&url, 1).await;

    let killed = Instant::now();
    first.signal(Signal::SIGKILL);
    let next = second.number().await;
    let took = killed.elapsed();
    assert!(next > term, "{term} {next}");
    // It was seen alive before it was killed; nobody may lead before its lease has run out.
    assert!(took > LEASE / 2, "{took:?}");
    let mut seen = leads(&mut observer).await;
    while seen.as_deref() != Some("second") {
        seen = leads(&mut observer).await;
    }
    second.say("go").await;
    assert_eq!(second.end().await.0, Some(0));
    assert_eq!(leads(&mut observer).await, None);
    observer.signal(Signal::SIGINT);
    assert_eq!(observer.end().await.0, Some(130));
    let (code, said) = Job::tenure(&["elect", "x", "--store", &url, "--leader"]).end().await;
    assert_eq!((code, &*said), (Some(1), "tenure: nobody leads x\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_yields_hands_over_to_the_higher_priority() {
    let url = bucket("yield").await;
    let mut first = elect(
        &url,
        "1m",
        &["--yield", "--priority", "-1"],
        "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done",
    );
    assert_eq!(first.line().await, "ready");
    let mut lower = elect(&url, "1m", &["--priority", "-1"], LEAD);
    await_candidates(&url, 1).await;
    let mut higher = elect(&url, "1m", &["--priority", "5"], LEAD);
    assert_eq!(first.line().await, "bye");
    let (code, said) = first.end().await;
    assert!(code == Some(79) && said.contains("asks for it with priority 5"), "{code:?}: {said}");
    let term = higher.number().await;
    higher.say("go").await;
    assert!(lower.number().await > term);
}

#[tokio::test(flavor = "multi_thread")]
async fn forever_begins_again_with_a_new_session_after_an_outage() {
    let server = NatsServer::start().await;
    let url = server.url("outage");
    settle(&url).await;
    let script = "echo $TENURE_FENCE; while :; do sleep 0.05; done";
    let mut job = elect(&url, "2s", &["--forever"], script);
    let term = job.number().await;
    let begun = Instant::now();
    server.pause();
    // Longer than the lease: the command is stopped, and the session is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.resume();
    let again = job.number().await;
    assert!(again >= term && begun.elapsed() > Duration::from_secs(2), "{term} {again}");
    job.signal(Signal::SIGTERM);
    let (code, said) = job.end_at_its_leisure().await;
    assert!(code == Some(143) && said.contains("lost x: "), "{code:?}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_go_and_crash_before_the_eyes_of_a_watch() {
    let url = bucket("members").await;
    let mut watch = Job::tenure(&["members", "web", "--store", &url, "--watch", "-o", "jsonl"]);
    assert_eq!(json(&mut watch).await["kind"], "sync");
    let told = async |watch: &mut Job, kind: &str, id: &str| {
        let mut event = json(watch).await;
        // Whose command is asked to end may be seen draining before it leaves.
        if kind == "leave" && event["kind"] == "update" {
            event = json(watch).await;
        }
        let who = if event["member"].is_null() { &event["id"] } else { &event["member"]["id"] };
        assert_eq!((event["kind"].as_str(), who.as_str()), (Some(kind), Some(id)), "{event}");
    };
    let stays = join(&url, "stays", "echo ready; read -r _");
    told(&mut watch, "join", "stays").await;
    let mut goes = join(&url, "goes", "read -r _");
    told(&mut watch, "join", "goes").await;
    goes.say("go").await;
    told(&mut watch, "leave", "goes").await;
    assert_eq!(goes.end().await.0, Some(0));
    let mut crashes = join(&url, "crashes", "echo ready; read -r _");
    assert_eq!(crashes.line().await, "ready");
    told(&mut watch, "join", "crashes").await;
    crashes.signal(Signal::SIGKILL);
    let killed = Instant::now();
    // Its successor waits until the member that stays has seen to it.
    let mut next = join(&url, "crashes", "echo ready; read -r _");
    assert_eq!(next.line().await, "ready");
    assert!(killed.elapsed() < LEASE + Duration::from_secs(10));
    let event = json(&mut watch).await;
    match event["kind"].as_str() {
        Some("leave") => told(&mut watch, "join", "crashes").await,
        kind => assert_eq!((kind, &event["member"]["id"]), (Some("update"), &"crashes".into()), "{event}"),
    }
    let (code, said) = Job::tenure(&["join", "web", "--store", &url, "--id", "stays", "-n", "--", "true"]).end().await;
    assert!(code == Some(75) && said.contains("stays"), "{code:?}: {said}");
    stays.signal(Signal::SIGTERM);
    told(&mut watch, "leave", "stays").await;
    assert_eq!(stays.end_at_its_leisure().await.0, Some(143));
}
