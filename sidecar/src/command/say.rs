//! Lines for people on standard error, which may be closed, full, stopped or not ours to write to.
//!
//! A line is dropped rather than waited for: while a command runs under a lock, a pager that does not
//! read must not keep the lock's end from being acted on.

use std::{io::Write, os::fd::AsFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::exit;

/// Writes `tenure: {message}` as one line.
pub(crate) fn say(message: &str) {
    raw(&format!("tenure: {}\n", printable(message)));
}

/// Writes `text` as it is, if that can be done at once.
pub(crate) fn raw(text: &str) {
    let mut stderr = std::io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let found = poll(&mut ready, Some(&Timespec::default())).map(|_| ready[0].revents()).unwrap_or(PollFlags::empty());
    if !found.contains(PollFlags::OUT) || found.contains(PollFlags::ERR) {
        return;
    }
    // A background process that writes to a terminal may be stopped for it (`stty tostop`).
    untouched_by_terminal(|| {
        // Whoever closed standard error does not want to know.
        let _ = stderr.write_all(text.as_bytes());
    });
}

/// Runs `action` with SIGTTOU blocked: the terminal then lets a background process do it.
pub(crate) fn untouched_by_terminal<T>(action: impl FnOnce() -> T) -> T {
    let blocked = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let outcome = action();
    if let Ok(before) = blocked {
        let _ = before.thread_set_mask();
    }
    outcome
}

/// Writes to standard output, beside what matters more: a reader that went away is no error.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes data to standard output. Who asked for it must not take half of it for the whole: where it cannot be
/// written this process ends. So it does, as any in a pipe, when the reader went away, instead of watching for nobody.
pub(crate) fn data(bytes: &[u8]) {
    let mut stdout = std::io::stdout();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            std::process::exit(exit::by_signal(Signal::SIGPIPE as i32).into());
        }
        Err(error) => {
            say(&format!("cannot write to standard output: {error}"));
            std::process::exit(exit::FAILED.into());
        }
    }
}

/// `text` without control characters: what others chose as a label must not steer this terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The width of the terminal in columns when standard error is one that we may write to.
pub(crate) fn columns() -> Option<usize> {
    let stderr = std::io::stderr();
    let size = rustix::termios::tcgetwinsize(stderr.as_fd()).ok()?;
    let foreground = rustix::termios::tcgetpgrp(stderr.as_fd()).is_ok_and(|group| group == rustix::process::getpgrp());
    // A terminal that does not know its size says 0.
    foreground.then_some(if size.ws_col == 0 { 80 } else { usize::from(size.ws_col) })
}

/// A length of time as people read it: `12s`, `3m 5s`, `250ms`.
pub(crate) fn span(time: std::time::Duration) -> String {
    let whole = if time.as_secs() >= 1 {
        std::time::Duration::from_secs(time.as_secs())
    } else {
        std::time::Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0))
    };
    humantime::format_duration(whole).to_string()
}
