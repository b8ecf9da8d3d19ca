//! A process that ends the command's group should this one be killed outright.
//!
//! The kernel kills only the command itself then. What it started, such as the programs of a script,
//! would run on without the lock. The keeper notices because the pipe from here closes.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::{self, BufRead, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    process::{Child, Command, Stdio},
};

use rustix::{
    fs::OFlags,
    process::{Pid, Signal, getpid, kill_process_group},
};

use super::shim::{KEEP, SELF};

/// The keeper, for as long as the command runs.
#[derive(Debug)]
pub(super) struct Keeper(Child);

impl Keeper {
    pub(super) fn start() -> io::Result<Self> {
        let mut command = Command::new(SELF);
        // It holds on to nothing: no terminal, no directory, no end of a pipe that others read.
        command.arg0("tenure").arg(KEEP).current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Self)
    }

    /// Where the command tells the keeper of itself before it runs: until then nobody would end what it starts.
    pub(super) fn pipe(&self) -> Option<String> {
        let pipe = self.0.stdin.as_ref()?;
        Some(format!("/proc/{}/fd/{}", getpid().as_raw_pid(), pipe.as_raw_fd()))
    }

    /// From now on `group` ends with this process.
    pub(super) fn guard(&mut self, group: Pid) -> io::Result<()> {
        match &mut self.0.stdin {
            Some(pipe) => pipe.write_all(format!("{}\n", group.as_raw_pid()).as_bytes()),
            None => Ok(()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Killed, not told: it may have been stopped. It ends before the pipe does, so it kills nobody.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Tells the keeper at the other end of `pipe` of `group`.
pub(super) fn tell(pipe: &OsStr, group: Pid) -> io::Result<()> {
    // A pipe that nobody reads any more would make it wait.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut pipe = OpenOptions::new().write(true).custom_flags(flags).open(pipe)?;
    pipe.write_all(format!("{}\n", group.as_raw_pid()).as_bytes())
}

/// What the keeper does.
pub(super) fn keep() -> u8 {
    let mut group = None;
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        group = line.parse().ok().and_then(Pid::from_raw);
    }
    if let Some(group) = group {
        // Nobody left is as good.
        let _ = kill_process_group(group, Signal::KILL);
    }
    0
}
