//! Having a process run out of file descriptors, from outside.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::Failed;

/// Leaves the process `pid` no descriptor but those that it has, and returns what it was allowed before.
pub(super) fn exhaust(pid: u32) -> Result<Rlimit, Failed> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let process = process(pid)?;
    // A new descriptor gets the lowest number that is free, so a few holes may be left.
    let before = prlimit(Some(process), Resource::Nofile, Rlimit { current: Some(open as u64), maximum: hard() })?;
    Ok(before)
}

/// Allows what was allowed before.
pub(super) fn restore(pid: u32, before: Rlimit) -> Result<(), Failed> {
    prlimit(Some(process(pid)?), Resource::Nofile, before)?;
    Ok(())
}

fn process(pid: u32) -> Result<Pid, Failed> {
    Pid::from_raw(i32::try_from(pid)?).ok_or_else(|| "no process has the number 0".into())
}

/// Servers and daemons inherit it from us, and it stays.
fn hard() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}
