//! A daemon in the test's own process, on a store that misbehaves on command.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use tempfile::TempDir;
use tenure_kv::{
    Memory, Store,
    faults::{Faults, Faulty},
};
use tenure_sidecar::{
    Client,
    protocol::Limits,
    server::{Config, Server, StartError},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const DRAIN: Duration = Duration::from_millis(100);

/// A daemon in this process, on a store whose faults the test decides.
pub(crate) struct Rig {
    pub(crate) directory: TempDir,
    pub(crate) faults: Faults,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) leave: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), StartError>>,
}

impl Rig {
    pub(crate) fn new(lease: Duration, drain: Duration) -> Self {
        Self::with(lease, drain, Limits::default())
    }

    pub(crate) fn with(lease: Duration, drain: Duration, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let (faulty, faults) = Faulty::new(store.clone());
        let socket = directory.path().join("s.sock");
        let config = Config { socket, lease: Some(lease), drain, limits, ..Config::default() };
        let server = Server::with_store(config, faulty).unwrap();
        let leave = CancellationToken::new();
        let serving = tokio::spawn(server.run(leave.clone().cancelled_owned(), std::future::pending()));
        Self { directory, faults, store, leave, serving }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.socket()).await.unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("s.sock")
    }

    pub(crate) async fn leave(self) {
        self.leave.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap().unwrap();
    }
}
