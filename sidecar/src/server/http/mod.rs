//! The HTTP listener: health, numbers, leaders and members, for reading only. What it shows is public to whoever
//! reaches it.

mod address;
mod answers;
mod events;
mod groups;
mod kept;
mod leaders;
mod places;
mod routes;
mod views;

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tenure::Leader;
use tenure_kv::Key;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_util::task::TaskTracker;

pub(super) use self::address::address;
#[cfg(feature = "fuzzing")]
pub(crate) use self::routes::question;
use self::{
    groups::Group,
    kept::Kept,
    places::{Place, Places},
    routes::Reply,
};
use super::{ACCEPT_PAUSE, Daemon, StartError, observers::Observed};

/// How long a client may take to say what it wants, and to keep a connection that it asks nothing on.
const HEADERS: Duration = Duration::from_secs(5);
/// Headers of a request, and the bytes of all of them.
const MAX_HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 << 10;
/// What the kernel keeps of what a client does not read.
const UNREAD: usize = 64 << 10;
/// How long an answer on its way may go on when the daemon leaves.
const FAREWELL: Duration = Duration::from_millis(500);
/// The store is asked when it has not answered anybody for so long.
const PROBE: Duration = Duration::from_secs(1);
/// How long it may take to answer that.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Where it listens, before it serves.
#[derive(Debug)]
pub(super) struct Bound(StdListener);

impl Bound {
    /// Listens on `address`.
    ///
    /// # Errors
    /// When that is not to be had.
    pub(super) fn at(address: SocketAddr) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| {
            StartError::new(format!("cannot listen for HTTP on {address}: {error}; name another port with --http"))
        };
        let listener = StdListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        tracing::info!(address = %listener.local_addr().unwrap_or(address), "serving HTTP");
        Ok(Self(listener))
    }

    /// The same for the runtime that this is called in.
    pub(super) fn listener(self) -> Result<TcpListener, StartError> {
        TcpListener::from_std(self.0).map_err(|error| StartError::new(format!("cannot listen for HTTP: {error}")))
    }
}

/// What all requests share.
#[derive(Debug)]
struct Site {
    daemon: Arc<Daemon>,
    leaders: Kept<Observed<Option<Leader>>>,
    groups: Kept<Group>,
    tasks: TaskTracker,
}

/// Serves so many connections at a time until the daemon closes; then every task of it ends in a moment.
pub(super) async fn serve(daemon: Arc<Daemon>, listener: TcpListener, connections: usize) {
    let site = Arc::new(Site { leaders: Kept::default(), groups: Kept::default(), tasks: TaskTracker::new(), daemon });
    let closing = site.daemon.closing.clone();
    closing.run_until_cancelled(async { tokio::join!(accept(&site, &listener, connections), look_after(&site)) }).await;
    drop(listener);
    site.tasks.close();
    site.tasks.wait().await;
}

/// Lets go of what nobody asks for any more, and finds out whether the store answers where nobody else does.
async fn look_after(site: &Site) {
    let mut ticks = tokio::time::interval(PROBE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let key = Key::new("meta.epoch");
    loop {
        ticks.tick().await;
        site.leaders.sweep();
        site.groups.sweep();
        if let Ok(key) = &key
            && site.daemon.measured.silent_for() >= PROBE
        {
            // Whether it did answer is noted where every answer is.
            let _ = tokio::time::timeout(PROBE_PATIENCE, site.daemon.store.entry(key)).await;
        }
    }
}

async fn accept(site: &Arc<Site>, listener: &TcpListener, connections: usize) {
    let places = Places::new(connections);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(site.tasks.spawn(connection(site.clone(), stream, places.enter(peer.ip())))),
            Err(error) => {
                tracing::debug!(%error, "cannot accept an HTTP connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(site: Arc<Site>, stream: TcpStream, place: Place) {
    let place = Arc::new(place);
    let (ended, closing) = (site.daemon.ended.clone(), site.daemon.closing.clone());
    let _open = site.daemon.metrics.http.open();
    let stall = Duration::from_millis(site.daemon.limits.stall_ms);
    let _ = stream.set_nodelay(true);
    // Where the kernel does not want to, a client that does not read costs more.
    let _ = setsockopt(&stream, sockopt::SndBuf, &UNREAD);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(stall));
    let asked = place.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (site, place) = (site.clone(), asked.clone());
        async move {
            let _asking = place.asks();
            Reply::to(&site, &place, &request).await
        }
    });
    let mut serving = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_headers(MAX_HEADERS)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
    );
    let serve = async {
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = place.gives_way() => return Ok(()),
            served = serving.as_mut() => return served,
        }
        serving.as_mut().graceful_shutdown();
        tokio::time::timeout(FAREWELL, serving).await.unwrap_or(Ok(()))
    };
    if let Some(Err(error)) = ended.run_until_cancelled(serve).await {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}
