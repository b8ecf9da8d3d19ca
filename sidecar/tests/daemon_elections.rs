//! Elections over the socket: campaigns, terms, hand-overs, observers, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use daemon_support::{Client, Daemon, PATIENCE, Wire, kind};
use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};

/// Not a test: the process of [`Client`].
#[test]
#[ignore = "the client process of other tests, started by them"]
fn client_process() {
    let socket = std::env::var("CLIENT_SOCKET").expect("started by another test");
    let mut wire = Wire::connect(Path::new(&socket));
    let (lease, _) = campaign(&mut wire, &std::env::var("CLIENT_LOCK").unwrap(), "a process");
    println!("holding: {lease}");
    std::thread::sleep(Duration::from_secs(60));
}

fn campaign(wire: &mut Wire, name: &str, value: &str) -> (String, u64) {
    let elected = wire.call("election.campaign", json!({ "name": name, "value": value, "wait_ms": 15_000 })).unwrap();
    (elected["lease"].as_str().unwrap().to_owned(), elected["fence"].as_u64().unwrap())
}

fn leader(wire: &mut Wire, name: &str) -> Json {
    wire.call("election.leader", json!({ "name": name })).unwrap()["leader"].take()
}

fn candidates(wire: &mut Wire, name: &str) -> Vec<Json> {
    wire.call("election.candidates", json!({ "name": name })).unwrap()["candidates"].as_array().unwrap().clone()
}

fn await_candidates(wire: &mut Wire, name: &str, count: usize) -> Vec<Json> {
    let begun = Instant::now();
    loop {
        let listed = candidates(wire, name);
        if listed.len() == count {
            return listed;
        }
        assert!(begun.elapsed() < PATIENCE, "there are never {count} candidates: {listed:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn observe(wire: &mut Wire, name: &str) -> String {
    wire.call("election.observe", json!({ "name": name })).unwrap()["subscription"].as_str().unwrap().to_owned()
}

/// The next event, which must be of `subscription`.
fn event(wire: &mut Wire, subscription: &str) -> Json {
    let (method, params) = wire.notice();
    assert_eq!((method.as_str(), &params["subscription"]), ("event", &json!(subscription)), "{params}");
    params
}

/// Waits until `value` leads, or nobody where that is null.
fn await_leader(wire: &mut Wire, subscription: &str, value: &Json) -> Json {
    let begun = Instant::now();
    loop {
        let event = event(wire, subscription);
        if event["kind"] == "leader" && event["leader"]["value"] == *value {
            return event;
        }
        assert!(begun.elapsed() < PATIENCE && event["kind"] != "end", "{value} never leads: {event}");
    }
}

#[test]
fn one_leads_proclaims_and_hands_over_by_resigning() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    assert_eq!(leader(&mut one, "e"), json!(null));
    let elected =
        one.call("election.campaign", json!({ "name": "e", "value": "one", "label": "first", "lease_ms": 60_000 })).unwrap();
    let (lease, fence) = (elected["lease"].clone(), elected["fence"].as_u64().unwrap());
    assert_eq!((&lease, &elected["lease_ms"]), (&json!("l_1"), &json!(60_000)));
    assert!(elected["waited_ms"].is_u64() && elected["remaining_ms"].as_u64().unwrap() > 0, "{elected}");
    let answer = two.call("election.leader", json!({ "name": "e" })).unwrap();
    assert!(answer["age_ms"].as_u64().unwrap() < 30_000, "{answer}");
    let seen = &answer["leader"];
    assert_eq!((&seen["value"], &seen["label"], &seen["fence"]), (&json!("one"), &json!("first"), &json!(fence)));
    assert_eq!((&seen["pid"], &seen["candidate"]), (&json!(std::process::id()), &elected["candidate"]));

    let revision = one.call("election.proclaim", json!({ "lease": lease, "value_b64": "/w==" })).unwrap()["revision"].clone();
    assert!(revision.as_u64().unwrap() > fence);
    let seen = leader(&mut two, "e");
    assert_eq!((&seen["value_b64"], &seen["fence"], &seen["revision"]), (&json!("/w=="), &json!(fence), &revision));

    for wait in [0, 30] {
        let error = two.call("election.campaign", json!({ "name": "e", "value": "two", "wait_ms": wait })).unwrap_err();
        assert_eq!((kind(&error).as_str(), &error["data"]["holder"]["fence"]), ("timeout", &json!(fence)), "{error}");
    }
    assert_eq!(candidates(&mut one, "e").len(), 0, "who gives up is no candidate");
    let waiting = two.send("election.campaign", &json!({ "name": "e", "value": "two" }));
    assert_eq!(await_candidates(&mut one, "e", 1)[0]["value"], "two");
    assert_eq!(one.call("lock.check", json!({ "lease": lease })).unwrap()["held"], true);
    assert_eq!(one.call("election.resign", json!({ "lease": lease })).unwrap(), json!({}));
    let next = two.result(waiting).unwrap();
    assert!(next["fence"].as_u64().unwrap() > fence);
    assert_eq!(leader(&mut one, "e")["value"], "two");
    assert_eq!(one.refused("election.resign", json!({ "lease": lease })), "not_held");
    assert_eq!(one.refused("election.proclaim", json!({ "lease": lease, "value": "x" })), "not_held");
    assert_eq!(two.refused("election.resign", json!({ "lease": "l_7" })), "not_held");
}

#[test]
fn writes_are_fenced_by_the_leadership() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    let (lease, fence) = campaign(&mut one, "e", "one");
    let put = |extra: Json| {
        let mut params = json!({ "key": "k", "value": "x" });
        params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        params
    };
    one.call("kv.put", put(json!({ "fence_lease": lease }))).unwrap();
    one.call("election.proclaim", json!({ "lease": lease, "value": "again" })).unwrap();
    one.call("kv.put", put(json!({ "fence_lease": lease }))).unwrap();
    two.call("kv.put", put(json!({ "election": "e", "fence": fence }))).unwrap();
    assert_eq!(two.refused("kv.put", put(json!({ "lock": "e", "fence": fence }))), "conflict");
    assert_eq!(two.refused("kv.put", put(json!({ "election": "e", "lock": "e", "fence": fence }))), "invalid_params");
    one.call("election.resign", json!({ "lease": lease })).unwrap();
    assert_eq!(one.refused("kv.put", put(json!({ "fence_lease": lease }))), "not_held");
    assert_eq!(two.refused("kv.put", put(json!({ "election": "e", "fence": fence }))), "conflict");
}

