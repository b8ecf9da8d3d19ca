//! Where many of one session wait for one lock: they share a view of the queue and one task that looks at it.
//!
//! Alone, a waiter reads the queue once and then hears the end of the ticket before its own. Many of them
//! would each pay for that read, which costs the store as much as there are tickets. A view hears of every
//! ticket once, for all of them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tenure_kv::{ClockExt, Entry, Key, KeyRange, Moment, Revision};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::behind::end_all_dead;
use crate::{
    Result, Snapshot, View,
    layout::parse_ticket,
    session::{Inner, Vigil, Wake, timing},
};

/// So many of one session wait for a lock when they begin to share a view.
const CROWD: usize = 8;
/// How long one ticket is first before its session is watched: most are gone sooner.
const LINGER: Duration = Duration::from_millis(10);
/// Dead sessions that are remembered.
const DEAD_KEPT: usize = 1_024;
/// From one look at the holder to the next, by those of crowds who turn away.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a waiter is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is before its ticket.
    First,
    /// Its ticket was ended by somebody else.
    Gone,
    /// The queue cannot be watched now: it had better wait alone for once.
    Alone,
}

/// Who of a session waits for which lock.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    by_lock: StdMutex<HashMap<Key, Line>>,
    /// When one of a crowd that turned away last looked who holds the lock.
    looked: StdMutex<Option<Moment>>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: usize,
    crowd: Weak<Crowd>,
}

impl Lines {
    /// Counts one who waits for `lock` until the place is dropped.
    pub(super) fn enter(inner: &Arc<Inner>, lock: &Key) -> Place {
        inner.lines.lines().entry(lock.clone()).or_default().waiting += 1;
        Place { inner: inner.clone(), lock: lock.clone() }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Key, Line>> {
        locked(&self.by_lock)
    }

    /// Whether one of a crowd that turns away may look who holds the lock. Where thousands do at once the look of each,
    /// which costs as much as there are tickets, would keep the session from its renewals.
    pub(super) fn may_look(&self, now: Moment) -> bool {
        let mut looked = locked(&self.looked);
        let may = looked.is_none_or(|last| now >= last + BETWEEN_LOOKS);
        if may {
            *looked = Some(now);
        }
        may
    }
}

/// One who waits for a lock.
pub(super) struct Place {
    inner: Arc<Inner>,
    lock: Key,
}

impl Place {
    /// The crowd to wait with, if there is one.
    pub(super) fn crowd(&self, tickets: &KeyRange) -> Option<Arc<Crowd>> {
        let mut lines = self.inner.lines.lines();
        let line = lines.get_mut(&self.lock)?;
        if let Some(crowd) = line.crowd.upgrade() {
            return Some(crowd);
        }
        if line.waiting < CROWD {
            return None;
        }
        let crowd = Crowd::gather(&self.inner, tickets.clone());
        line.crowd = Arc::downgrade(&crowd);
        Some(crowd)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.inner.lines.lines();
        if let Some(line) = lines.get_mut(&self.lock) {
            line.waiting -= 1;
            if line.waiting == 0 {
                lines.remove(&self.lock);
            }
        }
    }
}

/// Waiters of one session on one lock. The last of them gone ends its task.
#[derive(Debug)]
pub(super) struct Crowd {
    waiters: Arc<Waiters>,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct Waiters {
    ears: StdMutex<Ears>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Ears {
    by_token: BTreeMap<Revision, oneshot::Sender<Turn>>,
    /// The task has ended, so nobody would tell them anything.
    over: bool,
}

impl Crowd {
    fn gather(inner: &Arc<Inner>, tickets: KeyRange) -> Arc<Self> {
        let (waiters, stop) = (Arc::new(Waiters::default()), CancellationToken::new());
        let task = Watcher { inner: inner.clone(), tickets, waiters: waiters.clone(), dead: HashSet::new() };
        let (over, ended) = (stop.clone(), inner.stop.clone());
        inner.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = ended.cancelled() => {}
                () = task.run() => {}
            }
        });
        Arc::new(Self { waiters, _stop: stop.drop_guard() })
    }

    /// Waits for the turn of the ticket `own`.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(super) async fn turn(&self, own: Revision) -> Result<Turn> {
        let (tell, told) = oneshot::channel();
        {
            let mut ears = locked(&self.waiters.ears);
            if ears.over {
                return Ok(Turn::Alone);
            }
            ears.by_token.insert(own, tell);
        }
        let _leave = Leave(&self.waiters, own);
        self.waiters.more.notify_one();
        told.await.map_err(|_| tenure_kv::Error::unavailable("the session no longer looks at the queue").into())
    }
}

/// Takes a waiter out, however its wait ends.
struct Leave<'a>(&'a Waiters, Revision);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        locked(&self.0.ears).by_token.remove(&self.1);
    }
}

/// The first live ticket of a queue: whose it is and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Front {
    ticket: Key,
    session: String,
    revision: Revision,
}

