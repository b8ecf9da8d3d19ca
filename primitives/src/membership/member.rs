//! Being a member.

use std::{collections::VecDeque, fmt, future::Future, ops::RangeInclusive, sync::Arc};

use tenure_kv::{Key, Revision};
use tokio::sync::watch;

use super::{Instance, InstanceState, record::Author};
use crate::{Error, Loss, Result, Session};

/// A place in a group. Cheap to clone; the last clone dropped leaves the group as soon as the session can.
/// [`Member::leave`] is the sure way.
///
/// Changes from several clones and tasks are written one after the other by a task of the session; of
/// changes in quick succession only the last need be written.
#[derive(Clone)]
#[must_use = "the group is left when its member is dropped"]
pub struct Member {
    seat: Arc<Seat>,
    handle: Arc<Handle>,
}

/// What the handles and the task that writes share.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) key: Key,
    pub(super) group: String,
    pub(super) id: String,
    pub(super) author: Author,
    /// What the handles and the checks want.
    pub(super) wish: watch::Sender<Wish>,
    /// What the task has done about it.
    pub(super) done: watch::Sender<Done>,
    pub(super) beats: watch::Sender<()>,
}

#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) instance: Instance,
    /// The verdict of each check.
    pub(super) verdicts: Vec<InstanceState>,
    /// Counts the application's changes.
    pub(super) version: u64,
    /// Leave, and why.
    pub(super) leave: Option<Loss>,
}

impl Wish {
    /// The state to show.
    pub(super) fn state(&self) -> InstanceState {
        self.instance.state.with(self.verdicts.iter().copied().max().unwrap_or_default())
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    /// Every change up to this one has been written or refused.
    pub(super) version: u64,
    pub(super) revision: Revision,
    /// The last changes that the store refused as wrong.
    pub(super) refused: VecDeque<Refused>,
    pub(super) ended: Option<Loss>,
    /// Nothing of ours is left, and nothing is on its way.
    pub(super) gone: bool,
    /// The task has ended, whatever it has done.
    pub(super) over: bool,
}

/// Changes that the store refused together.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) versions: RangeInclusive<u64>,
    pub(super) why: String,
}

impl Seat {
    /// Asks the task to leave; the first reason stays.
    pub(super) fn ask_to_leave(&self, loss: Loss) {
        self.wish.send_if_modified(|wish| {
            let news = wish.leave.is_none();
            wish.leave.get_or_insert(loss);
            news
        });
    }
}

struct Handle {
    session: Session,
    seat: Arc<Seat>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.session.inner().give_up_seat(&self.seat.key, &self.seat.author.nonce);
        self.seat.ask_to_leave(Loss::Closed);
    }
}

impl Member {
    pub(super) fn new(session: Session, seat: Arc<Seat>) -> Self {
        Self { handle: Arc::new(Handle { session, seat: seat.clone() }), seat }
    }

    /// The id in the group.
    pub fn id(&self) -> &str {
        &self.seat.id
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.seat.group
    }

    /// Where the record was last written; grows with each change.
    pub fn revision(&self) -> Revision {
        self.seat.done.borrow().revision
    }

    /// What the application last said of itself. What others see may be worse, as the checks say.
    pub fn instance(&self) -> Instance {
        self.seat.wish.borrow().instance.clone()
    }

    /// The state that others see, or will as soon as it is written.
    pub fn state(&self) -> InstanceState {
        self.seat.wish.borrow().state()
    }

