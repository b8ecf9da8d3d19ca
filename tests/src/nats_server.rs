//! NATS servers started for a test and gone with it.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};

use crate::{
    Proxy,
    nats_node::{Node, POLL, Port, READY, binary},
};

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

    /// Sends SIGSTOP, and returns when nothing of it runs any more.
    pub fn pause(&self) {
        self.node.pause();
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.node.signal(Signal::SIGCONT);
    }
}

/// How servers are set up where the defaults do not serve.
#[derive(Clone, Debug, Default)]
pub struct NatsSetup {
    /// More lines for each configuration file.
    pub extra: String,
    /// More settings of JetStream, such as `sync_interval: always`.
    pub jetstream: String,
    /// The program; the one that all tests use if there is none.
    pub binary: Option<PathBuf>,
    /// The servers reach each other over wires that can be cut, and in no other way.
    pub wired: bool,
    /// A directory for what each server stores, by its number; fewer than servers leave the rest where they are.
    pub stores: Vec<PathBuf>,
}

/// Several NATS servers in one JetStream cluster, or one that stands alone. Killed on drop, and also when the test
/// process dies in any other way.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<Node>,
    wires: Vec<Wire>,
    /// What wired servers tell of themselves: nobody listens there.
    _nowhere: Port,
}

/// The way from one server to another.
#[derive(Debug)]
struct Wire {
    from: usize,
    to: usize,
    proxy: Proxy,
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
        Self::start_as(size, NatsSetup { extra: extra.to_owned(), ..NatsSetup::default() }).await
    }

    /// Starts a cluster set up as told; one server stands alone.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_as(size: usize, setup: NatsSetup) -> Self {
        let program = match setup.binary {
            Some(program) => program,
            None => binary().await,
        };
        let ports: Vec<_> = (0..size).map(|_| (Port::reserve(), Port::reserve())).collect();
        let routes: Vec<_> = ports.iter().map(|(_, route)| format!("nats://127.0.0.1:{}", route.number)).collect();
        // Who hears of a server from another one connects to what that server advertises, past its wire.
        let nowhere = Port::reserve();
        let advertised = if setup.wired { format!("advertise: \"127.0.0.1:{}\", ", nowhere.number) } else { String::new() };
        let mut wires = Vec::new();
        let mut nodes = Vec::with_capacity(size);
        for (i, (client, route)) in ports.into_iter().enumerate() {
            let mut node = Node::new(&format!("s{i}"), client, &program);
            if let Some(store) = setup.stores.get(i) {
                node.keep_in(store.clone());
            }
            node.jetstream.clone_from(&setup.jetstream);
            if size == 1 {
                node.configure(&setup.extra);
            } else {
                let mut ways = routes.clone();
                if setup.wired {
                    for to in (0..size).filter(|to| *to != i) {
                        let proxy = Proxy::to(&routes[to]).await;
                        ways[to] = proxy.client_url();
                        wires.push(Wire { from: i, to, proxy });
                    }
                    ways.remove(i);
                }
                node.configure(&format!(
                    "cluster {{ name: tenure-test, listen: \"127.0.0.1:{}\", {advertised}no_advertise: {}, routes: [{}] }}\n{}",
                    route.number,
                    setup.wired,
                    ways.join(", "),
                    setup.extra
                ));
                node.route = Some(route);
            }
            nodes.push(node);
        }
        for node in &mut nodes {
            node.launch();
        }
        let cluster = Self { nodes, wires, _nowhere: nowhere };
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

    /// The store URL of `bucket`, with as many replicas as servers.
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

    /// Asks server `i` to end, as an operator does, and waits for that.
    pub async fn stop(&mut self, i: usize) {
        self.nodes[i].stop().await;
    }

    /// Starts server `i` from now on with another program, such as one of another version.
    pub fn replace(&mut self, i: usize, binary: &Path) {
        self.nodes[i].binary = binary.to_owned();
    }

    /// Cuts server `i` off from the others, as far as they are wired. Clients still reach it.
    pub fn isolate(&self, i: usize) {
        self.wires_of(i).for_each(Proxy::cut);
    }

    /// Connects server `i` with the others again.
    pub fn rejoin(&self, i: usize) {
        self.wires_of(i).for_each(Proxy::mend);
    }

    /// Delays everything between server `i` and the others.
    pub fn slow(&self, i: usize, by: Duration) {
        self.wires_of(i).for_each(|proxy| proxy.slow(by));
    }

    fn wires_of(&self, i: usize) -> impl Iterator<Item = &Proxy> {
        self.wires.iter().filter(move |wire| wire.from == i || wire.to == i).map(|wire| &wire.proxy)
    }

    /// Where server `i` keeps what it stores.
    pub fn store_dir(&self, i: usize) -> &Path {
        self.nodes[i].store()
    }

    /// The number of server `i`'s process, while that runs.
    pub fn pid(&self, i: usize) -> Option<u32> {
        self.nodes[i].pid()
    }

    /// The last lines that server `i` logged.
    pub fn log(&self, i: usize) -> String {
        self.nodes[i].log()
    }

    /// Starts server `i` again (after killing it if it runs) and does not wait until it answers.
    ///
    /// # Panics
    /// When its program does not start.
    pub fn launch(&mut self, i: usize) {
        self.nodes[i].kill();
        self.nodes[i].launch();
    }

    /// Waits until every server answers.
    ///
    /// # Panics
    /// When one does not.
    pub async fn all_answer(&self) {
        for node in &self.nodes {
            node.answers().await;
        }
    }

    /// Sends SIGSTOP to server `i`, and returns when nothing of it runs any more.
    pub fn pause(&self, i: usize) {
        self.nodes[i].pause();
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
        if self.size() == 1 {
            return 0;
        }
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
