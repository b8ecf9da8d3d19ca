//! The client processes of a history: started, signalled, cut off, ended. Dropping it kills them.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tenure_tests::Proxy;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{Failed, order::Order};

/// How long a client may take to end when it is told to.
const ENDING: Duration = Duration::from_secs(20);

/// What is started: this program again, with a hidden word.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// A library that clients load first and the environment that it reads, where wall clocks are to be set.
    pub clock_library: Option<PathBuf>,
    /// What clients and daemons log beside their tapes, such as `tenure=debug`.
    pub log: Option<String>,
}

impl Program {
    /// The program at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), clock_library: clock_library(), log: None }
    }

    /// A command that is a `role` of this program.
    pub(crate) fn command(&self, role: &str) -> Command {
        let mut command = Command::new(&self.path);
        // A signal from the terminal is for the director alone.
        command.arg(role).stdin(Stdio::piped()).process_group(0).kill_on_drop(true);
        if let Some(log) = &self.log {
            command.env("TENURE_STORM_LOG", log);
        }
        command
    }
}

/// The usual places of libfaketime.
fn clock_library() -> Option<PathBuf> {
    let known = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    known.iter().map(|dir| Path::new(dir).join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}

/// Puts the wall clock that `file` is about off by so many hours.
pub(crate) fn step(file: &Path, hours: i32) -> io::Result<()> {
    std::fs::write(file, format!("{hours:+}h\n"))
}

/// A client that runs.
#[derive(Debug)]
pub(crate) struct Client {
    number: u64,
    child: Child,
    /// Its wires to the servers, in their order.
    wires: Vec<Proxy>,
    clock: Option<PathBuf>,
}

impl Client {
    fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return Ok(()) };
        kill(Pid::from_raw(pid), signal).map_err(io::Error::from)
    }
}

/// All clients that run. A client is known by its number.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    clients: Mutex<Vec<Client>>,
    unexpected: Mutex<Vec<String>>,
}

impl Crew {
    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a client. `clock`: a file that says how far its wall clock is off.
    pub(crate) fn start(
        &self,
        program: &Program,
        order: &Order,
        wires: Vec<Proxy>,
        clock: Option<PathBuf>,
    ) -> Result<(), Failed> {
        let mut command = program.command("client");
        let log = std::fs::File::create(order.tape.with_extension("log"))?;
        command.arg(serde_json::to_string(order)?).stdout(Stdio::null()).stderr(log);
        if let (Some(file), Some(library)) = (&clock, &program.clock_library) {
            step(file, 0)?;
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", file)
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let child = command.spawn()?;
        self.clients().push(Client { number: order.number, child, wires, clock });
        Ok(())
    }

    /// The numbers of those who run.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.clients().iter().map(|client| client.number).collect()
    }

    /// The numbers of their processes.
    pub(crate) fn pids(&self) -> Vec<(u64, u32)> {
        self.clients().iter().filter_map(|client| Some((client.number, client.child.id()?))).collect()
    }

    /// Does something with the wires of a client.
    pub(crate) fn wires(&self, number: u64, what: impl FnMut(&Proxy)) {
        if let Some(client) = self.clients().iter().find(|client| client.number == number) {
            client.wires.iter().for_each(what);
        }
    }

    /// Whether a client has wires at all.
    pub(crate) fn is_wired(&self, number: u64) -> bool {
        self.clients().iter().any(|client| client.number == number && !client.wires.is_empty())
    }

    /// The file that says how far a client's wall clock is off, where it can be set.
    pub(crate) fn clock(&self, number: u64) -> Option<PathBuf> {
        self.clients().iter().find(|client| client.number == number)?.clock.clone()
    }

    /// Sends a signal to a client.
    pub(crate) fn signal(&self, number: u64, signal: Signal) -> io::Result<()> {
        match self.clients().iter().find(|client| client.number == number) {
            // It may have ended just now.
            Some(client) => client.signal(signal).or(Ok(())),
            None => Ok(()),
        }
    }

    /// Kills a client, and returns when it is gone.
    pub(crate) async fn kill(&self, number: u64) -> io::Result<()> {
        let Some(mut client) = self.remove(number) else { return Ok(()) };
        client.child.kill().await
    }

    fn remove(&self, number: u64) -> Option<Client> {
        let mut clients = self.clients();
        let place = clients.iter().position(|client| client.number == number)?;
        Some(clients.remove(place))
    }

    /// Removes those who ended by themselves, which is a defect, and tells their numbers.
    pub(crate) fn reap(&self) -> Vec<u64> {
        let mut gone = Vec::new();
        self.clients().retain_mut(|client| match client.child.try_wait() {
            Ok(None) => true,
            ended => {
                gone.push(client.number);
                let text = format!("client {} ended by itself: {ended:?}", client.number);
                self.unexpected.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                false
            }
        });
        gone
    }

    /// Everything that clients did that they should not have.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        self.unexpected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks everybody to end, and kills who does not: their numbers.
    pub(crate) async fn end(&self) -> Vec<u64> {
        self.reap();
        let mut clients = std::mem::take(&mut *self.clients());
        for client in &clients {
            // It may have ended just now.
            let _ = client.signal(Signal::SIGCONT).and_then(|()| client.signal(Signal::SIGTERM));
        }
        let mut killed = Vec::new();
        for client in &mut clients {
            if timeout(ENDING, client.child.wait()).await.is_err() {
                killed.push(client.number);
                let _ = client.child.kill().await;
            }
        }
        killed
    }
}