    /// Changes what the member says of itself, and returns when that is written: the revision. `change` runs
    /// under a lock: keep it short.
    ///
    /// Waits for as long as the store is out of reach and the session is not lost.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the field that is over its limit, or says why the store refused it, and nothing
    /// is changed; [`Error::Lost`] when the membership is over.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the change.
    pub async fn update(&self, change: impl FnOnce(&mut Instance)) -> Result<Revision> {
        if let Some(loss) = self.loss() {
            return Err(Error::lost(loss));
        }
        let mut version = Ok(0);
        self.seat.wish.send_if_modified(|wish| {
            let mut instance = wish.instance.clone();
            change(&mut instance);
            if let Err(error) = instance.validate() {
                version = Err(error);
                return false;
            }
            let news = instance != wish.instance;
            if news {
                wish.instance = instance;
                wish.version += 1;
            }
            version = Ok(wish.version);
            news
        });
        let version = version?;
        let mut done = self.seat.done.subscribe();
        let written = done.wait_for(|done| done.version >= version || done.ended.is_some()).await;
        let Ok(done) = written.as_deref() else { return Err(Error::lost(Loss::Closed)) };
        let refused = done.refused.iter().find(|refused| refused.versions.contains(&version));
        match (refused, done.ended) {
            (Some(refused), _) => Err(Error::invalid(refused.why.clone())),
            _ if done.version >= version => Ok(done.revision),
            (_, loss) => Err(Error::lost(loss.unwrap_or(Loss::Closed))),
        }
    }

    /// Replaces the value; as [`Member::update`].
    ///
    /// # Errors
    /// As [`Member::update`].
    ///
    /// # Cancel safety
    /// As [`Member::update`].
    pub async fn set_value(&self, value: impl Into<bytes::Bytes>) -> Result<Revision> {
        let value = value.into();
        self.update(|instance| instance.value = value).await
    }

    /// Sets the state. Of passing, warning and critical the checks may show a worse one; draining and
    /// maintenance stay until the application sets another.
    ///
    /// # Errors
    /// As [`Member::update`].
    ///
    /// # Cancel safety
    /// As [`Member::update`].
    pub async fn set_state(&self, state: InstanceState) -> Result<Revision> {
        self.update(|instance| instance.state = state).await
    }

    /// Tells the heartbeat checks that the application is well. Costs no message.
    pub fn beat(&self) {
        self.seat.beats.send_replace(());
    }

    /// Whether this is known to be over, and why.
    pub fn loss(&self) -> Option<Loss> {
        let ended = self.seat.done.borrow().ended;
        ended.or_else(|| self.session().inner().validity.lost()).or_else(|| self.seat.wish.borrow().leave)
    }

    /// Resolves when the membership is over: the session is lost, the record was removed or taken over, the
    /// member was critical for too long, or it has left.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub fn lost(&self) -> impl Future<Output = Loss> + Send + 'static {
        let (mut done, session) = (self.seat.done.subscribe(), self.session().inner().lost());
        async move {
            let ended = async {
                let ended = done.wait_for(|done| done.ended.is_some()).await.ok().and_then(|done| done.ended);
                match ended {
                    Some(loss) => loss,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                loss = ended => loss,
                loss = session => loss,
            }
        }
    }

    /// Leaves the group. On `Ok` the record is gone.
    ///
    /// Waits for as long as the store is out of reach and the session is not lost.
    ///
    /// # Errors
    /// [`Error::Lost`] when the membership had been lost before; the record is gone or a janitor will remove
    /// it.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the leaving.
    pub async fn leave(&self) -> Result<()> {
        self.session().inner().give_up_seat(&self.seat.key, &self.seat.author.nonce);
        self.seat.ask_to_leave(Loss::Closed);
        let mut done = self.seat.done.subscribe();
        let end = done.wait_for(|done| done.over || done.ended.is_some_and(|loss| loss != Loss::Closed)).await;
        match end.as_deref() {
            Ok(Done { gone: true, ended: None | Some(Loss::Closed), .. }) => Ok(()),
            Ok(Done { ended: Some(loss), .. }) => Err(Error::lost(*loss)),
            _ => Err(Error::lost(Loss::Closed)),
        }
    }

    /// The session it belongs to.
    pub fn session(&self) -> &Session {
        &self.handle.session
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("group", &self.group()).field("id", &self.id()).finish_non_exhaustive()
    }
}
