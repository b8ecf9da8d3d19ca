//! What is done to NATS servers, to the wires between them, and to the bucket as a whole.

use std::time::Duration;

use async_nats::RequestErrorKind;
use rustix::process::Rlimit;
use serde::Deserialize;
use tenure_check::history::FaultKind;
use tenure_tests::{NatsCluster, nats_server_newest};
use tokio::time::{sleep, timeout};

use super::{descriptors, last, power};
use crate::{Failed, clock::now, run::Storm, stage::Nats};

/// What can be done to one that stands alone.
pub(super) const ALONE: [&str; 9] =
    ["kill-server", "pause-server", "restart", "upgrade", "disk-full", "descriptors", "power-cut", "rollback", "recreate"];
/// What can be done to three.
pub(super) const CLUSTERED: [&str; 12] = [
    "kill-server",
    "pause-server",
    "cut-server",
    "slow-server",
    "step-down",
    "restart",
    "upgrade",
    "disk-full",
    "descriptors",
    "power-cut",
    "rollback",
    "recreate",
];

/// Does it. False when it cannot be done in this run.
pub(super) async fn trouble(storm: &Storm, nats: &Nats, name: &str, rng: &mut fastrand::Rng) -> Result<bool, Failed> {
    let mut servers = nats.servers.lock().await;
    let servers = &mut *servers;
    // The leader is the one that matters most.
    let one = if rng.bool() { leader(servers, nats).await } else { rng.usize(0..servers.size()) };
    let record = &storm.record;
    let begin = |kind, one: usize, note: &str| {
        record.fault(kind, |fault| {
            fault.server = Some(format!("s{one}"));
            fault.note = note.to_owned();
        })
    };
    match name {
        "kill-server" => {
            let fault = begin(FaultKind::ServerKill, one, "SIGKILL");
            servers.kill(one);
            last(storm.lease, rng).await;
            servers.restart(one).await;
            record.over(fault);
        }
        "pause-server" => {
            let fault = begin(FaultKind::ServerPause, one, "SIGSTOP");
            servers.pause(one);
            last(storm.lease, rng).await;
            servers.resume(one);
            record.over(fault);
        }
        "cut-server" => {
            let fault = begin(FaultKind::Partition, one, "cut off from the other servers");
            servers.isolate(one);
            last(storm.lease, rng).await;
            servers.rejoin(one);
            record.over(fault);
        }
        "slow-server" => {
            let by = Duration::from_millis(rng.u64(5..150));
            let fault = begin(FaultKind::Delay, one, "slow wires to the other servers");
            servers.slow(one, by);
            last(storm.lease, rng).await;
            servers.rejoin(one);
            record.over(fault);
        }
        "step-down" => {
            let (one, from) = (leader(servers, nats).await, now());
            // What was refused was not done; what was not answered may have been.
            if let Some(note) = step_down(servers, nats).await {
                let fault = begin(FaultKind::LeaderStepdown, one, note);
                record.began(fault, from);
                record.over(fault);
            }
        }
        "restart" => {
            for i in 0..servers.size() {
                let fault = begin(FaultKind::ServerKill, i, "restart");
                servers.stop(i).await;
                servers.restart(i).await;
                record.over(fault);
                sleep(Duration::from_millis(rng.u64(0..2_000))).await;
            }
        }
        "upgrade" if !nats.old || storm.done("upgrade") => return Ok(false),
        "upgrade" => {
            let newest = tokio::task::spawn_blocking(nats_server_newest).await??;
            for i in 0..servers.size() {
                let fault = begin(FaultKind::ServerKill, i, "upgrade");
                servers.stop(i).await;
                servers.replace(i, &newest);
                servers.restart(i).await;
                record.over(fault);
                sleep(Duration::from_millis(rng.u64(500..3_000))).await;
            }
        }
        "disk-full" => {
            let Some(disk) = &nats.disk else {
                storm.skipped("disk-full: only root can mount a disk to be filled");
                return Ok(false);
            };
            let fault = begin(FaultKind::DiskFull, 0, "no room on its disk; restarted when there is some again");
            disk.fill()?;
            last(storm.lease, rng).await;
            disk.free()?;
            // A server that ran out of room has turned JetStream off.
            servers.restart(0).await;
            record.over(fault);
        }
        "descriptors" => {
            let Some(pid) = servers.pid(one) else { return Ok(true) };
            let clustered = servers.size() > 1;
            let then = if clustered { "; restarted when there are some again" } else { "" };
            let fault = begin(FaultKind::Other, one, &format!("descriptors: no more than it has{then}"));
            let before: Rlimit = descriptors::exhaust(pid)?;
            last(storm.lease, rng).await;
            descriptors::restore(pid, before)?;
            // A replica that could not write goes on to serve what it has, and nobody who watches there hears more.
            if clustered {
                servers.kill(one);
                servers.restart(one).await;
            }
            record.over(fault);
        }
        "power-cut" => {
            let fault = begin(FaultKind::ServerKill, 0, "power cut: all servers killed, what they had written is kept");
            let copies = storm.options.out.join("power");
            power::copy(servers, &copies)?;
            power::restore(servers, &copies)?;
            start_all(servers).await;
            record.over(fault);
        }
        "rollback" => roll_back(storm, nats, servers, rng).await?,
        _ => recreate(storm, nats).await?,
    }
    Ok(true)
}

