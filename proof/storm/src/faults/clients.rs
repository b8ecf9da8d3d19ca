//! What is done to client processes and their wires.

use std::time::Duration;

use nix::sys::signal::Signal;
use tenure_check::history::FaultKind;
use tokio::time::sleep;

use super::last;
use crate::{Failed, crew, run::Storm};

/// The names of what this does.
pub(super) const ALL: [&str; 6] = ["kill-client", "pause-client", "cut-client", "mute-client", "slow-client", "clock"];

/// Does it to one of them.
pub(super) async fn trouble(storm: &Storm, name: &str, rng: &mut fastrand::Rng) -> Result<(), Failed> {
    let Some(client) = rng.choice(storm.crew.numbers()) else { return Ok(()) };
    let (crew, record, lease) = (&storm.crew, &storm.record, storm.lease);
    let begin = |kind, note: &str| {
        record.fault(kind, |fault| {
            fault.client = Some(client);
            fault.note = note.to_owned();
        })
    };
    match name {
        "kill-client" => {
            begin(FaultKind::Crash, "SIGKILL");
            crew.kill(client).await?;
            sleep(Duration::from_millis(rng.u64(0..1_500))).await;
            storm.start_client().await?;
        }
        "pause-client" => {
            let fault = begin(FaultKind::Pause, "SIGSTOP");
            crew.signal(client, Signal::SIGSTOP)?;
            last(lease, rng).await;
            crew.signal(client, Signal::SIGCONT)?;
            record.over(fault);
        }
        "cut-client" | "mute-client" | "slow-client" if !crew.is_wired(client) => {}
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
