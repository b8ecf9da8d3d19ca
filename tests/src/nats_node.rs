//! One NATS server: its directory, ports and configuration, which outlive its process, and the process.

use std::{
    fs,
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::nats_server_binary;

/// How long a server or a cluster may take to be ready. Generous: it bounds a failure, not a wait.
pub(crate) const READY: Duration = Duration::from_secs(60);
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// One server process. Directory, ports and configuration outlive the process, so that it can be restarted.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) port: Port,
    pub(crate) route: Option<Port>,
    pub(crate) binary: PathBuf,
    store: PathBuf,
    /// More settings of JetStream, such as how often it syncs.
    pub(crate) jetstream: String,
    // Before the directory: fields are dropped in order, and the process writes there.
    process: Option<Process>,
    dir: TempDir,
}

impl Node {
    pub(crate) fn new(name: &str, port: Port, binary: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("tenure-nats-").tempdir();
        let dir = dir.unwrap_or_else(|e| panic!("no directory for a nats-server: {e}"));
        let store = dir.path().join("store");
        Self {
            name: name.to_owned(),
            port,
            route: None,
            binary: binary.to_owned(),
            store,
            jetstream: String::new(),
            process: None,
            dir,
        }
    }

    /// Keeps what it stores there, such as on a small disk, and not beside its configuration.
    pub(crate) fn keep_in(&mut self, store: PathBuf) {
        self.store = store;
    }

    /// Where it keeps what it stores.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The number of its process, while that runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.server.id())
    }

    pub(crate) fn configure(&self, extra: &str) {
        let text = format!(
            "server_name: {}\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?}, {} }}\n{extra}\n",
            self.name, self.port.number, self.store, self.jetstream
        );
        fs::write(self.dir.path().join("server.conf"), text).unwrap_or_else(|e| panic!("no configuration file: {e}"));
    }

    pub(crate) fn client_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number)
    }

    pub(crate) async fn spawn(&mut self) {
        self.launch();
        self.answers().await;
    }

    pub(crate) fn launch(&mut self) {
        self.port.yield_if_needed();
        if let Some(route) = &mut self.route {
            route.yield_if_needed();
        }
        let process = Process::spawn(&self.binary, self.dir.path());
        self.process = Some(process.unwrap_or_else(|e| panic!("{} does not start: {e}", self.binary.display())));
    }

    /// Waits until the server greets with JetStream on.
    pub(crate) async fn answers(&self) {
        let begun = Instant::now();
        loop {
            if matches!(timeout(READY, greeting(self.port.number)).await, Ok(Ok(text)) if text.contains(r#""jetstream":true"#)) {
                return;
            }
            assert!(begun.elapsed() < READY, "{} does not come up:\n{}", self.name, self.log());
            sleep(POLL).await;
        }
    }

    /// Asks the process to end, and waits for that; kills it when it takes too long.
    pub(crate) async fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            let begun = Instant::now();
            // It may have ended by itself.
            let _ = kill(process.pid(), Signal::SIGTERM);
            while matches!(process.server.try_wait(), Ok(None)) && begun.elapsed() < READY {
                sleep(POLL).await;
            }
        }
        self.kill();
    }

    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it, and returns when it stands still: a thread that runs at that moment may go on for a little.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        let begun = Instant::now();
        while !self.pid().is_none_or(stands_still) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{} does not stop", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        kill(process.pid(), signal).unwrap_or_else(|e| panic!("{} takes no {signal}: {e}", self.name));
    }

    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Whether no thread of a process that was told to stop runs any more.
fn stands_still(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // `pid (name) S …`; the name may hold anything. A thread that has just ended is no obstacle.
    let mut stats = threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
    let still = |stat: String| stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['T', 't', 'Z', 'X']));
    stats.all(still)
}

async fn greeting(port: u16) -> io::Result<String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    Ok(line)
}

/// A running server and its watchdog.
#[derive(Debug)]
struct Process {
    server: Child,
    watchdog: Child,
    // Held open while the server may live.
    _lifeline: Option<ChildStdin>,
}

impl Process {
    /// The watchdog is a shell that waits for the end of its standard input, which comes when this process
    /// is gone however that happened, and then kills the server and removes its directory.
    fn spawn(binary: &Path, dir: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(dir.join("server.log"))?;
        let mut server = Command::new(binary)
            .arg("-c")
            .arg(dir.join("server.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let watchdog = Command::new("sh")
            .args(["-c", "trap '' INT TERM HUP QUIT; read -r _; kill -KILL \"$1\"; rm -rf \"$2\"", "watchdog"])
            .arg(server.id().to_string())
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watchdog {
            Ok(mut watchdog) => Ok(Self { server, _lifeline: watchdog.stdin.take(), watchdog }),
            Err(e) => {
                server.kill()?;
                server.wait()?;
                Err(e)
            }
        }
    }

    fn pid(&self) -> Pid {
        // Process ids are positive and fit.
        Pid::from_raw(i32::try_from(self.server.id()).unwrap_or(i32::MAX))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watchdog first: once the server is reaped, its number may be somebody else's. Neither call can
        // fail on an own child.
        for child in [&mut self.watchdog, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port of this machine that nobody else is given while it is held.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    held: Option<TcpSocket>,
}

impl Port {
    /// Binds without listening. On Linux the server, which sets `SO_REUSEADDR` as we do, may bind and listen
    /// beside it, while the kernel gives the port to nobody who asks for any.
    pub(crate) fn reserve() -> Self {
        let reserve = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            Ok::<_, io::Error>(Self { number: socket.local_addr()?.port(), held: Some(socket) })
        };
        reserve().unwrap_or_else(|e| panic!("no free port: {e}"))
    }

    /// Elsewhere two sockets cannot share a port, so the reservation ends when the server starts.
    fn yield_if_needed(&mut self) {
        if !cfg!(target_os = "linux") {
            self.held = None;
        }
    }
}

/// The server for tests.
///
/// # Panics
/// When there is none, with the reason.
pub(crate) async fn binary() -> PathBuf {
    match tokio::task::spawn_blocking(nats_server_binary).await {
        Ok(Ok(binary)) => binary,
        Ok(Err(why)) => panic!("{why}"),
        Err(e) => panic!("the search for nats-server failed: {e}"),
    }
}
