//! What is done to the daemon and to the disk that it has its file on.

use std::time::Duration;

use nix::sys::signal::Signal;
use tenure_check::history::FaultKind;
use tokio::time::sleep;

use super::{descriptors, last};
use crate::{Failed, clock::now, run::Storm};

/// The names of what is done to a daemon.
pub(super) const ALL: [&str; 5] = ["kill-daemon", "pause-daemon", "restart-daemon", "cut-daemon", "starve-daemon"];

/// Does it.
pub(super) async fn trouble(storm: &Storm, name: &str, rng: &mut fastrand::Rng) -> Result<(), Failed> {
    let mut place = storm.daemon.lock().await;
    let Some(daemon) = place.take() else { return Ok(()) };
    let number = daemon.number;
    let begin = |kind, note: &str| {
        storm.record.fault(kind, |fault| {
            fault.client = Some(number);
            fault.note = format!("daemon: {note}");
        })
    };
    match name {
        "kill-daemon" => {
            begin(FaultKind::Crash, "SIGKILL");
            daemon.kill().await?;
            sleep(Duration::from_millis(rng.u64(0..1_500))).await;
            drop(place);
            return storm.start_daemon().await;
        }
        "restart-daemon" => {
            let fault = begin(FaultKind::Other, "SIGTERM, and another one follows");
            if let Some(wrong) = daemon.end().await? {
                storm.wrong(wrong);
            }
            drop(place);
            storm.start_daemon().await?;
            storm.record.over(fault);
            return Ok(());
        }
        "pause-daemon" => {
            let fault = begin(FaultKind::Pause, "SIGSTOP");
            daemon.signal(Signal::SIGSTOP);
            let from = now();
            last(storm.lease, rng).await;
            let until = now();
            daemon.signal(Signal::SIGCONT);
            storm.record.over(fault);
            if let Some(pid) = daemon.child.id() {
                storm.daemons().stopped(pid, from, until);
            }
        }
        "cut-daemon" => {
            let fault = begin(FaultKind::Partition, "every wire is cut");
            daemon.wires.iter().for_each(tenure_tests::Proxy::cut);
            last(storm.lease, rng).await;
            daemon.wires.iter().for_each(tenure_tests::Proxy::mend);
            storm.record.over(fault);
        }
        _ => {
            if let Some(pid) = daemon.child.id() {
                let fault = begin(FaultKind::Other, "no more descriptors than it has");
                let before = descriptors::exhaust(pid)?;
                last(storm.lease, rng).await;
                descriptors::restore(pid, before)?;
                storm.record.over(fault);
            }
        }
    }
    *place = Some(daemon);
    Ok(())
}

/// Leaves no room on the daemon's disk for a while. False when that cannot be done in this run.
pub(super) async fn no_room(storm: &Storm, rng: &mut fastrand::Rng) -> Result<bool, Failed> {
    let Some(disk) = storm.stage.disk() else {
        storm.skipped("disk-full: only root can mount a disk to be filled");
        return Ok(false);
    };
    // A daemon that is started meanwhile would rightly refuse.
    let _daemon = storm.daemon.lock().await;
    let fault = storm.record.fault(FaultKind::DiskFull, |fault| fault.note = "no room on its disk".to_owned());
    disk.fill()?;
    last(storm.lease, rng).await;
    disk.free()?;
    storm.record.over(fault);
    Ok(true)
}
