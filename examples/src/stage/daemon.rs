//! How the processes of a run reach the store, and the daemon of those that cannot share it: what the `tenured`
//! program is, in a process of its own.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tenure_sidecar::{
    protocol::Limits,
    server::{Access, Config, Server},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{Crew, Fault, Reports, report, role};

/// How the processes of a run reach the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each opens it.
    Direct {
        /// Its URL.
        store: String,
    },
    /// Over the socket of a daemon, which alone has it open.
    Daemon {
        /// Its URL.
        store: String,
        /// Where the daemon listens.
        socket: PathBuf,
    },
}

impl Way {
    /// The way to `store`, or to an embedded one in `dir`, the directory of the run.
    pub(crate) fn to(store: Option<&str>, dir: &Path) -> Self {
        let store = store.map_or_else(|| format!("file:{}", dir.join("store").display()), str::to_owned);
        // Only one process at a time can use an embedded store.
        if matches!(store.split(':').next(), Some("memory" | "file")) {
            return Self::Daemon { store, socket: dir.join("tenured.sock") };
        }
        Self::Direct { store }
    }

    /// Opens it before anybody needs it, with a daemon where that takes one; what it leads to, for people.
    pub(crate) async fn open(&self, crew: &mut Crew, reports: &mut Reports) -> Result<String, Fault> {
        match self {
            Self::Direct { store } => Ok(tenure_kv::open(store).await?.info().url.clone()),
            Self::Daemon { store, .. } => {
                crew.start_daemon(reports).await?;
                Ok(format!("a daemon with the store {store}"))
            }
        }
    }

    /// What else is ended with the processes.
    pub(crate) const fn and_the_daemon(&self) -> &'static str {
        match self {
            Self::Direct { .. } => "",
            Self::Daemon { .. } => " and the daemon",
        }
    }
}

/// What the daemon tells the director.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(super) enum News {
    /// It takes connections.
    Listening,
    /// It gives up.
    Failed { message: String },
}

/// The daemon's process.
pub(crate) async fn run(way: &Way, lease: Duration) -> Result<ExitCode, Fault> {
    let Way::Daemon { store, socket } = way else { return Err("this store needs no daemon".into()) };
    let serving = serve(socket.clone(), store.clone(), lease, || report(News::Listening));
    role(serving, |message| News::Failed { message }).await
}

/// Serves `store` until SIGTERM, and then drains. `listening` is called when clients can connect.
pub(crate) async fn serve(
    socket: PathBuf,
    store: String,
    lease: Duration,
    listening: impl FnOnce() -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut terminate = signal(SignalKind::terminate())?;
    let config = Config {
        socket,
        access: Access { mode: 0o600, group: None },
        store,
        lease: Some(lease),
        // One worker may come to own every partition of a group.
        limits: Limits { leases: 4_096, ..Limits::default() },
        drain: Duration::from_secs(5),
        ..Config::default()
    };
    let server = Server::start(config).await?;
    listening()?;
    let leave = async {
        terminate.recv().await;
    };
    server.run(leave, std::future::pending()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stores_that_processes_share_are_opened_by_each() {
        let dir = Path::new("/run/x");
        let daemon = |store: &str| Way::Daemon { store: store.into(), socket: "/run/x/tenured.sock".into() };
        assert_eq!(Way::to(None, dir), daemon("file:/run/x/store"));
        for store in ["memory:", "memory", "file:a/b"] {
            assert_eq!(Way::to(Some(store), dir), daemon(store));
        }
        for store in ["nats://h/b", "tls://h/b", "redis://h"] {
            assert_eq!(Way::to(Some(store), dir), Way::Direct { store: store.into() });
        }
    }
}