#[test]
fn the_office_goes_to_a_named_candidate_in_one_write() {
    let daemon = Daemon::start();
    let (mut one, mut two, mut three) = (daemon.connect(), daemon.connect(), daemon.connect());
    let (lease, fence) = campaign(&mut one, "e", "one");
    let second = two.send("election.campaign", &json!({ "name": "e", "value": "two" }));
    await_candidates(&mut one, "e", 1);
    let third = three.send("election.campaign", &json!({ "name": "e", "value": "three", "label": "it" }));
    let listed = await_candidates(&mut one, "e", 2);
    let chosen = listed.iter().find(|candidate| candidate["label"] == "it").unwrap();
    for (candidate, expected) in [("nobody-1", "conflict"), ("not an id", "invalid_params")] {
        assert_eq!(one.refused("election.transfer", json!({ "lease": lease, "candidate": candidate })), expected);
    }
    let handed = one.call("election.transfer", json!({ "lease": lease, "candidate": chosen["id"] })).unwrap();
    let elected = three.result(third).unwrap();
    assert_eq!(handed["fence"], elected["fence"]);
    assert!(elected["fence"].as_u64().unwrap() > fence);
    assert_eq!(one.refused("kv.put", json!({ "key": "k", "value": "x", "fence_lease": lease })), "not_held");
    assert_eq!(one.call("status", json!({})).unwrap()["leaderships"], 1);
    assert!(one.notices.is_empty(), "{:?}", one.notices);
    drop(three);
    two.result(second).unwrap();
}

