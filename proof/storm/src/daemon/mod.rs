//! The daemon's process, and how the director starts it: the same daemon as `tenured`, in front of a store that
//! writes down what it commits.

mod recorded;

use std::{
    path::PathBuf,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tenure_sidecar::{
    Client,
    server::{Access, Config, Server},
};
use tenure_tests::Proxy;
use tokio::time::{Instant, sleep, timeout};

use self::recorded::Recorded;
use crate::{Failed, client, crew::Program, tape::Tape};

/// How long a daemon may take until it serves.
const READY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// What the director tells a daemon's process to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The number of this incarnation, among clients.
    pub number: u64,
    /// Where it listens.
    pub socket: PathBuf,
    /// The store's URL.
    pub store: String,
    /// Where it writes down which sessions it opens.
    pub tape: PathBuf,
    /// Where it writes down what it commits, where it alone does.
    pub writes: Option<PathBuf>,
    /// Which incarnation of the bucket it serves.
    pub epoch: u64,
    /// The lease.
    pub lease_ms: u64,
}

/// Runs a daemon's process until it is told to end.
///
/// # Errors
/// When it cannot serve.
pub async fn run(order: Order) -> Result<ExitCode, Failed> {
    let dismissed = client::dismissed()?;
    let tape = Arc::new(Tape::create(&order.tape, order.number)?);
    let store = tenure_kv::open(&order.store).await?;
    let recorded = Arc::new(Recorded::over(store, tape, order.writes.as_deref(), order.epoch).await?);
    let config = Config {
        socket: order.socket,
        access: Access { mode: 0o600, group: None },
        lease: Some(Duration::from_millis(order.lease_ms)),
        drain: Duration::from_secs(2),
        ..Config::default()
    };
    let server = Server::with_store(config, recorded.clone())?;
    let leave = async {
        dismissed.await;
        recorded.leaves();
    };
    let served = server.run(leave, std::future::pending()).await;
    // What began while it was leaving has ended with it.
    recorded.leaves();
    served?;
    Ok(ExitCode::SUCCESS)
}

/// A daemon that runs, as the director sees it. Killed on drop.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) number: u64,
    pub(crate) child: tokio::process::Child,
    /// Its wires to the servers behind it.
    pub(crate) wires: Vec<Proxy>,
}

impl Daemon {
    /// Starts one, and waits until it serves. Its log goes to a file beside its tape.
    pub(crate) async fn start(program: &Program, order: &Order, wires: Vec<Proxy>) -> Result<Self, Failed> {
        let log = std::fs::File::options().create(true).append(true).open(order.tape.with_extension("log"))?;
        let text = serde_json::to_string(order)?;
        let spawn = || -> Result<_, Failed> {
            let mut command = program.command("daemon");
            Ok(command.arg(&text).stdout(Stdio::null()).stderr(log.try_clone()?).spawn()?)
        };
        let mut child = spawn()?;
        let begun = Instant::now();
        while Client::connect(&order.socket).await.is_err() {
            if let Ok(Some(ended)) = child.try_wait() {
                let log = std::fs::read_to_string(order.tape.with_extension("log")).unwrap_or_default();
                if begun.elapsed() > READY {
                    return Err(format!("the daemon {} ended ({ended}): {log}", order.number).into());
                }
                // Its store may be out of reach at this moment. Whoever keeps services up starts it again.
                sleep(POLL * 20).await;
                child = spawn()?;
            }
            if begun.elapsed() > READY * 2 {
                return Err(format!("the daemon {} does not serve", order.number).into());
            }
            sleep(POLL).await;
        }
        Ok(Self { number: order.number, child, wires })
    }

    /// Sends a signal. It may have ended by itself; whoever ends it sees that.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills it, and returns when it is gone.
    pub(crate) async fn kill(mut self) -> Result<(), Failed> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to end, and says what was wrong with that.
    pub(crate) async fn end(mut self) -> Result<Option<String>, Failed> {
        if let Some(ended) = self.child.try_wait()? {
            return Ok(Some(format!("the daemon {} had ended by itself: {ended}", self.number)));
        }
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        match timeout(READY, self.child.wait()).await {
            Ok(ended) => {
                let ended = ended?;
                Ok((!ended.success()).then(|| format!("the daemon {} ended with {ended}", self.number)))
            }
            Err(_) => {
                self.child.kill().await?;
                Ok(Some(format!("the daemon {} did not end when it was told to", self.number)))
            }
        }
    }
}
