//! What a service manager hands over and is told: the socket it listens on, ready, reloading, alive, stopping.
//!
//! The protocols are those of systemd's `sd_listen_fds(3)` and `sd_notify(3)`. Without one nothing here does anything.

use std::{os::unix::net::UnixListener, time::Duration};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use sd_notify::NotifyState;

use super::StartError;

/// What the daemon may need to end beside its drain.
const MARGIN: Duration = Duration::from_secs(5);

/// The socket that the service manager listens on for this daemon; `None` where it does not.
///
/// # Errors
/// When what it hands over is not one Unix stream socket that listens.
pub(super) fn socket() -> Result<Option<UnixListener>, StartError> {
    let mut given = ListenFd::from_env();
    let refused =
        |what: &str| StartError::new(format!("the service manager hands over {what}; give its unit one ListenStream=PATH"));
    if given.len() > 1 {
        return Err(refused("several sockets"));
    }
    let listener = given.take_unix_listener(0).map_err(|error| refused(&format!("no Unix socket ({error})")))?;
    match listener {
        // A stream that is connected looks the same until something is to be accepted.
        Some(stream) if !socket_acceptconn(&stream).unwrap_or(false) => Err(refused("a socket that does not listen")),
        listener => Ok(listener),
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told how the daemon is");
    }
}

/// Clients are served from now on.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again, until [`ready`].
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock; the service manager is not told of the reload"),
    }
}

/// The daemon leaves, which takes up to `drain`.
pub(super) fn stopping(drain: Duration) {
    // It kills after a time of its own that may be shorter.
    let most = u32::try_from((drain + MARGIN).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(most)]);
}

/// Says again and again that the daemon is alive, if the service manager wants to hear that. Never ends.
///
/// It speaks from where connections are served: once that stands still nothing is said.
///
/// # Cancel safety
/// Safe to drop.
pub(super) async fn alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut beats = tokio::time::interval(limit / 3);
    loop {
        beats.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}
