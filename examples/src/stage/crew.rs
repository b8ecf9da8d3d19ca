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
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe,
    process::Command,
    task::JoinSet,
    time::timeout,
};

use super::{Fault, Report};

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

    /// Sends `signal` to a process that is not reaped yet.
    pub(crate) fn signal(&self, pid: u32, signal: Signal) -> Result<(), Fault> {
        if self.alive.contains(&pid) {
            kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        }
        Ok(())
    }

    /// The next process that ends; never when there is none.
    ///
    /// # Cancel safety
    /// Safe to drop; nobody's end is missed.
    pub(crate) async fn ended(&mut self) -> Result<Ended, Fault> {
        let Some(ended) = self.waits.join_next().await else { return std::future::pending().await };
        let (pid, status) = ended?;
        self.alive.remove(&pid);
        Ok(Ended { name: self.name(pid).to_owned(), status: status? })
    }

    /// Asks everybody to end, and kills who has not within `patience`; how many there were.
    pub(crate) async fn retire(&mut self, patience: Duration) -> Result<usize, Fault> {
        let count = self.alive.len();
        for pid in self.alive.clone() {
            self.signal(pid, Signal::SIGTERM)?;
        }
        let all = async {
            while !self.alive.is_empty() {
                self.ended().await?;
            }
            Ok::<_, Fault>(())
        };
        if let Ok(ended) = timeout(patience, all).await {
            ended?;
        }
        self.dismiss().await?;
        Ok(count)
    }

    /// Kills everybody, stopped ones too, and waits until they are gone; how many they were.
    pub(crate) async fn dismiss(&mut self) -> Result<usize, Fault> {
        let count = self.alive.len();
        for pid in self.alive.clone() {
            self.signal(pid, Signal::SIGKILL)?;
        }
        while !self.alive.is_empty() {
            self.ended().await?;
        }
        Ok(count)
    }
}

impl Ended {
    /// Whether a signal that we sent ended it.
    pub(crate) fn was_killed(&self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        self.status.signal() == Some(Signal::SIGKILL as i32)
    }
}
