//! The lock: a queue of tickets, granted in the order of their revisions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use tenure_kv::{Key, KeyRange, Notice, Op, Revision, State};
use tokio::sync::watch;

use crate::{
    Error, Guard, Loss, Queue, Result, Session, layout,
    layout::Name,
    locks,
    queue::{Search, Step},
    record::{HELD, TicketRecord, encode},
    session::{Inner, Leaving, Vigil, Wake},
};

/// What a hold does when its lease runs out and is then renewed late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// It is lost at the deadline. Right for work that nothing else protects.
    #[default]
    AtDeadline,
    /// It pauses at the deadline and goes on if a late renewal proves that nobody was granted in
    /// between. Right where every write is fenced.
    WhenProven,
}

/// How long whoever gives up waits for what is good to know and good to have done, but not worth a delay.
const COURTESY: Duration = Duration::from_millis(250);

/// A lock that at most one session holds at a time. Cheap to clone.
///
/// Whoever wants it writes a ticket; the live ticket with the lowest revision holds, and that revision is
/// the **fencing token**: it grows from one holder to the next and does not move while the lock is held.
/// A ticket waits on the one before it and on the session behind that one, so a release wakes one waiter.
///
/// The ticket queue is the recipe that ZooKeeper's users know, on revisions instead of sequence nodes.
#[derive(Clone, Debug)]
pub struct Mutex {
    session: Session,
    name: Name,
    owner: TicketRecord,
    on_loss: OnLoss,
}

impl Mutex {
    /// The lock called `name` for `session`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name breaks the rules of [`Session::mutex`].
    pub fn new(session: &Session, name: &str) -> Result<Self> {
        Ok(Self {
            name: Name::new(name)?,
            owner: session.inner().owner.clone(),
            session: session.clone(),
            on_loss: OnLoss::default(),
        })
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Shows `label` to people who ask who holds or waits.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.owner.label = Some(label.into());
        self
    }

    /// Shows this machine and process as the owner, for whom somebody else holds the session.
    #[must_use]
    pub fn with_owner(mut self, host: impl Into<String>, pid: u32) -> Self {
        self.owner.host = host.into();
        self.owner.pid = pid;
        self
    }

    /// What holds do at the deadline; [`OnLoss::AtDeadline`] unless told.
    #[must_use]
    pub const fn on_loss(mut self, policy: OnLoss) -> Self {
        self.on_loss = policy;
        self
    }

    /// Waits for the lock, however long it takes.
    ///
    /// # Errors
    /// [`Error::Lost`] when the session is lost; [`Error::Unavailable`] or [`Error::Unknown`] when the
    /// place in the queue could not be taken. In each case nothing is held.
    ///
    /// # Cancel safety
    /// Safe to drop: the place in the queue, or the lock itself if it was won, is given up by the session.
    pub async fn lock(&self) -> Result<Guard> {
        let mut attempt = Attempt::new(self)?;
        attempt.queue_up().await?;
        attempt.wait().await?;
        attempt.grant().await
    }

    /// Takes the lock if nobody holds it or waits for it.
    ///
    /// # Errors
    /// [`Error::NotAcquired`] when somebody does; otherwise as [`Mutex::lock`].
    ///
    /// # Cancel safety
    /// As [`Mutex::lock`].
    pub async fn try_lock(&self) -> Result<Guard> {
        if let Some(loss) = self.session.inner().validity.lost() {
            return Err(Error::lost(loss));
        }
        let begun = self.session.inner().clock.now();
        // Look before writing, so that those who only try do not stand in each other's way; but not where
        // the look may lag behind a release that was acknowledged.
        if self.session.inner().store.info().replicas > 1 || self.is_free().await? {
            let mut attempt = Attempt::new(self)?;
            attempt.queue_up().await?;
            if attempt.is_first().await? {
                return attempt.grant().await;
            }
            attempt.withdraw().await;
        }
        Err(self.not_acquired(self.session.inner().clock.now().saturating_since(begun)).await)
    }

