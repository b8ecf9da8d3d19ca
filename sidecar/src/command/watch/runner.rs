//! A command that is run for each change: one at a time, with the latest state.

use std::{convert::Infallible, ffi::OsString, path::Path, pin::pin, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin},
    sync::mpsc,
};

use super::{
    feed::News,
    state::{State, VARIABLES},
};
use crate::command::{
    End,
    exit::{self, Failure},
    keep::interrupted,
    run::{KILL_AFTER, Signals, tied},
    say::say,
};

/// Keys whose states wait for the command to end. Past it nothing more is taken, and the daemon keeps the rest.
const MOST: usize = 1_024;

/// Runs `command` for what comes of `feed`, until a signal comes or the feed fails.
pub(super) async fn run(
    feed: impl Future<Output = Result<Infallible, Failure>>,
    mut news: mpsc::Receiver<News>,
    command: &[OsString],
    socket: &Path,
    signals: &mut Signals,
) -> Result<End, Failure> {
    let mut feed = pin!(feed);
    let mut waiting: Vec<State> = Vec::new();
    let mut running: Option<Running> = None;
    loop {
        if running.is_none() && !waiting.is_empty() {
            running = Some(Running::start(command, &waiting.remove(0), socket)?);
        }
        let ended = async {
            match &mut running {
                Some(running) => running.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            signal = signals.next_that_ends() => {
                if let Some(running) = running {
                    running.stop(signals).await;
                }
                return interrupted(signal.as_raw());
            }
            code = ended => {
                running = None;
                match code? {
                    0 => {}
                    // The command itself could not be started, and said so; it will not be next time.
                    code @ (exit::NOT_EXECUTABLE | exit::NOT_FOUND) => return Ok(code.into()),
                    code => say(&format!("the command ended with exit code {code}; watching on")),
                }
            }
            heard = news.recv(), if waiting.len() < MOST => match heard {
                Some(Ok(state)) => match waiting.iter_mut().find(|earlier| state.replaces(earlier)) {
                    Some(earlier) => *earlier = state,
                    None => waiting.push(state),
                },
                Some(Err(why)) => say(&format!("{why}; the command runs again for what changes meanwhile")),
                None => return Err(Failure::failed("internal error: the watch has no end")),
            },
            end = &mut feed => {
                if let Some(running) = running {
                    running.stop(signals).await;
                }
                return end.map(|never| match never {});
            }
        }
    }
}

/// A command that runs, the leader of its own process group.
struct Running {
    child: Child,
    group: Option<Pid>,
    /// What it is yet to be given: the state as a line.
    input: Option<(ChildStdin, Vec<u8>)>,
}

impl Running {
    fn start(command: &[OsString], state: &State, socket: &Path) -> Result<Self, Failure> {
        let mut start = tied(command);
        for name in VARIABLES {
            start.env_remove(name);
        }
        start.envs(state.variables()).env("TENURE_SOCKET", socket);
        let mut start = tokio::process::Command::from(start);
        let child = start.stdin(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = child.map_err(|error| {
            Failure::failed(format_args!(
                "cannot start a process: {error}; check that /proc is mounted, and the limit of processes"
            ))
        })?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // What is told here has text for keys, and so cannot fail.
        let mut line = serde_json::to_vec(state).unwrap_or_default();
        line.push(b'\n');
        let input = child.stdin.take().map(|stdin| (stdin, line));
        Ok(Self { child, group, input })
    }

    /// Its exit code, or 128 + the signal that ended it. May be dropped before that; what it is given goes on with the next.
    async fn ended(&mut self) -> Result<u8, Failure> {
        let Self { child, input, .. } = self;
        let give = async {
            if let Some((stdin, line)) = input {
                while !line.is_empty() {
                    // Whoever ended or closed it does not want to know.
                    let Ok(count @ 1..) = stdin.write(line).await else { break };
                    line.drain(..count);
                }
            }
            *input = None;
            std::future::pending().await
        };
        let status = tokio::select! {
            biased;
            status = child.wait() => status,
            never = give => never,
        };
        let status = status.map_err(|error| Failure::failed(format_args!("cannot wait for the command: {error}")))?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        Ok(signal.map_or_else(|| status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX), exit::by_signal))
    }

    /// Ends it and its group: TERM, then KILL when it takes too long or another signal comes.
    async fn stop(mut self, signals: &mut Signals) {
        self.signal(Signal::TERM);
        let patience: Duration = KILL_AFTER;
        let ended = tokio::select! {
            biased;
            _ = self.child.wait() => true,
            _ = signals.next_that_ends() => false,
            () = tokio::time::sleep(patience) => false,
        };
        if !ended {
            self.signal(Signal::KILL);
            let _ = self.child.wait().await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The only failure is that nobody is left.
            let _ = kill_process_group(group, signal);
        }
    }
}
