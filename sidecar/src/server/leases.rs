//! The leases of one connection: what it holds, what it lost, and how they are let go.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tenure::{Guard, SessionState};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::{outbox::Outbox, sessions::SessionUse};
use crate::protocol::{ErrorObject, Kind, LeaseNotice, LeaseState};

/// Lost leases that a connection still knows the reason of.
const REMEMBERED: usize = 1_024;

/// The handle of lease `number` on the wire.
pub(super) fn handle(number: u64) -> String {
    format!("l_{number}")
}

/// The number of a handle.
fn number(handle: &str) -> Option<u64> {
    let digits = handle.strip_prefix("l_")?;
    // One spelling each, so that nothing but what was handed out is taken.
    (!digits.starts_with(['+', '0'])).then(|| digits.parse().ok()).flatten()
}

/// One hold of this connection.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) number: u64,
    pub(super) fence: u64,
    /// Read by fenced writes, taken by whoever lets go: a release waits for the writes it might cut off.
    pub(super) guard: RwLock<Option<Guard>>,
    /// Ends the watch on this lease, and the fenced writes in flight where the client is gone.
    pub(super) over: CancellationToken,
    session: SessionUse,
    /// The leases of all connections.
    total: Arc<AtomicUsize>,
}

impl Lease {
    /// Lets go, waiting for fenced writes in flight and for the store.
    ///
    /// # Cancel safety
    /// Dropped after the writes, the session goes on with the release.
    pub(super) async fn release(&self) -> Result<(), tenure::Error> {
        let _over = self.over.clone().drop_guard();
        let guard = self.guard.write().await.take();
        match guard {
            Some(guard) => guard.release().await,
            None => Ok(()),
        }
    }

    /// Lets go at once of what nobody uses any more: writes in flight are cut off.
    pub(super) async fn abandon(&self) {
        self.over.cancel();
        self.let_go().await;
    }

