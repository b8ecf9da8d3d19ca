//! The moment between fork and exec, as a program: `tenure` started again, which becomes the command.
//! Other short parts that this program plays are told apart here too.
//!
//! What must be set inside the new process cannot be set from outside without unsafe code, so the new
//! process is this program, does it, and executes the command in its own place. No shell is involved.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
};

use rustix::process::{Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

use super::{
    keeper::{self, Keeper},
    terminal::Terminal,
};
use crate::command::{exit, say::say};

/// This very program, even if its file was replaced or deleted since.
pub(super) const SELF: &str = "/proc/self/exe";

const EXECUTE: &str = "__execute";
const DIE: &str = "__die";
/// The argument that makes this program a keeper.
pub(super) const KEEP: &str = "__keep";

/// The arguments that make this program the shim; the command follows. `keeper` is who is to be told of the command, if
/// anybody.
pub(super) fn arguments(lend_terminal: bool, keeper: Option<&Keeper>) -> [OsString; 4] {
    let terminal = if lend_terminal { "terminal" } else { "background" };
    let pipe = keeper.and_then(Keeper::pipe).unwrap_or_default();
    [EXECUTE.into(), getpid().as_raw_pid().to_string().into(), terminal.into(), pipe.into()]
}

/// Plays the part that the arguments name, if they do; the shim does not return if all goes well.
pub(crate) fn divert(mut arguments: impl Iterator<Item = OsString>) -> Option<u8> {
    let role = arguments.next()?;
    if role == KEEP {
        return Some(keeper::keep());
    }
    if role == DIE {
        let number = arguments.next()?.to_str()?.parse().ok()?;
        // The default action, which a freshly executed program has, ends this process here.
        let _ = Signal::from_named_raw(number).map(|signal| kill_process(getpid(), signal));
        return Some(exit::by_signal(number));
    }
    if role != EXECUTE {
        return None;
    }
    let parent: i32 = arguments.next()?.to_str()?.parse().ok()?;
    let terminal = arguments.next()?;
    let keeper = arguments.next()?;
    let program = arguments.next()?;
    Some(execute(parent, terminal == "terminal", &keeper, &program, arguments))
}

fn execute(parent: i32, take_terminal: bool, keeper: &OsStr, program: &OsStr, arguments: impl Iterator<Item = OsString>) -> u8 {
    // Should `tenure lock` be killed outright the lock is freed at once: the command must go with it.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        say(&format!("cannot tie the command's life to tenure's ({error}); nothing was run"));
        return exit::FAILED;
    }
    // It may have been killed before the line above.
    if getppid().is_none_or(|pid| pid.as_raw_pid() != parent) {
        return exit::FAILED;
    }
    if !keeper.is_empty() {
        // Else whoever started this tells it, a little later.
        let _ = keeper::tell(keeper, getpid());
    }
    if take_terminal && let Some(terminal) = Terminal::open() {
        terminal.give_to(getpid());
    }
    let error = Command::new(program).args(arguments).exec();
    let shown = program.display();
    if error.kind() != io::ErrorKind::NotFound {
        say(&format!("cannot run {shown}: {error}; it must be a program or script with execute permission"));
        return exit::NOT_EXECUTABLE;
    }
    let path = Path::new(program);
    if path.components().count() > 1 && path.exists() {
        say(&format!("cannot run {shown}: the interpreter its first line names was not found"));
    } else {
        say(&format!("cannot run {shown}: not found; check the spelling, or give the program's full path"));
    }
    exit::NOT_FOUND
}

/// Ends this process by `signal`, so that a shell above sees that and stops its script or loop too.
/// Returns only if that fails.
pub(crate) fn die_of(signal: i32) {
    let _ = Command::new(SELF).arg0("tenure").arg(DIE).arg(signal.to_string()).exec();
}
