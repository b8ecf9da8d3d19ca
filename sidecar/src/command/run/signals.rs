//! The signals that are passed on, and those that tell of the command.

use std::{future::poll_fn, io, task::Poll};

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Passed on to the command.
const FORWARDED: [Signal; 7] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH];

/// The signals that this process hears. One that was ignored when it started, as HUP is under `nohup`,
/// stays ignored, and the command inherits that.
pub(crate) struct Signals {
    heard: Vec<(Signal, tokio::signal::unix::Signal)>,
}

impl Signals {
    /// Starts to hear; must run inside the runtime and before there is a child.
    pub(crate) fn new() -> io::Result<Self> {
        // A parent may have left these blocked; without them the end of the command would go unheard.
        let needed = [nix::sys::signal::Signal::SIGCHLD, nix::sys::signal::Signal::SIGCONT];
        needed.into_iter().collect::<nix::sys::signal::SigSet>().thread_unblock()?;
        let mut signals = Self { heard: Vec::new() };
        let ignored = ignored();
        for kind in FORWARDED {
            if ignored & bit(kind) == 0 {
                signals.hear(kind)?;
            }
        }
        signals.hear(Signal::CHILD)?;
        Ok(signals)
    }

    /// Starts to hear what matters once there is a command: a stop asked for, and the continuation.
    /// Before that a stop simply stops this process.
    pub(super) fn hear_job_control(&mut self) -> io::Result<()> {
        if ignored() & bit(Signal::TSTP) == 0 {
            self.hear(Signal::TSTP)?;
        }
        self.hear(Signal::CONT)
    }

    fn hear(&mut self, kind: Signal) -> io::Result<()> {
        if self.heard.iter().all(|(heard, _)| *heard != kind) {
            self.heard.push((kind, signal(SignalKind::from_raw(kind.as_raw()))?));
        }
        Ok(())
    }

    /// The next signal; several of one kind may be told as one. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            for (kind, stream) in &mut self.heard {
                if stream.poll_recv(cx).is_ready() {
                    return Poll::Ready(*kind);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next signal that ends a wait. The others mean nothing while there is no command.
    pub(crate) async fn next_that_ends(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT].contains(&signal) {
                return signal;
            }
        }
    }
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

/// The signals that are ignored, one bit each. Asked of `/proc`: safe code cannot ask the kernel.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
