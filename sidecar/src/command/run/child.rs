//! The command as a process: started in a group of its own, signalled as a group, waited for.

use std::{io, os::unix::process::CommandExt, process::Command};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions},
};

use super::{Run, keeper::Keeper, shim};

/// What became of the command since it was last asked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Exited(u8),
    /// Ended by the signal of this number.
    Killed(i32),
    /// Stopped by the signal of this number.
    Stopped(i32),
    Continued,
}

/// A command that runs, the leader of its own process group.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
}

impl Child {
    /// Starts the command by way of the shim. The calling thread must live as long as this process: the
    /// kernel kills the command when that *thread* ends.
    pub(super) fn spawn(run: &Run<'_>, lend_terminal: bool, keeper: &Keeper) -> io::Result<Self> {
        let mut shim = Command::new(shim::SELF);
        shim.arg0("tenure").args(shim::arguments(lend_terminal, Some(keeper))).args(run.command);
        for name in run.unset {
            shim.env_remove(name);
        }
        shim.envs(run.environment.iter().map(|(name, value)| (name, value)));
        let child = shim.process_group(0).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self { pid: pid.ok_or_else(|| io::Error::other("the kernel gave no process id"))? })
    }

    /// The process group, which has the number of its leader.
    pub(super) const fn group(&self) -> Pid {
        self.pid
    }

    /// Sends `signal` to the group.
    pub(super) fn signal(&self, signal: Signal) {
        // The only failure is that nobody is left, which the next `poll` tells.
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Whether the group still has members, ended ones that nobody has waited for included.
    pub(super) fn group_remains(&self) -> bool {
        !matches!(rustix::process::test_kill_process_group(self.pid), Err(Errno::SRCH))
    }

    /// The next change, if there is one. After `Exited` or `Killed` the process is reaped.
    pub(super) fn poll(&self) -> io::Result<Option<Change>> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
        loop {
            let status = match rustix::process::waitpid(Some(self.pid), options) {
                Ok(Some((_, status))) => status,
                Ok(None) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let change = if let Some(code) = status.exit_status() {
                Change::Exited(u8::try_from(code).unwrap_or(u8::MAX))
            } else if let Some(signal) = status.terminating_signal() {
                Change::Killed(signal)
            } else if let Some(signal) = status.stopping_signal() {
                Change::Stopped(signal)
            } else {
                Change::Continued
            };
            return Ok(Some(change));
        }
    }
}