    /// Waits for the lock for at most `limit`.
    ///
    /// # Errors
    /// [`Error::NotAcquired`] when the time is over; otherwise as [`Mutex::lock`].
    ///
    /// # Cancel safety
    /// As [`Mutex::lock`].
    pub async fn lock_timeout(&self, limit: Duration) -> Result<Guard> {
        let clock = &self.session.inner().clock;
        self.lock_until(clock.sleep_until(clock.now() + limit)).await
    }

    /// Waits for the lock until `stop` resolves. By then the place in the queue is given up, and stands in
    /// nobody's way, unless the store takes long to say so.
    ///
    /// # Errors
    /// [`Error::NotAcquired`] when `stop` resolved first; otherwise as [`Mutex::lock`].
    ///
    /// # Cancel safety
    /// As [`Mutex::lock`].
    pub async fn lock_until(&self, stop: impl Future<Output = ()>) -> Result<Guard> {
        let clock = &self.session.inner().clock;
        let begun = clock.now();
        let mut attempt = Attempt::new(self)?;
        tokio::pin!(stop);
        let first = async {
            attempt.queue_up().await?;
            attempt.wait().await
        };
        tokio::select! {
            biased;
            outcome = first => {
                outcome?;
                tokio::select! {
                    biased;
                    granted = attempt.grant() => return granted,
                    () = stop => {}
                }
            }
            // What takes longer goes on in the session.
            () = &mut stop => drop(tokio::time::timeout(COURTESY, attempt.withdraw()).await),
        }
        Err(self.not_acquired(clock.now().saturating_since(begun)).await)
    }

    /// Who holds the lock and who waits, as of one read.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn queue(&self) -> Result<Queue> {
        locks::inspect(&*self.session.inner().store, self.name()).await
    }

    pub(crate) const fn key(&self) -> &Key {
        self.name.key()
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) const fn policy(&self) -> OnLoss {
        self.on_loss
    }

    async fn is_free(&self) -> Result<bool> {
        let inner = self.session.inner();
        let range = self.name.tickets()?;
        let mut from = inner.floor(self.key()).gone.next();
        loop {
            let page = inner.store.scan(&range, from, 512).await?;
            for entry in &page.entries {
                if let Some((_, session)) = layout::parse_ticket(&entry.key)
                    && !pass_over(inner, &entry.key, entry.revision, session).await?
                {
                    return Ok(false);
                }
            }
            if page.complete {
                return Ok(true);
            }
            from = page.through.next();
        }
    }

    async fn not_acquired(&self, waited: Duration) -> Error {
        // Who holds it is a courtesy; it must not delay the answer.
        let look = tokio::time::timeout(COURTESY, self.queue()).await;
        let holder = look.ok().and_then(Result::ok).and_then(|queue| queue.holder);
        let message = match &holder {
            Some(holder) => format!("the lock {} is held by {holder}", self.name()),
            None => format!("the lock {} was not acquired in {waited:?}", self.name()),
        };
        Error::NotAcquired { message, waited, holder: holder.map(Box::new) }
    }
}

/// Ends a ticket if its session is known to be dead, without waiting. True when it is gone.
async fn pass_over(inner: &Inner, ticket: &Key, revision: Revision, session: &str) -> Result<bool> {
    if session == inner.id {
        return Ok(false);
    }
    let mut vigil = Vigil::new(inner, session).await?;
    let entry = inner.store.entry(vigil.key()).await?;
    let dead = vigil.saw(inner, entry.as_ref()) || ((vigil.never_seen() || vigil.is_silent(inner)) && vigil.depose(inner).await);
    if dead {
        end_dead(inner, ticket, revision).await?;
    }
    Ok(dead)
}

/// Ends the ticket of a dead session: from then on the store refuses what its holder fenced with it.
async fn end_dead(inner: &Inner, ticket: &Key, revision: Revision) -> Result<()> {
    let mut leaving = Leaving::new(ticket.clone(), Some(revision));
    inner.end_ticket(&mut leaving).await?;
    Ok(())
}

/// So often in a row nobody must have been before us for [`Attempt::nothing_since_release`] to be tried.
const CALM: u8 = 4;

