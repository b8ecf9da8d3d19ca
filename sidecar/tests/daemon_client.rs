//! The client in Rust, against the daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::time::{Duration, Instant};

use daemon_support::{Daemon, PATIENCE};
use futures::StreamExt;
use nix::sys::signal::Signal;
use serde_json::json;
use tenure::{MemberEvent, discovery::Balancer};
use tenure_sidecar::{
    CallError, Client,
    protocol::{Done, ElectionCampaigned, Happening, HelloResult, Kind, LockAcquired, LockView, MemberJoined},
};

async fn connect(daemon: &Daemon) -> Client {
    Client::connect(daemon.socket()).await.unwrap()
}

async fn acquire(client: &Client, name: &str) -> LockAcquired {
    client.call_as("lock.acquire", json!({ "name": name, "wait_ms": 15_000 })).await.unwrap()
}

async fn release(client: &Client, lease: &LockAcquired) {
    client.call_as::<Done>("lock.release", json!({ "lease": lease.lease })).await.unwrap();
}

async fn await_waiters(client: &Client, name: &str, count: usize) {
    let begun = Instant::now();
    while client.call_as::<LockView>("lock.get", json!({ "name": name })).await.unwrap().waiters.len() != count {
        assert!(begun.elapsed() < PATIENCE, "there are never {count} waiters");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn calls_run_side_by_side_and_errors_keep_their_kind() {
    let daemon = Daemon::start();
    let (client, other) = (connect(&daemon).await, connect(&daemon).await);
    let held = acquire(&client, "a").await;
    let (waited, pings) = tokio::join!(acquire(&client, "a"), async {
        for _ in 0..100 {
            client.call("ping", json!({})).await.unwrap();
        }
        await_waiters(&client, "a", 1).await;
        release(&client, &held).await;
        true
    });
    assert!(pings && waited.fence > held.fence);
    let error = other.call("lock.acquire", json!({ "name": "a", "wait_ms": 0 })).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), (Some(1), Some(Kind::Timeout)));
    assert!(error.to_string().contains("held by"), "{error}");
    let error = client.call_as::<HelloResult>("ping", json!({})).await.unwrap_err();
    assert!(matches!(error, CallError::Malformed(_)) && error.kind().is_none(), "{error}");
}

