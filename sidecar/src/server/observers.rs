//! One observer per election and per lock for all connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use tenure::{Leader, LockState, Look, Session};
use tenure_kv::Moment;
use tokio::sync::watch;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{sessions::Sessions, subscriptions::Source};
use crate::protocol::Happening;

/// The pause after the session behind an observer was lost, doubled from one to the next.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest of these pauses.
const LONGEST: Duration = Duration::from_secs(2);

/// States, each with the look at the store that showed it where that is told.
type Told<T> = BoxStream<'static, tenure::Result<(T, Option<Look>)>>;

/// The state of something with a name, as a session observes it.
pub(super) trait Subject: Clone + PartialEq + Send + Sync + Sized + 'static {
    /// What it is, for the log.
    const WHAT: &'static str;

    /// The states of what is called `name`, from the `last` look of the session before on.
    fn states(session: &Session, name: &str, last: Option<&Look>) -> tenure::Result<Told<Self>>;
}

/// Who leads an election.
impl Subject for Option<Leader> {
    const WHAT: &'static str = "election";

    fn states(session: &Session, name: &str, last: Option<&Look>) -> tenure::Result<Told<Self>> {
        let election = session.election(name)?;
        let looks = last.map_or_else(|| election.looks(), |last| election.looks_since(last));
        Ok(looks.map(|look| look.map(|look| (look.leader.clone(), Some(look)))).boxed())
    }
}

impl Subject for LockState {
    const WHAT: &'static str = "lock";

    fn states(session: &Session, name: &str, _: Option<&Look>) -> tenure::Result<Told<Self>> {
        Ok(session.mutex(name)?.observe().map(|state| state.map(|state| (state, None))).boxed())
    }
}

/// What an observer saw last.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen<T> {
    /// Nothing yet.
    Nothing,
    /// The store is out of reach, so that what was seen before may be over.
    OutOfReach,
    State(T),
}

/// What is known of what is observed.
#[derive(Clone, Debug)]
pub(super) struct Known<T> {
    pub(super) seen: Seen<T>,
    /// When the store was asked for it last, by the boot-time clock: it is no older. Changes without notice, where it is
    /// told at all.
    pub(super) asked: Moment,
}

/// What is observed until the last handle is dropped.
#[derive(Debug)]
pub(super) struct Observed<T> {
    pub(super) states: watch::Receiver<Known<T>>,
    _stop: DropGuard,
}

/// The observers of a daemon for one kind of thing, by name.
#[derive(Debug)]
pub(super) struct Observers<T> {
    sessions: Arc<Sessions>,
    running: Mutex<HashMap<String, Weak<Observed<T>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<T: Subject> Observers<T> {
    pub(super) fn new(sessions: Arc<Sessions>) -> Arc<Self> {
        Arc::new(Self { sessions, running: Mutex::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() })
    }

    /// The observer of what is called `name`, which must be a good name.
    pub(super) fn of(&self, name: &str) -> Arc<Observed<T>> {
        // Nothing that runs under this lock can panic half-way through a change.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(observed) = running.get(name).and_then(Weak::upgrade) {
            return observed;
        }
        running.retain(|_, observed| observed.strong_count() > 0);
        let (sender, states) = watch::channel(Known { seen: Seen::Nothing, asked: Moment::default() });
        let stop = self.stop.child_token();
        let observed = Arc::new(Observed { states, _stop: stop.clone().drop_guard() });
        running.insert(name.to_owned(), Arc::downgrade(&observed));
        let (sessions, name) = (self.sessions.clone(), name.to_owned());
        self.tasks.spawn(async move { stop.run_until_cancelled(observe(&sessions, &name, &sender)).await });
        observed
    }

    /// Ends all.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Observes with one session of the daemon after the other.
async fn observe<T: Subject>(sessions: &Sessions, name: &str, states: &watch::Sender<Known<T>>) {
    let mut pause = PAUSE;
    // A server that is behind may show the next session less than the one before has told.
    let mut last: Option<Look> = None;
    loop {
        match sessions.get(None).await {
            Ok(session) => {
                // The name was checked; a session that is lost tells so through its stream.
                if let Ok(mut told) = T::states(session.session(), name, last.as_ref()) {
                    while let Some(state) = told.next().await {
                        pause = PAUSE;
                        let (seen, look) = match state {
                            Ok((state, look)) => (Seen::State(state), look),
                            Err(_) => (Seen::OutOfReach, None),
                        };
                        let asked = look.as_ref().map(|look| look.asked);
                        last = look.or(last);
                        states.send_if_modified(|known| {
                            known.asked = asked.unwrap_or(known.asked);
                            let news = known.seen != seen;
                            known.seen = seen;
                            news
                        });
                    }
                }
            }
            Err(error) => {
                tracing::debug!(what = T::WHAT, name, %error, "cannot observe; trying again");
                states.send_if_modified(|known| {
                    let news = matches!(known.seen, Seen::State(_));
                    known.seen = Seen::OutOfReach;
                    news
                });
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// How something is, as events.
pub(super) struct States<T> {
    states: watch::Receiver<Known<T>>,
    _observed: Arc<Observed<T>>,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Begun,
    /// The first state has been told.
    Told,
    Synced,
}

impl<T: Subject> States<T> {
    /// Of what is called `name`, which must be a good name.
    pub(super) fn follow(observers: &Observers<T>, name: &str) -> Self {
        let observed = observers.of(name);
        let mut states = observed.states.clone();
        states.mark_changed();
        Self { states, _observed: observed, progress: Progress::Begun }
    }
}

#[async_trait]
impl<T: Subject> Source for States<T>
where
    for<'a> Happening: From<&'a T>,
{
    async fn next(&mut self) -> Result<Happening, String> {
        if self.progress == Progress::Told {
            self.progress = Progress::Synced;
            return Ok(Happening::Sync { revision: None });
        }
        loop {
            self.states.changed().await.map_err(|_| "leaving".to_owned())?;
            match &self.states.borrow_and_update().seen {
                Seen::OutOfReach if self.progress == Progress::Synced => return Ok(Happening::Gap {}),
                Seen::Nothing | Seen::OutOfReach => {}
                Seen::State(state) => {
                    if self.progress == Progress::Begun {
                        self.progress = Progress::Told;
                    }
                    return Ok(Happening::from(state));
                }
            }
        }
    }
}
