//! One ticket on its way to the front of the queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tenure_kv::{
    Clock, ClockExt, Key, KeyRange, Moment, Op, Page, Revision,
    mutants::{self, Mutant},
};
use tokio::sync::watch;

use super::{
    Mutex,
    behind::{Behind, Passed, pass_over, pass_over_row},
    crowd::{Lines, Turn},
};
use crate::{
    Error, Guard, Loss, Result, layout,
    queue::{Search, Step},
    record::encode,
    session::{Floor, Inner, Leaving},
};

/// So often in a row nobody must have been before us for [`Attempt::nothing_since_release`] to be tried.
const CALM: u8 = 4;

/// After how long a ticket that a read did not show is looked for again, at first.
const UNSEEN: Duration = Duration::from_millis(5);

/// How long a ticket may go unanswered before its caller is told.
const UNANSWERED: Duration = Duration::from_secs(30);

/// Where a search has found a ticket.
enum Place {
    First,
    /// Right behind these, the last first.
    Behind(Vec<(Key, Revision)>),
    Gone,
}

/// One ticket on its way to the front. Dropped before it is granted, it is withdrawn by the session.
pub(super) struct Attempt {
    mutex: Mutex,
    floor: Key,
    ticket: Key,
    token: Option<Revision>,
    /// How many outages the store had had before the last search of the queue, and before the ticket was written.
    outages: u64,
    /// When the ticket was sent.
    sent: Moment,
    /// The ticket was seen in the bucket that the session was opened in.
    here: Arc<AtomicBool>,
    /// So often it was not seen there, though nothing was before it.
    unseen: u32,
    /// The session has to see that the ticket goes.
    open: bool,
    /// It waited with many others of its session.
    crowded: bool,
    /// Told when the ticket is broken, from before it can be; `None` once a guard has it.
    ended: Option<Arc<watch::Sender<Option<Loss>>>>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.ended.is_some() {
            self.mutex.session.inner().let_go(&self.ticket);
        }
        if self.open && !mutants::is_on(Mutant::ForgottenTicket) {
            self.mutex.session.inner().leave(Leaving::new(self.ticket.clone(), self.token));
        }
    }
}

impl Attempt {
    pub(super) fn new(mutex: &Mutex) -> Result<Self> {
        let inner = mutex.session.inner();
        if let Some(loss) = inner.validity.lost() {
            return Err(Error::lost(loss));
        }
        Ok(Self {
            ticket: mutex.name.ticket(&inner.id, inner.next_ticket())?,
            floor: mutex.key().clone(),
            mutex: mutex.clone(),
            token: None,
            outages: inner.store.outages(),
            sent: inner.clock.now(),
            here: Arc::default(),
            unseen: 0,
            open: false,
            crowded: false,
            ended: Some(Arc::new(watch::Sender::new(None))),
        })
    }

    fn inner(&self) -> &Arc<Inner> {
        self.mutex.session.inner()
    }

