//! The methods `lock.*`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tenure::{Error, Guard, Mutex};
use tenure_kv::Revision;
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Connection, Waits},
    errors,
    leases::Reserved,
    sessions::{SessionUse, millis},
};
use crate::protocol::{Done, ErrorObject, Kind, LockAcquire, LockAcquired, LockBreak, LockGet, LockList, LockView, Locks};

/// The longest `label` in bytes.
const MAX_LABEL: usize = 256;
/// How long a try that is on its way may go on when nobody wants the lock any more.
const GRACE: Duration = Duration::from_millis(250);
/// How long one try may take to reach the store.
const PATIENCE: Duration = Duration::from_secs(10);

/// A checked `lock.acquire`.
pub(super) struct Acquire {
    params: LockAcquire,
    lease: Option<Duration>,
    begun: Instant,
    reserved: Reserved,
    waits: Arc<Waits>,
    cancel: CancellationToken,
}

impl Acquire {
    /// Checks what needs no store.
    pub(super) fn new(connection: &Connection, params: LockAcquire, cancel: CancellationToken) -> Result<Self, ErrorObject> {
        let limits = &connection.daemon.limits;
        let refuse = |param: &str, said: String| {
            Err(ErrorObject::new(Kind::InvalidParams, format!("lock.acquire: {param}: {said}")).with("param", param))
        };
        if let Some(lease) = params.lease_ms
            && !(limits.min_lease_ms..=limits.max_lease_ms).contains(&lease)
        {
            let said = format!(
                "{lease} is outside {} to {}; leave it out for {}",
                limits.min_lease_ms, limits.max_lease_ms, limits.default_lease_ms
            );
            return refuse("lease_ms", said);
        }
        if let Some(label) = &params.label
            && (label.len() > MAX_LABEL || label.chars().any(char::is_control))
        {
            return refuse("label", format!("a label has at most {MAX_LABEL} bytes and no control characters"));
        }
        if connection.daemon.draining.is_cancelled() {
            return Err(errors::leaving());
        }
        Ok(Self {
            lease: params.lease_ms.map(Duration::from_millis),
            params,
            begun: Instant::now(),
            reserved: connection.leases.reserve()?,
            waits: connection.waits(),
            cancel,
        })
    }

    /// Resolves when nobody wants the lock any more.
    async fn unwanted(&self) {
        tokio::select! {
            () = self.waits.token.cancelled() => {}
            () = self.cancel.cancelled() => {}
        }
    }

    /// Acquires, or gives up in good order: when it is cancelled, its place in the queue is gone before the
    /// answer, if the store plays its part.
    pub(super) async fn run(self, connection: Arc<Connection>) -> Result<(LockAcquired, Option<u64>), ErrorObject> {
        let wait = self.params.wait_ms.map(Duration::from_millis);
        let session = tokio::select! {
            biased;
            () = self.unwanted() => return Err(self.waits.error()),
            session = self.session(&connection, wait) => session?,
        };
        let mutex = self.mutex(&connection, &session)?;
        let guard = match wait {
            None => mutex.lock_until(self.unwanted()).await,
            Some(Duration::ZERO) => tokio::select! {
                biased;
                tried = mutex.try_lock() => tried,
                () = async { self.unwanted().await; tokio::time::sleep(GRACE).await } => return Err(self.waits.error()),
            },
            Some(wait) => {
                let deadline = tokio::time::sleep(wait.saturating_sub(self.begun.elapsed()));
                let over = async {
                    tokio::select! {
                        () = deadline => {}
                        () = self.unwanted() => {}
                    }
                };
                mutex.lock_until(over).await
            }
        };
        if self.waits.token.is_cancelled() {
            // A guard that came all the same goes back before anybody is told.
            if let Ok(guard) = guard
                && let Err(error) = guard.release().await
            {
                tracing::debug!(%error, "released without an answer");
            }
            return Err(self.waits.error());
        }
        let guard = guard.map_err(|error| self.not_acquired(&error))?;
        let lease_length = session.session().lease();
        let waited = self.begun.elapsed();
        let remaining = guard.remaining();
        // From here on nothing is awaited: the lease is either in the table or given back.
        let Ok(lease) = connection.leases.add(self.reserved, guard, session, &self.waits.token) else {
            return Err(self.waits.error());
        };
        connection.spawn(connection.leases.clone().watch(lease.clone()));
        let acquired = LockAcquired {
            lease: super::leases::handle(lease.number),
            fence: lease.fence,
            waited_ms: millis(waited),
            remaining_ms: millis(remaining),
            lease_ms: millis(lease_length),
        };
        Ok((acquired, Some(lease.number)))
    }

