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
use tenure::{Session, SessionState};
use tenure_kv::Store;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::errors;
use crate::protocol::{ErrorObject, Kind, SessionStatus};

/// Lease lengths in use at the same time.
const MAX_LENGTHS: usize = 64;
/// How long a session that nobody uses is kept for the next one who asks.
const LINGER: Duration = Duration::from_secs(10);

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
    places: Mutex<HashMap<u64, Arc<Place>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Sessions {
    /// No session yet; `default` is the lease of those who name none.
    pub(super) fn new(store: Arc<dyn Store>, default: Duration) -> Arc<Self> {
        let sessions = Arc::new(Self {
            store,
            default,
            places: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
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
        if places.len() >= MAX_LENGTHS && !places.contains_key(&length) {
            let idle = places.iter().find(|(_, place)| place.users.load(Ordering::Relaxed) == 0).map(|(length, _)| *length);
            let Some(idle) = idle else {
                let said = format!("{MAX_LENGTHS} lengths of lease are in use; use one of them, or none for the default");
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
        let opening = Session::builder(self.store.clone()).lease(lease).label("tenured").open();
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
            self.tasks.spawn(close(session));
        }
    }

    async fn close_idle(sessions: Arc<Self>) {
        let mut ticks = tokio::time::interval(LINGER / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = sessions.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let default = millis(sessions.default);
            let mut places = sessions.places();
            let idle: Vec<u64> =
                places.iter().filter(|(length, place)| **length != default && place.is_idle()).map(|(l, _)| *l).collect();
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

    fn is_idle(&self) -> bool {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.users.load(Ordering::Relaxed) == 0 && since.elapsed() >= LINGER && self.opened().is_some()
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
