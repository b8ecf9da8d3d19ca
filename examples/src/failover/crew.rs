//! The processes of a run: started, signalled, reaped, and all gone at the end.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    io::{self, PipeReader, PipeWriter},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tokio::{process::Command, task::JoinSet, time::timeout};

use super::{
    Fault,
    options::{Options, Place},
};

/// How long the daemon may take to drain.
const DRAIN: Duration = Duration::from_secs(10);

/// The daemon and the workers. Dropping it kills them.
#[derive(Debug)]
pub(super) struct Crew {
    program: PathBuf,
    arguments: Vec<OsString>,
    reports: Option<PipeWriter>,
    waits: JoinSet<(u32, io::Result<ExitStatus>)>,
    daemon: Option<u32>,
    /// Those who are not reaped yet.
    workers: HashSet<u32>,
    /// Names of all who ever were: the last words of the dead are read after they are reaped.
    names: HashMap<u32, String>,
}

/// A process that has ended.
#[derive(Debug)]
pub(super) enum Ended {
    Daemon(ExitStatus),
    Worker { name: String, status: ExitStatus },
}

impl Crew {
    /// Nobody yet, and the pipe into which all will report.
    pub(super) fn new(options: &Options, place: &Place, store: &str) -> io::Result<(Self, PipeReader)> {
        let (reader, reports) = io::pipe()?;
        let mut arguments: Vec<OsString> = Vec::new();
        let mut pair = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        pair("--store", store.into());
        pair("--lease", humantime::format_duration(options.lease).to_string().into());
        pair("--heartbeat", humantime::format_duration(options.heartbeat()).to_string().into());
        pair("--dir", place.dir.clone().into());
        pair("--run", place.run.clone().into());
        if let Some(sabotage) = options.sabotage {
            pair("--sabotage", sabotage.name().into());
        }
        let crew = Self {
            program: std::env::current_exe()?,
            arguments,
            reports: Some(reports),
            waits: JoinSet::new(),
            daemon: None,
            workers: HashSet::new(),
            names: HashMap::new(),
        };
        Ok((crew, reader))
    }

    /// Starts the daemon.
    pub(super) fn start_daemon(&mut self) -> Result<(), Fault> {
        self.daemon = Some(self.start("daemon")?);
        Ok(())
    }

    /// Starts the worker `name`.
    pub(super) fn start_worker(&mut self, name: String) -> Result<(), Fault> {
        let pid = self.start("worker")?;
        self.workers.insert(pid);
        self.names.insert(pid, name);
        Ok(())
    }

    /// The name of the worker with this process id, and the id.
    pub(super) fn name(&self, pid: u32) -> String {
        format!("{} ({pid})", self.names.get(&pid).map_or("?", String::as_str))
    }

    /// Sends `signal` to a worker that is not reaped yet.
    pub(super) fn signal(&self, pid: u32, signal: Signal) -> Result<(), Fault> {
        if self.workers.contains(&pid) {
            send(pid, signal)?;
        }
        Ok(())
    }

    /// Stops a worker that is not reaped yet; when this returns it does nothing more until it is woken.
    pub(super) fn stop(&self, pid: u32) -> Result<(), Fault> {
        if !self.workers.contains(&pid) {
            return Ok(());
        }
        send(pid, Signal::SIGSTOP)?;
        // Blocks for as long as the kernel takes to deliver the signal. Whoever died instead is left to `ended`.
        loop {
            match waitid(Id::Pid(raw(pid)?), WaitPidFlag::WSTOPPED) {
                Err(Errno::EINTR) => {}
                Ok(_) | Err(Errno::ECHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next process that ends; never when there is none.
    ///
    /// # Cancel safety
    /// Safe to drop; nobody's end is missed.
    pub(super) async fn ended(&mut self) -> Result<Ended, Fault> {
        let Some(ended) = self.waits.join_next().await else { return std::future::pending().await };
        let (pid, status) = ended?;
        let status = status?;
        if self.daemon == Some(pid) {
            self.daemon = None;
            return Ok(Ended::Daemon(status));
        }
        self.workers.remove(&pid);
        let name = self.names.get(&pid).cloned().unwrap_or_default();
        Ok(Ended::Worker { name, status })
    }

    /// Kills every worker, stopped ones too, and waits until they are gone.
    pub(super) async fn kill_workers(&mut self) -> Result<usize, Fault> {
        for pid in &self.workers {
            send(*pid, Signal::SIGKILL)?;
        }
        let mut count = 0;
        while !self.workers.is_empty() {
            if let Ended::Worker { .. } = self.ended().await? {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Asks the daemon to drain and waits for its end. No report follows.
    pub(super) async fn stop_daemon(&mut self) -> Result<(), Fault> {
        self.reports = None;
        let Some(pid) = self.daemon else { return Ok(()) };
        send(pid, Signal::SIGTERM)?;
        match timeout(DRAIN, self.ended()).await {
            Ok(Ok(Ended::Daemon(status))) if status.success() => Ok(()),
            Ok(Ok(Ended::Daemon(status))) => Err(format!("the daemon ended with {status} after SIGTERM").into()),
            Ok(Ok(Ended::Worker { name, .. })) => Err(format!("the worker {name} outlived its end").into()),
            Ok(Err(fault)) => Err(fault),
            Err(_) => {
                send(pid, Signal::SIGKILL)?;
                Err(format!("the daemon did not end within {DRAIN:?} of SIGTERM").into())
            }
        }
    }

    fn start(&mut self, role: &str) -> Result<u32, Fault> {
        let Some(reports) = &self.reports else { return Err("the run is over".into()) };
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args(["--role", role])
            .stdin(Stdio::null())
            .stdout(reports.try_clone()?)
            // Ctrl-C is for the director alone, who ends everybody in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or("a process ended before it had a number")?;
        self.waits.spawn(async move { (pid, child.wait().await) });
        Ok(pid)
    }
}

fn send(pid: u32, signal: Signal) -> Result<(), Fault> {
    match kill(raw(pid)?, signal) {
        // It has ended, and nobody has asked yet.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn raw(pid: u32) -> Result<Pid, Fault> {
    Ok(Pid::from_raw(i32::try_from(pid)?))
}
