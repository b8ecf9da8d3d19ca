//! What goes wrong: drawn from the seed, really done, recorded, and made good again.
//!
//! Three lanes run side by side, for clients, for the daemon and for what they run on, so that troubles overlap.

mod clients;
mod daemons;
mod descriptors;
mod power;
mod servers;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{Failed, run::Storm, stage::Stage};

/// The names of all faults.
pub const TROUBLES: [&str; 24] = [
    "kill-alone",
    "kill-client",
    "pause-client",
    "cut-client",
    "mute-client",
    "slow-client",
    "clock",
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
    "kill-daemon",
    "pause-daemon",
    "restart-daemon",
    "cut-daemon",
    "starve-daemon",
];

/// Does things to clients until `until`.
pub(crate) async fn to_clients(storm: &Storm, until: Instant, mut rng: fastrand::Rng) -> Result<(), Failed> {
    if storm.options.faults.include("kill-alone") {
        return clients::alone(storm, until, &mut rng).await;
    }
    let wanted: Vec<_> = clients::ALL.into_iter().filter(|name| storm.options.faults.include(name)).collect();
    while turn(storm, until, 100..1_500, &mut rng).await? {
        clients::trouble(storm, &wanted, &mut rng).await?;
    }
    Ok(())
}

/// Does things to what clients run on until `until`.
pub(crate) async fn to_the_stage(storm: &Storm, until: Instant, mut rng: fastrand::Rng) -> Result<(), Failed> {
    let all: &[&str] = match &storm.stage {
        Stage::Nats(nats) if nats.hosts.len() == 1 => &servers::ALONE,
        Stage::Nats(_) => &servers::CLUSTERED,
        Stage::Embedded(_) => &["disk-full"],
    };
    let mut wanted: Vec<_> = all.iter().copied().filter(|name| storm.options.faults.include(name)).collect();
    while turn(storm, until, 300..4_000, &mut rng).await? {
        let Some(name) = rng.choice(&wanted).copied() else { continue };
        let done = match &storm.stage {
            Stage::Nats(nats) => servers::trouble(storm, nats, name, &mut rng).await?,
            Stage::Embedded(_) => daemons::no_room(storm, &mut rng).await?,
        };
        if !done {
            wanted.retain(|other| *other != name);
        }
    }
    Ok(())
}

/// Does things to the daemon, where there is one, until `until`.
pub(crate) async fn to_the_daemon(storm: &Storm, until: Instant, mut rng: fastrand::Rng) -> Result<(), Failed> {
    if storm.daemon.lock().await.is_none() {
        return Ok(());
    }
    // What has its store in itself has no wires.
    let wired = matches!(storm.stage, Stage::Nats(_));
    let wanted = daemons::ALL.into_iter().filter(|name| storm.options.faults.include(name) && (wired || *name != "cut-daemon"));
    let wanted: Vec<_> = wanted.collect();
    while turn(storm, until, 300..4_000, &mut rng).await? {
        let Some(name) = rng.choice(&wanted) else { continue };
        daemons::trouble(storm, name, &mut rng).await?;
    }
    Ok(())
}

/// Waits for a while; whether there is time for something then.
async fn turn(storm: &Storm, until: Instant, gap: std::ops::Range<u64>, rng: &mut fastrand::Rng) -> Result<bool, Failed> {
    let at = Instant::now() + Duration::from_millis(rng.u64(gap));
    tokio::time::sleep_until(at.min(until)).await;
    storm.replace_the_gone().await?;
    Ok(at < until)
}

/// For how long something lasts: mostly short, now and then past `lease`.
fn span(lease: Duration, rng: &mut fastrand::Rng) -> Duration {
    let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(if rng.u8(0..3) == 0 { rng.u64(lease..lease * 3) } else { rng.u64(20..lease + 21) })
}

async fn last(lease: Duration, rng: &mut fastrand::Rng) {
    sleep(span(lease, rng)).await;
}
