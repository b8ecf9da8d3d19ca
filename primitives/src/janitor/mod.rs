//! Removes what members of dead sessions left behind.
//!
//! Every session that has had a member, or tends a group, is a candidate; one of them all is elected, with our
//! own election. Only the elected one reads everybody's heartbeats. Whoever takes office begins with everything
//! that is there, so one that is killed in mid-sweep leaves nothing undone. Removing is always safe, whoever
//! else believes to be in office: dead sessions never come back, and every removal is a compare-and-set.

mod ledger;
mod office;

use std::{sync::Arc, time::Duration};

use self::office::Office;
use crate::{Error, Result, Session, session::Inner};

/// The name of the election.
const ELECTION: &str = "tenure/janitor";

/// Makes the session a candidate, once.
pub(crate) fn start(session: &Session) {
    let inner = session.inner();
    if inner.becomes_candidate() {
        let inner = inner.clone();
        session.inner().spawn(async move {
            let lost = inner.lost();
            tokio::select! {
                _ = lost => {}
                () = stand(&inner) => {}
            }
        });
    }
}

/// Campaigns, works, and campaigns again.
async fn stand(inner: &Arc<Inner>) {
    // The task must not keep the session open.
    let session = Session::unowned(inner.clone());
    let mut pause = Duration::from_millis(50);
    loop {
        match serve(&session).await {
            Ok(()) => pause = Duration::from_millis(50),
            Err(error) => {
                tracing::debug!(%error, "the janitor's office is not held; trying again");
                pause = (pause * 2).min(Duration::from_secs(5)).min(inner.lease);
            }
        }
        inner.clock.sleep_until(inner.clock.now() + pause).await;
    }
}

async fn serve(session: &Session) -> Result<()> {
    let leadership = session.election(ELECTION)?.campaign(session.id().to_owned()).await?;
    let inner = session.inner();
    let work = async { Office::open(inner).await?.work(|| leadership.is_leader()).await };
    tokio::select! {
        biased;
        loss = leadership.lost() => Err(Error::lost(loss)),
        outcome = work => outcome,
    }
}
