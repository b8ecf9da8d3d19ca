//! The daemon's own account of itself, and how fast it reads its store.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tenure_kv::{Finding, Level};

use crate::{
    CallError, Client,
    command::{
        Socket,
        daemon::{Otherwise, connect, unanswered},
        say::span,
    },
    protocol::Status,
};

/// How often the store is read.
const ROUNDS: u32 = 25;
/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn examine(socket: &Socket) -> Vec<Finding> {
    let (path, client) = match connect(socket.path(), Otherwise::Store).await {
        Ok(connected) => connected,
        Err(failure) => return vec![Finding::new("daemon", Level::Critical, failure.message)],
    };
    let Some(status) = call::<Status>(&client, "status", json!({})).await else {
        return vec![Finding::new("daemon", Level::Critical, unanswered(&path).message)];
    };
    let status = match status {
        Ok(status) => status,
        Err(error) => return vec![Finding::new("daemon", Level::Critical, error.to_string())],
    };
    let uptime = span(Duration::from_millis(status.uptime_ms));
    let mut findings = vec![if status.draining {
        Finding::new("daemon", Level::Warning, format!("{} is leaving, and grants nothing any more", status.server))
            .mend("start the next one")
    } else {
        Finding::new(
            "daemon",
            Level::Ok,
            format!("{} has been up for {uptime} with {} connections", status.server, status.connections),
        )
    }];
    findings.extend(of_store(&status));
    findings.extend(status.sessions.iter().map(|session| {
        let (lease, left) = (Duration::from_millis(session.lease_ms), Duration::from_millis(session.remaining_ms));
        let says = format!(
            "the session for leases of {} is {}, with {} left and {} users",
            span(lease),
            session.state,
            span(left),
            session.users
        );
        match &*session.state {
            "held" | "restored" => Finding::new("session", Level::Ok, says),
            "suspect" => Finding::new("session", Level::Warning, says).mend("look at the store: renewals are not answered"),
            _ => Finding::new("session", Level::Critical, says).mend("look at the store, and at the daemon's log"),
        }
    }));
    let least = status.sessions.iter().map(|session| Duration::from_millis(session.lease_ms)).min();
    findings.push(round_trips(&client, least).await);
    findings.push(
        Finding::new("settings", Level::Unseen, "how the store is set up is not seen through the daemon")
            .mend(format!("tenure doctor --store '{}', with the login that the daemon has", status.store.url)),
    );
    findings
}

fn of_store(status: &Status) -> Vec<Finding> {
    let store = &status.store;
    let url = &store.url;
    if url.starts_with("memory:") {
        return vec![
            Finding::new("store", Level::Warning, "the store is in memory: it is lost when the daemon ends")
                .mend("tenured --store file:PATH, or --store nats://HOST/BUCKET for several machines"),
        ];
    }
    let kept =
        if store.shared { format!("{url} is shared with other machines") } else { format!("{url} is this daemon's alone") };
    let mut findings = vec![Finding::new("store", Level::Ok, kept)];
    if store.shared {
        findings.push(if store.replicas >= 3 {
            Finding::new("replicas", Level::Ok, format!("{} servers keep a copy", store.replicas))
        } else {
            Finding::new(
                "replicas",
                Level::Warning,
                format!("{} server keeps a copy: its end is that of every lock", store.replicas),
            )
            .mend("use a cluster of three or more, with three copies")
        });
    }
    findings
}

/// Reads through the daemon, against the shortest lease in use.
async fn round_trips(client: &Client, lease: Option<Duration>) -> Finding {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        match call::<Value>(client, "kv.get", json!({ "key": "tenure/doctor" })).await {
            Some(Ok(_)) => rounds.push(begun.elapsed()),
            Some(Err(error)) => return Finding::new("read", Level::Critical, format!("the store cannot be read: {error}")),
            None => {
                return Finding::new("read", Level::Critical, "the store does not answer the daemon")
                    .mend("look at the daemon's log");
            }
        }
    }
    tenure_kv::judge_round_trips("read", rounds, lease.unwrap_or(Duration::from_secs(5)))
}

async fn call<T: DeserializeOwned>(client: &Client, method: &str, params: Value) -> Option<Result<T, CallError>> {
    tokio::time::timeout(PATIENCE, client.call_as(method, params)).await.ok()
}