    /// Writes the ticket.
    ///
    /// Each ticket is sent once: of two copies one could land when the other has come and gone, and nobody
    /// would end it. One that is not answered is looked for, and given up for another if it is not there.
    pub(super) async fn queue_up(&mut self) -> Result<()> {
        let inner = self.inner().clone();
        inner.room().await?;
        let record = encode(&self.mutex.owner);
        let (mut before, begun) = (inner.witness.mark(), inner.clock.now());
        let mut unanswered: Option<tenure_kv::Error> = None;
        let mut tries = 0;
        loop {
            let outcome = if unanswered.is_some() {
                inner.settle_ticket(&self.ticket).await
            } else {
                (before, self.sent) = (inner.witness.mark(), inner.clock.now());
                self.outages = inner.store.outages();
                self.open = true;
                inner.traces.lock(&self.floor);
                if let Some(ended) = &self.ended {
                    inner.holding(&self.ticket, ended);
                }
                // Not over a tombstone either: that may be the one that forestalls this very write.
                let op = Op::put(self.ticket.clone(), record.clone()).if_at(Revision::ZERO);
                inner.patient.commit(op.into()).await.map(Some)
            };
            match outcome {
                Ok(Some(token)) => {
                    inner.acknowledged(before, token)?;
                    self.token = Some(token);
                    self.here.store(inner.is_surely_here(token, self.sent), Ordering::Relaxed);
                    return Ok(());
                }
                Ok(None) => {
                    inner.let_go(&self.ticket);
                    self.ticket = self.mutex.name.ticket(&inner.id, inner.next_ticket())?;
                    unanswered = None;
                }
                Err(error) => match unanswered {
                    // Refused for certain, and nothing is on its way.
                    None if !error.is_unknown() => {
                        self.open = false;
                        return Err(error.into());
                    }
                    None => unanswered = Some(error),
                    Some(_) => {}
                },
            }
            tries += 1;
            // A cluster that has lost its leader takes seconds.
            if tries > 8
                && inner.clock.now() >= begun + UNANSWERED
                && let Some(error) = unanswered
            {
                return Err(error.into());
            }
            tokio::select! {
                loss = inner.lost() => return Err(Error::lost(loss)),
                () = inner.clock.sleep(Duration::from_millis((5 * tries).min(1_000))) => {}
            }
        }
    }

    async fn ended_by_others(&mut self) -> Error {
        self.open = false;
        Error::lost(self.inner().why_gone(&self.ticket).await)
    }

    /// The tickets right before ours, the last first; none when ours is first.
    async fn before(&mut self) -> Result<Vec<(Key, Revision)>> {
        loop {
            let outages = self.inner().store.outages();
            let found = match self.search(outages).await? {
                Place::First => Vec::new(),
                Place::Behind(row) => row,
                Place::Gone => return Err(self.ended_by_others().await),
            };
            // What one server shows after an outage need not be what it showed before.
            if self.inner().store.outages() == outages {
                self.outages = outages;
                return Ok(found);
            }
        }
    }

    /// Looks once whether the ticket stands in the bucket that the session was opened in. Where a read lags behind it, or is
    /// not answered, that has to be asked again.
    fn look_here(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (inner, ticket, token) = (self.inner().clone(), self.ticket.clone(), self.token.unwrap_or_default());
        let sent = self.sent;
        let here = self.here.clone();
        async move {
            // One that a single process keeps is not made anew under it.
            if here.load(Ordering::Relaxed) || !inner.store.info().shared {
                here.store(true, Ordering::Relaxed);
                return Ok(());
            }
            match inner.is_written_here(&ticket, token, sent).await {
                Err(error @ (Error::Lost { .. } | Error::Invalid { .. })) => return Err(error),
                Ok(seen) => here.store(seen, Ordering::Relaxed),
                Err(error) => tracing::debug!(%ticket, %error, "whether the bucket is the same still is asked again"),
            }
            Ok(())
        }
    }

    /// As [`before`](Self::before), by what is known and read after so many `outages`.
    async fn search(&self, outages: u64) -> Result<Place> {
        let inner = self.inner().clone();
        let range = self.mutex.name.tickets()?;
        let own = self.token.unwrap_or_default();
        let floor = inner.floors.of(&self.floor, outages);
        if self.nothing_since_release(&range, own, floor).await? {
            self.nothing_before(outages);
            return Ok(Place::First);
        }
        let (mut search, mut step) = Search::new(self.ticket.clone(), own, floor);
        let mut lagging = 0_u32;
        loop {
            let (from, limit) = match step {
                Step::Read(from, limit) => (from, limit),
                Step::Again(from, limit) => {
                    lagging += 1;
                    if lagging > 1 {
                        let pause = Duration::from_millis(1 << lagging.min(6));
                        tokio::select! {
                            loss = inner.lost() => return Err(Error::lost(loss)),
                            () = inner.clock.sleep(pause) => {}
                        }
                    }
                    (from, limit)
                }
                Step::Behind(row) => {
                    inner.floors.learn(&self.floor, outages, |floor| {
                        floor.calm = 0;
                        floor.crowded = search.crowded();
                    });
                    return Ok(Place::Behind(row));
                }
                Step::First => {
                    inner.floors.learn(&self.floor, outages, |floor| {
                        floor.calm = floor.calm.saturating_add(1);
                        floor.crowded = false;
                    });
                    self.nothing_before(outages);
                    return Ok(Place::First);
                }
                Step::Gone => return Ok(Place::Gone),
            };
            step = search.page(&inner.patient.scan(&range, from, limit).await?);
        }
    }

