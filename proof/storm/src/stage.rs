//! What the clients of a history run on: servers or a daemon, with wires that can be cut in between.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tenure_check::history::Line;
use tenure_tests::{NatsCluster, NatsSetup, Proxy, nats_server_before, unique_bucket};
use tokio::sync::Mutex;

use crate::{
    Failed,
    options::Options,
    stream::{Observed, Stream},
    tape::{self, Taped},
};

/// Everything that clients run on.
#[derive(Debug)]
pub(crate) enum Stage {
    /// NATS servers.
    Nats(Box<Nats>),
    /// What a daemon has for itself.
    Embedded(Embedded),
}

/// A store that only a daemon can use.
#[derive(Debug)]
pub(crate) struct Embedded {
    /// Its URL.
    pub(crate) url: String,
    /// It is gone with its daemon.
    pub(crate) volatile: bool,
    /// A disk of its own, small enough to be filled.
    pub(crate) disk: Option<Disk>,
    /// Where daemons write down what they commit.
    dir: PathBuf,
}

impl Embedded {
    pub(crate) fn in_memory(options: &Options) -> Self {
        Self { url: "memory:".to_owned(), volatile: true, disk: None, dir: options.out.clone() }
    }

    pub(crate) fn in_file(options: &Options) -> Self {
        let disk = if options.faults.include("disk-full") { Disk::mount(&options.out) } else { None };
        let place = disk.as_ref().map_or(&options.out, |disk| &disk.place).join("store.db");
        Self { url: format!("file:{}", place.display()), volatile: false, disk, dir: options.out.clone() }
    }

    /// What the daemons have written down.
    fn observed(&self) -> Result<Observed, Failed> {
        let mut writes = BTreeMap::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "writes") {
                for taped in tape::read(&path)? {
                    if let Taped::Line(Line::Write(write)) = taped {
                        writes.insert((write.epoch, write.revision), write);
                    }
                }
            }
        }
        Ok(Observed {
            writes: writes.into_values().collect(),
            notes: vec!["stream: told by the daemon".to_owned()],
            clashes: Vec::new(),
        })
    }
}

/// NATS servers, one bucket on them, and its observer.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(crate) servers: Mutex<NatsCluster>,
    pub(crate) stream: Stream,
    pub(crate) bucket: String,
    /// The bucket's URL, straight to the servers.
    pub(crate) url: String,
    /// The servers, in their order.
    pub(crate) hosts: Vec<String>,
    /// How long clients wait for an answer.
    patience: Duration,
    /// What the servers keep survives a cut of the power.
    pub(crate) durable: bool,
    /// The servers are of the release line before, and can be upgraded.
    pub(crate) old: bool,
    /// A disk of its own for the first server, small enough to be filled.
    pub(crate) disk: Option<Disk>,
}

impl Nats {
    pub(crate) async fn start(size: usize, options: &Options, rng: &mut fastrand::Rng) -> Result<Self, Failed> {
        let durable = rng.bool();
        let wants = |name: &str| options.faults.include(name);
        let old = wants("upgrade") && rng.u8(0..3) > 0;
        let binary = if old { Some(tokio::task::spawn_blocking(nats_server_before).await??) } else { None };
        let disk = if wants("disk-full") { Disk::mount(&options.out) } else { None };
        let stores = disk.iter().map(|disk| disk.place.join("store")).collect();
        let jetstream = if durable { "sync_interval: always".to_owned() } else { String::new() };
        let setup = NatsSetup { extra: String::new(), jetstream, binary, wired: true, stores };
        let servers = NatsCluster::start_as(size, setup).await;
        let bucket = unique_bucket("storm");
        let url = servers.url(&bucket);
        let hosts = servers.client_urls();
        // The bucket is there before anybody looks.
        tenure_kv::open(&url).await?;
        let stream = Stream::of(&hosts, &url, &bucket);
        let patience = Duration::from_millis(rng.u64(1_000..5_000));
        Ok(Self { servers: Mutex::new(servers), stream, bucket, url, hosts, patience, durable, old, disk })
    }

    /// A way of a client's own, and its wires.
    async fn way(&self) -> (String, Vec<Proxy>) {
        let mut wires = Vec::new();
        for host in &self.hosts {
            wires.push(Proxy::to(host).await);
        }
        let hosts: Vec<_> = wires.iter().map(|wire| wire.client_url().trim_start_matches("nats://").to_owned()).collect();
        let url = format!(
            "nats://{}/{}?replicas={}&timeout={}ms",
            hosts.join(","),
            self.bucket,
            self.hosts.len(),
            self.patience.as_millis()
        );
        (url, wires)
    }
}

impl Stage {
    /// A store's URL of a client's own, and the wires that it goes over.
    pub(crate) async fn way(&self) -> (String, Vec<Proxy>) {
        match self {
            Self::Nats(nats) => nats.way().await,
            Self::Embedded(embedded) => (embedded.url.clone(), Vec::new()),
        }
    }

    /// The small disk, where there is one.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        match self {
            Self::Nats(nats) => nats.disk.as_ref(),
            Self::Embedded(embedded) => embedded.disk.as_ref(),
        }
    }

    /// For people: what was drawn for it.
    pub(crate) fn notes(&self) -> Vec<String> {
        match self {
            Self::Nats(nats) => {
                let mut notes = vec![format!("servers: sync {}", if nats.durable { "always" } else { "by default" })];
                if nats.old {
                    notes.push("servers: begin with the release line before".to_owned());
                }
                notes
            }
            Self::Embedded(_) => Vec::new(),
        }
    }

    /// Ends it, and tells what its stream was.
    pub(crate) async fn finish(self) -> Result<Observed, Failed> {
        match self {
            Self::Nats(nats) => Ok(nats.stream.finish().await),
            Self::Embedded(embedded) => embedded.observed(),
        }
    }
}

/// Where a history's disk is, in its own directory.
const DISK: &str = "disk";

/// A small disk in memory. Unmounted on drop.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) place: PathBuf,
}

impl Disk {
    /// `None` where this process may not mount anything.
    fn mount(out: &Path) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let place = out.join(DISK);
        std::fs::create_dir_all(&place).ok()?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tenure-storm"]).arg(&place).output().ok()?;
        mounted.status.success().then_some(Self { place })
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }

    /// Leaves no room on it.
    pub(crate) fn fill(&self) -> std::io::Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.filler())?;
        let block = vec![0x55; 64 << 10];
        // Until there is no room, and then what is left of the last block.
        for size in [64 << 10, 1 << 10, 1] {
            while file.write_all(&block[..size]).is_ok() {}
        }
        Ok(())
    }

    /// Makes room again.
    pub(crate) fn free(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.filler())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that has just been killed may still have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.place).output();
    }
}

/// Takes down what an earlier history that was killed has left in `out`.
pub(crate) fn unmount(out: &Path) {
    let place = out.join(DISK);
    if place.exists() {
        drop(Disk { place });
    }
}
