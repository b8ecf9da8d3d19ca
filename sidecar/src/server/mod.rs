//! The daemon: accepts clients, serves them, and leaves in good order.

mod asking;
mod buckets;
mod busy;
pub(crate) mod config;
mod connection;
mod descriptors;
mod elections;
mod errors;
mod held;
mod holds;
pub(crate) mod http;
mod inflight;
mod keys;
mod kv;
mod leases;
mod locks;
mod logging;
mod measured;
mod members;
mod metrics;
mod observers;
mod operation;
mod outbox;
mod pages;
mod peer;
pub(crate) mod policy;
mod process;
mod quiet;
mod quota;
mod release;
mod requests;
mod service;
mod sessions;
mod socket;
mod subscriptions;
mod tally;
mod toml_file;
#[cfg(feature = "otlp")]
mod traces;
mod users;
mod work;

use std::{
    net::SocketAddr,
    os::unix::net::UnixListener as StdListener,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tenure::{Leader, LockState};
use tenure_kv::Store;
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::config::command_line;
use self::{
    buckets::Buckets,
    busy::Busy,
    leases::Everywhere,
    measured::Measured,
    metrics::Metrics,
    observers::Observers,
    peer::{Peer, Processes},
    policy::Policies,
    quiet::quiet,
    sessions::{Sessions, millis},
    socket::Claimed,
    users::{Place, Users},
};
pub use self::{process::main, socket::Access};
use crate::protocol::{ConnectionStatus, ErrorObject, Limits, Status, StoreInfo, default_socket, frame};

/// Name and version of this daemon.
const SERVER: &str = concat!("tenured/", env!("CARGO_PKG_VERSION"));
/// Exit code of what failed otherwise.
const FAILED: u8 = 1;
/// Pause after accepting failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Clients that are turned away at the same time: each has a descriptor until it was told.
const TURNED_AWAY: usize = 16;
/// How long before the end of a drain the leases still held are taken: room to release them in the store.
const LAST_CALL: u32 = 5;

/// Why the daemon does not start: one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    message: String,
    /// What the process ends with.
    code: u8,
}

impl StartError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: FAILED }
    }

    /// The configuration is to blame, and starting again helps nothing.
    fn config(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: config::CONFIG }
    }
}

/// How a daemon is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The socket's path.
    pub socket: PathBuf,
    /// Who may connect.
    pub access: Access,
    /// The store's URL.
    pub store: String,
    /// The lease of requests that name none; absent for the store's own default.
    pub lease: Option<Duration>,
    /// What connections may.
    pub limits: Limits,
    /// Descriptors that connections and the processes at their other ends may take together.
    pub client_files: usize,
    /// How long leaving may take.
    pub drain: Duration,
    /// How long to look again in place of going to sleep while a client waits for the store; zero for never.
    pub busy_poll: Duration,
    /// Who may do what; absent for no rules.
    pub policy: Option<PathBuf>,
    /// Where to answer questions over HTTP, which are for reading only and for whoever reaches it; nowhere unless told.
    pub http: Option<SocketAddr>,
    /// Connections of those at the same time.
    pub http_connections: usize,
}

