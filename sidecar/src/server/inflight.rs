//! The requests of one connection that are not answered yet.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::quota::{Quota, Taken};
use crate::{
    protocol::{ErrorObject, Id, Kind, frame},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The requests in flight of one connection, by id.
#[derive(Debug)]
pub(super) struct InFlight {
    requests: Mutex<HashMap<Id, CancellationToken>>,
    limit: usize,
    /// The requests of the same user.
    user: Quota,
    /// The requests of all connections.
    total: Arc<AtomicUsize>,
}

/// The place of one request among those in flight. It is free when the answer is taken to be written, so a
/// client that has read the answer may use the place again.
#[derive(Debug)]
pub(super) struct Slot {
    requests: Arc<InFlight>,
    id: Id,
    cancel: CancellationToken,
    /// Whether it may have changed something when it is cancelled.
    changes: bool,
    open: bool,
    /// A release is not counted.
    _taken: Option<Taken>,
}

/// Whether an answer stands.
#[derive(Debug)]
pub(super) enum Finish {
    /// It does.
    Answer,
    /// The request was cancelled before its answer was written; the slot is still taken when asked so.
    Cancelled(Slot),
}

impl InFlight {
    pub(super) fn new(limit: usize, total: Arc<AtomicUsize>, user: Quota) -> Arc<Self> {
        Arc::new(Self { requests: Mutex::default(), limit, user, total })
    }

    fn requests(&self) -> MutexGuard<'_, HashMap<Id, CancellationToken>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.requests().len()
    }

    pub(super) fn contains(&self, id: &Id) -> bool {
        self.requests().contains_key(id)
    }

    /// Takes a slot for the request `id`; `changes` says whether it may change something.
    pub(super) fn admit(self: &Arc<Self>, id: Id, changes: bool) -> Result<Slot, ErrorObject> {
        self.admit_up_to(self.limit, id, changes)
    }

    /// Takes a slot for the request `id` that gives a lease up: no limit of requests keeps a lease held. There is one
    /// such request for each lease, and the limit of those bounds them.
    pub(super) fn admit_release(self: &Arc<Self>, id: Id) -> Result<Slot, ErrorObject> {
        self.admit_up_to(usize::MAX, id, true)
    }

    fn admit_up_to(self: &Arc<Self>, limit: usize, id: Id, changes: bool) -> Result<Slot, ErrorObject> {
        let mut requests = self.requests();
        let count = requests.len();
        match requests.entry(id) {
            Entry::Occupied(taken) => Err(taken_id(taken.key())),
            Entry::Vacant(_) if count >= limit => Err(ErrorObject::limit(
                "requests",
                format!("{} requests of this connection are in flight; wait for an answer", self.limit),
            )),
            Entry::Vacant(vacant) => {
                let taken = if limit == usize::MAX { None } else { Some(self.user.take()?) };
                let id = vacant.key().clone();
                let cancel = vacant.insert(CancellationToken::new()).clone();
                drop(requests);
                self.total.fetch_add(1, Ordering::Relaxed);
                Ok(Slot { requests: self.clone(), id, cancel, changes, open: true, _taken: taken })
            }
        }
    }

    /// Cancels the request `id`. When true, its answer is [`Kind::Cancelled`] and it holds nothing.
    pub(super) fn cancel(&self, id: &Id) -> bool {
        // Under the lock: an answer either left before or will be replaced.
        let requests = self.requests();
        let found = requests.get(id);
        if let Some(cancel) = found {
            cancel.cancel();
        }
        found.is_some()
    }
}

/// The answer to a request whose id belongs to another in flight.
pub(super) fn taken_id(id: &Id) -> ErrorObject {
    ErrorObject::new(Kind::InvalidRequest, format!("the id {id} belongs to a request that is still in flight; use another"))
}

impl Slot {
    pub(super) const fn id(&self) -> &Id {
        &self.id
    }

    /// Cancelled when the client cancels the request.
    pub(super) const fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Gives the slot up for an answer about to be written. A cancelled request keeps it unless
    /// `free_if_cancelled`, because something has to be undone before its answer.
    pub(super) fn finish(mut self, free_if_cancelled: bool) -> Finish {
        let requests = self.requests.clone();
        let mut taken = requests.requests();
        let cancelled = self.cancel.is_cancelled();
        if !cancelled || free_if_cancelled {
            taken.remove(&self.id);
            self.open = false;
            self.requests.total.fetch_sub(1, Ordering::Relaxed);
        }
        drop(taken);
        if cancelled { Finish::Cancelled(self) } else { Finish::Answer }
    }

    /// The answer to the request once it is cancelled.
    pub(super) fn cancelled(&self) -> Bytes {
        let error = if self.changes {
            ErrorObject::new(Kind::Cancelled, "cancelled; what was asked may have been done all the same")
                .with("outcome", "unknown")
        } else {
            ErrorObject::new(Kind::Cancelled, "cancelled")
        };
        frame::failure(Some(&self.id), &error)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.open {
            self.requests.requests().remove(&self.id);
            self.requests.total.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_request_never_answers_with_a_result() {
        let total = Arc::new(AtomicUsize::new(0));
        let requests = InFlight::new(2, total.clone(), Quota::default());
        let (a, b) = (requests.admit(1.into(), false).unwrap(), requests.admit(2.into(), true).unwrap());
        assert_eq!(requests.admit(1.into(), false).unwrap_err().kind(), Some(Kind::InvalidRequest));
        assert_eq!(requests.admit(3.into(), false).unwrap_err().kind(), Some(Kind::Limit));
        assert!(requests.cancel(&1.into()) && !requests.cancel(&3.into()));
        let Finish::Cancelled(a) = a.finish(false) else { panic!("answered") };
        assert!(requests.contains(&1.into()), "kept until the answer");
        assert!(matches!(a.finish(true), Finish::Cancelled(_)));
        assert!(matches!(b.finish(false), Finish::Answer));
        assert!(!requests.cancel(&2.into()), "answered already");
        assert_eq!((requests.len(), total.load(Ordering::Relaxed)), (0, 0));
        drop(requests.admit(1.into(), false).unwrap());
        assert_eq!((requests.len(), total.load(Ordering::Relaxed)), (0, 0));
    }
}
