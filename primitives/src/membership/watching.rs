//! Following a group.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use futures::{Stream, stream};
use tenure_kv::{Entry, KeyRange, Revision, Store};

use super::{MemberRecord, parse_member};
use crate::{
    Error, Result, View,
    view::{Change, Changes},
};

/// A change of a group. Level-triggered: changes in quick succession may be told as one, the last is
/// always told, and revisions never go back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberEvent {
    /// Somebody is there who was not.
    Insert(MemberRecord),
    /// Somebody has changed, or another session has taken over the id.
    Update(MemberRecord),
    /// Somebody is gone, or their record cannot be read any more.
    Remove {
        /// Who.
        id: String,
        /// Where in the store's order.
        revision: Revision,
    },
    /// Everybody who was there when the watch began has been told; sent exactly once.
    CaughtUp {
        /// Every change of the group up to this revision has been told.
        revision: Revision,
    },
}

/// What a [`watch`](fn@super::watch) of a group tells.
#[derive(Debug)]
pub struct MemberWatch {
    store: Arc<dyn Store>,
    view: View,
    changes: Changes,
    /// Who has been told to be there, and as of when.
    known: HashMap<String, Revision>,
    unreadable: HashSet<String>,
    /// Begun anew: of these it is not known yet whether they are still there.
    doubtful: Option<BTreeSet<String>>,
    due: VecDeque<MemberEvent>,
    /// Every change up to here has been taken in, or will have been with what the view had at the beginning.
    reached: Revision,
    /// It has been told that all was told.
    told: bool,
}

impl MemberWatch {
    pub(super) async fn open(store: &Arc<dyn Store>, range: KeyRange) -> Result<Self> {
        let view = View::open(store, range).await?;
        let reached = view.revision();
        let changes = view.changes();
        Ok(Self {
            store: store.clone(),
            view,
            changes,
            known: HashMap::new(),
            unreadable: HashSet::new(),
            doubtful: None,
            due: VecDeque::new(),
            reached,
            told: false,
        })
    }

    /// The next event.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) when the store has ended the watch: the bucket is gone
    /// or has gone back, or the store was closed.
    ///
    /// # Cancel safety
    /// Safe to drop: nothing is taken and forgotten.
    pub async fn next(&mut self) -> Result<MemberEvent> {
        loop {
            if let Some(event) = self.due.pop_front() {
                return Ok(event);
            }
            let event = match self.changes.next().await {
                Ok(Change::Put(entry)) => self.put(&entry),
                Ok(Change::Gone(entry)) => self.gone(&entry),
                Ok(Change::CaughtUp) => self.caught_up(),
                Ok(Change::Gap) => None,
                Err(error) => {
                    self.begin_anew(error).await?;
                    None
                }
            };
            self.due.extend(event);
        }
    }

    /// The view has ended, or this reader was too slow for it.
    async fn begin_anew(&mut self, error: Error) -> Result<()> {
        let Ok(view) = View::open(&self.store, self.view.range().clone()).await else { return Err(error) };
        let reached = view.revision();
        if reached < self.reached {
            return Err(error);
        }
        self.reached = reached;
        self.changes = view.changes();
        self.view = view;
        self.doubtful = Some(self.known.keys().cloned().collect());
        self.unreadable.clear();
        Ok(())
    }

    fn caught_up(&mut self) -> Option<MemberEvent> {
        let revision = self.reached;
        for id in self.doubtful.take().unwrap_or_default() {
            self.known.remove(&id);
            self.due.push_back(MemberEvent::Remove { id, revision });
        }
        (!std::mem::replace(&mut self.told, true)).then_some(MemberEvent::CaughtUp { revision })
    }

    /// How many records of the group were passed over because something else wrote them.
    pub fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// The same as a stream; it ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<MemberEvent>> + Send + 'static {
        stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            let next = watch.next().await;
            let rest = next.is_ok().then_some(watch);
            Some((next, rest))
        })
    }

    fn put(&mut self, entry: &Entry) -> Option<MemberEvent> {
        self.reached = self.reached.max(entry.revision);
        let Some(record) = MemberRecord::read(entry) else {
            tracing::warn!(key = %entry.key, "this member's record cannot be read; it is passed over");
            let (_, id) = parse_member(&entry.key)?;
            self.unreadable.insert(id.to_owned());
            return self.without(id, entry.revision);
        };
        self.unreadable.remove(&record.id);
        if self.doubtful.as_mut().is_some_and(|doubtful| doubtful.remove(&record.id))
            && self.known.get(&record.id) == Some(&record.revision)
        {
            return None;
        }
        Some(match self.known.insert(record.id.clone(), record.revision) {
            None => MemberEvent::Insert(record),
            Some(_) => MemberEvent::Update(record),
        })
    }

    fn gone(&mut self, entry: &Entry) -> Option<MemberEvent> {
        self.reached = self.reached.max(entry.revision);
        let (_, id) = parse_member(&entry.key)?;
        self.unreadable.remove(id);
        self.without(id, entry.revision)
    }

    /// Of somebody who came and went unseen there is nothing to tell.
    fn without(&mut self, id: &str, revision: Revision) -> Option<MemberEvent> {
        if let Some(doubtful) = &mut self.doubtful {
            doubtful.remove(id);
        }
        self.known.remove(id).map(|_| MemberEvent::Remove { id: id.to_owned(), revision })
    }
}