fn front(now: &Snapshot) -> Option<Front> {
    now.entries().find_map(|entry| {
        let session = parse_ticket(&entry.key)?.1.to_owned();
        Some(Front { ticket: entry.key.clone(), session, revision: entry.revision })
    })
}

impl Waiters {
    /// Tells those whose wait is over. Everything in the queue up to `through` is known, and of that nothing
    /// is before `first`, which is a ticket of this session or, if not `ours`, of another.
    fn tell(&self, through: Revision, first: Option<Revision>, ours: bool) {
        let mut ears = locked(&self.ears);
        while let Some(next) = ears.by_token.first_entry() {
            let own = *next.key();
            let turn = match first {
                _ if own > through => break,
                Some(first) if first == own && ours => Turn::First,
                Some(first) if first < own => break,
                _ => Turn::Gone,
            };
            // Who has turned away meanwhile withdraws its ticket itself.
            let _ = next.remove().send(turn);
        }
    }

    /// Sends everybody off to wait alone.
    fn dismiss(&self) {
        let waiters = std::mem::take(&mut locked(&self.ears).by_token);
        for tell in waiters.into_values() {
            let _ = tell.send(Turn::Alone);
        }
    }
}

/// However the task ends, be it with its runtime, nobody waits for it.
impl Drop for Watcher {
    fn drop(&mut self) {
        locked(&self.waiters.ears).over = true;
        self.waiters.dismiss();
    }
}

/// The task of a crowd.
struct Watcher {
    inner: Arc<Inner>,
    tickets: KeyRange,
    waiters: Arc<Waiters>,
    /// Sessions that are proven to be dead.
    dead: HashSet<String>,
}

