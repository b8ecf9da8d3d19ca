//! What the kernel knows of this process.

use std::{fs, time::Duration};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

/// The use of resources of this process; what the kernel does not tell is absent.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) cpu: Option<Duration>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) max_files: Option<u64>,
}

impl Process {
    /// Asks. Takes a moment where very many files are open.
    pub(super) fn look() -> Self {
        Self {
            cpu: getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| {
                let micros = |time: nix::sys::time::TimeVal| {
                    Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
                };
                micros(usage.user_time()) + micros(usage.system_time())
            }),
            resident_bytes: resident(),
            // The one that this looks through is not counted.
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1)),
            max_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1_024)
}