#[test]
fn candidates_too_long_for_a_line_come_in_several_and_who_goes_meanwhile_leaves_no_gap() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--max-line", "4096"]);
    let (mut one, mut crowd) = (daemon.connect(), daemon.connect());
    campaign(&mut one, "e", "one");
    let all = |wire: &mut Wire, limit: Option<usize>| {
        let (mut values, mut pages, mut params) = (Vec::new(), 0, json!({ "name": "e", "limit": limit }));
        loop {
            let page = wire.call("election.candidates", params.clone()).unwrap();
            let part = page["candidates"].as_array().unwrap();
            assert!(part.len() <= limit.unwrap_or(usize::MAX), "{page}");
            values.extend(part.iter().map(|candidate| candidate["value"].as_str().unwrap()[..1].to_owned()));
            pages += 1;
            if page["next"].is_null() {
                return (values, pages);
            }
            assert!(!part.is_empty(), "{page}");
            params["after"] = page["next"].clone();
        }
    };
    let mut waiting = Vec::new();
    for n in 0..8 {
        waiting.push(crowd.send("election.campaign", &json!({ "name": "e", "value": format!("{n}{}", "x".repeat(700)) })));
        // In this order.
        let begun = Instant::now();
        while all(&mut one, None).0.len() <= n {
            assert!(begun.elapsed() < PATIENCE, "{n} is never listed");
        }
    }
    let named = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>();
    let (values, pages) = all(&mut one, None);
    assert!(values == named(&[0, 1, 2, 3, 4, 5, 6, 7]) && (3..8).contains(&pages), "{values:?} {pages}");
    assert_eq!(all(&mut one, Some(1)), (values, 8));
    let first = one.call("election.candidates", json!({ "name": "e", "limit": 3 })).unwrap();
    for gone in [0, 2, 3] {
        crowd.call("cancel", json!({ "id": waiting[gone] })).unwrap();
        assert!(crowd.result(waiting[gone]).is_err());
    }
    let begun = Instant::now();
    while all(&mut one, None).0 != named(&[1, 4, 5, 6, 7]) {
        assert!(begun.elapsed() < PATIENCE, "who gives up is a candidate");
    }
    let rest = one.call("election.candidates", json!({ "name": "e", "after": first["next"], "limit": 2 })).unwrap();
    let rest: Vec<_> = rest["candidates"].as_array().unwrap().iter().map(|one| &one["value"].as_str().unwrap()[..1]).collect();
    assert_eq!(rest, ["4", "5"]);
}

#[test]
fn a_leader_is_asked_to_step_down_by_a_higher_priority() {
    let daemon = Daemon::start();
    let (mut one, mut two, mut three) = (daemon.connect(), daemon.connect(), daemon.connect());
    let (lease, _) = campaign(&mut one, "e", "one");
    three.send("election.campaign", &json!({ "name": "e", "value": "same" }));
    await_candidates(&mut one, "e", 1);
    let waiting = two.send("election.campaign", &json!({ "name": "e", "value": "two", "priority": 5 }));
    let (method, asked) = one.notice();
    assert_eq!((method.as_str(), &asked["kind"], &asked["lease"]), ("event", &json!("asked_to_step_down"), &json!(lease)));
    assert_eq!((&asked["candidate"]["priority"], &asked["candidate"]["value"]), (&json!(5), &json!("two")));
    one.call("election.transfer", json!({ "lease": lease, "candidate": asked["candidate"]["id"] })).unwrap();
    two.result(waiting).unwrap();
    assert_eq!(leader(&mut one, "e")["priority"], 5);
}

#[test]
fn a_leader_is_not_asked_before_its_minimum_tenure() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    let begun = Instant::now();
    one.call("election.campaign", json!({ "name": "e", "min_tenure_ms": 300 })).unwrap();
    two.send("election.campaign", &json!({ "name": "e", "priority": 1 }));
    let (_, asked) = one.notice();
    assert_eq!(asked["kind"], "asked_to_step_down");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn an_observer_that_reads_late_is_told_the_last_state() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--stall", "60s"]);
    let (mut one, mut late) = (daemon.connect(), daemon.connect());
    let subscription = observe(&mut late, "e");
    let (lease, _) = campaign(&mut one, "e", "first");
    let filling = "x".repeat(200_000);
    for n in 0..80 {
        one.call("election.proclaim", json!({ "lease": lease, "value": format!("{n} {filling}") })).unwrap();
    }
    one.call("election.proclaim", json!({ "lease": lease, "value": "last" })).unwrap();
    let (mut events, mut revision) = (0, 0);
    loop {
        let event = event(&mut late, &subscription);
        events += 1;
        let seen = event["leader"]["revision"].as_u64().unwrap_or(revision);
        assert!(seen >= revision, "states go back");
        revision = seen;
        if event["leader"]["value"] == "last" {
            break;
        }
    }
    assert!(events < 60, "{events} events were kept for somebody who did not read");
    assert!(late.is_quiet(Duration::from_millis(50)));
}