/// One ticket on its way to the front. Dropped before it is granted, it is withdrawn by the session.
struct Attempt {
    mutex: Mutex,
    floor: Key,
    ticket: Key,
    token: Option<Revision>,
    /// The session has to see that the ticket goes.
    open: bool,
    /// Told when the ticket is broken, from before it can be; `None` once a guard has it.
    ended: Option<Arc<watch::Sender<Option<Loss>>>>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.ended.is_some() {
            self.mutex.session.inner().let_go(&self.ticket);
        }
        if self.open {
            self.mutex.session.inner().leave(Leaving::new(self.ticket.clone(), self.token));
        }
    }
}

impl Attempt {
    fn new(mutex: &Mutex) -> Result<Self> {
        let inner = mutex.session.inner();
        if let Some(loss) = inner.validity.lost() {
            return Err(Error::lost(loss));
        }
        Ok(Self {
            ticket: mutex.name.ticket(&inner.id, inner.next_ticket())?,
            floor: mutex.key().clone(),
            mutex: mutex.clone(),
            token: None,
            open: false,
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
    async fn queue_up(&mut self) -> Result<()> {
        let inner = self.inner().clone();
        let record = encode(&self.mutex.owner);
        let mut before = Revision::ZERO;
        let mut unanswered: Option<tenure_kv::Error> = None;
        let mut tries = 0;
        loop {
            let outcome = if unanswered.is_some() {
                inner.settle_ticket(&self.ticket).await
            } else {
                before = inner.witness.highest();
                self.open = true;
                if let Some(ended) = &self.ended {
                    inner.holding(&self.ticket, ended);
                }
                // Not over a tombstone either: that may be the one that forestalls this very write.
                let op = Op::put(self.ticket.clone(), record.clone()).if_at(Revision::ZERO);
                inner.store.commit(op.into()).await.map(Some)
            };
            match outcome {
                Ok(Some(token)) if inner.witness.committed(before, token) => {
                    self.token = Some(token);
                    return Ok(());
                }
                Ok(Some(_)) => {
                    inner.witness.went_back(&*inner.clock, &inner.epoch);
                    inner.lose(Loss::StoreReset);
                    return Err(Error::lost(Loss::StoreReset));
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
            if tries > 8
                && let Some(error) = unanswered
            {
                return Err(error.into());
            }
            tokio::select! {
                loss = inner.lost() => return Err(Error::lost(loss)),
                () = tokio::time::sleep(Duration::from_millis(5 * tries)) => {}
            }
        }
    }

    async fn ended_by_others(&mut self) -> Error {
        self.open = false;
        Error::lost(self.inner().why_gone(&self.ticket).await)
    }

    /// The ticket right before ours, or `None` when ours is first.
    async fn before(&mut self) -> Result<Option<(Key, Revision)>> {
        let inner = self.inner().clone();
        let range = self.mutex.name.tickets()?;
        let own = self.token.unwrap_or_default();
        if self.nothing_since_release(&range, own).await? {
            inner.learn(&self.floor, |floor| floor.gone = floor.gone.max(Revision::new(own.get() - 1)));
            return Ok(None);
        }
        let (mut search, mut step) = Search::new(own, inner.floor(&self.floor));
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
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                    (from, limit)
                }
                Step::Behind(key, revision) => {
                    inner.learn(&self.floor, |floor| {
                        floor.calm = 0;
                        floor.crowded = search.crowded();
                    });
                    return Ok(Some((key, revision)));
                }
                Step::First => {
                    inner.learn(&self.floor, |floor| {
                        floor.calm = floor.calm.saturating_add(1);
                        floor.crowded = false;
                        floor.gone = floor.gone.max(Revision::new(own.get() - 1));
                    });
                    return Ok(None);
                }
                Step::Gone => return Err(self.ended_by_others().await),
            };
            step = search.page(&inner.store.scan(&range, from, limit).await?);
        }
    }

    /// Whether the only write between what is known to be gone and our ticket is our own last release: two
    /// single reads at once, where a search would wade through all tombstones that the store still keeps.
    async fn nothing_since_release(&self, range: &KeyRange, own: Revision) -> Result<bool> {
        let inner = self.inner();
        let floor = inner.floor(&self.floor);
        if floor.calm < CALM || floor.released <= floor.gone || !inner.store.info().shared {
            return Ok(false);
        }
        let (gap, rest) =
            futures::try_join!(inner.store.scan(range, floor.gone.next(), 1), inner.store.scan(range, floor.released.next(), 1))?;
        if !gap.entries.is_empty() || gap.through != floor.released {
            return Ok(false);
        }
        inner.learn(&self.floor, |known| known.gone = known.gone.max(floor.released));
        Ok(rest.entries.first().is_some_and(|entry| entry.revision == own))
    }

    async fn is_first(&mut self) -> Result<bool> {
        let mut gone = Gone::default();
        while let Some((ticket, revision)) = self.before().await? {
            gone.pause_if_shown_again(revision).await;
            let inner = self.inner().clone();
            let Some((_, session)) = layout::parse_ticket(&ticket) else { return Ok(false) };
            if !pass_over(&inner, &ticket, revision, session).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until nothing is before ours. Outages of the store are waited out: the session decides.
    async fn wait(&mut self) -> Result<()> {
        let inner = self.inner().clone();
        let mut pause = Duration::from_millis(2);
        let mut gone = Gone::default();
        loop {
            let turn = async {
                let Some((ticket, revision)) = self.before().await? else { return Ok(true) };
                gone.pause_if_shown_again(revision).await;
                Behind::new(&inner, ticket, revision)?.wait(&inner).await
            };
            let outcome: Result<bool> = tokio::select! {
                biased;
                outcome = turn => outcome,
                loss = inner.lost() => Err(Error::lost(loss)),
            };
            match outcome {
                Ok(true) => return Ok(()),
                Ok(false) => pause = Duration::from_millis(2),
                Err(error @ (Error::Unavailable { .. } | Error::Unknown { .. } | Error::Conflict { .. })) => {
                    tracing::debug!(lock = self.mutex.name(), %error, "waiting goes on");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Nothing is before ours: it is ours once the session can vouch for it.
    async fn grant(mut self) -> Result<Guard> {
        let inner = self.inner().clone();
        let token = self.token.unwrap_or_default();
        while let Some(from) = inner.witness.grants_from(&*inner.clock) {
            tokio::select! {
                loss = inner.lost() => return Err(Error::lost(loss)),
                () = inner.clock.sleep_until(from) => {}
            }
        }
        inner.witness.settle(&inner.store, &*inner.clock).await;
        if !inner.witness.is_in(&inner.epoch) {
            inner.lose(Loss::StoreReset);
            return Err(Error::lost(Loss::StoreReset));
        }
        if inner.validity.remaining(&*inner.clock).is_zero() {
            // Ours, but nobody may rely on it before a renewal says that the session still lives.
            let mut states = self.mutex.session.states();
            while inner.validity.remaining(&*inner.clock).is_zero() {
                if let Some(loss) = inner.validity.lost() {
                    return Err(Error::lost(loss));
                }
                if states.changed().await.is_err() {
                    return Err(Error::lost(Loss::Closed));
                }
            }
        }
        inner.learn(&self.floor, |floor| floor.gone = floor.gone.max(Revision::new(token.get() - 1)));
        let Some(ended) = self.ended.take() else { return Err(Error::lost(Loss::Closed)) };
        let broken = *ended.borrow();
        if let Some(loss) = broken {
            inner.let_go(&self.ticket);
            return Err(Error::lost(loss));
        }
        self.open = false;
        Ok(Guard::new(&self.mutex, self.ticket.clone(), token, ended))
    }

    async fn withdraw(mut self) {
        let mut leaving = Leaving::new(self.ticket.clone(), self.token);
        // On failure the drop hands it to the session.
        self.open = self.inner().clone().end_ticket(&mut leaving).await.is_err();
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
    async fn pause_if_shown_again(&mut self, ticket: Revision) {
        if self.ticket.replace(ticket) == Some(ticket) {
            self.times += 1;
            tokio::time::sleep(Duration::from_millis(1 << self.times.min(6))).await;
        } else {
            self.times = 0;
        }
    }
}

/// Waiting behind one ticket.
struct Behind {
    ticket: Key,
    revision: Revision,
    session: String,
}

impl Behind {
    fn new(inner: &Inner, ticket: Key, revision: Revision) -> Result<Self> {
        let session = layout::parse_ticket(&ticket).map_or(inner.id.as_str(), |(_, session)| session).to_owned();
        Ok(Self { ticket, revision, session })
    }

    /// Waits until the ticket is gone. True when it is known that nothing else is before ours either.
    async fn wait(self, inner: &Arc<Inner>) -> Result<bool> {
        let mut notices = inner.store.follow(&self.ticket).await?;
        // Our own session's tickets go with our own session, which the caller watches.
        let mut vigil = if self.session == inner.id { None } else { Some(Vigil::new(inner, &self.session).await?) };
        let (mut read, mut looked) = (true, false);
        loop {
            if read {
                read = false;
                match self.look(inner, vigil.as_mut()).await? {
                    Look::Waiting => looked = true,
                    // What went unheard may have been followed by the end of our own ticket: search again.
                    Look::Gone(first) => return Ok(first && !looked),
                    Look::Unseen => return self.finish_unseen(inner, vigil).await,
                    Look::Dead => return self.finish_dead(inner).await,
                }
            }
            // A back-up for notices that a store may lose; rare enough to cost nothing.
            let backup = inner.clock.now() + inner.lease;
            let wake = async {
                match vigil.as_mut() {
                    Some(vigil) => vigil.wake(inner).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                notice = notices.next() => match notice {
                    Some(Notice::Entry(entry)) if entry.revision > self.revision => {
                        return Ok(was_held(&entry.state));
                    }
                    Some(Notice::Entry(_)) => {}
                    Some(Notice::Recheck) => read = true,
                    Some(Notice::Reconnected) => {
                        if let Some(vigil) = &mut vigil {
                            vigil.cut_off(inner);
                        }
                        read = true;
                    }
                    None => return Err(tenure_kv::Error::unavailable("the store ended its notices").into()),
                },
                wake = wake => match wake {
                    Wake::Read => read = true,
                    Wake::Dead => return self.finish_dead(inner).await,
                    Wake::Silent => {
                        if let Some(vigil) = &mut vigil
                            && vigil.depose(inner).await
                        {
                            return self.finish_dead(inner).await;
                        }
                    }
                },
                () = inner.clock.sleep_until(backup) => read = true,
            }
        }
    }

    /// One read of the ticket and of the session behind it.
    async fn look(&self, inner: &Inner, vigil: Option<&mut Vigil>) -> Result<Look> {
        let mut keys = vec![self.ticket.clone()];
        keys.extend(vigil.as_ref().map(|vigil| vigil.key().clone()));
        let found = match inner.store.entries(&keys).await {
            Ok(found) => found,
            Err(error) => {
                if let Some(vigil) = vigil {
                    vigil.cut_off(inner);
                }
                return Err(error.into());
            }
        };
        if let Some(Some(entry)) = found.first()
            && entry.revision > self.revision
        {
            return Ok(Look::Gone(was_held(&entry.state)));
        }
        if found.first().is_some_and(Option::is_none) {
            // Gone and forgotten, or not there yet on a lagging replica: the next search tells.
            return Ok(Look::Gone(false));
        }
        let Some(vigil) = vigil else { return Ok(Look::Waiting) };
        if vigil.saw(inner, found.get(1).and_then(Option::as_ref)) {
            return Ok(Look::Dead);
        }
        Ok(if vigil.never_seen() { Look::Unseen } else { Look::Waiting })
    }

    /// A ticket whose session does not exist: a commit proves it.
    async fn finish_unseen(self, inner: &Arc<Inner>, vigil: Option<Vigil>) -> Result<bool> {
        if let Some(mut vigil) = vigil
            && vigil.depose(inner).await
        {
            return self.finish_dead(inner).await;
        }
        // It does exist; the read lagged.
        Err(tenure_kv::Error::unavailable("a lagging read does not show the session").into())
    }

    async fn finish_dead(self, inner: &Arc<Inner>) -> Result<bool> {
        end_dead(inner, &self.ticket, self.revision).await?;
        Ok(false)
    }
}

enum Look {
    Waiting,
    Gone(bool),
    Unseen,
    Dead,
}

/// Whether a ticket's tombstone says that it had been granted.
fn was_held(state: &State) -> bool {
    matches!(state, State::Deleted(note) if *note == Bytes::from_static(HELD))
}
