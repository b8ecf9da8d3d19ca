//! Asking for something that becomes a lease: what acquiring, campaigning and joining have in common.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tenure::Error;
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Connection, Waits},
    errors,
    held::{self, Held},
    leases::{Lease, Reserved},
    metrics::Waiting,
    sessions::{PATIENCE, SessionUse, millis},
};
use crate::protocol::{ErrorObject, Kind};

/// The longest `label` in bytes.
const MAX_LABEL: usize = 256;
/// How long a try that is on its way may go on when nobody wants it any more.
const GRACE: Duration = Duration::from_millis(250);

/// What every such request says.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) kind: held::Kind,
    pub(super) wait_ms: Option<u64>,
    pub(super) lease_ms: Option<u64>,
    pub(super) label: Option<&'a str>,
}

/// A request that may become a lease: checked, and with room for it.
#[derive(Debug)]
pub(super) struct Asking {
    lease: Option<Duration>,
    wait: Option<Duration>,
    begun: Instant,
    waiting: Waiting,
    reserved: Reserved,
    waits: Arc<Waits>,
    cancel: CancellationToken,
}

/// How a lease was granted.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) lease: Arc<Lease>,
    pub(super) waited_ms: u64,
    pub(super) remaining_ms: u64,
    pub(super) lease_ms: u64,
}

impl Asking {
    /// Checks what needs no store.
    pub(super) fn new(connection: &Connection, terms: &Terms<'_>, cancel: CancellationToken) -> Result<Self, ErrorObject> {
        let limits = &connection.daemon.limits;
        let refuse = |param: &str, said: String| Err(errors::param(param, format!("{}: {param}: {said}", terms.kind.ask())));
        if let Some(lease) = terms.lease_ms
            && !(limits.min_lease_ms..=limits.max_lease_ms).contains(&lease)
        {
            let said = format!(
                "{lease} is outside {} to {}; leave it out for {}",
                limits.min_lease_ms, limits.max_lease_ms, limits.default_lease_ms
            );
            return refuse("lease_ms", said);
        }
        if let Some(label) = terms.label
            && (label.len() > MAX_LABEL || label.chars().any(char::is_control))
        {
            return refuse("label", format!("a label has at most {MAX_LABEL} bytes and no control characters"));
        }
        if connection.daemon.draining.is_cancelled() {
            return Err(errors::leaving());
        }
        Ok(Self {
            lease: terms.lease_ms.map(Duration::from_millis),
            wait: terms.wait_ms.map(Duration::from_millis),
            begun: Instant::now(),
            waiting: connection.daemon.metrics.waits(terms.kind),
            reserved: connection.leases.reserve()?,
            waits: connection.waits(),
            cancel,
        })
    }

    /// Resolves when nobody wants it any more.
    pub(super) async fn unwanted(&self) {
        tokio::select! {
            () = self.waits.token.cancelled() => {}
            () = self.cancel.cancelled() => {}
        }
    }

    /// The session to ask with.
    pub(super) async fn session(&self, connection: &Connection) -> Result<SessionUse, ErrorObject> {
        let opening = async {
            let opening = connection.daemon.sessions.get(self.lease);
            let Some(wait) = self.wait else { return opening.await };
            let patience = if wait.is_zero() { PATIENCE } else { wait };
            tokio::time::timeout(patience, opening).await.unwrap_or_else(|_| Err(errors::not_reached()))
        };
        tokio::select! {
            biased;
            () = self.unwanted() => Err(self.waits.error()),
            session = opening => session,
        }
    }

    /// Whether it is to be tried once only.
    pub(super) fn is_try(&self) -> bool {
        self.wait.is_some_and(|wait| wait.is_zero())
    }

    /// Resolves when the wait is over.
    pub(super) async fn given_up(&self) {
        let Some(wait) = self.wait else { return self.unwanted().await };
        tokio::select! {
            () = tokio::time::sleep(wait.saturating_sub(self.begun.elapsed())) => {}
            () = self.unwanted() => {}
        }
    }

    /// One try, which goes on for a moment when nobody wants it any more.
    pub(super) async fn once<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<Result<T, Error>, ErrorObject> {
        tokio::select! {
            biased;
            tried = work => Ok(tried),
            () = async { self.unwanted().await; tokio::time::sleep(GRACE).await } => Err(self.waits.error()),
        }
    }

    /// What came of it, as a lease of the connection.
    pub(super) async fn granted(
        self,
        connection: &Arc<Connection>,
        tried: Result<Held, Error>,
        session: SessionUse,
    ) -> Result<Granted, ErrorObject> {
        if self.waits.token.is_cancelled() {
            // What came all the same goes back before anybody is told.
            if let Ok(held) = tried
                && let Err(error) = held.release().await
            {
                tracing::debug!(%error, "released without an answer");
            }
            return Err(self.waits.error());
        }
        let held = tried.map_err(|error| self.refused(&error))?;
        let lease_ms = millis(session.session().lease());
        let (waited_ms, remaining_ms) = (millis(self.begun.elapsed()), millis(held.remaining()));
        // From here on nothing is awaited: the lease is either in the table or given back.
        let Ok(lease) = connection.leases.add(self.reserved, held, session, &self.waits.token) else {
            return Err(self.waits.error());
        };
        let passed_on = connection.daemon.leases.tally.passed_on(lease.kind, &lease.name, self.begun);
        self.waiting.granted(self.begun.elapsed(), passed_on);
        connection.spawn(connection.leases.clone().watch(lease.clone()));
        Ok(Granted { lease, waited_ms, remaining_ms, lease_ms })
    }

    fn refused(&self, error: &Error) -> ErrorObject {
        match error {
            // It is the daemon's session that is lost, and with it a place in the queue: nothing of the client's.
            Error::Lost { loss, .. } => {
                let said = format!("what was waited for was lost before it came up ({loss}); nothing is held, ask again");
                ErrorObject::new(Kind::Unavailable, said).with("reason", loss.as_str())
            }
            error => errors::of(error),
        }
        .with("waited_ms", millis(self.begun.elapsed()))
    }
}
