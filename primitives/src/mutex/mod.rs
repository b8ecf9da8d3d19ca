//! The lock: a queue of tickets, granted in the order of their revisions.

mod attempt;
mod behind;
mod crowd;
mod observe;
mod strays;
mod tickets;

use std::{future::Future, time::Duration};

use futures::stream::BoxStream;
use tenure_kv::{ClockExt, Key};

use self::{attempt::Attempt, behind::all_dead};
pub(crate) use self::{crowd::Lines, strays::end_strays};
use crate::{Error, Guard, LockState, OnLoss, Queue, Result, Session, layout, layout::Name, locks, record::TicketRecord};

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
        attempt.win().await?;
        attempt.grant()
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
            self.session.inner().room_now()?;
            let mut attempt = Attempt::new(self)?;
            attempt.queue_up().await?;
            while attempt.is_first().await? {
                if attempt.vouched().await? {
                    return attempt.grant();
                }
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
        let first = async {
            attempt.queue_up().await?;
            attempt.win().await
        };
        let crowded = tokio::select! {
            biased;
            outcome = first => return outcome.and_then(|()| attempt.grant()),
            () = stop => attempt.was_crowded(),
        };
        // What takes longer goes on in the session.
        let _ = clock.timeout(COURTESY, attempt.withdraw()).await;
        let waited = clock.now().saturating_since(begun);
        if crowded && !self.session.inner().lines.may_look(clock.now()) {
            return Err(self.held_by(None, waited));
        }
        Err(self.not_acquired(waited).await)
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

    /// The state now and every later one: who holds the lock, and who waits. Level-triggered: states may be merged, the
    /// last is always told, and a holder or waiter whose session is known to have ended is none. Whoever falls silent for
    /// its lease is proven to have ended, although its ticket still stands.
    ///
    /// An `Err` says that the store has been out of reach for so long that what was told last may no longer be so; the
    /// stream goes on, and tells the state again afterwards. It ends after [`Error::Lost`], when this session is.
    ///
    /// Costs a [`View`](crate::View) of the queue, which all of this process share, and two reads twice per lease, this
    /// session's or the holder's if that is shorter: of the queue's front, and of the sessions of those who are shown. A
    /// change costs the same however many wait; see [`LockState::SHOWN`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Lost`], as above, are told in the stream.
    ///
    /// # Cancel safety
    /// Safe to drop at any time; that ends the observation.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use futures::StreamExt;
    ///
    /// let session = tenure::Session::open(tenure_kv::open("memory:").await?).await?;
    /// let mutex = session.mutex("nightly-report")?;
    /// let guard = mutex.lock().await?;
    /// let mut states = mutex.observe();
    /// let state = states.next().await.ok_or("the stream has ended")??;
    /// assert_eq!(state.holder.map(|holder| holder.token), Some(guard.token()));
    /// guard.release().await?;
    /// let state = states.next().await.ok_or("the stream has ended")??;
    /// assert_eq!(state.holder, None);
    /// # Ok(()) }
    /// ```
    pub fn observe(&self) -> BoxStream<'static, Result<LockState>> {
        observe::observe(self.session.inner(), &self.name)
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
        let mut from = inner.floors.of(self.key(), inner.store.outages()).gone.next();
        loop {
            let page = inner.patient.scan(&range, from, 512).await?;
            let tickets = page.entries.iter().filter(|entry| layout::parse_ticket(&entry.key).is_some());
            let tickets: Vec<_> = tickets.map(|entry| (entry.key.clone(), entry.revision)).collect();
            if !all_dead(inner, &tickets).await? {
                return Ok(false);
            }
            if page.complete {
                return Ok(true);
            }
            from = page.through.next();
        }
    }

    async fn not_acquired(&self, waited: Duration) -> Error {
        // Who holds it is a courtesy; it must not delay the answer.
        let inner = self.session.inner();
        let look = inner.clock.timeout(COURTESY, locks::holder(&*inner.store, &self.name)).await;
        self.held_by(look.ok().and_then(Result::ok).flatten(), waited)
    }

    fn held_by(&self, holder: Option<locks::Holder>, waited: Duration) -> Error {
        let message = match &holder {
            Some(holder) => format!("the lock {} is held by {holder}", self.name()),
            None => format!("the lock {} was not acquired in {waited:?}", self.name()),
        };
        Error::NotAcquired { message, waited, holder: holder.map(Box::new) }
    }
}
