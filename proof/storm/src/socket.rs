//! A client of the daemon.

use std::{path::Path, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{order::Order, tape::Tape};

/// Connects again and again.
pub(crate) async fn live(_order: &Order, _path: &Path, _tape: &Arc<Tape>, stop: &CancellationToken) {
    stop.cancelled().await;
}
