//! Watching what changes until interrupted: subscriptions to the daemon, and their end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    End as ExitEnd,
    daemon::{Daemon, PATIENCE, failure, unanswered},
    exit::Failure,
    keep::interrupted,
    run::Signals,
};
use crate::{
    CallError,
    protocol::{Event, Happening, Kind, Subscribed},
};

/// The pause before a subscription that was ended is asked for again.
const AGAIN: Duration = Duration::from_millis(500);

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
    let client = daemon.client();
    // From before the call: events may overtake its answer here.
    let mut notices = client.notices();
    let gone = || End::Gone("tenured went away; waiting for the next one".to_owned());
    let answer = tokio::time::timeout(PATIENCE, client.call_as::<Subscribed>(method, params)).await;
    let subscription = match answer.map_err(|_| unanswered(daemon.path()))? {
        Ok(subscribed) => subscribed.subscription,
        Err(CallError::Closed) => return Ok(gone()),
        Err(error) if error.kind() == Some(Kind::Unavailable) => return Ok(gone()),
        Err(error) => return Err(failure(&error)),
    };
    loop {
        let Some(notice) = notices.recv().await else { return Ok(gone()) };
        if notice.method != "event" {
            continue;
        }
        let Ok(event) = Event::deserialize(&notice.params) else { continue };
        if event.subscription.as_deref() != Some(&subscription) {
            continue;
        }
        match event.what {
            Happening::End { reason } if reason == "leaving" => return Ok(gone()),
            Happening::End { reason } => {
                tokio::time::sleep(AGAIN).await;
                return Ok(End::Ended(format!("tenured ended the subscription ({reason}); asking again")));
            }
            what => tell(what),
        }
    }
}
