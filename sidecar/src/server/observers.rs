//! One observer per election for all connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use tenure::Leader;
use tenure_kv::Moment;
use tokio::sync::watch;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::sessions::{Sessions, millis};

/// The pause after the session behind an observer was lost, doubled from one to the next.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest of these pauses.
const LONGEST: Duration = Duration::from_secs(2);

/// What an observer saw last.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// Nothing yet.
    Nothing,
    /// The store is out of reach, so that what was seen before may be over.
    OutOfReach,
    Leader(Option<Leader>),
}

/// An election that is observed until the last handle is dropped.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) states: watch::Receiver<Seen>,
    looked: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Observed {
    /// When the store was asked for what is seen, or for something newer: on the boot-time clock, rounded down.
    pub(super) fn looked(&self) -> Moment {
        Moment::new(Duration::from_millis(self.looked.load(Ordering::Acquire)))
    }
}

/// The observers of a daemon, by election.
#[derive(Debug)]
pub(super) struct Observers {
    sessions: Arc<Sessions>,
    running: Mutex<HashMap<String, Weak<Observed>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Observers {
    pub(super) fn new(sessions: Arc<Sessions>) -> Arc<Self> {
        Arc::new(Self { sessions, running: Mutex::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() })
    }

    /// The observer of the election `name`, which must be a good name.
    pub(super) fn of(&self, name: &str) -> Arc<Observed> {
        // Nothing that runs under this lock can panic half-way through a change.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(observed) = running.get(name).and_then(Weak::upgrade) {
            return observed;
        }
        running.retain(|_, observed| observed.strong_count() > 0);
        let (sender, states) = watch::channel(Seen::Nothing);
        let stop = self.stop.child_token();
        let looked = Arc::new(AtomicU64::new(0));
        let observed = Arc::new(Observed { states, looked: looked.clone(), _stop: stop.clone().drop_guard() });
        running.insert(name.to_owned(), Arc::downgrade(&observed));
        let (sessions, name) = (self.sessions.clone(), name.to_owned());
        self.tasks.spawn(async move { stop.run_until_cancelled(observe(&sessions, &name, &sender, &looked)).await });
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
async fn observe(sessions: &Sessions, name: &str, states: &watch::Sender<Seen>, looked: &AtomicU64) {
    let mut pause = PAUSE;
    loop {
        match sessions.get(None).await {
            Ok(session) => {
                // The name was checked; a session that is lost tells so through its stream.
                if let Ok(election) = session.session().election(name) {
                    let mut looks = election.looks();
                    while let Some(look) = looks.next().await {
                        let asked = look.as_ref().ok().map(|look| look.asked);
                        let seen = look.map_or(Seen::OutOfReach, |look| Seen::Leader(look.leader));
                        pause = PAUSE;
                        states.send_if_modified(|state| {
                            let news = *state != seen;
                            *state = seen;
                            news
                        });
                        // After what was seen: who finds this finds that, or something newer.
                        if let Some(asked) = asked {
                            looked.store(millis(asked.since_origin()), Ordering::Release);
                        }
                    }
                }
            }
            Err(error) => {
                tracing::debug!(election = name, %error, "cannot observe; trying again");
                states.send_if_modified(|state| {
                    let news = matches!(state, Seen::Leader(_));
                    *state = Seen::OutOfReach;
                    news
                });
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}