/// The bucket goes back to what it was some time ago.
async fn roll_back(storm: &Storm, nats: &Nats, servers: &mut NatsCluster, rng: &mut fastrand::Rng) -> Result<(), Failed> {
    let copies = storm.options.out.join("power");
    power::copy(servers, &copies)?;
    (0..servers.size()).for_each(|i| servers.resume(i));
    last(storm.lease, rng).await;
    let fault = storm.record.fault(FaultKind::Rollback, |fault| {
        fault.note = "power cut: all servers killed, and what they wrote last is lost".to_owned();
    });
    power::restore(servers, &copies)?;
    // What was on its way to the observer has come, or never will.
    sleep(Duration::from_millis(100)).await;
    nats.stream.next_epoch();
    start_all(servers).await;
    storm.record.over(fault);
    Ok(())
}

/// The bucket is deleted and made anew.
async fn recreate(storm: &Storm, nats: &Nats) -> Result<(), Failed> {
    let fault = storm.record.fault(FaultKind::Recreate, |_| {});
    let client = async_nats::connect(nats.hosts.clone()).await?;
    let stream = format!("KV_{}", nats.bucket);
    async_nats::jetstream::new(client).delete_stream(stream).await?;
    // What was on its way to the observer has come, or never will.
    sleep(Duration::from_millis(100)).await;
    nats.stream.next_epoch();
    tenure_kv::open(&nats.url).await?;
    storm.record.over(fault);
    Ok(())
}

async fn start_all(servers: &mut NatsCluster) {
    // All of them first: one alone does not come up in a cluster.
    (0..servers.size()).for_each(|i| servers.launch(i));
    servers.all_answer().await;
}

async fn leader(servers: &NatsCluster, nats: &Nats) -> usize {
    // Without one anybody will do.
    timeout(Duration::from_secs(5), servers.leader(&nats.bucket)).await.unwrap_or_default()
}

/// What the servers say to a step-down.
#[derive(Deserialize)]
struct SteppedDown {
    #[serde(default)]
    success: bool,
}

/// Asks the stream's leader to step down. Best effort, like an operator's. Notes how it went; `None` if it surely did not.
async fn step_down(servers: &NatsCluster, nats: &Nats) -> Option<&'static str> {
    const ANSWER: Duration = Duration::from_secs(5);
    let client = timeout(ANSWER, async_nats::connect(servers.client_urls())).await.ok()?.ok()?;
    let asking = client.request(format!("$JS.API.STREAM.LEADER.STEPDOWN.KV_{}", nats.bucket), "".into());
    match timeout(ANSWER, asking).await {
        Ok(Ok(answer)) => {
            let said: Option<SteppedDown> = serde_json::from_slice(&answer.payload).ok();
            said.is_some_and(|said| said.success).then_some("")
        }
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => None,
        _ => Some("unanswered"),
    }
}