#[tokio::test]
async fn a_dropped_call_gives_up_its_place() {
    let daemon = Daemon::start();
    let (holder, client) = (connect(&daemon).await, connect(&daemon).await);
    let held = acquire(&holder, "a").await;
    {
        let waiting = client.call("lock.acquire", json!({ "name": "a" }));
        tokio::select! {
            outcome = waiting => panic!("{outcome:?}"),
            () = await_waiters(&holder, "a", 1) => {}
        }
    }
    await_waiters(&holder, "a", 0).await;
    release(&holder, &held).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_before_it_is_written_is_not_cancelled_before_it() {
    let daemon = Daemon::start();
    let (holder, client) = (connect(&daemon).await, connect(&daemon).await);
    let held = acquire(&holder, "a").await;
    for _ in 0..200 {
        let mut waiting = Box::pin(client.call("lock.acquire", json!({ "name": "a" })));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(waiting);
        client.call("ping", json!({})).await.unwrap();
    }
    await_waiters(&holder, "a", 0).await;
    let begun = Instant::now();
    while client.call("status", json!({})).await.unwrap()["requests"] != 0 {
        assert!(begun.elapsed() < PATIENCE, "a request was cancelled before it was asked");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    release(&holder, &held).await;
}

#[tokio::test]
async fn a_lease_that_comes_after_its_call_was_dropped_goes_back() {
    let daemon = Daemon::start();
    let (holder, client) = (connect(&daemon).await, connect(&daemon).await);
    for round in 0..200 {
        let held = acquire(&holder, "a").await;
        {
            let waiting = client.call("lock.acquire", json!({ "name": "a" }));
            let racing = async {
                tokio::join!(release(&holder, &held), tokio::time::sleep(Duration::from_micros(round * 5)));
            };
            tokio::select! {
                biased;
                granted = waiting => {
                    let lease = granted.unwrap()["lease"].clone();
                    client.call("lock.release", json!({ "lease": lease })).await.unwrap();
                    continue;
                }
                () = racing => {}
            }
        }
    }
    // Granted only if nothing was left behind.
    acquire(&holder, "a").await;
    let begun = Instant::now();
    while client.call("status", json!({})).await.unwrap()["leases"] != 1 {
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn notices_come_and_end_with_the_connection() {
    let mut daemon = Daemon::start();
    let client = connect(&daemon).await;
    let mut notices = client.notices();
    let held = acquire(&client, "a").await;
    client.call("lock.break", json!({ "name": "a", "fence": held.fence })).await.unwrap();
    let notice = notices.recv().await.unwrap();
    assert_eq!((notice.method.as_str(), &notice.params["state"]), ("lease", &json!("lost")));

    let closed = client.closed();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(notices.recv().await.unwrap().method, "goaway");
    assert!(notices.recv().await.is_none());
    closed.await;
    assert!(matches!(client.call("ping", json!({})).await, Err(CallError::Closed)));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[tokio::test]
async fn a_killed_daemon_ends_calls_that_wait() {
    let daemon = Daemon::start();
    let (holder, client) = (connect(&daemon).await, connect(&daemon).await);
    acquire(&holder, "a").await;
    let waiting = client.call("lock.acquire", json!({ "name": "a" }));
    let kill = async {
        await_waiters(&holder, "a", 1).await;
        daemon.signal(Signal::SIGKILL);
    };
    let (waited, ()) = tokio::join!(waiting, kill);
    assert!(matches!(waited, Err(CallError::Closed)), "{waited:?}");
}

#[tokio::test]
async fn kept_alive_it_outlives_its_heartbeat() {
    let daemon = Daemon::start();
    let (client, idle) = (connect(&daemon).await, connect(&daemon).await);
    let heartbeat = Duration::from_secs(1);
    let welcome = client.keep_alive(heartbeat).await.unwrap();
    assert_eq!(welcome.protocol, 1);
    // One that asks for the same and sends nothing does not.
    idle.call("hello", json!({ "protocol": [1], "heartbeat_ms": 1_000 })).await.unwrap();
    let (held, silent) = (acquire(&client, "a").await, acquire(&idle, "b").await);
    tokio::time::sleep(3 * heartbeat).await;
    // Granted when the silent one has lost it.
    acquire(&client, "b").await;
    let check = |lease: &LockAcquired| json!({ "lease": lease.lease });
    assert_eq!(client.call("lock.check", check(&held)).await.unwrap()["held"], true);
    assert_eq!(idle.call("lock.check", check(&silent)).await.unwrap_err().kind(), Some(Kind::Lost));
}

#[tokio::test]
async fn dropping_it_releases_all() {
    let daemon = Daemon::start();
    let (client, other) = (connect(&daemon).await, connect(&daemon).await);
    acquire(&client, "a").await;
    drop(client);
    acquire(&other, "a").await;
}

#[tokio::test]
async fn no_connection_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let error = Client::connect(&path).await.unwrap_err();
    assert!(error.to_string().contains("start tenured"), "{error}");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = Client::connect(&path).await.unwrap_err();
    assert!(error.to_string().contains("nobody listens"), "{error}");
    std::fs::write(directory.path().join("file"), "").unwrap();
    assert!(Client::connect(directory.path().join("file")).await.is_err());
}

async fn elected(client: &Client, name: &str, value: &str) -> ElectionCampaigned {
    client.call_as("election.campaign", json!({ "name": name, "value": value, "wait_ms": 15_000 })).await.unwrap()
}

#[tokio::test]
async fn events_come_to_their_subscription_and_end_with_it() {
    let daemon = Daemon::start();
    let (client, other) = (connect(&daemon).await, connect(&daemon).await);
    let mut notices = client.notices();
    let mut leaders = client.subscribe("election.observe", json!({ "name": "e" })).await.unwrap();
    let mut members = client.subscribe("member.watch", json!({ "group": "g" })).await.unwrap();
    assert_eq!(leaders.recv().await, Some(Happening::Leader { leader: None }));
    assert_eq!(leaders.recv().await, Some(Happening::Sync { revision: None }));
    assert!(matches!(members.recv().await, Some(Happening::Sync { revision: Some(_) })));
    let led = elected(&other, "e", "one").await;
    let Some(Happening::Leader { leader: Some(leader) }) = leaders.recv().await else { panic!("nobody leads") };
    assert_eq!((leader.value.as_deref(), leader.fence), (Some("one"), led.fence));
    let joined: MemberJoined = other.call_as("member.join", json!({ "group": "g", "id": "w1" })).await.unwrap();
    assert!(matches!(members.recv().await, Some(Happening::Join { member }) if member.id == joined.id));
    drop(leaders);
    let begun = Instant::now();
    while client.call("status", json!({})).await.unwrap()["subscriptions"] != 1 {
        assert!(begun.elapsed() < PATIENCE);
    }
    let error = client.subscribe("member.watch", json!({ "group": "a b" })).await.unwrap_err();
    assert_eq!(error.kind(), Some(Kind::InvalidParams));
    client.subscribe("ping", json!({})).await.unwrap_err();

    let asked = elected(&client, "f", "low").await;
    let challenger = other.call("election.campaign", json!({ "name": "f", "priority": 1 }));
    let answer = async {
        let event = notices.recv().await.unwrap().event().unwrap();
        let Happening::AskedToStepDown { candidate } = event.what else { panic!("{event:?}") };
        assert_eq!(event.lease.as_deref(), Some(asked.lease.as_str()));
        client.call("election.transfer", json!({ "lease": asked.lease, "candidate": candidate.id })).await.unwrap();
    };
    let (challenger, ()) = tokio::join!(challenger, answer);
    challenger.unwrap();
    daemon.signal(Signal::SIGKILL);
    assert_eq!(members.recv().await, None);
}

#[tokio::test]
async fn what_comes_after_its_call_was_dropped_goes_back() {
    let daemon = Daemon::start();
    let client = connect(&daemon).await;
    let mut late = 0;
    for round in 0..60 {
        let time = Duration::from_micros(round * 20);
        let calls = [
            ("election.campaign", json!({ "name": "e" }), "election.resign"),
            // Another id each time: what came late may still be on its way back.
            ("member.join", json!({ "group": "g", "id": format!("w{round}") }), "member.leave"),
        ];
        for (method, params, give_up) in calls {
            match tokio::time::timeout(time, client.call(method, params)).await {
                Ok(granted) => drop(client.call(give_up, json!({ "lease": granted.unwrap()["lease"] })).await.unwrap()),
                Err(_) => late += 1,
            }
        }
        let watch = client.subscribe("member.watch", json!({ "group": "g" }));
        late += usize::from(tokio::time::timeout(time, watch).await.is_err());
    }
    assert!(late > 0, "nothing was dropped");
    let begun = Instant::now();
    loop {
        let status = client.call("status", json!({})).await.unwrap();
        if status["leases"] == 0 && status["subscriptions"] == 0 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{status}");
    }
}

#[tokio::test]
async fn a_balancer_follows_a_group_over_the_socket() {
    let daemon = Daemon::start();
    let (client, other) = (connect(&daemon).await, connect(&daemon).await);
    let one = json!({ "group": "g", "id": "w1", "address": "10.0.0.7:80", "weight": 3, "value_b64": "/w==", "label": "me" });
    let joined: MemberJoined = other.call_as("member.join", one).await.unwrap();
    let watch = client.subscribe("member.watch", json!({ "group": "g" })).await.unwrap();
    let balancer = Balancer::builder().follow_events("g", watch.into_members()).await.unwrap();
    let picked = balancer.pick().unwrap();
    let (member, instance) = (picked.member(), &picked.member().instance);
    assert_eq!((member.revision.get(), member.label.as_deref(), member.pid), (joined.revision, Some("me"), std::process::id()));
    assert_eq!((picked.address(), instance.weight, &instance.value[..]), ("10.0.0.7:80", 3, &[0xff][..]));
    other.call("member.update", json!({ "lease": joined.lease, "state": "draining" })).await.unwrap();
    let begun = Instant::now();
    while balancer.pick().is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it still takes requests");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(other);
    while !balancer.members().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "it is still there");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let watch = client.subscribe("member.watch", json!({ "group": "g" })).await.unwrap();
    let mut events = std::pin::pin!(watch.into_members());
    assert!(matches!(events.next().await, Some(Ok(MemberEvent::CaughtUp { .. }))));
    daemon.signal(Signal::SIGKILL);
    let ended = events.next().await;
    assert!(matches!(ended, Some(Err(tenure::Error::Unavailable { .. }))), "{ended:?}");
    assert!(events.next().await.is_none());
}