    async fn session(&self, connection: &Connection, wait: Option<Duration>) -> Result<SessionUse, ErrorObject> {
        let opening = connection.daemon.sessions.get(self.lease);
        let Some(wait) = wait else { return opening.await };
        let patience = if wait.is_zero() { PATIENCE } else { wait };
        tokio::time::timeout(patience, opening).await.unwrap_or_else(|_| {
            Err(ErrorObject::new(Kind::Unavailable, "the store did not answer in time, so the lock was not even tried"))
        })
    }

    fn mutex(&self, connection: &Connection, session: &SessionUse) -> Result<Mutex, ErrorObject> {
        let mutex = session.session().mutex(&self.params.name).map_err(|error| errors::of(&error).with("param", "name"))?;
        let mutex = mutex.with_owner(connection.daemon.host.clone(), connection.peer.pid.unwrap_or_default());
        Ok(match &self.params.label {
            Some(label) => mutex.with_label(label.clone()),
            None => mutex,
        })
    }

    fn not_acquired(&self, error: &Error) -> ErrorObject {
        match error {
            // It is the daemon's session that is lost, and with it a place in the queue: nothing of the client's.
            Error::Lost { loss, .. } => {
                let said = format!("the place in the queue was lost before it came up ({loss}); nothing is held, ask again");
                ErrorObject::new(Kind::Unavailable, said).with("reason", loss.as_str())
            }
            error => errors::of(error),
        }
        .with("waited_ms", millis(self.begun.elapsed()))
    }
}

/// `lock.get`.
pub(super) async fn get(connection: Arc<Connection>, LockGet { name }: LockGet) -> Result<LockView, ErrorObject> {
    let queue = tenure::locks::inspect(&*connection.daemon.store, &name).await.map_err(|error| errors::of(&error))?;
    Ok(view(queue))
}

/// `lock.list`.
pub(super) async fn list(connection: Arc<Connection>, LockList { prefix }: LockList) -> Result<Locks, ErrorObject> {
    let queues = tenure::locks::list(&*connection.daemon.store, prefix.as_deref().unwrap_or_default());
    Ok(Locks { locks: queues.await.map_err(|error| errors::of(&error))?.into_iter().map(view).collect() })
}

fn view(queue: tenure::Queue) -> LockView {
    LockView {
        name: queue.name,
        holder: queue.holder.as_ref().map(errors::owner),
        waiters: queue.waiters.iter().map(errors::owner).collect(),
    }
}

/// `lock.break`: for the daemon's own user and for root.
pub(super) async fn break_hold(connection: Arc<Connection>, LockBreak { name, fence }: LockBreak) -> Result<Done, ErrorObject> {
    let (peer, own) = (connection.peer.uid, connection.daemon.uid);
    if !may_break(peer, own) {
        let said = format!("user {peer} may not break locks; user {own}, who runs the daemon, and root may");
        return Err(ErrorObject::new(Kind::Denied, said));
    }
    let broken = tenure::locks::break_hold(&*connection.daemon.store, &name, Revision::new(fence)).await;
    broken.map_err(|error| errors::of(&error))?;
    tracing::warn!(lock = name, fence, uid = peer, pid = connection.peer.pid, "lock broken");
    Ok(Done {})
}

/// Whether user `peer` may break locks of a daemon that user `own` runs.
const fn may_break(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

/// The guard of a lease while a write is fenced with it.
pub(super) fn guard(guard: Option<&Guard>) -> Result<&Guard, ErrorObject> {
    guard.ok_or_else(|| ErrorObject::new(Kind::NotHeld, "the lease was released before the write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_daemons_own_user_break_locks() {
        assert!(may_break(0, 1_000) && may_break(1_000, 1_000) && may_break(0, 0));
        assert!(!may_break(1_001, 1_000) && !may_break(1_000, 0));
    }
}