impl Default for Config {
    /// What `tenured` does when it is told nothing, on a store in memory.
    fn default() -> Self {
        Self {
            socket: default_socket(),
            access: Access { mode: 0o660, group: None },
            store: "memory:".to_owned(),
            lease: None,
            limits: Limits::default(),
            client_files: usize::MAX,
            drain: Duration::from_secs(5),
            busy_poll: Duration::ZERO,
            policy: None,
            http: None,
            http_connections: descriptors::HTTP,
        }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Daemon {
    store: Arc<dyn Store>,
    /// The same.
    measured: Arc<Measured>,
    busy: Option<Arc<Busy>>,
    metrics: Arc<Metrics>,
    buckets: Buckets,
    sessions: Arc<Sessions>,
    observers: Arc<Observers<Option<Leader>>>,
    lock_observers: Arc<Observers<LockState>>,
    limits: Limits,
    policies: Arc<Policies>,
    processes: Arc<Processes>,
    host: String,
    started: Instant,
    /// Cancelled when no new work is taken.
    draining: CancellationToken,
    /// Cancelled when everything is to be let go.
    closing: CancellationToken,
    /// Cancelled when nothing may take any longer: every task ends.
    ended: CancellationToken,
    /// From the first to the second.
    grace: Duration,
    users: Arc<Users>,
    leases: Everywhere,
    requests: Arc<AtomicUsize>,
    subscriptions: Arc<AtomicUsize>,
    last_session: AtomicU64,
    /// Tells this daemon's connections from those of the one before.
    instance: String,
}

impl Daemon {
    fn next_session(&self) -> String {
        format!("{}-{}", self.instance, self.last_session.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn store_info(&self) -> StoreInfo {
        let info = self.store.info();
        StoreInfo { url: info.url.clone(), shared: info.shared, replicas: info.replicas }
    }

    /// How many connections there may be at least.
    fn connections_max(&self) -> usize {
        self.users.most(self.processes.count())
    }

    fn status(&self, connection: ConnectionStatus) -> Status {
        Status {
            server: SERVER.to_owned(),
            pid: std::process::id(),
            uptime_ms: millis(self.started.elapsed()),
            draining: self.draining.is_cancelled(),
            store: self.store_info(),
            sessions: self.sessions.status(),
            connections: self.users.connections(),
            connections_max: self.connections_max(),
            leases: self.leases.total.load(Ordering::Relaxed),
            leaderships: self.leases.leaderships.load(Ordering::Relaxed),
            members: self.leases.members.load(Ordering::Relaxed),
            subscriptions: self.subscriptions.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            policy: self.policies.status(connection.uid),
            connection,
        }
    }
}

/// A daemon that listens.
#[derive(Debug)]
pub struct Server {
    daemon: Arc<Daemon>,
    /// Absent where a service manager keeps the socket.
    claimed: Option<Claimed>,
    listener: StdListener,
    http: Option<http::Bound>,
    http_connections: usize,
    drain: Duration,
}

impl Server {
    /// Claims the socket, then opens the store. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When another daemon is there, or the socket or the store cannot be used.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(config, None).await
    }

    /// As [`start`](Self::start), on a socket that listens already and that somebody else keeps, if there is one.
    async fn start_on(config: Config, given: Option<StdListener>) -> Result<Self, StartError> {
        let policies = policies(&config)?;
        let (claimed, listener) = match given {
            // A handed-over socket outlives a daemon, so a second one may serve there while the first still drains.
            Some(_) if config.store.trim() == "memory:" => {
                return Err(StartError::new(
                    "the socket was handed over, and with memory: two daemons on it would grant the same lock; use file: or nats:",
                ));
            }
            Some(listener) => {
                let made = listener.set_nonblocking(true);
                made.map_err(|error| StartError::new(format!("cannot listen on the socket that was handed over: {error}")))?;
                (None, listener)
            }
            None => {
                let (claimed, listener) = socket::claim(&config.socket, &config.access)?;
                (Some(claimed), listener)
            }
        };
        let http = config.http.map(http::Bound::at).transpose()?;
        let store = tenure_kv::open(&config.store).await.map_err(|error| {
            StartError::new(format!("cannot open the store {}: {}", redacted(&config.store), errors::of_store(error)))
        })?;
        Self::listening(config, policies, claimed, listener, http, store)
    }

    /// As [`start`](Self::start), in front of a store that is open already; the URL in `config` is not looked at.
    ///
    /// # Errors
    /// When another daemon is there, or the socket cannot be used.
    pub fn with_store(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let policies = policies(&config)?;
        let (claimed, listener) = socket::claim(&config.socket, &config.access)?;
        let http = config.http.map(http::Bound::at).transpose()?;
        Self::listening(config, policies, Some(claimed), listener, http, store)
    }

    /// What reads the policy again.
    fn policies(&self) -> Arc<Policies> {
        self.daemon.policies.clone()
    }

    fn listening(
        config: Config,
        policies: Policies,
        claimed: Option<Claimed>,
        listener: StdListener,
        http: Option<http::Bound>,
        store: Arc<dyn Store>,
    ) -> Result<Self, StartError> {
        let default = if store.info().replicas > 1 { Duration::from_secs(15) } else { Duration::from_secs(5) };
        let lease = config.lease.unwrap_or(default);
        let limits = Limits { default_lease_ms: millis(lease), ..config.limits };
        let busy = Busy::new(config.busy_poll);
        let measured = Measured::new(store, busy.clone());
        let store: Arc<dyn Store> = measured.clone();
        let instance = uuid::Uuid::new_v4().simple().to_string();
        let ended = CancellationToken::new();
        let sessions = Sessions::new(store.clone(), lease, sessions::LINGER, limits.lease_lengths, ended.clone());
        let buckets = Buckets::new(store.clone()).map_err(|error| StartError::new(error.to_string()))?;
        let daemon = Arc::new(Daemon {
            buckets,
            observers: Observers::new(sessions.clone()),
            lock_observers: Observers::new(sessions.clone()),
            sessions,
            store,
            measured,
            busy,
            metrics: Arc::default(),
            policies: Arc::new(policies),
            processes: Arc::default(),
            host: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            started: Instant::now(),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
            ended,
            grace: config.drain - config.drain / LAST_CALL,
            users: Users::new(limits.clone(), config.client_files),
            leases: Everywhere::default(),
            requests: Arc::default(),
            subscriptions: Arc::default(),
            last_session: AtomicU64::new(0),
            instance: instance.chars().take(8).collect(),
            limits,
        });
        tracing::info!(socket = %config.socket.display(), store = daemon.store.info().url, lease_ms = millis(lease), "serving");
        if let Some(policy) = &config.policy {
            tracing::info!(policy = %policy.display(), rules = daemon.policies.rules(), "policy in force");
        }
        Ok(Self { daemon, claimed, listener, http, http_connections: config.http_connections, drain: config.drain })
    }

    /// Serves until `leave` resolves, then drains: clients are told, holders get their time, what is left is
    /// released. `hurry` ends that time early. Returns within the drain time.
    ///
    /// # Errors
    /// When the socket cannot be listened on.
    ///
    /// # Cancel safety
    /// Dropped, connections go on until the runtime stops, and holds end with their leases.
    pub async fn run(self, leave: impl Future<Output = ()>, hurry: impl Future<Output = ()>) -> Result<(), StartError> {
        let Self { daemon, claimed, listener, http, http_connections, drain } = self;
        let listener = UnixListener::from_std(listener).map_err(|error| StartError::new(format!("cannot listen: {error}")))?;
        let connections = TaskTracker::new();
        if let Some(http) = http {
            // Ends when the daemon closes.
            connections.spawn(http::serve(daemon.clone(), http.listener()?, http_connections));
        }
        tokio::select! {
            () = accept(&daemon, &listener, &connections) => {}
            () = leave => {}
        }
        let left = tokio::time::timeout(drain, async {
            tracing::info!(leases = daemon.leases.total.load(Ordering::Relaxed), "leaving");
            drop(listener);
            if let Some(claimed) = &claimed {
                claimed.remove();
            }
            daemon.draining.cancel();
            tokio::select! {
                () = idle(&daemon) => {}
                () = hurry => {}
                () = tokio::time::sleep(daemon.grace) => tracing::warn!(
                    leases = daemon.leases.total.load(Ordering::Relaxed), "time is up; the leases still held are released"
                ),
            }
            daemon.closing.cancel();
            connections.close();
            connections.wait().await;
            daemon.observers.close().await;
            daemon.lock_observers.close().await;
            daemon.sessions.close().await;
        });
        match left.await {
            Ok(()) => tracing::info!("everything is released"),
            Err(_) => tracing::warn!("the store did not answer in time; what is not released ends with its lease"),
        }
        // What has not come so far by now does not any more.
        daemon.closing.cancel();
        daemon.ended.cancel();
        connections.close();
        connections.wait().await;
        daemon.observers.close().await;
        daemon.lock_observers.close().await;
        daemon.sessions.close().await;
        Ok(())
    }
}

fn policies(config: &Config) -> Result<Policies, StartError> {
    Policies::load(config.policy.as_deref(), rustix::process::geteuid().as_raw()).map_err(StartError::config)
}

/// Resolves when nothing is held and nothing is in flight.
async fn idle(daemon: &Daemon) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        if daemon.leases.total.load(Ordering::Relaxed) == 0 && daemon.requests.load(Ordering::Relaxed) == 0 {
            return;
        }
    }
}

async fn accept(daemon: &Arc<Daemon>, listener: &UnixListener, connections: &TaskTracker) {
    let mut failing = false;
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
    // A client whose process cannot be watched yet, mostly for want of descriptors. It is not sent away: it sees a slow
    // daemon and no closed connection, like those that are still in the socket's backlog.
    let mut unknown = None;
    loop {
        let accepted = match unknown.take() {
            Some(stream) => Ok(stream),
            None => listener.accept().await.map(|(stream, _)| stream),
        };
        let accepted = accepted.and_then(|stream| match Peer::of(&stream, &daemon.processes, daemon.policies.is_set()) {
            Ok(peer) => Ok((stream, peer)),
            Err(error) => {
                unknown = Some(stream);
                Err(error)
            }
        });
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                match daemon.users.enter(peer.uid, daemon.processes.count()) {
                    Ok(place) => {
                        daemon.metrics.accepted.fetch_add(1, Ordering::Relaxed);
                        drop(connections.spawn(serve(daemon.clone(), stream, peer, place)));
                    }
                    Err(error) => {
                        daemon.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
                        // Whoever comes in numbers must not take what is kept for the store.
                        let turn = turned_away.clone().acquire_owned().await;
                        drop(connections.spawn(refuse(turn.ok(), error, stream)));
                    }
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(daemon: Arc<Daemon>, stream: UnixStream, peer: Peer, place: Place) {
    let ended = daemon.ended.clone();
    quiet(ended.run_until_cancelled(connection::serve(daemon, stream, peer, place.quotas.clone()))).await;
}

async fn refuse(_turn: Option<OwnedSemaphorePermit>, error: ErrorObject, mut stream: UnixStream) {
    // A fresh socket takes one line at once; who does not read it sees the connection closed.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&frame::failure(None, &error))).await;
}

/// A URL without what stands before the `@` of its hosts.
fn redacted(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}