    /// Everything before our ticket is gone.
    fn nothing_before(&self, outages: u64) {
        let gone = Revision::new(self.token.unwrap_or_default().get().saturating_sub(1));
        self.inner().floors.learn(&self.floor, outages, |floor| floor.gone = floor.gone.max(gone));
    }

    /// Whether the only write between what is known to be gone and our ticket is our own last release: two
    /// single reads at once, where a search would wade through all tombstones that the store still keeps.
    async fn nothing_since_release(&self, range: &KeyRange, own: Revision, floor: Floor) -> Result<bool> {
        let inner = self.inner();
        if floor.calm < CALM || floor.released <= floor.gone || !inner.store.info().shared {
            return Ok(false);
        }
        let (gap, rest) = futures::try_join!(
            inner.patient.scan(range, floor.gone.next(), 1),
            inner.patient.scan(range, floor.released.next(), 1)
        )?;
        let is_own = |page: &Page| page.entries.first().is_some_and(|entry| entry.revision == own && entry.key == self.ticket);
        // The store has forgotten the release by now.
        if is_own(&gap) {
            return Ok(true);
        }
        if !gap.entries.is_empty() || gap.through != floor.released {
            return Ok(false);
        }
        inner.floors.learn(&self.floor, floor.outages, |known| known.gone = known.gone.max(floor.released));
        Ok(is_own(&rest))
    }

    pub(super) async fn is_first(&mut self) -> Result<bool> {
        beside(self.look_here(), self.nothing_is_before(), |first| *first).await
    }

    async fn nothing_is_before(&mut self) -> Result<bool> {
        let mut gone = Gone::default();
        loop {
            let row = self.before().await?;
            let Some((ticket, revision)) = row.first() else { return Ok(true) };
            let inner = self.inner().clone();
            let again = gone.pause_if_shown_again(&*inner.clock, *revision).await;
            let Some((_, session)) = layout::parse_ticket(ticket) else { return Ok(false) };
            if !pass_over(&inner, ticket, *revision, session).await? {
                return Ok(false);
            }
            if !again {
                pass_over_row(&inner, &row[1..]).await?;
            }
        }
    }

