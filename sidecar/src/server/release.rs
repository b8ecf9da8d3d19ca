//! Giving leases up: one task per lease that goes on until the outcome is known, and those who ask for it.

use std::{sync::Arc, time::Duration};

use tenure::Error;
use tokio::sync::{Notify, watch};

use super::{
    connection::Connection,
    errors, held,
    leases::{End, Lease, Leases},
};
use crate::protocol::{Done, ErrorObject, Kind};

/// The pause after a try in vain, doubled from one to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest of these pauses.
const LONGEST: Duration = Duration::from_secs(2);

/// How the release of one lease goes.
#[derive(Debug, Default)]
pub(super) struct Release {
    progress: watch::Sender<Progress>,
    hurry: Notify,
}

/// What the latest try came to.
#[derive(Clone, Debug, Default)]
pub(super) enum Progress {
    #[default]
    Begun,
    /// The outcome is open, and another try will follow.
    Open(ErrorObject),
    /// That is the outcome.
    Known(Result<(), ErrorObject>),
}

/// A release that was asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// By this request first.
    First(Arc<Lease>, watch::Receiver<Progress>),
    /// By an earlier request, which was not told the outcome.
    Again(Arc<Lease>, watch::Receiver<Progress>),
    /// By an earlier request, which was not told that it has come true since.
    Done,
}

impl Asked {
    pub(super) fn first(lease: Arc<Lease>) -> Self {
        let progress = lease.release.progress.subscribe();
        Self::First(lease, progress)
    }

    pub(super) fn again(lease: Arc<Lease>) -> Self {
        let progress = lease.release.progress.subscribe();
        Self::Again(lease, progress)
    }

    /// Starts what is to be done.
    pub(super) fn begin(&self, connection: &Connection) {
        match self {
            Self::First(lease, _) => connection.spawn(settle(connection.leases.clone(), lease.clone())),
            Self::Again(lease, _) => lease.release.hurry.notify_one(),
            Self::Done => {}
        }
    }

    /// What the next try comes to.
    ///
    /// # Cancel safety
    /// Safe to drop: the release goes on, and whoever asks next hears of it.
    pub(super) async fn outcome(self, leases: Arc<Leases>) -> Result<Done, ErrorObject> {
        let (lease, mut progress) = match self {
            Self::First(lease, progress) | Self::Again(lease, progress) => (lease, progress),
            Self::Done => return Ok(Done {}),
        };
        while progress.changed().await.is_ok() {
            match progress.borrow_and_update().clone() {
                Progress::Begun => {}
                Progress::Open(error) => return Err(error),
                Progress::Known(outcome) => {
                    leases.told(lease.number);
                    return outcome.map(|()| Done {});
                }
            }
        }
        // The sender lives in the lease.
        Err(ErrorObject::new(Kind::Internal, "the release was forgotten"))
    }
}

/// Tries until the outcome is known. The first try after the connection's end is the last: the session behind
/// the lease goes on with it.
async fn settle(leases: Arc<Leases>, lease: Arc<Lease>) {
    let mut pause = PAUSE;
    loop {
        let (tried, again) = {
            let mut held = lease.held.write().await;
            (held::give_up(&mut held).await, held.is_some())
        };
        let end = match &tried {
            Ok(()) => Some(End::Released),
            Err(Error::Lost { loss, .. }) => Some(End::Lost(loss.as_str())),
            Err(_) if again => None,
            Err(_) => Some(End::Open),
        };
        let tried = tried.map_err(|error| errors::of(&error));
        if let Some(end) = end {
            leases.left(lease.number, end);
            lease.over.cancel();
            *lease.held.write().await = None;
            lease.release.progress.send_replace(Progress::Known(tried));
            return;
        }
        if let Err(error) = tried {
            tracing::debug!(lease = lease.number, fence = lease.fence, %error, "not released yet");
            lease.release.progress.send_replace(Progress::Open(error));
        }
        tokio::select! {
            biased;
            () = leases.closed.cancelled() => return,
            () = lease.release.hurry.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST);
    }
}
