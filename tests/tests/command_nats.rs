//! `tenure lock --store nats://…`: a lock for a command with no daemon at all.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod sidecar_support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sidecar_support::{Job, settle, soon, until};
use tenure_kv::{Event, Key, KeyRange, Revision, Since, Store};
use tenure_tests::{NatsCluster, NatsServer, unique_bucket};

/// Says its token, and ends when it is told to.
const HOLD: &str = "echo $TENURE_FENCE; read -r _";

#[tokio::test(flavor = "multi_thread")]
async fn one_holds_and_the_next_waits() {
    hold_and_wait(&NatsServer::shared().await.url(&unique_bucket("command"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holds_and_the_next_waits_on_a_cluster() {
    hold_and_wait(&NatsCluster::shared().await.url(&unique_bucket("command"))).await;
}

async fn hold_and_wait(url: &str) {
    let place = ["--store", url];
    let store = settle(url).await;
    let mut first = Job::lock("x", place, &["--lease", "1m"], HOLD);
    let token = first.number().await;
    let (code, said) = Job::lock("x", place, &["-n"], "echo ran").end().await;
    assert_eq!(code, Some(75), "{said}");
    // By whom, where the replica that was asked knows it.
    assert!(said.contains("x is held by bash") || said.contains("x is taken"), "{said}");
    let (code, said) = Job::lock("x", place, &["-w", "200ms", "-E", "9", "-q"], "echo ran").end().await;
    assert_eq!((code, &*said), (Some(9), ""));
    let mut second = Job::lock("x", place, &["-w", "60s"], HOLD);
    until("the second waits", async || {
        second.must_run().await;
        (queue(&store).await.waiters.len() == 1).then_some(())
    })
    .await;
    first.say("go").await;
    let next = second.number().await;
    assert!(next > token, "{token} {next}");
    assert_eq!(first.end().await.0, Some(0));
    assert_eq!(queue(&store).await.holder.unwrap().token, Revision::new(next));
    second.signal(Signal::SIGTERM);
    assert_eq!(second.end_at_its_leisure().await.0, Some(143));
    assert_eq!(queue(&store).await.holder, None);
}

async fn queue(store: &Arc<dyn Store>) -> tenure::Queue {
    tenure::locks::inspect(&**store, "x").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_hold_stops_the_command() {
    let url = NatsServer::shared().await.url(&unique_bucket("broken"));
    let store = settle(&url).await;
    let mut job = Job::lock("x", ["--store", &url], &["--lease", "1m"], HOLD);
    let token = job.number().await;
    tenure::locks::break_hold(&*store, "x", Revision::new(token)).await.unwrap();
    let (code, said) = job.end_at_its_leisure().await;
    assert_eq!(code, Some(79), "{said}");
    assert!(said.contains("broke"), "{said}");
}

/// The moment at which a renewal of the only session was seen.
async fn renewal(store: &Arc<dyn Store>) -> Instant {
    let mut watch = store.watch(KeyRange::Under(Key::new("session").unwrap()), Since::Now).await.unwrap();
    loop {
        if let Event::Entry(entry) = soon("a renewal", futures::StreamExt::next(&mut watch)).await.unwrap().unwrap()
            && entry.is_live()
        {
            return Instant::now();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_has_the_command_stopped_before_the_lock_can_pass_on() {
    const LEASE: Duration = Duration::from_secs(3);
    let server = NatsServer::start().await;
    let url = server.url("hang");
    // It does not end of TERM, so KILL has to come in time, too.
    let script = "trap 'echo TERM' TERM; echo $TENURE_FENCE; while :; do echo alive; sleep 0.02; done";
    let store = settle(&url).await;
    let mut job = Job::lock("x", ["--store", &url], &["--lease", "3s"], script);
    let token = job.number().await;
    let renewed = renewal(&store).await;
    server.pause();
    while job.line().await != "TERM" {}
    let told = renewed.elapsed();
    let mut gone = told;
    while let Some(line) = job.next_line().await {
        assert_eq!(line, "alive");
        gone = renewed.elapsed();
    }
    // Whoever watches the session counts a whole lease from the last renewal.
    assert!(LEASE / 3 < told && told < gone && gone < LEASE, "TERM after {told:?}, alive after {gone:?}");
    let (code, said) = job.end().await;
    assert_eq!(code, Some(79), "{said}");
    assert!(said.contains("could not be renewed"), "{said}");
    server.resume();
    let mut next = Job::lock("x", ["--store", &url], &["--lease", "3s", "-w", "60s"], HOLD);
    assert!(next.number().await > token);
}
