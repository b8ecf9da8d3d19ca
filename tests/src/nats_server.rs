//! NATS servers started for a test and gone with it.

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
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::OnceCell,
    time::{sleep, timeout},
};

use crate::nats_server_binary;

/// How long a server or a cluster may take to be ready. Generous: it bounds a failure, not a wait.
const READY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A bucket name that no other test has: `hint` and a random end.
pub fn unique_bucket(hint: &str) -> String {
    format!("{hint}_{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

/// One NATS server with JetStream on ports and a directory of its own. Killed on drop, and also when the
/// test process dies in any other way.
#[derive(Debug)]
pub struct NatsServer {
    node: Node,
}

impl NatsServer {
    /// Starts a server.
    ///
    /// # Panics
    /// When there is no `nats-server` or it does not come up, with the reason.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a server with `extra` lines in its configuration file.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(extra: &str) -> Self {
        let binary = binary().await;
        let port = Port::reserve();
        let mut node = Node::new("s0", port, &binary);
        node.configure(extra);
        node.spawn().await;
        Self { node }
    }

    /// A server that all tests of this process share; it must not be killed or paused.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<NatsServer> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// The store URL of `bucket`.
    pub fn url(&self, bucket: &str) -> String {
        format!("{}/{bucket}", self.client_url())
    }

    /// Where NATS clients connect.
    pub fn client_url(&self) -> String {
        self.node.client_url()
    }

    /// Where NATS clients connect, as a list of one.
    pub fn client_urls(&self) -> Vec<String> {
        vec![self.client_url()]
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.node.kill();
    }

    /// Starts the server again (after killing it if it runs) with the same ports and store.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart(&mut self) {
        self.node.kill();
        self.node.spawn().await;
    }

    /// Sends SIGSTOP.
    pub fn pause(&self) {
        self.node.signal(Signal::SIGSTOP);
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.node.signal(Signal::SIGCONT);
    }
}

/// Several NATS servers in one JetStream cluster. Killed on drop, and also when the test process dies in
/// any other way.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<Node>,
}

impl NatsCluster {
    /// Starts `size` servers and waits until a stream with as many replicas can be created.
    ///
    /// # Panics
    /// When there is no `nats-server` or the cluster does not come up, with the reason.
    pub async fn start(size: usize) -> Self {
        Self::start_with(size, "").await
    }

    /// Starts a cluster with `extra` lines in each configuration file.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(size: usize, extra: &str) -> Self {
        let binary = binary().await;
        let ports: Vec<_> = (0..size).map(|_| (Port::reserve(), Port::reserve())).collect();
        let routes: Vec<_> = ports.iter().map(|(_, route)| format!("nats://127.0.0.1:{}", route.number)).collect();
        let routes = routes.join(", ");
        let mut nodes = Vec::with_capacity(size);
        for (i, (client, route)) in ports.into_iter().enumerate() {
            let mut node = Node::new(&format!("s{i}"), client, &binary);
            node.configure(&format!(
                "cluster {{ name: tenure-test, listen: \"127.0.0.1:{}\", routes: [{routes}] }}\n{extra}",
                route.number
            ));
            node.route = Some(route);
            nodes.push(node);
        }
        for node in &mut nodes {
            node.launch();
        }
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            node.answers().await;
        }
        cluster.ready(size).await;
        cluster
    }

    /// A cluster of three that all tests of this process share; its servers must not be killed or paused.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<NatsCluster> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(3)).await
    }

    /// How many servers there are.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The store URL of `bucket` with as many replicas as servers.
    pub fn url(&self, bucket: &str) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port.number)).collect();
        format!("nats://{}/{bucket}?replicas={}", hosts.join(","), self.size())
    }

    /// Where NATS clients connect, one for each server.
    pub fn client_urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::client_url).collect()
    }

    /// Sends SIGKILL to server `i` and waits for its end.
    pub fn kill(&mut self, i: usize) {
        self.nodes[i].kill();
    }

    /// Starts server `i` again (after killing it if it runs) with the same ports and store.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart(&mut self, i: usize) {
        self.nodes[i].kill();
        self.nodes[i].spawn().await;
    }

    /// Sends SIGSTOP to server `i`.
    pub fn pause(&self, i: usize) {
        self.nodes[i].signal(Signal::SIGSTOP);
    }

    /// Sends SIGCONT to server `i`.
    pub fn resume(&self, i: usize) {
        self.nodes[i].signal(Signal::SIGCONT);
    }

    /// The server that leads the stream of `bucket`.
    ///
    /// # Panics
    /// When the stream has no leader for long.
    pub async fn leader(&self, bucket: &str) -> usize {
        let client = self.connect().await;
        let info = self
            .ask(&client, &format!("$JS.API.STREAM.INFO.KV_{bucket}"), "", |reply| reply["cluster"]["leader"].is_string())
            .await;
        let name = &info["cluster"]["leader"];
        self.nodes
            .iter()
            .position(|node| name == node.name.as_str())
            .unwrap_or_else(|| panic!("{name} leads KV_{bucket}, which is none of the cluster's servers"))
    }

    /// Waits until the cluster creates a stream with `size` replicas: then it has a meta leader that knows
    /// that many servers.
    async fn ready(&self, size: usize) {
        let client = self.connect().await;
        let probe = format!(
            r#"{{"name":"READY","subjects":["tenure.test.ready"],"storage":"memory","retention":"limits","num_replicas":{size}}}"#
        );
        self.ask(&client, "$JS.API.STREAM.CREATE.READY", &probe, |reply| reply["error"].is_null()).await;
        self.ask(&client, "$JS.API.STREAM.DELETE.READY", "", |reply| reply["error"].is_null() || reply["error"]["code"] == 404)
            .await;
    }

    async fn connect(&self) -> async_nats::Client {
        async_nats::connect(self.client_urls()).await.unwrap_or_else(|e| panic!("no server of the cluster answers: {e}"))
    }

    /// Repeats an API request until its answer is as wanted.
    async fn ask(&self, client: &async_nats::Client, subject: &str, body: &str, good: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let request = client.request(subject.to_owned(), body.to_owned().into());
            let said = match timeout(Duration::from_secs(5), request).await {
                Ok(Ok(reply)) => match serde_json::from_slice::<Value>(&reply.payload) {
                    Ok(reply) if good(&reply) => return reply,
                    other => format!("{other:?}"),
                },
                other => format!("{other:?}"),
            };
            assert!(begun.elapsed() < READY, "{subject} does not succeed: {said}\n{}", self.nodes[0].log());
            sleep(POLL).await;
        }
    }
}

