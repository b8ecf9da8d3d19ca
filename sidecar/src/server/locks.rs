//! The methods `lock.*`.

use std::sync::Arc;

use tenure::{LockState, Mutex};
use tenure_kv::Revision;
use tokio_util::sync::CancellationToken;

use super::{
    asking::{Asking, Terms},
    connection::Connection,
    errors,
    held::{self, Held},
    leases::handle,
    observers::States,
    pages,
    policy::Ability,
    sessions::SessionUse,
    subscriptions::Subscription,
};
use crate::protocol::{
    Done, ErrorObject, Happening, LockAcquire, LockAcquired, LockBreak, LockGet, LockList, LockStanding, LockView, Locks,
};

/// A checked `lock.acquire`.
pub(super) struct Acquire {
    params: LockAcquire,
    asking: Asking,
}

impl Acquire {
    /// Checks what needs no store.
    pub(super) fn new(connection: &Connection, params: LockAcquire, cancel: CancellationToken) -> Result<Self, ErrorObject> {
        let LockAcquire { wait_ms, lease_ms, .. } = params;
        let terms = Terms { kind: held::Kind::Lock, wait_ms, lease_ms, label: params.label.as_deref() };
        Ok(Self { asking: Asking::new(connection, &terms, cancel)?, params })
    }

    /// Acquires, or gives up in good order: when it is cancelled, its place in the queue is gone before the
    /// answer, if the store plays its part.
    pub(super) async fn run(self, connection: Arc<Connection>) -> Result<(LockAcquired, Option<u64>), ErrorObject> {
        let session = self.asking.session(&connection).await?;
        let mutex = self.mutex(&connection, &session)?;
        let tried = if self.asking.is_try() {
            self.asking.once(mutex.try_lock()).await?
        } else {
            mutex.lock_until(self.asking.given_up()).await
        };
        let granted = self.asking.granted(&connection, tried.map(Held::Lock), session).await?;
        let acquired = LockAcquired {
            lease: handle(granted.lease.number),
            fence: granted.lease.fence,
            waited_ms: granted.waited_ms,
            remaining_ms: granted.remaining_ms,
            lease_ms: granted.lease_ms,
        };
        Ok((acquired, Some(granted.lease.number)))
    }

    fn mutex(&self, connection: &Connection, session: &SessionUse) -> Result<Mutex, ErrorObject> {
        let mutex = session.session().mutex(&self.params.name).map_err(|error| errors::of(&error).with("param", "name"))?;
        let mutex = mutex.with_owner(connection.daemon.host.clone(), connection.peer.pid.unwrap_or_default());
        Ok(match &self.params.label {
            Some(label) => mutex.with_label(label.clone()),
            None => mutex,
        })
    }
}

/// `lock.get`.
pub(super) async fn get(connection: Arc<Connection>, LockGet { name }: LockGet) -> Result<LockView, ErrorObject> {
    let queue = tenure::locks::inspect(&*connection.daemon.store, &name).await.map_err(|error| errors::of(&error))?;
    Ok(fitting(view(queue), pages::room(connection.daemon.limits.line_bytes)))
}

/// `lock.list`.
pub(super) async fn list(connection: Arc<Connection>, params: LockList) -> Result<Locks, ErrorObject> {
    let LockList { prefix, limit, after } = params;
    let (limit, room) = (pages::limit("lock.list", limit)?, pages::room(connection.daemon.limits.line_bytes));
    let queues = tenure::locks::list(&*connection.daemon.store, prefix.as_deref().unwrap_or_default());
    let sight = connection.sight(Ability::SEE_LOCKS, None);
    let queues = queues.await.map_err(|error| errors::of(&error))?.into_iter();
    let seen = queues.filter(|queue| pages::is_after(&queue.name, after.as_deref()) && sight.sees(&queue.name));
    let (locks, next) = pages::page(seen.map(|queue| fitting(view(queue), room)), |lock| lock.name.clone(), limit, room);
    Ok(Locks { locks, next })
}

/// The same without those of the waiters who would make it longer than `room`.
fn fitting(mut lock: LockView, room: usize) -> LockView {
    let waiters = std::mem::take(&mut lock.waiters);
    let mut left = room.saturating_sub(pages::size(&lock));
    let all = waiters.len();
    lock.waiters = waiters
        .into_iter()
        .map_while(|waiter| {
            left = left.checked_sub(pages::size(&waiter))?;
            Some(waiter)
        })
        .collect();
    lock.more_waiters = all - lock.waiters.len();
    lock
}

/// `lock.observe`.
pub(super) fn observe(connection: &Connection, name: &str) -> Result<Subscription<States<LockState>>, ErrorObject> {
    errors::check_name("name", name)?;
    connection.subscriptions.add(States::follow(&connection.daemon.lock_observers, name))
}

impl From<&LockState> for Happening {
    fn from(state: &LockState) -> Self {
        Self::Lock(LockStanding {
            holder: state.holder.as_ref().map(errors::owner),
            waiters: state.waiters.iter().map(errors::owner).collect(),
            waiting: state.waiting,
        })
    }
}

fn view(queue: tenure::Queue) -> LockView {
    LockView {
        name: queue.name,
        holder: queue.holder.as_ref().map(errors::owner),
        waiters: queue.waiters.iter().map(errors::owner).collect(),
        more_waiters: 0,
    }
}

/// `lock.break`: for the daemon's own user, for root, and for whom the policy allows it.
pub(super) async fn break_hold(connection: Arc<Connection>, LockBreak { name, fence }: LockBreak) -> Result<Done, ErrorObject> {
    let broken = tenure::locks::break_hold(&*connection.daemon.store, &name, Revision::new(fence)).await;
    broken.map_err(|error| errors::of(&error))?;
    tracing::warn!(lock = name, fence, uid = connection.peer.uid, pid = connection.peer.pid, "lock broken");
    Ok(Done {})
}
