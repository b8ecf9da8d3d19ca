//! One HTTP server: joins, answers, drains when it is asked to end.

use std::{
    convert::Infallible,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::TaskTracker;

use super::{
    coordination::Registration,
    options::{Options, Sabotage},
};
use crate::stage::{Fault, report, role};

/// How long clients have to hear that a server drains. It answers them all the while.
const SETTLE: Duration = Duration::from_millis(500);

/// What happened to a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(super) enum News {
    /// It is in the group.
    Joined { address: String },
    /// The group knows that it drains.
    Draining { served: u64 },
    /// It has left the group with nothing under way.
    Left { served: u64, late: u64 },
    /// It gives up.
    Failed { message: String },
}

#[derive(Debug, Default)]
struct Served {
    all: AtomicU64,
    /// Those that came when all should have known that it drains.
    late: AtomicU64,
    draining: AtomicBool,
}

/// Serves until SIGTERM, then drains.
pub(super) async fn run(options: &Options) -> Result<ExitCode, Fault> {
    role(serve(options), |message| News::Failed { message }).await
}

async fn serve(options: &Options) -> Result<(), Fault> {
    let (Some(name), Some(run)) = (&options.setting.name, &options.setting.run) else {
        return Err("--role is for processes that the director starts; leave it out".into());
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let served = Arc::new(Served::default());
    let connections = TaskTracker::new();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(connections.spawn(answer(stream, Bytes::from(name.clone()), served.clone()))),
                Err(error) => return Fault::from(error),
            }
        }
    };
    tokio::pin!(accept);
    let mut here = Registration::join(&options.setting.way(), run, name, options.lease, address.clone()).await?;
    report(News::Joined { address })?;
    tokio::select! {
        fault = &mut accept => return Err(fault),
        why = here.lost() => return Err(format!("the server is no longer in its group: {why}").into()),
        _ = terminate.recv() => {}
    }
    if options.sabotage == Some(Sabotage::NoDrain) {
        std::process::exit(0);
    }
    tokio::select! {
        fault = &mut accept => return Err(fault),
        drained = here.drain() => drained?,
    }
    report(News::Draining { served: served.all.load(Ordering::Relaxed) })?;
    tokio::select! {
        fault = &mut accept => return Err(fault),
        () = async {
            // A client may have chosen this server a moment before it heard.
            sleep(SETTLE / 2).await;
            served.draining.store(true, Ordering::Relaxed);
            sleep_until(Instant::now() + SETTLE / 2).await;
        } => {}
    }
    connections.close();
    connections.wait().await;
    here.leave().await?;
    report(News::Left { served: served.all.load(Ordering::Relaxed), late: served.late.load(Ordering::Relaxed) })
}

async fn answer(stream: TcpStream, name: Bytes, served: Arc<Served>) {
    let service = service_fn(|_: Request<Incoming>| {
        let (name, served) = (name.clone(), served.clone());
        async move {
            if served.draining.load(Ordering::Relaxed) {
                served.late.fetch_add(1, Ordering::Relaxed);
            }
            let count = served.all.fetch_add(1, Ordering::Relaxed);
            // Some requests are more work than others.
            sleep(Duration::from_millis(5 + count * 7 % 20)).await;
            Ok::<_, Infallible>(Response::new(Full::new(name)))
        }
    });
    // A client that goes away is no trouble of ours.
    let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
}
