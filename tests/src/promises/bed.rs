//! Where the promises are tested: one bucket, and as many handles to it as there are processes in a test.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tempfile::TempDir;
use tenure::Session;
use tenure_kv::{Key, Memory, Store, StoreExt};

use super::{
    line::Line,
    support::{LONG, MS, Must, until},
};
use crate::{NatsCluster, NatsServer, unique_bucket};

/// A bucket of its own for one test. Clones share it.
#[derive(Clone, Debug)]
pub struct Bed {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Memory(Memory),
    File { store: Arc<dyn Store>, directory: Arc<TempDir> },
    Nats { url: String, client_urls: Vec<String>, bucket: String },
}

impl Bed {
    /// A store in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self { kind: Kind::Memory(Memory::new()) }
    }

    /// A store in a file of its own.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn file() -> Self {
        let directory = tempfile::tempdir().must("a directory for the file store");
        let url = format!("file:{}", directory.path().join("bucket").display());
        let store = tenure_kv::open(&url).await.must(&url);
        Self { kind: Kind::File { store, directory: Arc::new(directory) } }
    }

    /// A bucket on one server.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn on_server(server: &NatsServer) -> Self {
        let bucket = unique_bucket("promise");
        Self::nats(server.url(&bucket), server.client_urls(), bucket).await
    }

    /// A bucket with a copy on every server of a cluster.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn on_cluster(cluster: &NatsCluster) -> Self {
        let bucket = unique_bucket("promise");
        Self::nats(cluster.url(&bucket), cluster.client_urls(), bucket).await
    }

    async fn nats(url: String, client_urls: Vec<String>, bucket: String) -> Self {
        let bed = Self { kind: Kind::Nats { url, client_urls, bucket } };
        bed.settle().await;
        bed
    }

    /// A new bucket that others can write to grants nothing for one lease, once. Gets that over with.
    async fn settle(&self) {
        let session = self.session(150 * MS).await;
        let store = session.store().clone();
        let epoch = Key::new("meta.epoch").must("a key");
        until(LONG, "the new bucket is settled", || async {
            let (value, _) = store.get(&epoch).await.ok()??;
            let record: serde_json::Value = serde_json::from_slice(&value).must("the epoch record is JSON");
            record["settled"].as_bool().filter(|settled| *settled)
        })
        .await;
        session.close().await.must("the first session closes");
    }

    /// A handle as a process of its own has it: on NATS with a connection of its own.
    pub(super) async fn store(&self) -> Arc<dyn Store> {
        match &self.kind {
            Kind::Memory(memory) => Arc::new(memory.clone()),
            Kind::File { store, .. } => store.clone(),
            Kind::Nats { url, .. } => tenure_kv::open(url).await.must(url),
        }
    }

    /// The URL of a store of the same kind that others may open: on NATS the same one.
    pub(super) fn other_url(&self) -> String {
        match &self.kind {
            Kind::Memory(_) => "memory:".to_owned(),
            Kind::File { directory, .. } => format!("file:{}", directory.path().join("other").display()),
            Kind::Nats { url, .. } => url.clone(),
        }
    }

    /// A handle that can be meddled with.
    pub(super) async fn line(&self) -> Line {
        Line::to(self.store().await)
    }

    /// A session in a process of its own.
    pub(super) async fn session(&self, lease: Duration) -> Session {
        self.process(lease).await.1
    }

    /// Sessions in as many processes.
    pub(super) async fn sessions(&self, count: usize, lease: Duration) -> Vec<Session> {
        futures::stream::iter(0..count).map(|_| self.session(lease)).buffered(8).collect().await
    }

    /// A process: its line and its session.
    pub(super) async fn process(&self, lease: Duration) -> (Line, Session) {
        let line = self.line().await;
        let session = open(&line, lease).await;
        (line, session)
    }

    /// The name of the bucket, on NATS.
    pub(super) fn bucket(&self) -> Option<&str> {
        match &self.kind {
            Kind::Nats { bucket, .. } => Some(bucket),
            _ => None,
        }
    }

    /// Whether the bucket has copies on several servers, so that some promises allow more time.
    pub(super) fn is_replicated(&self) -> bool {
        matches!(&self.kind, Kind::Nats { client_urls, .. } if client_urls.len() > 1)
    }

    /// Makes the bucket anew, empty. Processes in memory or on a file have to be led to the returned
    /// store; others find the new bucket under the old name.
    pub(super) async fn make_anew(&self) -> Option<Arc<dyn Store>> {
        match &self.kind {
            Kind::Memory(_) | Kind::File { .. } => Some(Arc::new(Memory::new())),
            Kind::Nats { url, client_urls, bucket } => {
                let client = async_nats::connect(client_urls.as_slice()).await.must("a client for the operator");
                let stream = format!("KV_{bucket}");
                async_nats::jetstream::new(client).delete_stream(&stream).await.must("the operator deletes the bucket");
                tenure_kv::open(url).await.must("the bucket is made again");
                None
            }
        }
    }
}

/// A session over `line`.
pub(super) async fn open(line: &Line, lease: Duration) -> Session {
    Session::builder(line.store.clone()).lease(lease).label("promises").open().await.must("a session opens")
}
