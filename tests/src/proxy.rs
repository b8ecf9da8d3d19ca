//! A wire between a client and a server that a test can cut, mend, slow down, and make one-way.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

/// Pieces under way in one direction of a connection; more wait with their sender.
const PIECES: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    /// New connections are closed.
    cut: bool,
    /// What the server says is swallowed.
    mute: bool,
    /// How late everything comes.
    delay: Duration,
    /// Connections from before this changed are closed.
    generation: u64,
}

/// Forwards TCP connections to a server on this machine until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    wire: Arc<watch::Sender<Wire>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own for connections to the server at `url` (`nats://127.0.0.1:PORT`).
    ///
    /// # Panics
    /// When `url` names no address of this machine, or nothing can be listened on.
    pub async fn to(url: &str) -> Self {
        let target = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap_or_else(|e| panic!("no port for a proxy: {e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("no address of a proxy: {e}"));
        let wire = Arc::new(watch::Sender::new(Wire::default()));
        let told = wire.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, target.clone(), told.subscribe()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, wire, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Where clients connect.
    pub fn client_url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// The store URL of `bucket`.
    pub fn url(&self, bucket: &str) -> String {
        format!("{}/{bucket}", self.client_url())
    }

    /// Closes every connection and every new one.
    pub fn cut(&self) {
        self.wire.send_modify(|wire| *wire = Wire { cut: true, generation: wire.generation + 1, ..Wire::default() });
    }

    /// Passes what clients say and swallows what the server answers.
    pub fn mute(&self) {
        self.wire.send_modify(|wire| wire.mute = true);
    }

    /// Passes everything on so much later than it came.
    pub fn slow(&self, by: Duration) {
        self.wire.send_modify(|wire| wire.delay = by);
    }

    /// Forwards everything again, and at once. What was swallowed stays lost, so a connection that was muted is closed.
    pub fn mend(&self) {
        self.wire.send_modify(|wire| {
            *wire = Wire { generation: wire.generation + u64::from(wire.mute), ..Wire::default() };
        });
    }
}

async fn forward(mut client: TcpStream, target: String, wire: watch::Receiver<Wire>) {
    let Wire { cut, generation, .. } = *wire.borrow();
    if cut {
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let mut news = wire.clone();
    let broken = news.wait_for(|now| now.generation != generation);
    // The first that ends takes the whole connection with it.
    tokio::select! {
        _ = broken => {}
        () = pass(from_client, to_server, &wire, false) => {}
        () = pass(from_server, to_client, &wire, true) => {}
    }
}

/// Passes on what comes, each piece as late as the wire is slow, and `answers` only while it is not mute.
async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, wire: &watch::Receiver<Wire>, answers: bool) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let take = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let Wire { mute, delay, .. } = *wire.borrow();
            if !(mute && answers) && sender.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let give = async move {
        while let Some((at, piece)) = pieces.recv().await {
            if at > Instant::now() {
                sleep_until(at).await;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    // What came before the end is passed on. Who cannot write any more has its sender end with the next piece.
    tokio::join!(take, give);
}