/// One server process. Directory, ports and configuration outlive the process, so that it can be restarted.
#[derive(Debug)]
struct Node {
    name: String,
    port: Port,
    route: Option<Port>,
    binary: PathBuf,
    // Before the directory: fields are dropped in order, and the process writes there.
    process: Option<Process>,
    dir: TempDir,
}

impl Node {
    fn new(name: &str, port: Port, binary: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("tenure-nats-").tempdir();
        let dir = dir.unwrap_or_else(|e| panic!("no directory for a nats-server: {e}"));
        Self { name: name.to_owned(), port, route: None, binary: binary.to_owned(), process: None, dir }
    }

    fn configure(&self, extra: &str) {
        let text = format!(
            "server_name: {}\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?} }}\n{extra}\n",
            self.name,
            self.port.number,
            self.dir.path().join("store")
        );
        fs::write(self.dir.path().join("server.conf"), text).unwrap_or_else(|e| panic!("no configuration file: {e}"));
    }

    fn client_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number)
    }

    async fn spawn(&mut self) {
        self.launch();
        self.answers().await;
    }

    fn launch(&mut self) {
        self.port.yield_if_needed();
        if let Some(route) = &mut self.route {
            route.yield_if_needed();
        }
        let process = Process::spawn(&self.binary, self.dir.path());
        self.process = Some(process.unwrap_or_else(|e| panic!("{} does not start: {e}", self.binary.display())));
    }

    /// Waits until the server greets with JetStream on.
    async fn answers(&self) {
        let begun = Instant::now();
        loop {
            if matches!(timeout(READY, greeting(self.port.number)).await, Ok(Ok(text)) if text.contains(r#""jetstream":true"#)) {
                return;
            }
            assert!(begun.elapsed() < READY, "{} does not come up:\n{}", self.name, self.log());
            sleep(POLL).await;
        }
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        kill(process.pid(), signal).unwrap_or_else(|e| panic!("{} takes no {signal}: {e}", self.name));
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
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
struct Port {
    number: u16,
    held: Option<TcpSocket>,
}

impl Port {
    /// Binds without listening. On Linux the server, which sets `SO_REUSEADDR` as we do, may bind and listen
    /// beside it, while the kernel gives the port to nobody who asks for any.
    fn reserve() -> Self {
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

async fn binary() -> PathBuf {
    match tokio::task::spawn_blocking(nats_server_binary).await {
        Ok(Ok(binary)) => binary,
        Ok(Err(why)) => panic!("{why}"),
        Err(e) => panic!("the search for nats-server failed: {e}"),
    }
}
