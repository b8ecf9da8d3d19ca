//! The daemon of a run: what the `tenured` program is, in a process of its own.

use std::time::Duration;

use tenure_sidecar::{
    protocol::Limits,
    server::{Access, Config, Server},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Fault,
    options::{Options, Place},
    record::News,
    worker::report,
};

/// Serves the store to the workers until SIGTERM, and then drains.
pub(super) async fn run(options: &Options) -> Result<(), Fault> {
    let mut terminate = signal(SignalKind::terminate())?;
    let place = Place::of(options)?;
    let config = Config {
        socket: place.socket(),
        access: Access { mode: 0o600, group: None },
        store: options.store.clone().unwrap_or_else(|| place.store()),
        lease: Some(options.lease),
        limits: Limits::default(),
        drain: Duration::from_secs(5),
    };
    let server = Server::start(config).await?;
    report(News::Listening)?;
    let leave = async {
        terminate.recv().await;
    };
    server.run(leave, std::future::pending()).await?;
    Ok(())
}
