//! Watching what changes until interrupted: subscriptions to the daemon, and their end.

use std::time::Duration;

use futures::FutureExt;
use serde::Serialize;

use super::{
    End as ExitEnd,
    daemon::{Daemon, PATIENCE, failure, unanswered},
    exit::Failure,
    keep::interrupted,
    run::Signals,
};
use crate::{
    CallError,
    protocol::{Happening, Kind},
};

/// The pause before a subscription that was ended is asked for again.
const AGAIN: Duration = Duration::from_millis(500);

/// Why a subscription ends whose daemon leaves.
const LEAVING: &str = "leaving";

/// Why a subscription is over.
#[derive(Debug)]
pub(super) enum End {
    /// The daemon is gone, or leaves.
    Gone(String),
    /// The daemon ended it and may be asked again; why.
    Ended(String),
}

/// Does `work` until a signal ends it.
pub(super) async fn until_interrupted(
    signals: &mut Signals,
    work: impl Future<Output = Result<ExitEnd, Failure>>,
) -> Result<ExitEnd, Failure> {
    tokio::select! {
        biased;
        signal = signals.next_that_ends() => interrupted(signal.as_raw()),
        done = work => done,
    }
}

/// Subscribes on the latest connection and tells what happens until that is over.
pub(super) async fn subscribe(
    daemon: &Daemon,
    method: &str,
    params: impl Serialize,
    mut tell: impl FnMut(Happening),
) -> Result<End, Failure> {
    follow(daemon, method, params, async |what| tell(what)).await
}

/// The same for one who takes time to be told. Whoever takes too long has the subscription end, and is told to ask again.
pub(super) async fn follow(
    daemon: &Daemon,
    method: &str,
    params: impl Serialize,
    mut tell: impl AsyncFnMut(Happening),
) -> Result<End, Failure> {
    let client = daemon.client();
    let gone = || End::Gone("tenured went away; waiting for the next one".to_owned());
    let answer = tokio::time::timeout(PATIENCE, client.subscribe(method, params)).await;
    let mut events = match answer.map_err(|_| unanswered(daemon.path()))? {
        Ok(events) => events,
        Err(CallError::Closed) => return Ok(gone()),
        Err(error) if error.kind() == Some(Kind::Unavailable) => return Ok(gone()),
        Err(error) => return Err(failure(&error)),
    };
    loop {
        let reason = match events.recv().await {
            Some(Happening::End { reason }) if reason == LEAVING => return Ok(gone()),
            Some(Happening::End { reason }) => reason,
            Some(what) => {
                tell(what).await;
                continue;
            }
            None if client.closed().now_or_never().is_some() => return Ok(gone()),
            None => "it was not read in time".to_owned(),
        };
        tokio::time::sleep(AGAIN).await;
        return Ok(End::Ended(format!("tenured ended the subscription ({reason}); asking again")));
    }
}
