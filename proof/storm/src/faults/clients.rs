//! What is done to client processes and their wires.

use std::time::Duration;

use nix::sys::signal::Signal;
use tenure_check::history::FaultKind;
use tokio::time::{Instant, sleep, sleep_until};

use super::last;
use crate::{Failed, crew, run::Storm};

/// The names of what this does.
pub(super) const ALL: [&str; 6] = ["kill-client", "pause-client", "cut-client", "mute-client", "slow-client", "clock"];

/// Kills one client after the other until `until`, at least one, and does nothing else: each so long after the one before
/// that it can be told how soon somebody else has what it held.
pub(super) async fn alone(storm: &Storm, until: Instant, rng: &mut fastrand::Rng) -> Result<(), Failed> {
    // Sessions that are lost by one are over by then, as is the wait in a bucket that is new.
    let gap = storm.lease * 2 + Duration::from_millis(1_500);
    loop {
        sleep(gap).await;
        storm.replace_the_gone().await?;
        let (wired, all): (Vec<_>, Vec<_>) = storm.crew.numbers().into_iter().partition(|client| storm.crew.is_wired(*client));
        // A daemon gives up at once what a client of it held. Whoever is at the store itself lets its lease run out.
        let Some(client) = rng.choice(if wired.is_empty() { all } else { wired }) else { return Ok(()) };
        kill(storm, client, rng).await?;
        if Instant::now() + gap > until {
            sleep_until(until).await;
            return Ok(());
        }
    }
}

/// Kills a client, and starts another one after a while.
async fn kill(storm: &Storm, client: u64, rng: &mut fastrand::Rng) -> Result<(), Failed> {
    storm.record.fault(FaultKind::Crash, |fault| {
        fault.client = Some(client);
        fault.note = "SIGKILL".to_owned();
    });
    storm.crew.kill(client).await?;
    sleep(Duration::from_millis(rng.u64(0..1_500))).await;
    storm.start_client().await
}

/// Whether this can be done to that client.
fn is_possible(storm: &Storm, name: &str, client: u64) -> bool {
    match name {
        "cut-client" | "mute-client" | "slow-client" => storm.crew.is_wired(client),
        "clock" => storm.crew.clock(client).is_some(),
        _ => true,
    }
}

/// Does one of what is `wanted` to one of them.
pub(super) async fn trouble(storm: &Storm, wanted: &[&str], rng: &mut fastrand::Rng) -> Result<(), Failed> {
    let Some(client) = rng.choice(storm.crew.numbers()) else { return Ok(()) };
    let possible: Vec<_> = wanted.iter().filter(|name| is_possible(storm, name, client)).collect();
    let Some(name) = rng.choice(possible) else { return Ok(()) };
    let (crew, record, lease) = (&storm.crew, &storm.record, storm.lease);
    let begin = |kind, note: &str| {
        record.fault(kind, |fault| {
            fault.client = Some(client);
            fault.note = note.to_owned();
        })
    };
    match *name {
        "kill-client" => kill(storm, client, rng).await?,
        "pause-client" => {
            let fault = begin(FaultKind::Pause, "SIGSTOP");
            crew.signal(client, Signal::SIGSTOP)?;
            last(lease, rng).await;
            crew.signal(client, Signal::SIGCONT)?;
            record.over(fault);
        }
        "cut-client" => {
            let fault = begin(FaultKind::Partition, "every wire is cut");
            crew.wires(client, tenure_tests::Proxy::cut);
            last(lease, rng).await;
            crew.wires(client, tenure_tests::Proxy::mend);
            record.over(fault);
        }
        "mute-client" => {
            let fault = begin(FaultKind::Partition, "no answer comes through");
            crew.wires(client, tenure_tests::Proxy::mute);
            last(lease, rng).await;
            crew.wires(client, tenure_tests::Proxy::mend);
            record.over(fault);
        }
        "slow-client" => {
            let by = Duration::from_millis(rng.u64(5..250));
            let fault = begin(FaultKind::Delay, "slow wires");
            crew.wires(client, |wire| wire.slow(by));
            last(lease, rng).await;
            crew.wires(client, tenure_tests::Proxy::mend);
            record.over(fault);
        }
        _ => {
            let Some(file) = crew.clock(client) else { return Ok(()) };
            let hours = if rng.bool() { 1 } else { -1 };
            let fault = begin(FaultKind::ClockStep, &format!("its wall clock goes {hours:+} h"));
            crew::step(&file, hours)?;
            // It looks at the file once a second.
            sleep(Duration::from_secs(2)).await;
            last(lease, rng).await;
            crew::step(&file, 0)?;
            record.over(fault);
        }
    }
    Ok(())
}
