//! The daemon in front of NATS: two daemons on one bucket, as two machines of a fleet would have them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod sidecar_support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use sidecar_support::{
    Daemon, Job, LONG, MS, acquire, acquire_for, await_waiters, fate, next, put, refused, release, soon, until, value, view,
};
use tenure_sidecar::{
    CallError, Client, Subscription,
    protocol::{ElectionCampaigned, Happening, Kind, LockAcquired},
};
use tenure_tests::{NatsCluster, NatsServer, unique_bucket};

/// Far less than any lease, and time enough for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_share_one_queue() {
    share_one_queue(&NatsServer::shared().await.url(&unique_bucket("queue"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_share_one_queue_on_a_cluster() {
    share_one_queue(&NatsCluster::shared().await.url(&unique_bucket("queue"))).await;
}

async fn share_one_queue(store: &str) {
    let daemons = [Daemon::settled(store).await, Daemon::start(store, LONG).await];
    let (a, b, c) = (daemons[0].connect().await, daemons[1].connect().await, daemons[0].connect().await);
    let first = acquire(&a, "x").await;
    assert_eq!(view(&b, "x").await.holder.unwrap().fence, first.fence);
    assert_eq!(refused(&b, "lock.acquire", json!({ "name": "x", "wait_ms": 0 })).await, Kind::Timeout);
    let second = async { acquire(&b, "x").await };
    let third = async {
        await_waiters(&a, "x", 1).await;
        acquire(&c, "x").await
    };
    let order = async {
        await_waiters(&a, "x", 2).await;
        release(&a, &first).await;
    };
    tokio::pin!(third);
    let second = tokio::select! {
        biased;
        _ = &mut third => panic!("granted out of turn"),
        (second, ()) = async { tokio::join!(second, order) } => second,
    };
    release(&b, &second).await;
    let third = third.await;
    assert!(first.fence < second.fence && second.fence < third.fence, "{first:?} {second:?} {third:?}");
    release(&c, &third).await;
    assert_eq!(view(&b, "x").await.holder, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_and_a_closed_connection_free_their_locks_at_once() {
    let store = NatsServer::shared().await.url(&unique_bucket("killed"));
    free_at_once(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_and_a_closed_connection_free_their_locks_at_once_on_a_cluster() {
    let store = NatsCluster::shared().await.url(&unique_bucket("killed"));
    free_at_once(&store).await;
}

async fn free_at_once(store: &str) {
    let daemons = [Daemon::settled(store).await, Daemon::start(store, LONG).await];
    let other = daemons[1].connect().await;
    let mut job = Job::lock("x", ["--socket", daemons[0].socket().to_str().unwrap()], &[], "echo $TENURE_FENCE; read -r _");
    let killed = job.number().await;
    let kill = async {
        await_waiters(&other, "x", 1).await;
        job.signal(Signal::SIGKILL);
        Instant::now()
    };
    let (next, begun) = tokio::join!(acquire(&other, "x"), kill);
    assert!(next.fence > killed && begun.elapsed() < AT_ONCE, "{killed} {next:?} {:?}", begun.elapsed());

    let closing = daemons[1].connect().await;
    let held = acquire(&closing, "y").await;
    let patient = daemons[0].connect().await;
    let close = async {
        await_waiters(&other, "y", 1).await;
        drop(closing);
        Instant::now()
    };
    let (next, begun) = tokio::join!(acquire(&patient, "y"), close);
    assert!(next.fence > held.fence && begun.elapsed() < AT_ONCE, "{held:?} {next:?} {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_write_of_a_daemon_that_slept_is_refused() {
    let store = NatsServer::shared().await.url(&unique_bucket("fence"));
    refuse_who_slept(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_write_of_a_daemon_that_slept_is_refused_on_a_cluster() {
    let store = NatsCluster::shared().await.url(&unique_bucket("fence"));
    refuse_who_slept(&store).await;
}

async fn refuse_who_slept(store: &str) {
    let daemons = [Daemon::settled(store).await, Daemon::start(store, LONG).await];
    let (sleeper, other) = (daemons[0].connect().await, daemons[1].connect().await);
    let mut notices = sleeper.notices();
    let held = acquire_for(&sleeper, "x", 1_500 * MS).await;
    sleeper.call("kv.put", put("total", "first", &held)).await.unwrap();
    daemons[0].signal(Signal::SIGSTOP);
    let next = acquire(&other, "x").await;
    assert!(next.fence > held.fence, "{held:?} {next:?}");
    other.call("kv.put", put("total", "second", &next)).await.unwrap();
    // The daemon may find the write before it learns that it slept.
    let late = sleeper.call("kv.put", put("total", "late", &held));
    let wake = async {
        tokio::task::yield_now().await;
        daemons[0].signal(Signal::SIGCONT);
    };
    let (late, ()) = soon("the late write", async { tokio::join!(late, wake) }).await;
    assert_eq!(late.unwrap_err().kind(), Some(Kind::Lost));
    assert_eq!(value(&other, "total").await, "second");
    until("the loss is told", async || (fate(&mut notices, &held).await.0 == "lost").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_for_a_while_is_unavailable_and_costs_only_short_leases() {
    let mut server = NatsServer::start().await;
    let daemon = Daemon::settled(&server.url("outage")).await;
    let client = daemon.connect().await;
    let mut notices = client.notices();
    let short = acquire_for(&client, "short", 1_000 * MS).await;
    let long = acquire_for(&client, "long", 15_000 * MS).await;
    server.kill();
    for (method, params) in
        [("kv.get", json!({ "key": "k" })), ("lock.get", json!({ "name": "a" })), ("lock.acquire", json!({ "name": "a" }))]
    {
        assert_eq!(refused(&client, method, params).await, Kind::Unavailable, "{method}");
    }
    // The first write may have been on its way when the connection broke; not so a later one.
    until("writes are refused as not applied", async || {
        let kind = refused(&client, "kv.put", json!({ "key": "k", "value": "x" })).await;
        assert!(matches!(kind, Kind::Unavailable | Kind::UnknownOutcome), "{kind}");
        (kind == Kind::Unavailable).then_some(())
    })
    .await;
    // In whichever order the two leases come to it.
    let mut told = Vec::new();
    until("one is lost and the other suspect", async || {
        let notice = next(&mut notices, "lease").await;
        told.push((notice["lease"].clone(), notice["state"].clone(), notice["reason"].clone()));
        let lost = told.contains(&(json!(short.lease), json!("lost"), json!("renewal_timeout")));
        (lost && told.contains(&(json!(long.lease), json!("suspect"), json!(null)))).then_some(())
    })
    .await;
    server.restart().await;
    assert_eq!(fate(&mut notices, &long).await, ("restored".to_owned(), json!(null)));
    client.call("kv.put", put("k", "long", &long)).await.unwrap();
    assert_eq!(refused(&client, "kv.put", put("k", "short", &short)).await, Kind::Lost);
    assert_eq!(refused(&client, "lock.check", json!({ "lease": short.lease })).await, Kind::Lost);
    let again = acquire_for(&client, "short", 1_000 * MS).await;
    assert!(again.fence > short.fence);
    assert_eq!(value(&client, "k").await, "long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_told_to_leave_lets_everything_go() {
    let store = NatsServer::shared().await.url(&unique_bucket("drain"));
    let (mut leaving, staying) = (Daemon::settled(&store).await, Daemon::start(&store, LONG).await);
    let (polite, stubborn, waiter) = (leaving.connect().await, leaving.connect().await, leaving.connect().await);
    let other = staying.connect().await;
    let (released, kept) = (acquire(&polite, "a").await, acquire(&stubborn, "b").await);
    let mut notices = [polite.notices(), stubborn.notices()];
    let waited = waiter.call_as::<LockAcquired>("lock.acquire", json!({ "name": "a" }));
    let begun = Instant::now();
    let leave = async {
        await_waiters(&other, "a", 1).await;
        leaving.signal(Signal::SIGTERM);
        for notices in &mut notices {
            assert!(next(notices, "goaway").await["deadline_ms"].as_u64() > Some(0));
        }
    };
    let (waited, ()) = soon("the wait ends", async { tokio::join!(waited, leave) }).await;
    assert_eq!(waited.unwrap_err().kind(), Some(Kind::Unavailable));
    // Holders have time to finish, and what they release is free before the daemon is gone.
    release(&polite, &released).await;
    let next_a = acquire(&other, "a").await;
    let next_b = acquire(&other, "b").await;
    assert!(next_a.fence > released.fence && next_b.fence > kept.fence);
    assert_eq!(fate(&mut notices[1], &kept).await, ("lost".to_owned(), json!("closed")));
    assert!(leaving.wait().await.success());
    assert!(begun.elapsed() < LONG / 2, "not only at the end of a lease: {:?}", begun.elapsed());
    assert!(matches!(polite.call("ping", json!({})).await, Err(CallError::Closed)));
}

async fn elected(client: &Client, name: &str, value: &str) -> ElectionCampaigned {
    let params = json!({ "name": name, "value": value });
    soon("the election", client.call_as("election.campaign", params)).await.unwrap()
}

/// The next state of a subscription that `wanted` takes.
async fn seen<T>(events: &mut Subscription, wanted: impl Fn(Happening) -> Option<T>) -> T {
    loop {
        let event = soon("an event", events.recv()).await.expect("the subscription lasts");
        if let Some(found) = wanted(event) {
            return found;
        }
    }
}

fn led_by(value: Option<&str>) -> impl Fn(Happening) -> Option<()> {
    move |event| match event {
        Happening::Leader { leader } => (leader.and_then(|leader| leader.value).as_deref() == value).then_some(()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offices_and_groups_pass_from_a_killed_daemon_to_another() {
    pass_from_a_killed_daemon(&NatsServer::shared().await.url(&unique_bucket("offices"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offices_and_groups_pass_from_a_killed_daemon_to_another_on_a_cluster() {
    pass_from_a_killed_daemon(&NatsCluster::shared().await.url(&unique_bucket("offices"))).await;
}

async fn pass_from_a_killed_daemon(store: &str) {
    let lease = 2_000 * MS;
    sidecar_support::settle(store).await;
    let (doomed, daemon) = (Daemon::start(store, lease).await, Daemon::start(store, lease).await);
    let (first, second, watcher) = (doomed.connect().await, daemon.connect().await, daemon.connect().await);
    let led = elected(&first, "e", "first").await;
    let mut leaders = watcher.subscribe("election.observe", json!({ "name": "e" })).await.unwrap();
    let mut members = watcher.subscribe("member.watch", json!({ "group": "g" })).await.unwrap();
    seen(&mut leaders, led_by(Some("first"))).await;
    first.call("member.join", json!({ "group": "g", "id": "one" })).await.unwrap();
    second.call("member.join", json!({ "group": "g", "id": "two" })).await.unwrap();
    for _ in 0..2 {
        seen(&mut members, |event| matches!(event, Happening::Join { .. }).then_some(())).await;
    }
    assert_eq!(refused(&second, "member.join", json!({ "group": "g", "id": "one" })).await, Kind::Conflict);
    let kill = async {
        until("the second is a candidate", async || {
            let listed = watcher.call("election.candidates", json!({ "name": "e" })).await.unwrap();
            (listed["candidates"].as_array().unwrap().len() == 1).then_some(())
        })
        .await;
        doomed.signal(Signal::SIGKILL);
        Instant::now()
    };
    let (next, killed) = tokio::join!(elected(&second, "e", "second"), kill);
    println!("led again after {:?}", killed.elapsed());
    assert!(next.fence > led.fence);
    seen(&mut leaders, led_by(Some("second"))).await;
    let gone = seen(&mut members, |event| if let Happening::Leave { id, .. } = event { Some(id) } else { None }).await;
    println!("removed after {:?}", killed.elapsed());
    assert_eq!(gone, "one");
    // Promised is a second beyond the lease; the rest is for a busy machine.
    assert!(killed.elapsed() < 4 * lease, "{:?}", killed.elapsed());
    second.call("election.resign", json!({ "lease": next.lease })).await.unwrap();
    seen(&mut leaders, led_by(None)).await;
}