    /// Waits until nothing is before ours and the session can vouch for it.
    pub(super) async fn win(&mut self) -> Result<()> {
        let inner = self.inner().clone();
        let won = async {
            loop {
                beside(self.look_here(), self.wait(), |()| true).await?;
                if self.vouched().await? {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            biased;
            won = won => won,
            loss = inner.lost() => Err(Error::lost(loss)),
        }
    }

    /// Waits until nothing is before ours. Outages of the store are waited out: the session decides.
    async fn wait(&mut self) -> Result<()> {
        let inner = self.inner().clone();
        let mut pause = Duration::from_millis(2);
        let mut gone = Gone::default();
        let place = Lines::enter(&inner, &self.floor);
        let tickets = self.mutex.name.tickets()?;
        // The last before ours was of somebody dead.
        let mut dead = false;
        // Who waits behind one ticket, or by a view, has not looked for those that an outage may have left elsewhere.
        let mut hearsay = true;
        loop {
            let turn = async {
                if hearsay && let Some(crowd) = place.crowd(&tickets) {
                    self.crowded = true;
                    match crowd.turn(self.token.unwrap_or_default()).await? {
                        Turn::First => return Ok(true),
                        // A view is hearsay where it says that our ticket is gone: the search below proves it, or a
                        // ticket that lives would be left in everybody's way.
                        Turn::Gone | Turn::Alone => {}
                    }
                }
                let row = self.before().await?;
                let Some((ticket, revision)) = row.first().cloned() else { return Ok(true) };
                let again = gone.pause_if_shown_again(&*inner.clock, revision).await;
                // A server that lags shows what has been ended.
                if dead && !again && pass_over_row(&inner, &row).await? > 0 {
                    return Ok(false);
                }
                // It may be long, and so may the wait.
                drop(row);
                let passed = Behind::new(&inner, ticket, revision).wait(&inner).await?;
                dead = matches!(passed, Passed::Dead);
                Ok(matches!(passed, Passed::Held))
            };
            let outcome: Result<bool> = tokio::select! {
                biased;
                outcome = turn => outcome,
                loss = inner.lost() => Err(Error::lost(loss)),
            };
            match outcome {
                Ok(true) if inner.store.outages() == self.outages => return Ok(()),
                Ok(true) => hearsay = false,
                Ok(false) => pause = Duration::from_millis(2),
                Err(error @ (Error::Unavailable { .. } | Error::Unknown { .. } | Error::Conflict { .. })) => {
                    tracing::debug!(lock = self.mutex.name(), %error, "waiting goes on");
                    inner.clock.sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Nothing is before ours: it is ours once the session can vouch for it. False when the queue has to be looked
    /// at again.
    pub(super) async fn vouched(&mut self) -> Result<bool> {
        let inner = self.inner().clone();
        self.look_here().await?;
        if !self.here.load(Ordering::Relaxed) {
            let pause = UNSEEN * 2_u32.pow(self.unseen.min(7));
            self.unseen += 1;
            inner.clock.sleep(pause).await;
            return Ok(false);
        }
        inner.until_grants().await?;
        // Ours, but nobody may rely on it before a renewal says that the session still lives.
        inner.vouched().await?;
        Ok(inner.store.outages() == self.outages)
    }

    /// It is ours, and vouched for.
    pub(super) fn grant(mut self) -> Result<Guard> {
        let inner = self.inner().clone();
        let token = self.token.unwrap_or_default();
        self.nothing_before(self.outages);
        let Some(ended) = self.ended.take() else { return Err(Error::lost(Loss::Closed)) };
        let broken = *ended.borrow();
        if let Some(loss) = broken {
            inner.let_go(&self.ticket);
            return Err(Error::lost(loss));
        }
        self.open = false;
        inner.granted(&self.ticket, token);
        Ok(Guard::new(&self.mutex, self.ticket.clone(), token, self.outages, ended))
    }

    /// Whether it waited with many others of its session.
    pub(super) const fn was_crowded(&self) -> bool {
        self.crowded
    }

    pub(super) async fn withdraw(mut self) {
        // Nothing was written, or others have ended it.
        if !self.open {
            return;
        }
        let mut leaving = Leaving::new(self.ticket.clone(), self.token);
        // On failure the drop hands it to the session.
        self.open = self.inner().clone().end_ticket(&mut leaving).await.is_err();
    }
}

/// Does `work`, and meanwhile takes a `look`, for which it waits only where it comes to what `needs` one.
async fn beside<T>(
    look: impl Future<Output = Result<()>>,
    work: impl Future<Output = Result<T>>,
    needs: impl FnOnce(&T) -> bool,
) -> Result<T> {
    tokio::pin!(look, work);
    tokio::select! {
        biased;
        done = &mut work => {
            let done = done?;
            if needs(&done) {
                look.await?;
            }
            Ok(done)
        }
        looked = &mut look => {
            looked?;
            work.await
        }
    }
}

/// A search that lags can show a ticket again that a fresher read has found gone.
#[derive(Default)]
struct Gone {
    ticket: Option<Revision>,
    times: u32,
}

impl Gone {
    /// Holds back who comes to the same ticket again and again, so that lagging replicas are not stormed.
    /// True for who does.
    async fn pause_if_shown_again(&mut self, clock: &dyn Clock, ticket: Revision) -> bool {
        let again = self.ticket.replace(ticket) == Some(ticket);
        if again {
            self.times += 1;
            clock.sleep(Duration::from_millis(1 << self.times.min(6))).await;
        } else {
            self.times = 0;
        }
        again
    }
}
