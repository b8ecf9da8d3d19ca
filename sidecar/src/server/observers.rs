//! One observer per election for all connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
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

use super::sessions::Sessions;

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

/// What is known of an election.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) seen: Seen,
    /// When the store was asked for it last, by the boot-time clock: it is no older. Changes without notice.
    pub(super) asked: Moment,
}

/// An election that is observed until the last handle is dropped.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) states: watch::Receiver<Known>,
    _stop: DropGuard,
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
async fn observe(sessions: &Sessions, name: &str, states: &watch::Sender<Known>) {
    let mut pause = PAUSE;
    loop {
        match sessions.get(None).await {
            Ok(session) => {
                // The name was checked; a session that is lost tells so through its stream.
                if let Ok(election) = session.session().election(name) {
                    let mut looks = election.looks();
                    while let Some(look) = looks.next().await {
                        pause = PAUSE;
                        let (seen, asked) = match look {
                            Ok(look) => (Seen::Leader(look.leader), Some(look.asked)),
                            Err(_) => (Seen::OutOfReach, None),
                        };
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
                tracing::debug!(election = name, %error, "cannot observe; trying again");
                states.send_if_modified(|known| {
                    let news = matches!(known.seen, Seen::Leader(_));
                    known.seen = Seen::OutOfReach;
                    news
                });
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}
