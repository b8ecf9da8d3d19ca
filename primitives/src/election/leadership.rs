//! Holding the office: what the leader's process sees of it.

use std::{fmt, future::Future, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use tenure_kv::{Batch, ClockExt, Key, Revision};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Candidate, Election,
    attempt::Won,
    office::{Office, Request},
    record::Record,
    withdrawal::Withdrawal,
};
use crate::{Error, Loss, Result, Session, fencing, hold::Hold, session::timing};

/// Requests that wait for the office's task.
const REQUESTS: usize = 16;

/// The office, won. Dropped, it is given up by the session as soon as it can; [`Leadership::resign`] is
/// the sure way.
///
/// A leadership is not a promise about the future: check [`Leadership::is_leader`], let
/// [`Leadership::run`] stop the work, and write through [`Leadership::commit`], which the store itself
/// refuses once somebody else leads.
#[must_use = "the office is given up when its leadership is dropped"]
pub struct Leadership {
    reign: Arc<Reign>,
    session: Session,
    requests: mpsc::Sender<Request>,
}

/// What the office's task, the leadership and its futures share.
pub(super) struct Reign {
    pub(super) hold: Hold,
    pub(super) name: String,
    pub(super) key: Key,
    pub(super) candidate: String,
    pub(super) term: Revision,
    health: Option<watch::Receiver<bool>>,
    pub(super) state: watch::Sender<State>,
}

/// How the office stands; written by its task.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Where the election's key is, as far as is known.
    pub(super) revision: Revision,
    /// A write of that key is under way, so that this revision may be over.
    pub(super) moving: bool,
    /// The office is being handed over; nobody may rely on it meanwhile.
    pub(super) aside: bool,
    /// Who asks the leader to step down.
    pub(super) asked: Option<Candidate>,
}

impl Reign {
    pub(super) fn remaining(&self) -> Duration {
        if self.is_unhealthy() || self.state.borrow().aside { Duration::ZERO } else { self.hold.remaining() }
    }

    pub(super) fn is_unhealthy(&self) -> bool {
        self.health.as_ref().is_some_and(|health| !*health.borrow())
    }

    /// As [`Inner::vouched`](crate::session::Inner::vouched), but with patience for a late renewal unless `for_ever`.
    pub(super) async fn vouched(&self, for_ever: bool) -> Result<()> {
        let inner = &self.hold.inner;
        tokio::select! {
            biased;
            vouched = inner.vouched() => vouched,
            () = inner.clock.sleep_until(inner.clock.now() + patience(inner.lease)), if !for_ever => Err(past_deadline().into()),
        }
    }

    fn loss(&self) -> Option<Loss> {
        self.hold.loss().or_else(|| self.is_unhealthy().then(|| self.hold.end(Loss::Unhealthy)))
    }

    async fn unhealthy(&self) {
        super::unhealthy(self.health.clone()).await;
    }

    async fn lost(self: Arc<Self>) -> Loss {
        tokio::select! {
            biased;
            loss = self.hold.clone().lost() => loss,
            () = self.unhealthy() => self.hold.end(Loss::Unhealthy),
        }
    }

    /// Resolves as soon as nobody may rely on the office, be it for good or for a while.
    async fn invalid(&self) -> Loss {
        let mut states = self.state.subscribe();
        loop {
            if let Some(loss) = self.loss() {
                return loss;
            }
            if states.borrow_and_update().aside {
                return Loss::Resigned;
            }
            if self.remaining().is_zero() {
                return Loss::Deadline;
            }
            tokio::select! {
                loss = self.hold.clone().lost() => return loss,
                () = self.unhealthy() => {}
                _ = states.changed() => {}
                () = self.hold.inner.clock.sleep_until(self.hold.inner.validity.deadline()) => {}
            }
        }
    }
}

impl Leadership {
    pub(super) fn new(election: &Election, record: Record, left: Withdrawal, won: Won) -> Self {
        let session = election.session.clone();
        let hold = Hold::new(session.inner().clone(), election.ballot.on_loss, Arc::new(watch::Sender::new(None)));
        let state = State { revision: won.revision, moving: false, aside: false, asked: None };
        let reign = Arc::new(Reign {
            hold,
            name: election.name().to_owned(),
            key: election.ballot.key.clone(),
            candidate: record.candidate.clone(),
            term: won.term,
            health: election.ballot.health.clone(),
            state: watch::Sender::new(state),
        });
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let office = Office::new(election, reign.clone(), record, left, won);
        session.inner().spawn(office.run(inbox));
        Self { reign, session, requests }
    }

