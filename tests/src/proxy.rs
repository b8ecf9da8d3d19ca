//! A wire between a client and a server that a test can cut, mend, and make one-way.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    /// New connections are closed.
    cut: bool,
    /// What the server says is swallowed.
    mute: bool,
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
        self.wire.send_modify(|wire| *wire = Wire { cut: true, mute: false, generation: wire.generation + 1 });
    }

    /// Passes what clients say and swallows what the server answers.
    pub fn mute(&self) {
        self.wire.send_modify(|wire| wire.mute = true);
    }

    /// Forwards everything again. What was swallowed stays lost, so a connection that was muted is closed.
    pub fn mend(&self) {
        self.wire.send_modify(|wire| {
            *wire = Wire { cut: false, mute: false, generation: wire.generation + u64::from(wire.mute) };
        });
    }
}

async fn forward(mut client: TcpStream, target: String, mut wire: watch::Receiver<Wire>) {
    let Wire { cut, mut mute, generation } = *wire.borrow_and_update();
    if cut {
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let (mut asked, mut said) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let passed: io::Result<()> = tokio::select! {
            changed = wire.changed() => {
                let now = *wire.borrow_and_update();
                if changed.is_err() || now.generation != generation {
                    return;
                }
                mute = now.mute;
                Ok(())
            }
            count = from_client.read(&mut asked) => match count {
                Ok(0) | Err(_) => return,
                Ok(count) => to_server.write_all(&asked[..count]).await,
            },
            count = from_server.read(&mut said) => match count {
                Ok(0) | Err(_) => return,
                Ok(_) if mute => Ok(()),
                Ok(count) => to_client.write_all(&said[..count]).await,
            },
        };
        if passed.is_err() {
            return;
        }
    }
}
