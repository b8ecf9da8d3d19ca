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
pub const TROUBLES: [&str; 23] = [
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
    let wanted: Vec<_> = clients::ALL.into_iter().filter(|name| storm.options.faults.include(name)).collect();
    while let Some(name) = next(storm, &wanted, until, 100..1_500, &mut rng).await? {
        clients::trouble(storm, name, &mut rng).await?;
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
    while let Some(name) = next(storm, &wanted, until, 300..4_000, &mut rng).await? {
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
    let wanted: Vec<_> = daemons::ALL.into_iter().filter(|name| storm.options.faults.include(name)).collect();
    while let Some(name) = next(storm, &wanted, until, 300..4_000, &mut rng).await? {
        daemons::trouble(storm, name, &mut rng).await?;
    }
    Ok(())
}

/// After a while, what is to be done next; `None` when the time is over or nothing is wanted.
async fn next(
    storm: &Storm,
    wanted: &[&'static str],
    until: Instant,
    gap: std::ops::Range<u64>,
    rng: &mut fastrand::Rng,
) -> Result<Option<&'static str>, Failed> {
    let at = Instant::now() + Duration::from_millis(rng.u64(gap));
    tokio::time::sleep_until(at.min(until)).await;
    storm.replace_the_gone().await?;
    if at >= until {
        return Ok(None);
    }
    match rng.choice(wanted) {
        Some(name) => Ok(Some(*name)),
        None => {
            tokio::time::sleep_until(until).await;
            Ok(None)
        }
    }
}

/// For how long something lasts: mostly short, now and then past `lease`.
fn span(lease: Duration, rng: &mut fastrand::Rng) -> Duration {
    let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(if rng.u8(0..3) == 0 { rng.u64(lease..lease * 3) } else { rng.u64(20..lease + 21) })
}

async fn last(lease: Duration, rng: &mut fastrand::Rng) {
    sleep(span(lease, rng)).await;
}
