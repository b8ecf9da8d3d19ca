//! What a session may have left in the bucket, and who of this process sees to it.
//!
//! A server that loses its last writes, or forgets tombstones before it writes what they stood for, may show again what
//! was ended: a ticket that stands in everybody's way, a leader whom nobody runs. As long as the session lives nobody
//! else may end these. So where one server keeps the bucket a session looks for its own after every outage.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use tenure_kv::Key;

use super::{Inner, timing};
use crate::{
    Result, election, membership, mutex,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Names kept at most; beyond that earlier ones are forgotten, and what an outage brings back there stays until the
/// session ends.
const MAX: usize = 16_384;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Traces(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Names of locks.
    locks: HashSet<Key>,
    /// Names of elections.
    elections: HashSet<Key>,
    /// Keys of members.
    members: HashSet<Key>,
    /// By a candidate's id: somebody sees to what it has written.
    candidates: HashMap<String, Weak<()>>,
}

impl Traces {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket of the lock called `name` is about to be written.
    pub(crate) fn lock(&self, name: &Key) {
        add(&mut self.known().locks, name);
    }

    /// The record of a member is about to be written.
    pub(crate) fn member(&self, key: &Key) {
        add(&mut self.known().members, key);
    }

    /// The candidate `id` of the election called `name` is about to be written. Somebody sees to it as long as what this
    /// returns is there.
    pub(crate) fn candidate(&self, name: &Key, id: &str) -> Arc<()> {
        let seen_to = Arc::new(());
        let mut known = self.known();
        add(&mut known.elections, name);
        if known.candidates.len().is_power_of_two() {
            known.candidates.retain(|_, seen_to| seen_to.strong_count() > 0);
        }
        known.candidates.insert(id.to_owned(), Arc::downgrade(&seen_to));
        seen_to
    }

    /// Whether somebody sees to what the candidate `id` has written.
    pub(crate) fn is_seen_to(&self, id: &str) -> bool {
        self.known().candidates.get(id).is_some_and(|seen_to| seen_to.strong_count() > 0)
    }

    pub(crate) fn locks(&self) -> Vec<Key> {
        self.known().locks.iter().cloned().collect()
    }

    pub(crate) fn elections(&self) -> Vec<Key> {
        self.known().elections.iter().cloned().collect()
    }

    pub(crate) fn members(&self) -> Vec<Key> {
        self.known().members.iter().cloned().collect()
    }
}

fn add(names: &mut HashSet<Key>, name: &Key) {
    if names.contains(name) {
        return;
    }
    if names.len() >= MAX {
        names.clear();
    }
    names.insert(name.clone());
}

impl Inner {
    /// After an outage: ends what is there of this session and nobody sees to, in a task of the session.
    pub(super) fn look_for_strays(self: &Arc<Self>) {
        let inner = self.clone();
        self.spawn(async move {
            let (stop, lost) = (inner.stop.clone(), inner.lost());
            tokio::select! {
                // The session's own end takes everything with it.
                () = stop.cancelled() => {}
                _ = lost => {}
                () = until_done(&inner) => {}
            }
        });
    }

    /// Whether the ticket was let go, or never was one of ours.
    pub(crate) fn has_let_go(&self, ticket: &Key) -> bool {
        !super::locked(&self.holds).contains_key(ticket)
    }

    /// Whether no member of this session has the place `key`.
    pub(crate) fn is_vacant(&self, key: &Key) -> bool {
        !super::locked(&self.seats).contains_key(key)
    }
}

async fn until_done(inner: &Inner) {
    let mut pause = timing::renewal_retry(inner.lease);
    while let Err(error) = look(inner).await {
        tracing::debug!(session = %inner.id, %error, "what an outage may have brought back is looked for again");
        inner.clock.sleep_until(inner.clock.now() + pause).await;
        pause = (pause * 2).min(timing::renewal_interval(inner.lease));
    }
}

async fn look(inner: &Inner) -> Result<()> {
    mutex::end_strays(inner).await?;
    election::end_strays(inner).await?;
    membership::end_strays(inner).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_seen_to_as_long_as_somebody_says_so() {
        let (traces, name) = (Traces::default(), Key::new("e").unwrap());
        let first = traces.candidate(&name, "s-1");
        let second = traces.candidate(&name, "s-2");
        drop(first);
        assert!(!traces.is_seen_to("s-1") && traces.is_seen_to("s-2") && !traces.is_seen_to("s-3"));
        assert_eq!(traces.elections(), [name]);
        drop(second);
        assert!(!traces.is_seen_to("s-2"));
    }
}