#[test]
fn observers_are_told_who_leads_and_when_nobody_does() {
    let daemon = Daemon::start();
    let (mut one, mut two, mut watcher) = (daemon.connect(), daemon.connect(), daemon.connect());
    let subscription = observe(&mut watcher, "e");
    assert_eq!(event(&mut watcher, &subscription)["leader"], json!(null));
    assert_eq!(event(&mut watcher, &subscription)["kind"], "sync");
    let (lease, fence) = campaign(&mut one, "e", "one");
    assert_eq!(await_leader(&mut watcher, &subscription, &json!("one"))["leader"]["fence"], fence);
    one.call("election.proclaim", json!({ "lease": lease, "value": "changed" })).unwrap();
    assert_eq!(await_leader(&mut watcher, &subscription, &json!("changed"))["leader"]["fence"], fence);
    one.call("election.resign", json!({ "lease": lease })).unwrap();
    await_leader(&mut watcher, &subscription, &json!(null));
    let (_, later) = campaign(&mut two, "e", "two");
    assert_eq!(await_leader(&mut watcher, &subscription, &json!("two"))["leader"]["fence"], later);
    let late = observe(&mut watcher, "e");
    assert_ne!(late, subscription);
    assert_eq!(event(&mut watcher, &late)["leader"]["value"], "two");
    assert_eq!(event(&mut watcher, &late)["kind"], "sync");

    assert_eq!(watcher.call("subscription.cancel", json!({ "subscription": subscription })).unwrap(), json!({}));
    drop(two);
    await_leader(&mut watcher, &late, &json!(null));
    watcher.call("subscription.cancel", json!({ "subscription": late })).unwrap();
    campaign(&mut one, "e", "one");
    assert!(watcher.is_quiet(Duration::from_millis(100)));
    assert_eq!(watcher.refused("subscription.cancel", json!({ "subscription": late })), "not_found");
    assert_eq!(watcher.call("status", json!({})).unwrap()["subscriptions"], 0);
}

#[test]
fn a_killed_clients_leadership_moves_in_milliseconds() {
    let daemon = Daemon::start();
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let mut client = Client::start(&daemon, "e", "plain");
        client.await_word("holding");
        let mut next = daemon.connect();
        let waiting = next.send("election.campaign", &json!({ "name": "e", "value": "next" }));
        await_candidates(&mut daemon.connect(), "e", 1);
        let begun = Instant::now();
        client.signal(Signal::SIGKILL);
        let elected = next.result(waiting).unwrap();
        best = best.min(begun.elapsed());
        next.call("election.resign", json!({ "lease": elected["lease"] })).unwrap();
        if best < Duration::from_millis(20) {
            break;
        }
    }
    println!("moved after SIGKILL: {best:?}");
    assert!(best < Duration::from_millis(20), "{best:?}");
}