impl Watcher {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let (clock, patience) = (self.inner.clock.clone(), timing::patience(self.inner.lease));
            let outages = self.inner.store.outages();
            let opened = clock.timeout(patience, View::open(&self.inner.store, self.tickets.clone())).await;
            let opened = opened.unwrap_or_else(|_| Err(tenure_kv::Error::unavailable("the store did not answer in time").into()));
            match opened {
                Ok(view) => {
                    pause = FIRST_PAUSE;
                    self.watch(&view, outages).await;
                    // They look for their tickets, which the next view may not show.
                    self.waiters.dismiss();
                    // The bucket may not be what it was.
                    self.dead.clear();
                }
                Err(error) => {
                    tracing::debug!(range = %self.tickets, %error, "the queue cannot be watched yet");
                    self.waiters.dismiss();
                }
            }
            self.inner.clock.sleep_until(self.inner.clock.now() + pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Looks at the queue until the view ends, or the store has had more than so many `outages`.
    async fn watch(&mut self, view: &View, outages: u64) {
        let mut seen: Option<Front> = None;
        let mut guarding: Option<BoxFuture<'static, Found>> = None;
        let mut outlived = self.inner.outlived();
        loop {
            let (taken, through, first) = view.read(|now| (now.taken(), now.revision(), front(now)));
            // In a bucket that was set back others may stand where the view knows that nobody does, and who was proven to
            // be dead may live again. Asked after the view was read: what it shows is from before that.
            if self.inner.store.outages() != outages {
                return;
            }
            let ours = first.as_ref().is_some_and(|first| first.session == self.inner.id);
            self.waiters.tell(through, first.as_ref().map(|first| first.revision), ours);
            if first != seen {
                seen = first;
                guarding = seen.clone().map(|first| {
                    let known = self.dead.contains(&first.session);
                    guard(self.inner.clone(), view.clone(), first, known, outages).boxed()
                });
            }
            tokio::select! {
                biased;
                moved = view.wait_until(|now| (now.taken() != taken).then_some(())) => if moved.is_err() {
                    return;
                },
                () = self.waiters.more.notified() => {}
                Ok(()) = outlived.changed() => {}
                // One future as long as the ticket is first: changes behind it must not begin it anew.
                found = async {
                    match &mut guarding {
                        Some(guarding) => guarding.await,
                        None => std::future::pending().await,
                    }
                } => {
                    let Found::Dead(session) = found else {
                        tracing::debug!(range = %self.tickets, "the view of the queue has missed something");
                        return;
                    };
                    if self.dead.len() >= DEAD_KEPT {
                        self.dead.clear();
                    }
                    self.dead.insert(session);
                    // Whatever is first now, this ticket still perhaps, is looked at anew.
                    seen = None;
                    guarding = None;
                }
            }
        }
    }
}

/// What became of the first ticket.
enum Found {
    /// This session, whose it was, is dead.
    Dead(String),
    /// The view cannot be gone by any more: the ticket is gone and the view does not know, or the store had an outage.
    Missed,
}

async fn guard(inner: Arc<Inner>, view: View, first: Front, known: bool, outages: u64) -> Found {
    let missed = missed(&inner, view.range(), first.revision);
    // Our own session's tickets go with our own session.
    if first.session == inner.id {
        missed.await;
        return Found::Missed;
    }
    tokio::select! {
        outlived = outlive(&inner, &view, &first.session, known, outages) => {
            if outlived { Found::Dead(first.session) } else { Found::Missed }
        }
        () = missed => Found::Missed,
    }
}

/// Waits until the ticket at `first` is seen to be gone: a back-up for what a view may miss, rare enough to
/// cost nothing.
async fn missed(inner: &Inner, tickets: &KeyRange, first: Revision) {
    loop {
        inner.clock.sleep_until(inner.clock.now() + inner.lease).await;
        match inner.patient.scan(tickets, first, 1).await {
            // Who has got that far has had the ticket.
            Ok(page) if page.through >= first && page.entries.iter().all(|entry| entry.revision != first) => return,
            Ok(_) => {}
            Err(error) => tracing::debug!(range = %tickets, %error, "the queue cannot be read now"),
        }
    }
}

/// Waits until `session` is dead, unless that is `known`, and ends all its tickets: from then on the store refuses what
/// their holder fenced with them. False when that cannot be gone by any more, for the store has had more than so many
/// `outages`.
async fn outlive(inner: &Inner, view: &View, session: &str, known: bool, outages: u64) -> bool {
    if !known {
        inner.clock.sleep_until(inner.clock.now() + LINGER).await;
        until_dead(inner, session).await;
    }
    let of_session = |entry: &&Entry| parse_ticket(&entry.key).is_some_and(|(_, whose)| whose == session);
    let mut pause = FIRST_PAUSE;
    loop {
        let tickets: Vec<_> =
            view.read(|now| now.entries().filter(of_session).map(|entry| (entry.key.clone(), entry.revision)).collect());
        let refused = end_all_dead(inner, tickets, outages).await.is_err();
        // The view is about to hear of it; what is still first then is looked at again.
        inner.clock.sleep_until(inner.clock.now() + pause).await;
        if !refused {
            return true;
        }
        if inner.store.outages() != outages {
            return false;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn until_dead(inner: &Inner, session: &str) {
    let mut pause = FIRST_PAUSE;
    let mut vigil = None;
    loop {
        match step(inner, session, &mut vigil).await {
            Ok(true) => return,
            Ok(false) => pause = FIRST_PAUSE,
            Err(error) => {
                tracing::debug!(session, %error, "the holder's session cannot be watched now");
                if let Some(vigil) = &mut vigil {
                    vigil.cut_off(inner);
                }
                inner.clock.sleep_until(inner.clock.now() + pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// One step of watching over a session. True when it is dead.
async fn step(inner: &Inner, session: &str, vigil: &mut Option<Vigil>) -> Result<bool> {
    let vigil = match vigil {
        None => {
            let vigil = vigil.insert(Vigil::new(inner, session).await?);
            return look(inner, vigil).await;
        }
        Some(vigil) => vigil,
    };
    match vigil.wake(inner).await {
        Wake::Read => look(inner, vigil).await,
        Wake::Dead => Ok(true),
        Wake::Silent => Ok(vigil.depose(inner).await),
    }
}

async fn look(inner: &Inner, vigil: &mut Vigil) -> Result<bool> {
    let entry = inner.patient.entry(vigil.key()).await?;
    Ok(vigil.saw(inner, entry.as_ref()) || (vigil.never_seen() && vigil.depose(inner).await))
}

fn locked<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the waiters with these tokens are told.
    fn told_of(tokens: &[u64], through: u64, first: Option<u64>, ours: bool) -> Vec<Option<Turn>> {
        let waiters = Waiters::default();
        let mut ears: Vec<_> = tokens
            .iter()
            .map(|token| {
                let (tell, told) = oneshot::channel();
                locked(&waiters.ears).by_token.insert(Revision::new(*token), tell);
                told
            })
            .collect();
        waiters.tell(Revision::new(through), first.map(Revision::new), ours);
        ears.iter_mut().map(|ear| ear.try_recv().ok()).collect()
    }

    fn told(tokens: &[u64], through: u64, first: Option<u64>) -> Vec<Option<Turn>> {
        told_of(tokens, through, first, true)
    }

    #[test]
    fn anothers_ticket_at_ones_own_revision_is_no_turn() {
        assert_eq!(told_of(&[5, 7], 9, Some(5), false), [Some(Turn::Gone), None]);
    }

    #[test]
    fn only_the_first_ticket_of_a_queue_that_is_known_so_far_has_its_turn() {
        assert_eq!(told(&[5, 7], 9, Some(5)), [Some(Turn::First), None]);
        assert_eq!(told(&[5, 7], 9, Some(3)), [None, None]);
        assert_eq!(told(&[5, 7], 9, Some(7)), [Some(Turn::Gone), Some(Turn::First)]);
        assert_eq!(told(&[5, 7], 9, None), [Some(Turn::Gone), Some(Turn::Gone)]);
        // Not even its own ticket has been heard of: an earlier one may be unheard of too.
        assert_eq!(told(&[5, 7], 4, None), [None, None]);
        assert_eq!(told(&[5, 7], 6, Some(5)), [Some(Turn::First), None]);
        assert_eq!(told(&[7], 6, Some(3)), [None]);
    }
}
