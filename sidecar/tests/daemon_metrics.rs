//! What the daemon counts, as Prometheus reads it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;
mod http_rig;

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use daemon_support::PATIENCE;
use http_rig::{ask, get, sample, start};
use serde_json::json;

fn scrape(http: SocketAddr) -> String {
    let answer = get(http, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    answer.body
}

/// Scrapes until `sample` has that value.
fn until(http: SocketAddr, name: &str, value: f64) {
    let begun = Instant::now();
    loop {
        let page = scrape(http);
        if (sample(&page, name) - value).abs() < f64::EPSILON {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{name} never came to {value}: {page}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_clients_do_is_counted() {
    let (daemon, http) = start(&["--lease", "60s"]);
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    let (first, _) = one.acquire("x");
    let waiting = two.send("lock.acquire", &json!({ "name": "x" }));
    one.await_waiters("x", 1);
    let page = scrape(http);
    let is = |page: &str, name: &str, value: f64| assert!((sample(page, name) - value).abs() < f64::EPSILON, "{name} in {page}");
    is(&page, r#"tenure_leases{kind="lock"}"#, 1.0);
    is(&page, r#"tenure_waiting{kind="lock"}"#, 1.0);
    is(&page, "tenure_connections", 2.0);
    is(&page, r#"tenure_wait_seconds_count{kind="lock"}"#, 1.0);
    is(&page, r#"tenure_handover_seconds_count{kind="lock"}"#, 0.0);
    is(&page, r#"tenure_sessions{state="held"}"#, 1.0);
    is(&page, "tenure_store_outages_total", 0.0);
    assert!(sample(&page, r#"tenure_store_seconds_count{operation="commit"}"#) >= 2.0, "{page}");
    assert!(sample(&page, "tenure_lease_remaining_seconds") > 0.0, "{page}");
    assert!(sample(&page, "tenure_renewal_age_seconds") < 60.0, "{page}");
    for process in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
        assert!(sample(&page, process) > 0.0, "{page}");
    }

    one.call("lock.release", json!({ "lease": first })).unwrap();
    let held = two.result(waiting).unwrap();
    // The next one finds it free: that is no hand-over.
    two.call("lock.release", json!({ "lease": held["lease"] })).unwrap();
    one.acquire("x");
    assert_eq!(one.refused("lock.acquire", json!({ "name": "x", "wait_ms": 0 })), "timeout");
    assert_eq!(one.refused("kv.create", json!({ "key": "k" })), "invalid_params");
    assert_eq!(one.refused("no.such.method", json!({})), "method_not_found");
    one.raw("{\n");
    one.line().unwrap();
    let page = scrape(http);
    is(&page, r#"tenure_handover_seconds_count{kind="lock"}"#, 1.0);
    is(&page, r#"tenure_wait_seconds_count{kind="lock"}"#, 3.0);
    is(&page, r#"tenure_waiting{kind="lock"}"#, 0.0);
    is(&page, r#"tenure_requests_total{method="lock.acquire",outcome="ok"}"#, 3.0);
    is(&page, r#"tenure_requests_total{method="lock.acquire",outcome="timeout"}"#, 1.0);
    is(&page, r#"tenure_requests_total{method="lock.release",outcome="ok"}"#, 2.0);
    is(&page, r#"tenure_requests_total{method="unknown",outcome="method_not_found"}"#, 1.0);
    is(&page, r#"tenure_requests_total{method="unknown",outcome="parse_error"}"#, 1.0);
    is(&page, r#"tenure_refusals_total{kind="timeout"}"#, 1.0);
    is(&page, r#"tenure_refusals_total{kind="conflict"}"#, 0.0);
    assert!(!page.contains("no.such.method"), "labels are bounded");
    let version = env!("CARGO_PKG_VERSION");
    is(&page, &format!(r#"tenure_build_info{{version="{version}"}}"#), 1.0);
}

#[test]
fn a_death_is_handed_over_and_a_silence_is_a_loss() {
    let (daemon, http) = start(&["--lease", "60s"]);
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    one.acquire("x");
    let waiting = two.send("lock.acquire", &json!({ "name": "x" }));
    two.await_waiters("x", 1);
    drop(one);
    two.result(waiting).unwrap();
    let handed_over = r#"tenure_handover_seconds_count{kind="lock"}"#;
    until(http, handed_over, 1.0);
    two.call("hello", json!({ "protocol": [1], "heartbeat_ms": 100 })).unwrap();
    until(http, r#"tenure_leases_lost_total{reason="client_silent"}"#, 1.0);
    until(http, r#"tenure_leases{kind="lock"}"#, 0.0);
    drop(two);
    until(http, "tenure_connections", 0.0);
    until(http, "tenure_requests_in_flight", 0.0);
}

#[test]
fn sessions_are_renewed_and_that_is_counted() {
    let (daemon, http) = start(&["--lease", "200ms"]);
    daemon.connect().acquire("x");
    let begun = Instant::now();
    let renewals = r#"tenure_renewals_total{outcome="ok"}"#;
    while sample(&scrape(http), renewals) < 3.0 {
        assert!(begun.elapsed() < PATIENCE, "no renewal is counted");
    }
}

#[test]
fn both_formats_say_the_same() {
    let (_daemon, http) = start(&[]);
    let plain = scrape(http);
    let accept = "accept: application/openmetrics-text; version=1.0.0,text/plain;q=0.5";
    let open = ask(http, &format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{accept}\r\nconnection: close\r\n\r\n"));
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n") && !plain.contains("# EOF"));
    // Labels and bounds are not written in the same way.
    let samples = |page: &str| {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<_> = lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(samples(&plain), samples(&open.body));
    let mut seen = BTreeSet::new();
    for line in plain.lines().filter(|line| !line.starts_with('#')) {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        assert!(seen.insert(sample), "twice: {line}");
    }
}