#[test]
fn cancelled_campaigns_lead_nothing() {
    let daemon = Daemon::start();
    let (mut holder, mut wire, mut witness) = (daemon.connect(), daemon.connect(), daemon.connect());
    for round in 0..60 {
        let (lease, _) = campaign(&mut holder, "e", "holder");
        let waiting = wire.send("election.campaign", &json!({ "name": "e", "value": "wire" }));
        if round % 3 == 0 {
            await_candidates(&mut witness, "e", 1);
        }
        // The election and the cancel race.
        let resign = holder.send("election.resign", &json!({ "lease": lease }));
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_micros(round * 10));
        }
        let cancel = wire.send("cancel", &json!({ "id": waiting }));
        match (wire.result(waiting), wire.result(cancel)) {
            (Ok(elected), Err(error)) => {
                assert_eq!(kind(&error), "not_found");
                wire.call("election.resign", json!({ "lease": elected["lease"] })).unwrap();
            }
            (Err(error), Ok(_)) => assert_eq!(kind(&error), "cancelled"),
            other => panic!("round {round}: {other:?}"),
        }
        holder.result(resign).unwrap();
        let elected = witness.call("election.campaign", json!({ "name": "e", "wait_ms": 0 })).unwrap();
        witness.call("election.resign", json!({ "lease": elected["lease"] })).unwrap();
    }
    let status = witness.call("status", json!({})).unwrap();
    assert_eq!((&status["leases"], &status["leaderships"], &status["requests"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(candidates(&mut witness, "e").len(), 0);
}

#[test]
fn a_silent_client_leads_no_more() {
    let daemon = Daemon::start();
    let (mut wire, mut next) = (daemon.connect(), daemon.connect());
    wire.call("hello", json!({ "protocol": [1], "heartbeat_ms": 300 })).unwrap();
    let (lease, _) = campaign(&mut wire, "e", "silent");
    campaign(&mut next, "e", "next");
    let (method, params) = wire.notice();
    assert_eq!((method.as_str(), &params), ("lease", &json!({ "lease": lease, "state": "lost", "reason": "client_silent" })));
    assert_eq!(wire.refused("election.resign", json!({ "lease": lease })), "lost");
}

#[test]
fn a_leaving_daemon_resigns_and_says_so() {
    let mut daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--drain", "500ms"]);
    let (mut wire, mut watcher) = (daemon.connect(), daemon.connect());
    let (lease, _) = campaign(&mut wire, "e", "one");
    let subscription = observe(&mut watcher, "e");
    await_leader(&mut watcher, &subscription, &json!("one"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(wire.notice().0, "goaway");
    assert_eq!(wire.refused("election.campaign", json!({ "name": "f" })), "unavailable");
    assert_eq!(wire.notice().1, json!({ "lease": lease, "state": "lost", "reason": "closed" }));
    let last = std::iter::from_fn(|| watcher.line()).last().unwrap();
    assert_eq!(last["params"], json!({ "subscription": subscription, "kind": "end", "reason": "leaving" }));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn wrong_parameters_are_named() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--max-subscriptions", "2"]);
    let mut wire = daemon.connect();
    let (lease, _) = campaign(&mut wire, "e", "one");
    let (lock, _) = wire.acquire("a");
    let long = "x".repeat(tenure_kv::MAX_VALUE);
    for (method, params, param) in [
        ("election.campaign", json!({}), "name"),
        ("election.campaign", json!({ "name": "a b" }), "name"),
        ("election.campaign", json!({ "name": "" }), "name"),
        ("election.campaign", json!({ "name": "x".repeat(tenure::MAX_NAME + 1) }), "name"),
        ("election.campaign", json!({ "name": "f", "vlaue": "x" }), "vlaue"),
        ("election.campaign", json!({ "name": "f", "value": 1 }), "value"),
        ("election.campaign", json!({ "name": "f", "value": long }), "value"),
        ("election.campaign", json!({ "name": "f", "value": "a", "value_b64": "YQ==" }), "value_b64"),
        ("election.campaign", json!({ "name": "f", "value_b64": "?" }), "value_b64"),
        ("election.campaign", json!({ "name": "f", "wait_ms": -1 }), "wait_ms"),
        ("election.campaign", json!({ "name": "f", "lease_ms": 1 }), "lease_ms"),
        ("election.campaign", json!({ "name": "f", "label": "a\nb" }), "label"),
        ("election.campaign", json!({ "name": "f", "priority": 1.5 }), "priority"),
        ("election.campaign", json!({ "name": "f", "priority": 3_000_000_000_u64 }), "priority"),
        ("election.campaign", json!({ "name": "f", "min_tenure_ms": -1 }), "min_tenure_ms"),
        ("election.proclaim", json!({ "lease": lease }), "value"),
        ("election.proclaim", json!({ "lease": lease, "value": long }), "value"),
        ("election.proclaim", json!({ "value": "x" }), "lease"),
        ("election.transfer", json!({ "lease": lease }), "candidate"),
        ("election.transfer", json!({ "lease": lease, "candidate": "a b" }), "candidate"),
        ("election.resign", json!({ "lease": lease, "name": "e" }), "name"),
        ("election.leader", json!({ "name": "a..b" }), "name"),
        ("election.candidates", json!({ "name": "*" }), "name"),
        ("election.candidates", json!({ "name": "e", "limit": 0 }), "limit"),
        ("election.candidates", json!({ "name": "e", "after": "e" }), "after"),
        ("election.candidates", json!({ "name": "e", "prefix": "e" }), "prefix"),
        ("election.observe", json!({ "name": "a b" }), "name"),
        ("subscription.cancel", json!({ "subscription": 1 }), "subscription"),
    ] {
        let error = wire.call(method, params.clone()).unwrap_err();
        assert_eq!(kind(&error), "invalid_params", "{method} {params}");
        assert_eq!(error["data"]["param"], param, "{method} {params}: {error}");
    }
    for (method, lease) in [("election.resign", &lock), ("lock.release", &lease), ("member.leave", &lease)] {
        let error = wire.call(method, json!({ "lease": lease })).unwrap_err();
        assert!(kind(&error) == "not_held" && error["message"].as_str().unwrap().contains("given up with"), "{error}");
    }
    for handle in ["w_1", "w_01", "1", "w_"] {
        assert_eq!(wire.refused("subscription.cancel", json!({ "subscription": handle })), "not_found");
    }
    observe(&mut wire, "e");
    observe(&mut wire, "e");
    let error = wire.call("election.observe", json!({ "name": "e" })).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["limit"]), ("limit", &json!("subscriptions")));
    wire.call("subscription.cancel", json!({ "subscription": "w_1" })).unwrap();
    observe(&mut wire, "e");
}

#[test]
fn nobody_leads_the_elections_of_sessions_among_themselves() {
    let daemon = Daemon::start();
    let mut wire = daemon.connect();
    let error = wire.call("election.campaign", json!({ "name": "tenure/janitor", "wait_ms": 0 })).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["param"]), ("invalid_params", &json!("name")), "{error}");
    wire.call("election.campaign", json!({ "name": "tenure", "wait_ms": 0 })).unwrap();
}