    /// The election's name.
    pub fn name(&self) -> &str {
        &self.reign.name
    }

    /// The term: the revision at which it was won, higher than that of every earlier leader in this epoch,
    /// and the same as long as it lasts, whatever is proclaimed.
    pub fn term(&self) -> Revision {
        self.reign.term
    }

    /// The id of the candidature that won.
    pub fn candidate(&self) -> &str {
        &self.reign.candidate
    }

    /// The session it belongs to.
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Whether this is the leader at this moment, by its own clock. False past the lease's validity even
    /// where the office may turn out to be kept.
    pub fn is_leader(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// How long this is the leader if no renewal succeeds from now on; zero when it is not.
    pub fn remaining(&self) -> Duration {
        self.reign.remaining()
    }

    /// Resolves when the office is lost for certain: with [`OnLoss::WhenProven`](crate::OnLoss), which
    /// elections have unless told, not merely because the store was out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub fn lost(&self) -> impl Future<Output = Loss> + Send + 'static {
        self.reign.clone().lost()
    }

    /// Runs `work` as long as this is the leader, and drops it at the deadline: work that runs cannot be
    /// paused, so it ends there even if the office is kept. Then run it again once
    /// [`Leadership::is_leader`] is true.
    ///
    /// # Errors
    /// [`Error::Lost`] when it could no longer be relied on.
    ///
    /// # Cancel safety
    /// Dropping drops `work`; the office is kept.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output> {
        tokio::pin!(work);
        // Timers may be late after a suspend, so the clock is asked before every step of the work.
        let work = std::future::poll_fn(|cx| {
            if self.reign.remaining().is_zero() {
                return Poll::Ready(Err(Error::lost(self.reign.loss().unwrap_or(Loss::Deadline))));
            }
            work.as_mut().poll(cx).map(Ok)
        });
        tokio::select! {
            biased;
            loss = self.reign.invalid() => Err(Error::lost(loss)),
            output = work => output,
        }
    }

    /// Proclaims another value. The term stays; the returned revision is where it now stands.
    ///
    /// # Errors
    /// [`Error::Lost`] when the office is over; [`Error::Invalid`] for a value that is too long;
    /// [`Error::Unavailable`] and [`Error::Unknown`] when the store did not answer while the lease lasted.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the proclamation; the outcome is then unknown.
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<Revision> {
        let value = value.into();
        self.ask(|reply| Request::Proclaim { value, reply }).await
    }

    /// Applies `batch` only if this is still the leader: refused by the store itself from the moment a later
    /// one can exist, without any clock. A proclamation of our own at the same time does not stand in the way.
    /// Past the deadline it waits for the late renewal, which shows that the bucket is still the same.
    ///
    /// # Errors
    /// [`Error::Lost`] when somebody else leads; [`Error::Conflict`] when a precondition of the batch did not
    /// hold; [`Error::Invalid`] for a batch that touches Tenure's own keys or has fences of its own;
    /// [`Error::Unavailable`] and [`Error::Unknown`] as the store says, and unavailable also where it refused the batch
    /// and does not tell for which of the two.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn commit(&self, batch: Batch) -> Result<Revision> {
        fencing::check(&batch)?;
        let mut states = self.reign.state.subscribe();
        let (mut shown, inner) = (0_u32, &self.reign.hold.inner);
        loop {
            let settled = async { states.wait_for(|state| !state.moving).await.map(|state| state.revision) };
            let at = tokio::select! {
                biased;
                at = settled => at.unwrap_or(self.reign.term),
                loss = self.lost() => return Err(Error::lost(loss)),
            };
            self.reign.vouched(false).await?;
            if let Some(loss) = self.reign.loss() {
                return Err(Error::lost(loss));
            }
            let mut fenced = batch.clone();
            fencing::fence(&mut fenced, &self.reign.key, at);
            let (message, key, revision) = match inner.store.commit(fenced).await {
                // Not applied: nothing is ever sent again that may have been.
                Err(tenure_kv::Error::Conflict { message, key, revision }) => (message, key, revision),
                outcome => return Ok(outcome?),
            };
            if self.reign.state.borrow().revision != at {
                continue;
            }
            // A batch has no key of ours, so where ours is named it was the fence. Not every refusal names one.
            let moved = match &key {
                Some(key) => Some(*key == self.reign.key),
                None => self.session.inner().stands(&self.reign.key, at).await.ok().map(|stands| !stands),
            };
            let cause = match self.ask(|reply| Request::Verify { reply }).await {
                Ok(now) if now != at => continue,
                // The fence it was, and only a replica does not show it yet.
                Ok(_) if moved == Some(true) && shown < 8 => {
                    shown += 1;
                    self.session.inner().clock.sleep(Duration::from_millis(1 << shown)).await;
                    continue;
                }
                Ok(_) => None,
                Err(error @ Error::Lost { .. }) => return Err(error),
                Err(error) => Some(error),
            };
            if moved == Some(false) || moved.is_none() && matches!(cause, Some(Error::Invalid { .. })) {
                return Err(Error::Conflict { message, key, revision });
            }
            // Nothing tells that it was a precondition of the batch which did not hold.
            if let Some(loss) = self.reign.loss() {
                return Err(Error::lost(loss));
            }
            let message = format!("not written, and not known yet who has written the election since: {message}");
            let error = tenure_kv::Error::unavailable(message);
            return Err(match cause {
                Some(cause) => error.caused_by(cause),
                None => error,
            }
            .into());
        }
    }

    /// Resolves when a candidate with a higher priority asks the leader to step down, not before the
    /// election's minimum tenure is over. The leader answers at a moment of its own choosing, with
    /// [`Leadership::transfer`] or [`Leadership::resign`], or not at all. Does not resolve once the office is over.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub fn asked_to_step_down(&self) -> impl Future<Output = Candidate> + Send + 'static {
        let reign = self.reign.clone();
        async move {
            let mut states = reign.state.subscribe();
            loop {
                if reign.loss().is_none()
                    && let Some(challenger) = states.borrow_and_update().asked.clone()
                {
                    return challenger;
                }
                if states.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Hands the office to the candidate with this id in one write, and returns its term. While that is under
    /// way this is not the leader; on `Ok` it is over.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is no such candidate any more, and [`Error::Invalid`] when it is
    /// this leader's own: this remains the leader. [`Error::Lost`] when the office was over before.
    /// [`Error::Unavailable`] and [`Error::Unknown`] when the store did not answer while the lease lasted.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the transfer; the outcome is then unknown.
    pub async fn transfer(&self, candidate: &str) -> Result<Revision> {
        let candidate = candidate.to_owned();
        self.ask(|reply| Request::Transfer { candidate, reply }).await
    }

    /// Gives the office up. On `Ok` every later look finds it free, or led by somebody else.
    ///
    /// # Errors
    /// [`Error::Lost`] when it had been lost before; [`Error::Unavailable`] or [`Error::Unknown`] when the
    /// store did not answer while the lease lasted: then it is free when the lease has run out.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop it: the session goes on with it.
    pub async fn resign(self) -> Result<()> {
        self.step_down().await
    }

    pub(super) async fn step_down(&self) -> Result<()> {
        if let Some(loss) = self.reign.loss() {
            return Err(Error::lost(loss));
        }
        self.ask(|reply| Request::Resign { reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(request(reply)).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        // The task is over, and with it the office.
        Err(Error::lost(self.reign.loss().unwrap_or(Loss::Closed)))
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        // From here on nobody runs it; its task hears that too, and gives it up.
        self.reign.hold.end(Loss::Resigned);
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("name", &self.name()).field("term", &self.term()).finish_non_exhaustive()
    }
}

pub(super) fn past_deadline() -> tenure_kv::Error {
    tenure_kv::Error::unavailable("the lease has run out, and was not renewed since")
}

/// How long one write of the office may go unanswered before it is sent again.
pub(super) fn patience(lease: Duration) -> Duration {
    timing::renewal_interval(lease).min(Duration::from_secs(5))
}
