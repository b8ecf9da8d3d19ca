//! What clients of the daemon have in common.

use std::{path::Path, time::Duration};

use serde::Deserialize as _;
use tenure_sidecar::{
    Client, Notices,
    protocol::{LeaseNotice, LeaseState},
};

use super::Fault;

/// Connects. The daemon lets everything go once this process has been silent for [`heartbeat`].
pub(crate) async fn connect(socket: &Path, lease: Duration) -> Result<Client, Fault> {
    let client = Client::connect(socket).await?;
    client.keep_alive(heartbeat(lease)).await?;
    Ok(client)
}

/// How long a process with this lease may be silent: as long as one without a daemon may.
pub(crate) fn heartbeat(lease: Duration) -> Duration {
    lease.max(Duration::from_millis(500))
}

/// Resolves when `lease` is lost, and says why. `notices` were taken before it was acquired.
pub(crate) async fn lost(notices: &mut Notices, lease: &str) -> String {
    while let Some(notice) = notices.recv().await {
        if notice.method != "lease" {
            continue;
        }
        if let Ok(notice) = LeaseNotice::deserialize(notice.params)
            && (notice.lease.as_str(), notice.state) == (lease, LeaseState::Lost)
        {
            return notice.reason.unwrap_or_default();
        }
    }
    "the connection to the daemon is closed".to_owned()
}

/// As durations go over the socket.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
