//! The controlling terminal: whose turn it is, and taking it back.

use std::{
    fs::{File, OpenOptions},
    io::{IsTerminal, stdin, stdout},
};

use rustix::{
    process::{Pid, Signal, getpgrp, getppid, getsid, kill_current_process_group},
    termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp},
};

use crate::command::say::untouched_by_terminal;

/// The controlling terminal of this process.
#[derive(Debug)]
pub(super) struct Terminal {
    device: File,
    modes: Option<Termios>,
}

impl Terminal {
    /// The controlling terminal, if this process has one.
    pub(super) fn open() -> Option<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let modes = tcgetattr(&device).ok();
        Some(Self { device, modes })
    }

    /// Whether this process's group is in the foreground.
    pub(super) fn is_ours(&self) -> bool {
        tcgetpgrp(&self.device).is_ok_and(|group| group == getpgrp())
    }

    /// Whether a command started now gets the terminal right away. Within a pipeline it stays with the
    /// whole pipeline's group until the command turns out to need it: a pager at the end needs it too.
    pub(super) fn is_for_command(&self) -> bool {
        self.is_ours() && stdin().is_terminal() && stdout().is_terminal()
    }

    /// Makes `group` the foreground group.
    pub(super) fn give_to(&self, group: Pid) {
        // A terminal that hung up meanwhile is nobody's.
        let _ = untouched_by_terminal(|| tcsetpgrp(&self.device, group));
    }

    /// Takes the terminal back if `group` has it, and says whether it had.
    pub(super) fn take_back_from(&self, group: Pid) -> bool {
        let theirs = tcgetpgrp(&self.device).is_ok_and(|current| current == group);
        if theirs {
            self.give_to(getpgrp());
        }
        theirs
    }

    /// Sets the modes that the terminal had at first, after a command that could not do it itself.
    pub(super) fn restore_modes(&self) {
        if let Some(modes) = &self.modes {
            let _ = untouched_by_terminal(|| tcsetattr(&self.device, OptionalActions::Now, modes));
        }
    }
}

/// Stops the whole process group, as the terminal would have, and returns when it is continued.
pub(super) fn stop_ourselves() {
    let _ = kill_current_process_group(Signal::STOP);
}

/// Whether no shell is above that could continue this process group once it is stopped: no ancestor in
/// the same session but in another group. The kernel does not stop such groups either.
pub(super) fn is_orphaned() -> bool {
    let (group, session) = (getpgrp().as_raw_pid(), getsid(None).map_or(0, Pid::as_raw_pid));
    let mut ancestor = getppid().map_or(0, Pid::as_raw_pid);
    while let Some((parent, its_group, its_session)) = relations(ancestor) {
        if its_session != session {
            return true;
        }
        if its_group != group {
            return false;
        }
        ancestor = parent;
    }
    true
}

/// Parent, group and session of a process.
fn relations(pid: i32) -> Option<(i32, i32, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(1).map(|field| field.parse().ok());
    Some((fields.next()??, fields.next()??, fields.next()??))
}
