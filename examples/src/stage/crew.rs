//! The processes of a run: started, signalled, reaped, and all gone at the end.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    io::{self, PipeWriter},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe,
    process::Command,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Fault, Report, daemon::News};

/// How long the daemon may take to open its store.
const OPENING: Duration = Duration::from_secs(30);
/// How long the daemon may take to end.
const DRAIN: Duration = Duration::from_secs(15);

/// What the processes report, in the order in which it happened.
#[derive(Debug)]
pub(crate) struct Reports(Lines<BufReader<pipe::Receiver>>);

impl Reports {
    /// The next report; never when there is none.
    ///
    /// # Cancel safety
    /// Safe to drop; no report is lost.
    pub(crate) async fn next<N: DeserializeOwned>(&mut self) -> Result<Report<N>, Fault> {
        match self.0.next_line().await? {
            Some(line) => Ok(serde_json::from_str(&line)?),
            None => std::future::pending().await,
        }
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) status: ExitStatus,
}

/// The processes: this program again, told what to be. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Crew {
    program: PathBuf,
    arguments: Vec<OsString>,
    reports: PipeWriter,
    waits: JoinSet<(u32, io::Result<ExitStatus>)>,
    /// Those who are not reaped yet.
    alive: HashSet<u32>,
    /// The one of them that the others need, and how it ended.
    daemon: Option<u32>,
    daemon_ended: Option<ExitStatus>,
    retiring: bool,
    /// Names of all who ever were: the last words of the dead are read after they are reaped.
    names: HashMap<u32, String>,
}

impl Crew {
    /// Nobody yet; all will be started with `arguments`.
    pub(crate) fn new(arguments: Vec<OsString>) -> Result<(Self, Reports), Fault> {
        let (reader, reports) = io::pipe()?;
        let crew = Self {
            program: std::env::current_exe()?,
            arguments,
            reports,
            waits: JoinSet::new(),
            alive: HashSet::new(),
            daemon: None,
            daemon_ended: None,
            retiring: false,
            names: HashMap::new(),
        };
        Ok((crew, Reports(BufReader::new(pipe::Receiver::from_owned_fd(reader.into())?).lines())))
    }

    /// Starts a process that is `role` and called `name`; its number.
    pub(crate) fn start(&mut self, role: &str, name: &str) -> Result<u32, Fault> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args(["--role", role, "--name", name])
            .stdin(Stdio::null())
            .stdout(self.reports.try_clone()?)
            // Ctrl-C is for the director alone, who ends everybody in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or("a process ended before it had a number")?;
        self.waits.spawn(async move { (pid, child.wait().await) });
        self.alive.insert(pid);
        self.names.insert(pid, name.to_owned());
        Ok(pid)
    }

    /// What the process `pid` is or was called.
    pub(crate) fn name(&self, pid: u32) -> &str {
        self.names.get(&pid).map_or("?", String::as_str)
    }

    /// Sends `signal` to a process, unless it has ended.
    pub(crate) fn signal(&self, pid: u32, signal: Signal) -> Result<(), Fault> {
        if !self.alive.contains(&pid) {
            return Ok(());
        }
        match kill(Pid::from_raw(i32::try_from(pid)?), signal) {
            // It has ended, and nobody has asked yet.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Starts the daemon, before anybody else, and waits until it listens.
    pub(super) async fn start_daemon(&mut self, reports: &mut Reports) -> Result<(), Fault> {
        self.daemon = Some(self.start("daemon", "daemon")?);
        tokio::select! {
            biased;
            report = reports.next() => match report?.news {
                News::Listening => Ok(()),
                News::Failed { message } => Err(message.into()),
            },
            ended = self.ended() => ended.map(drop),
            () = sleep(OPENING) => Err(format!("the daemon does not listen after {OPENING:?}").into()),
        }
    }

    /// The next process that ends; never when there is none. The daemon's end is a fault.
    ///
    /// # Cancel safety
    /// Safe to drop; nobody's end is missed.
    pub(crate) async fn ended(&mut self) -> Result<Ended, Fault> {
        let Some(ended) = self.waits.join_next().await else { return std::future::pending().await };
        let (pid, status) = ended?;
        let status = status?;
        self.alive.remove(&pid);
        if self.daemon == Some(pid) {
            self.daemon_ended = Some(status);
            if !self.retiring {
                return Err(no_daemon(status));
            }
        }
        Ok(Ended { name: self.name(pid).to_owned(), status })
    }

    /// Asks everybody to end, and kills who has not within `patience`; then the daemon. How many there were beside it.
    ///
    /// It is a fault if the daemon was killed: whatever else was wrong may have come of that. When it gave up by itself
    /// it has said why.
    pub(crate) async fn retire(&mut self, patience: Duration) -> Result<usize, Fault> {
        self.retiring = true;
        let (daemon, workers): (Vec<_>, Vec<_>) = self.alive.iter().partition(|pid| Some(**pid) == self.daemon);
        self.end(&workers, patience).await?;
        self.end(&daemon, DRAIN).await?;
        match self.daemon_ended {
            Some(status) if status.code().is_none() => Err(no_daemon(status)),
            _ => Ok(workers.len()),
        }
    }

    async fn end(&mut self, pids: &[u32], patience: Duration) -> Result<(), Fault> {
        for pid in pids {
            self.signal(*pid, Signal::SIGTERM)?;
        }
        if let Ok(ended) = timeout(patience, self.all_ended(pids)).await {
            return ended;
        }
        for pid in pids {
            self.signal(*pid, Signal::SIGKILL)?;
        }
        self.all_ended(pids).await
    }

    async fn all_ended(&mut self, pids: &[u32]) -> Result<(), Fault> {
        while pids.iter().any(|pid| self.alive.contains(pid)) {
            self.ended().await?;
        }
        Ok(())
    }
}

fn no_daemon(status: ExitStatus) -> Fault {
    format!("the daemon ended ({status})").into()
}

impl Ended {
    /// Whether a signal that we sent ended it.
    pub(crate) fn was_killed(&self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        self.status.signal() == Some(Signal::SIGKILL as i32)
    }
}
