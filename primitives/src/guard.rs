//! Holding a lock.

use std::{fmt, future::Future, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use tenure_kv::{Batch, ClockExt, Key, Op, Revision, Ttl};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use crate::{
    Error, Loss, Mutex, Result, Session, fencing,
    hold::Hold,
    leash::Leash,
    record::ABSENT,
    session::{Ended, Leaving, timing},
};

/// A lock held. Dropped, it is released by the session as soon as it can; [`Guard::release`] is the
/// sure way.
///
/// A guard is not a promise about the future: check [`Guard::is_held`], let [`Guard::run`] or
/// [`Guard::lost`] stop the work, and write through [`Guard::commit`], which the store itself refuses
/// once somebody else holds the lock.
#[must_use = "the lock is released when its guard is dropped"]
pub struct Guard {
    hold: Hold,
    ticket: Key,
    token: Revision,
    /// How many outages the store had had when it was granted.
    outages: u64,
    session: Session,
    lock: Key,
    /// A try to give it up went unanswered, so it may have been given up.
    unanswered: bool,
    /// How it was given up, once that is known.
    over: Option<std::result::Result<(), Loss>>,
    /// Tells the [`Leash`] that this is dropped.
    on_drop: Option<DropGuard>,
}

impl Guard {
    /// The session has been told of `ended` since before the ticket was written.
    pub(crate) fn new(
        mutex: &Mutex,
        ticket: Key,
        token: Revision,
        outages: u64,
        ended: Arc<watch::Sender<Option<Loss>>>,
    ) -> Self {
        let session = mutex.session().clone();
        let hold = Hold::new(session.inner().clone(), mutex.policy(), ended);
        let lock = mutex.key().clone();
        Self { hold, ticket, token, outages, session, lock, unanswered: false, over: None, on_drop: None }
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        self.lock.as_str()
    }

    /// The fencing token: higher than that of every earlier holder in this epoch, and the same as long
    /// as the lock is held. It is the revision of a key in the bucket, so the store can check it.
    pub const fn token(&self) -> Revision {
        self.token
    }

    /// Whether the lock is held at this moment, by the holder's own clock.
    pub fn is_held(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// How long the lock is held if no renewal succeeds from now on; zero when it is not.
    pub fn remaining(&self) -> Duration {
        self.hold.remaining()
    }

    /// Resolves when the hold is lost, before anybody else can be granted.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub fn lost(&self) -> impl Future<Output = Loss> + Send + 'static {
        self.hold.clone().lost()
    }

    /// Runs `work` as long as the lock is held, and drops it at the deadline.
    ///
    /// # Errors
    /// [`Error::Lost`] when the hold ended first.
    ///
    /// # Cancel safety
    /// Dropping drops `work`; the lock stays held.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output> {
        tokio::pin!(work);
        // Timers may be late after a suspend, so the clock is asked before every step of the work.
        let work = std::future::poll_fn(|cx| match self.hold.loss() {
            Some(loss) => Poll::Ready(Err(Error::lost(loss))),
            None => work.as_mut().poll(cx).map(Ok),
        });
        tokio::select! {
            biased;
            loss = self.lost() => Err(Error::lost(loss)),
            output = work => output,
        }
    }

    /// Applies `batch` only if this hold is still the lock's: refused by the store itself from the
    /// moment a later holder can exist, without any clock.
    ///
    /// # Errors
    /// [`Error::Lost`] when the lock is no longer held; [`Error::Conflict`] when a precondition of the
    /// batch did not hold; [`Error::Invalid`] for a batch that touches Tenure's own keys or has fences
    /// of its own; [`Error::Unavailable`] and [`Error::Unknown`] as the store says, and unavailable also where it
    /// refused the batch and does not tell for which of the two.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn commit(&self, mut batch: Batch) -> Result<Revision> {
        fencing::check(&batch)?;
        fencing::fence(&mut batch, &self.ticket, self.token);
        if let Some(loss) = self.hold.loss() {
            return Err(Error::lost(loss));
        }
        match self.hold.inner.store.commit(batch).await {
            Err(tenure_kv::Error::Conflict { message, key, revision }) => {
                // A batch has no key of ours, so where the ticket is named it was the fence. Not every refusal names one.
                let stands = match &key {
                    Some(key) if *key == self.ticket => Ok(false),
                    Some(_) => Ok(!self.is_gone().await),
                    None => self.hold.inner.stands(&self.ticket, self.token).await,
                };
                match stands {
                    Ok(false) => {
                        let loss = self.hold.inner.why_gone(&self.ticket).await;
                        Err(Error::lost(self.hold.end(loss)))
                    }
                    Ok(true) | Err(Error::Invalid { .. }) => Err(Error::Conflict { message, key, revision }),
                    Err(error) => {
                        if let Some(loss) = self.hold.loss() {
                            return Err(Error::lost(loss));
                        }
                        let message = format!("not written, and not known yet whether the lock is still held: {message}");
                        Err(tenure_kv::Error::unavailable(message).caused_by(error).into())
                    }
                }
            }
            outcome => Ok(outcome?),
        }
    }

    /// Gives the lock up. On `Ok` every later acquire finds it free.
    ///
    /// # Errors
    /// [`Error::Lost`] when it had been lost before; [`Error::Unavailable`] or [`Error::Unknown`] when
    /// the store did not answer while the lease lasted: then it is free when the lease has run out.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the release: the session goes on with it.
    pub async fn release(mut self) -> Result<()> {
        self.give_up().await
    }

    /// As [`release`](Self::release), for a caller who wants to know: after [`Error::Unavailable`] or
    /// [`Error::Unknown`] call it again, and it goes on with the same release until its outcome is known.
    /// Dropped, the guard leaves that to the session.
    ///
    /// # Errors
    /// As [`release`](Self::release), and the same again once the outcome is known.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome open: call again, or drop the guard.
    pub async fn give_up(&mut self) -> Result<()> {
        if let Some(over) = self.over {
            return over.map_err(Error::lost);
        }
        let hold = &self.hold;
        // After a try that may have done it, only the ticket itself tells.
        if !self.unanswered
            && let Some(loss) = hold.loss()
        {
            // The ticket may still be there: the drop sees to it.
            return Err(Error::lost(loss));
        }
        let mut leaving = leaving(&self.ticket, self.token, self.unanswered);
        let mut pause = timing::renewal_retry(hold.inner.lease) / 4;
        let patience = timing::renewal_interval(hold.inner.lease).min(Duration::from_secs(5));
        loop {
            if !leaving.unanswered
                && let Some(loss) = hold.inner.validity.lost()
            {
                return Err(Error::lost(loss));
            }
            // Should this future be dropped meanwhile.
            self.unanswered = true;
            hold.inner.giving_up(&self.ticket);
            let tried = hold.inner.clock.timeout(patience, hold.inner.end_ticket(&mut leaving)).await;
            leaving.unanswered |= tried.is_err();
            self.unanswered = leaving.unanswered;
            let error = match tried {
                Ok(Ok(Ended::ByUs)) => {
                    hold.inner.floors.learn(&self.lock, self.outages, |floor| {
                        floor.gone = floor.gone.max(self.token);
                        floor.released = leaving.tombstone.unwrap_or(floor.released);
                    });
                    self.over = Some(Ok(()));
                    hold.inner.let_go(&self.ticket);
                    return Ok(());
                }
                Ok(Ok(Ended::ByOthers(loss))) => {
                    let loss = hold.end(hold.loss().unwrap_or(loss));
                    self.over = Some(Err(loss));
                    hold.inner.let_go(&self.ticket);
                    return Err(Error::lost(loss));
                }
                Ok(Err(error)) => error,
                Err(_) => tenure_kv::Error::unknown("the release was not answered"),
            };
            if error.is_invalid() || hold.inner.validity.remaining(&*hold.inner.clock).is_zero() {
                // The last try may not have been applied, but an earlier one may.
                return Err(if self.unanswered && !error.is_unknown() {
                    tenure_kv::Error::unknown("the release was not answered").caused_by(error).into()
                } else {
                    error.into()
                });
            }
            hold.inner.clock.sleep_until(hold.inner.clock.now() + pause).await;
            pause = (pause * 2).min(timing::renewal_interval(hold.inner.lease));
        }
    }

    /// The session it belongs to.
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// What whoever hands this guard out needs to take it back.
    pub(crate) fn leash(&mut self) -> Leash {
        let (leash, on_drop) = Leash::new(self.hold.clone(), self.ticket.clone(), self.token);
        self.on_drop = Some(on_drop);
        leash
    }

    /// Whether the ticket is proven to be gone.
    async fn is_gone(&self) -> bool {
        match self.hold.inner.store.entry(&self.ticket).await {
            Ok(Some(entry)) => !entry.is_live(),
            // Forgotten, or not there yet on a lagging replica: only a commit tells.
            Ok(None) => {
                let op = Op::delete(self.ticket.clone()).note(Bytes::from_static(ABSENT)).if_at(Revision::ZERO).ttl(Ttl::MIN);
                self.hold.inner.store.commit(op.into()).await.is_ok()
            }
            Err(_) => false,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let hold = &self.hold;
        hold.inner.let_go(&self.ticket);
        if self.over.is_none() {
            hold.inner.leave(leaving(&self.ticket, self.token, self.unanswered));
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("name", &self.name()).field("token", &self.token()).finish_non_exhaustive()
    }
}

/// A held ticket as it is to be ended.
fn leaving(ticket: &Key, token: Revision, unanswered: bool) -> Leaving {
    Leaving { held: true, unanswered, ..Leaving::new(ticket.clone(), Some(token)) }
}
