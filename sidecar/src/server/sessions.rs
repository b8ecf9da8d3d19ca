//! The daemon's sessions with its store: one per lease length in use, shared by all connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tenure::{Renewals, Session, SessionState};
use tenure_kv::Store;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::errors;
use crate::protocol::{ErrorObject, Kind, SessionStatus};

/// How long a session that nobody uses is kept for the next one who asks.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// How long one try may take to reach the store.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

type Opening = Shared<BoxFuture<'static, Result<Session, ErrorObject>>>;

#[derive(Debug)]
struct Place {
    opening: Opening,
    users: AtomicUsize,
    idle_since: Mutex<Instant>,
}

/// One user of a place, counted until it is dropped.
#[derive(Debug)]
struct Share(Arc<Place>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// One user's share of a session.
#[derive(Debug)]
pub(super) struct SessionUse {
    session: Session,
    _share: Share,
}

impl SessionUse {
    pub(super) const fn session(&self) -> &Session {
        &self.session
    }
}

/// Sessions by lease length in milliseconds.
#[derive(Debug)]
pub(super) struct Sessions {
    store: Arc<dyn Store>,
    default: Duration,
    linger: Duration,
    max_lengths: usize,
    places: Mutex<HashMap<u64, Arc<Place>>>,
    renewals: Arc<Renewals>,
    tasks: TaskTracker,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Sessions {
    /// No session yet; `default` is the lease of those who name none, and its session is kept for good. When
    /// `ended` is cancelled, nothing is waited for any more.
    pub(super) fn new(
        store: Arc<dyn Store>,
        default: Duration,
        linger: Duration,
        max_lengths: usize,
        ended: CancellationToken,
    ) -> Arc<Self> {
        let sessions = Arc::new(Self {
            store,
            default,
            linger,
            max_lengths,
            places: Mutex::default(),
            renewals: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            ended,
        });
        sessions.tasks.spawn(Self::close_idle(sessions.clone()));
        sessions
    }

    fn places(&self) -> MutexGuard<'_, HashMap<u64, Arc<Place>>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session with that lease, opened if there is none or the last one is lost.
    ///
    /// # Errors
    /// As the store says; [`Kind::Limit`] when too many lengths are in use.
    ///
    /// # Cancel safety
    /// Safe to drop: the opening goes on for the next who asks.
    pub(super) async fn get(&self, lease: Option<Duration>) -> Result<SessionUse, ErrorObject> {
        let lease = lease.unwrap_or(self.default);
        let share = self.share(millis(lease), lease)?;
        let session = share.0.opening.clone().await?;
        Ok(SessionUse { session, _share: share })
    }

    /// The session with the default lease, for a request that only looks.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Kind::Unavailable`] when the store does not answer in time.
    ///
    /// # Cancel safety
    /// As [`get`](Self::get).
    pub(super) async fn soon(&self) -> Result<SessionUse, ErrorObject> {
        tokio::time::timeout(PATIENCE, self.get(None)).await.unwrap_or_else(|_| Err(errors::not_reached()))
    }

    fn share(&self, length: u64, lease: Duration) -> Result<Share, ErrorObject> {
        let mut places = self.places();
        if let Some(place) = places.get(&length)
            && !place.is_over()
        {
            place.users.fetch_add(1, Ordering::Relaxed);
            return Ok(Share(place.clone()));
        }
        if self.stop.is_cancelled() {
            return Err(errors::leaving());
        }
        if places.len() >= self.max_lengths && !places.contains_key(&length) {
            let idle = places.iter().find(|(_, place)| place.users.load(Ordering::Relaxed) == 0).map(|(length, _)| *length);
            let Some(idle) = idle else {
                let said = format!("{} lengths of lease are in use; use one of them, or none for the default", self.max_lengths);
                return Err(ErrorObject::limit("lease_lengths", said));
            };
            self.retire(places.remove(&idle));
        }
        let place =
            Arc::new(Place { opening: self.open(lease), users: AtomicUsize::new(1), idle_since: Mutex::new(Instant::now()) });
        self.retire(places.insert(length, place.clone()));
        Ok(Share(place))
    }

    fn open(&self, lease: Duration) -> Opening {
        let opening = Session::builder(self.store.clone()).lease(lease).renewals(self.renewals.clone()).open();
        let stop = self.stop.clone();
        let task = self.tasks.spawn(async move {
            tokio::select! {
                biased;
                opened = opening => opened.map_err(|error| errors::of(&error)),
                () = stop.cancelled() => Err(errors::leaving()),
            }
        });
        task.map(|joined| {
            joined.unwrap_or_else(|error| Err(ErrorObject::new(Kind::Internal, format!("the session was not opened: {error}"))))
        })
        .boxed()
        .shared()
    }

    /// Closes the session of a place that is in the way, so that its tasks are joined.
    fn retire(&self, place: Option<Arc<Place>>) {
        if let Some(Ok(session)) = place.as_ref().and_then(|place| place.opened()) {
            let ended = self.ended.clone();
            self.tasks.spawn(async move { ended.run_until_cancelled(close(session)).await });
        }
    }

    async fn close_idle(sessions: Arc<Self>) {
        let mut ticks = tokio::time::interval(sessions.linger / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = sessions.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let default = millis(sessions.default);
            let mut places = sessions.places();
            let idle: Vec<u64> = places
                .iter()
                .filter(|(length, place)| **length != default && place.is_idle(sessions.linger))
                .map(|(l, _)| *l)
                .collect();
            for length in idle {
                sessions.retire(places.remove(&length));
            }
        }
    }

    /// What `status` says of them.
    pub(super) fn status(&self) -> Vec<SessionStatus> {
        let mut all: Vec<_> = self.places().values().filter_map(|place| place.status()).collect();
        all.sort_by_key(|session| session.lease_ms);
        all
    }

    /// The lease of those who name none.
    pub(super) const fn default_lease(&self) -> Duration {
        self.default
    }

    /// How the renewals of all of them have gone.
    pub(super) fn renewals(&self) -> &Renewals {
        &self.renewals
    }

    /// Every session that is open or was lost, and not replaced yet.
    pub(super) fn opened(&self) -> Vec<Session> {
        self.places().values().filter_map(|place| place.opened()?.ok()).collect()
    }

    /// Closes every session; whatever they held is free when this returns, if the store answers.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        let places: Vec<_> = self.places().drain().collect();
        for (_, place) in places {
            self.retire(Some(place));
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn close(session: Session) {
    if let Err(error) = session.close().await {
        tracing::warn!(session = session.id(), %error, "the session was not closed; it ends with its lease");
    }
}

impl Place {
    /// What opening came to, once it has.
    fn opened(&self) -> Option<Result<Session, ErrorObject>> {
        self.opening.clone().now_or_never()
    }

    /// Nothing can be had from here any more: ask for a new session.
    fn is_over(&self) -> bool {
        match self.opened() {
            Some(Ok(session)) => matches!(session.state(), SessionState::Lost(_)),
            Some(Err(_)) => true,
            None => false,
        }
    }

    fn is_idle(&self, linger: Duration) -> bool {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.users.load(Ordering::Relaxed) == 0 && since.elapsed() >= linger && self.opened().is_some()
    }

    fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    fn status(&self) -> Option<SessionStatus> {
        let session = self.opened()?.ok()?;
        let state = match session.state() {
            SessionState::Held => "held",
            SessionState::Suspect => "suspect",
            SessionState::Restored => "restored",
            SessionState::Lost(_) => "lost",
        };
        Some(SessionStatus {
            id: session.id().to_owned(),
            lease_ms: millis(session.lease()),
            state: state.to_owned(),
            remaining_ms: millis(session.remaining()),
            users: self.users.load(Ordering::Relaxed),
        })
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenure_kv::Memory;

    const MS: Duration = Duration::from_millis(1);

    async fn until(what: &str, mut true_at_last: impl FnMut() -> bool) {
        let patience = Instant::now() + Duration::from_secs(20);
        while !true_at_last() {
            assert!(Instant::now() < patience, "never: {what}");
            tokio::time::sleep(MS).await;
        }
    }

    #[tokio::test]
    async fn sessions_are_shared_by_length_and_replaced_when_lost() {
        let sessions = Sessions::new(Arc::new(Memory::new()), 5_000 * MS, LINGER, 64, CancellationToken::new());
        let (one, two) = tokio::join!(sessions.get(None), sessions.get(Some(5_000 * MS)));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.session().id(), two.session().id());
        let other = sessions.get(Some(6_000 * MS)).await.unwrap();
        assert_ne!(one.session().id(), other.session().id());
        assert_eq!(sessions.status().iter().map(|s| (s.lease_ms, s.users)).collect::<Vec<_>>(), [(5_000, 2), (6_000, 1)]);

        one.session().close().await.unwrap();
        let next = sessions.get(None).await.unwrap();
        assert_ne!(next.session().id(), one.session().id());
        drop((one, two));
        assert_eq!(sessions.status().first().map(|s| s.users), Some(1), "users of the lost session do not count");
        sessions.close().await;
        assert!(
            matches!(next.session().state(), SessionState::Lost(_)) && matches!(other.session().state(), SessionState::Lost(_))
        );
        assert_eq!(sessions.get(None).await.unwrap_err().kind(), Some(Kind::Unavailable));
    }

    #[tokio::test]
    async fn a_session_that_nobody_uses_is_closed_and_the_default_kept() {
        let sessions = Sessions::new(Arc::new(Memory::new()), 5_000 * MS, 40 * MS, 64, CancellationToken::new());
        drop(sessions.get(None).await.unwrap());
        let used = sessions.get(Some(6_000 * MS)).await.unwrap();
        let idle = sessions.get(Some(7_000 * MS)).await.unwrap().session().clone();
        until("the idle session is closed", || matches!(idle.state(), SessionState::Lost(_))).await;
        assert_eq!(sessions.status().iter().map(|s| s.lease_ms).collect::<Vec<_>>(), [5_000, 6_000]);
        assert!(used.session().is_held());
        sessions.close().await;
    }
}