    async fn let_go(&self) {
        if let Err(error) = self.release().await {
            // The session behind it goes on with the release, or has taken the hold with it.
            tracing::debug!(lease = self.number, fence = self.fence, %error, "released without an answer");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.total.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of a handle.
#[derive(Debug)]
pub(super) enum Found {
    Held(Arc<Lease>),
    Lost(&'static str),
    Unknown,
}

impl Found {
    /// The lease, or why there is none.
    pub(super) fn held(self, handle: &str) -> Result<Arc<Lease>, ErrorObject> {
        match self {
            Self::Held(lease) => Ok(lease),
            Self::Lost(reason) => {
                Err(ErrorObject::new(Kind::Lost, format!("the lease {handle} is lost: {reason}")).with("reason", reason))
            }
            Self::Unknown => {
                let handle: String = handle.chars().take(64).collect();
                Err(ErrorObject::new(Kind::NotHeld, format!("this connection holds no lease {handle:?}")))
            }
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    held: HashMap<u64, Arc<Lease>>,
    /// Granted to come: requests that may still turn into leases.
    reserved: usize,
    lost: VecDeque<(u64, &'static str)>,
}

/// The leases of one connection.
#[derive(Debug)]
pub(super) struct Leases {
    table: Mutex<Table>,
    limit: usize,
    total: Arc<AtomicUsize>,
    outbox: Arc<Outbox>,
}

/// The right to add one lease.
#[derive(Debug)]
pub(super) struct Reserved(Arc<Leases>);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.table().reserved -= 1;
    }
}

impl Leases {
    pub(super) fn new(limit: usize, total: Arc<AtomicUsize>, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), limit, total, outbox })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.table().held.len()
    }

    /// Makes room for one more.
    pub(super) fn reserve(self: &Arc<Self>) -> Result<Reserved, ErrorObject> {
        let mut table = self.table();
        if table.held.len() + table.reserved >= self.limit {
            let said =
                format!("this connection holds or waits for {} leases; release one, or use another connection", self.limit);
            return Err(ErrorObject::limit("leases", said));
        }
        table.reserved += 1;
        Ok(Reserved(self.clone()))
    }

    /// Adds a hold, unless `ended` has been cancelled: then whoever cancelled it may have looked here already.
    pub(super) fn add(
        &self,
        _reserved: Reserved,
        guard: Guard,
        session: SessionUse,
        ended: &CancellationToken,
    ) -> Result<Arc<Lease>, Guard> {
        let mut table = self.table();
        if ended.is_cancelled() {
            return Err(guard);
        }
        table.last += 1;
        let number = table.last;
        self.outbox.hold_back(handle(number));
        self.total.fetch_add(1, Ordering::Relaxed);
        let lease = Arc::new(Lease {
            number,
            fence: guard.token().get(),
            guard: RwLock::new(Some(guard)),
            over: CancellationToken::new(),
            session,
            total: self.total.clone(),
        });
        table.held.insert(number, lease.clone());
        drop(table);
        Ok(lease)
    }

    /// Looks a handle up.
    pub(super) fn find(&self, handle: &str) -> Found {
        let Some(number) = number(handle) else { return Found::Unknown };
        self.table().find(number)
    }

    /// Takes a lease out, for its release.
    pub(super) fn take(&self, handle: &str) -> Found {
        let Some(number) = number(handle) else { return Found::Unknown };
        let mut table = self.table();
        let found = table.find(number);
        table.held.remove(&number);
        found
    }

    /// Takes out a lease that the client has not been told of.
    pub(super) fn take_back(&self, number: u64) -> Option<Arc<Lease>> {
        let lease = self.table().held.remove(&number);
        self.outbox.forget(&handle(number));
        lease
    }

    /// Takes everything out.
    pub(super) fn take_all(&self) -> Vec<Arc<Lease>> {
        self.table().held.drain().map(|(_, lease)| lease).collect()
    }

    /// Takes everything out and tells the client that it is lost.
    pub(super) fn lose_all(&self, reason: &'static str) -> Vec<Arc<Lease>> {
        let leases: Vec<_> = {
            let mut table = self.table();
            let leases: Vec<_> = table.held.drain().map(|(_, lease)| lease).collect();
            for lease in &leases {
                table.remember(lease.number, reason);
            }
            leases
        };
        for lease in &leases {
            self.outbox.notice(lost(lease.number, reason));
        }
        leases
    }

    fn lose(&self, number: u64, reason: &'static str) -> Option<Arc<Lease>> {
        let mut table = self.table();
        let lease = table.held.remove(&number)?;
        table.remember(number, reason);
        drop(table);
        self.outbox.notice(lost(number, reason));
        Some(lease)
    }

    /// Tells the client how `lease` fares, until it is over.
    pub(super) async fn watch(self: Arc<Self>, lease: Arc<Lease>) {
        let lost = match &*lease.guard.read().await {
            Some(guard) => guard.lost(),
            None => return,
        };
        tokio::pin!(lost);
        let mut states = lease.session.session().states();
        // A session that is suspect already is news to this lease.
        states.mark_changed();
        let mut suspect = false;
        loop {
            tokio::select! {
                biased;
                () = lease.over.cancelled() => return,
                loss = &mut lost => {
                    if let Some(lease) = self.lose(lease.number, loss.as_str()) {
                        lease.let_go().await;
                    }
                    return;
                }
                Ok(()) = states.changed() => {
                    let state = *states.borrow_and_update();
                    let held = lease.guard.try_read().is_ok_and(|guard| guard.as_ref().is_some_and(Guard::is_held));
                    match state {
                        SessionState::Suspect if !suspect => self.tell(lease.number, LeaseState::Suspect),
                        // Of a hold that did not live through it, the next turn tells that it is lost.
                        SessionState::Restored if suspect && held => self.tell(lease.number, LeaseState::Restored),
                        _ => {}
                    }
                    suspect = state == SessionState::Suspect;
                }
            }
        }
    }

    fn tell(&self, number: u64, state: LeaseState) {
        let table = self.table();
        // Under the table's lock, so that nothing is told of a lease after its end.
        if table.held.contains_key(&number) {
            self.outbox.notice(LeaseNotice { lease: handle(number), state, reason: None });
        }
    }
}

impl Table {
    fn find(&self, number: u64) -> Found {
        if let Some(lease) = self.held.get(&number) {
            return Found::Held(lease.clone());
        }
        self.lost.iter().find(|(lost, _)| *lost == number).map_or(Found::Unknown, |(_, reason)| Found::Lost(reason))
    }

    fn remember(&mut self, number: u64, reason: &'static str) {
        if self.lost.len() == REMEMBERED {
            self.lost.pop_front();
        }
        self.lost.push_back((number, reason));
    }
}

fn lost(number: u64, reason: &str) -> LeaseNotice {
    LeaseNotice { lease: handle(number), state: LeaseState::Lost, reason: Some(reason.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_handles_as_they_were_given_out_are_known() {
        assert_eq!(number(&handle(41)), Some(41));
        for wrong in ["41", "l_", "l_041", "l_+41", "l_-1", "L_41", "l_99999999999999999999999", " l_41"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
