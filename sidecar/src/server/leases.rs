//! The leases of one connection: what it holds, what it lost, and how they are let go.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
};

use tenure::{Loss, SessionState};
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio_util::sync::CancellationToken;

use super::{
    elections,
    held::{self, Held},
    holds::Holds,
    outbox::Outbox,
    quota::{Quota, Taken},
    release::{Asked, Release},
    sessions::SessionUse,
    tally::Tally,
};
use crate::{
    protocol::{ErrorObject, Event, Happening, Kind, LeaseNotice, LeaseState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Leases that are over and of which a connection still knows how they ended.
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
    pub(super) kind: held::Kind,
    /// The name of the lock, the election or the group.
    pub(super) name: String,
    pub(super) fence: u64,
    /// Read by fenced writes, taken by whoever lets go: a release waits for the writes it might cut off.
    pub(super) held: RwLock<Option<Held>>,
    /// Ends the watch on this lease, and the fenced writes in flight where the client is gone.
    pub(super) over: CancellationToken,
    /// How its release goes, once that is asked for.
    pub(super) release: Release,
    session: SessionUse,
    home: Weak<Leases>,
    everywhere: Everywhere,
    user: Quota,
    /// It is among those of all connections no longer.
    gone: AtomicBool,
}

/// The leases of all connections: how many there are, and where.
#[derive(Clone, Debug, Default)]
pub(super) struct Everywhere {
    pub(super) total: Arc<AtomicUsize>,
    pub(super) leaderships: Arc<AtomicUsize>,
    pub(super) members: Arc<AtomicUsize>,
    pub(super) holds: Arc<Holds>,
    pub(super) tally: Arc<Tally>,
}

impl Everywhere {
    fn counts(&self, kind: held::Kind) -> impl Iterator<Item = &AtomicUsize> {
        let of_kind = match kind {
            held::Kind::Lock => None,
            held::Kind::Leadership => Some(&*self.leaderships),
            held::Kind::Member => Some(&*self.members),
        };
        std::iter::once(&*self.total).chain(of_kind)
    }
}

impl Lease {
    /// Writes with what is held, unless its client goes meanwhile.
    pub(super) async fn using<'a, T, F>(&'a self, write: impl FnOnce(RwLockReadGuard<'a, Held>) -> F) -> Result<T, ErrorObject>
    where
        F: Future<Output = Result<T, ErrorObject>> + 'a,
    {
        let held = RwLockReadGuard::try_map(self.held.read().await, Option::as_ref)
            .map_err(|_| ErrorObject::new(Kind::NotHeld, "the lease was given up before the write"))?;
        tokio::select! {
            biased;
            written = write(held) => written,
            // Its client is gone or silent, and nobody is to wait for this write.
            () = self.over.cancelled() => {
                let said = "the lease ended while the write was in flight; it may have been applied";
                Err(ErrorObject::new(Kind::UnknownOutcome, said))
            }
        }
    }

    /// Lets go, waiting for fenced writes in flight and for the store.
    ///
    /// # Cancel safety
    /// Dropped after the writes, the session goes on with the release.
    async fn drop_hold(&self) -> Result<(), tenure::Error> {
        let _over = self.over.clone().drop_guard();
        let held = self.held.write().await.take();
        match held {
            Some(held) => {
                self.ends();
                held.release().await
            }
            None => Ok(()),
        }
    }

    /// Lets go at once of what nobody uses any more: writes in flight are cut off.
    pub(super) async fn abandon(&self) {
        self.over.cancel();
        self.let_go().await;
    }

    async fn let_go(&self) {
        if let Err(error) = self.drop_hold().await {
            // The session behind it goes on with the release, or has taken the hold with it.
            tracing::debug!(lease = self.number, fence = self.fence, %error, "released without an answer");
        }
        self.count_out();
    }

    /// What is held goes back from now on.
    fn ends(&self) {
        self.everywhere.tally.ended(self.kind, &self.name);
    }

    /// Counts it no longer, before its client is told so: tasks that watch it may not have ended yet.
    fn count_out(&self) {
        if self.gone.swap(true, Ordering::Relaxed) {
            return;
        }
        self.everywhere.counts(self.kind).for_each(|count| {
            count.fetch_sub(1, Ordering::Relaxed);
        });
        self.user.give_back();
        self.everywhere.holds.remove(self.fence, &self.home, self.number);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.count_out();
    }
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// For this reason.
    Lost(&'static str),
    /// By a release whose answer had left that open.
    Released,
    /// It is given up, and when that came through is not known.
    Open,
}

/// What became of a handle.
#[derive(Debug)]
pub(super) enum Found {
    Held(Arc<Lease>),
    /// Its release is on its way.
    Leaving(Arc<Lease>),
    Over(End),
    Unknown,
}

impl Found {
    /// The lease, or why there is none.
    pub(super) fn held(self, handle: &str) -> Result<Arc<Lease>, ErrorObject> {
        match self {
            Self::Held(lease) => Ok(lease),
            Self::Leaving(_) | Self::Over(End::Released | End::Open) => {
                Err(ErrorObject::new(Kind::NotHeld, format!("the lease {handle} was given up by a release")))
            }
            Self::Over(End::Lost(reason)) => {
                Err(ErrorObject::new(Kind::Lost, format!("the lease {handle} is lost: {reason}")).with("reason", reason))
            }
            Self::Unknown => {
                let handle: String = handle.chars().take(64).collect();
                Err(ErrorObject::new(Kind::NotHeld, format!("this connection holds no lease {handle:?}")))
            }
        }
    }

    /// The lease, which must be of that kind.
    pub(super) fn held_as(self, kind: held::Kind, handle: &str) -> Result<Arc<Lease>, ErrorObject> {
        let lease = self.held(handle)?;
        if lease.kind == kind { Ok(lease) } else { Err(wrong_kind(&lease, kind, handle)) }
    }
}

fn wrong_kind(lease: &Lease, kind: held::Kind, handle: &str) -> ErrorObject {
    let (is, release) = (lease.kind, lease.kind.release());
    ErrorObject::new(Kind::NotHeld, format!("the lease {handle} is {is} and not {kind}; it is given up with {release}"))
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    held: HashMap<u64, Arc<Lease>>,
    /// Given up by the client, and not yet known to be gone.
    leaving: HashMap<u64, Arc<Lease>>,
    /// Granted to come: requests that may still turn into leases.
    reserved: usize,
    ended: VecDeque<(u64, End)>,
}

/// The leases of one connection.
#[derive(Debug)]
pub(super) struct Leases {
    table: Mutex<Table>,
    limit: usize,
    /// Those of the same user.
    user: Quota,
    everywhere: Everywhere,
    outbox: Arc<Outbox>,
    /// Cancelled when the connection has ended.
    pub(super) closed: CancellationToken,
}

/// The right to add one lease.
#[derive(Debug)]
pub(super) struct Reserved {
    home: Arc<Leases>,
    _taken: Taken,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.home.table().reserved -= 1;
    }
}

impl Leases {
    pub(super) fn new(limit: usize, user: Quota, everywhere: Everywhere, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), limit, user, everywhere, outbox, closed: CancellationToken::new() })
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
        if table.held.len() + table.leaving.len() + table.reserved >= self.limit {
            let said =
                format!("this connection holds or waits for {} leases; release one, or use another connection", self.limit);
            return Err(ErrorObject::limit("leases", said));
        }
        let taken = self.user.take()?;
        table.reserved += 1;
        Ok(Reserved { home: self.clone(), _taken: taken })
    }

    /// Adds a hold, unless `ended` has been cancelled: then whoever cancelled it may have looked here already.
    pub(super) fn add(
        self: &Arc<Self>,
        _reserved: Reserved,
        held: Held,
        session: SessionUse,
        ended: &CancellationToken,
    ) -> Result<Arc<Lease>, Held> {
        let mut table = self.table();
        if ended.is_cancelled() {
            return Err(held);
        }
        table.last += 1;
        let number = table.last;
        self.outbox.hold_back(handle(number));
        self.everywhere.counts(held.kind()).for_each(|count| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        self.user.take_anyway();
        let lease = Arc::new(Lease {
            number,
            kind: held.kind(),
            name: held.name().to_owned(),
            fence: held.fence().get(),
            held: RwLock::new(Some(held)),
            over: CancellationToken::new(),
            release: Release::default(),
            session,
            home: Arc::downgrade(self),
            everywhere: self.everywhere.clone(),
            user: self.user.clone(),
            gone: AtomicBool::new(false),
        });
        if lease.kind != held::Kind::Member {
            self.everywhere.holds.add(lease.fence, self, number);
        }
        table.held.insert(number, lease.clone());
        Ok(lease)
    }

    /// Looks a handle up.
    pub(super) fn find(&self, handle: &str) -> Found {
        number(handle).map_or(Found::Unknown, |number| self.numbered(number))
    }

    /// Looks a lease up.
    pub(super) fn numbered(&self, number: u64) -> Found {
        self.table().find(number)
    }

    /// Takes a lease out of those held, for its release; or finds the release that an earlier request began.
    pub(super) fn leave(&self, handle: &str, kind: held::Kind) -> Result<Asked, ErrorObject> {
        let mut table = self.table();
        match number(handle).map_or(Found::Unknown, |number| table.find(number)) {
            Found::Held(lease) | Found::Leaving(lease) if lease.kind != kind => Err(wrong_kind(&lease, kind, handle)),
            Found::Held(lease) => {
                table.held.remove(&lease.number);
                lease.ends();
                table.leaving.insert(lease.number, lease.clone());
                Ok(Asked::first(lease))
            }
            // Under the table's lock, so that the outcome is yet to come.
            Found::Leaving(lease) => Ok(Asked::again(lease)),
            Found::Over(End::Released) => {
                table.ended.retain(|(ended, _)| Some(*ended) != number(handle));
                Ok(Asked::Done)
            }
            Found::Over(End::Open) => {
                let said =
                    format!("the lease {handle} was given up, and whether that came through is not known; look who holds it");
                Err(ErrorObject::new(Kind::UnknownOutcome, said))
            }
            found => found.held(handle).map(Asked::first),
        }
    }

    /// Ends a release: it is remembered until the client is told.
    pub(super) fn left(&self, number: u64, end: End) {
        let mut table = self.table();
        if let Some(lease) = table.leaving.remove(&number) {
            if let End::Lost(reason) = end {
                self.everywhere.tally.lost(reason);
            }
            lease.count_out();
        }
        table.remember(number, end);
    }

    /// The client is told of a release.
    pub(super) fn told(&self, number: u64) {
        self.table().ended.retain(|ended| *ended != (number, End::Released));
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
        let mut table = self.table();
        let leases: Vec<_> = table.held.drain().map(|(_, lease)| lease).collect();
        for lease in &leases {
            self.everywhere.tally.lost(reason);
            table.remember(lease.number, End::Lost(reason));
            self.outbox.notice(lost(lease.number, reason));
        }
        leases
    }

    fn lose(&self, number: u64, reason: &'static str) -> Option<Arc<Lease>> {
        let mut table = self.table();
        let lease = table.held.remove(&number)?;
        self.everywhere.tally.lost(reason);
        table.remember(number, End::Lost(reason));
        // Under the table's lock: who takes a lease back whose client was not told of it forgets what was held back.
        self.outbox.notice(lost(number, reason));
        Some(lease)
    }

    /// Tells the client how `lease` fares, until it is over.
    pub(super) async fn watch(self: Arc<Self>, lease: Arc<Lease>) {
        let (lost, asked) = match &*lease.held.read().await {
            Some(held) => (held.lost(), held.asked_to_step_down()),
            None => return,
        };
        tokio::pin!(lost, asked);
        let mut states = lease.session.session().states();
        // A session that is suspect already is news to this lease.
        states.mark_changed();
        let (mut suspect, mut told) = (false, false);
        loop {
            tokio::select! {
                biased;
                () = lease.over.cancelled() => return,
                loss = &mut lost => {
                    // The client has handed it over and is told so in the answer.
                    if loss == Loss::Resigned {
                        self.hand_over(lease.number);
                        return;
                    }
                    if let Some(lease) = self.lose(lease.number, loss.as_str()) {
                        lease.let_go().await;
                    }
                    return;
                }
                Ok(()) = states.changed() => {
                    let state = *states.borrow_and_update();
                    let held = lease.held.try_read().is_ok_and(|held| held.as_ref().is_some_and(Held::is_valid));
                    match state {
                        SessionState::Suspect if !suspect => self.tell(lease.number, LeaseState::Suspect),
                        // Of a hold that did not live through it, the next turn tells that it is lost.
                        SessionState::Restored if suspect && held => self.tell(lease.number, LeaseState::Restored),
                        _ => {}
                    }
                    suspect = state == SessionState::Suspect;
                }
                candidate = &mut asked, if !told => {
                    told = true;
                    let what = Happening::AskedToStepDown { candidate: elections::candidate(&candidate) };
                    let handle = handle(lease.number);
                    self.outbox.asked(&handle, Event { subscription: None, lease: Some(handle.clone()), resume_revision: None, what });
                }
            }
        }
    }

    /// The lease is over because its client wanted it so.
    pub(super) fn hand_over(&self, number: u64) {
        let mut table = self.table();
        if let Some(lease) = table.held.remove(&number) {
            lease.count_out();
            table.remember(number, End::Released);
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
        if let Some(lease) = self.leaving.get(&number) {
            return Found::Leaving(lease.clone());
        }
        self.ended.iter().find(|(ended, _)| *ended == number).map_or(Found::Unknown, |(_, end)| Found::Over(*end))
    }

    fn remember(&mut self, number: u64, end: End) {
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((number, end));
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
