//! What a session may have left in the bucket, and who of this process sees to it.
//!
//! A server that loses its last writes, or forgets tombstones before it writes what they stood for, may show again what
//! was ended: a ticket that stands in everybody's way, a leader whom nobody runs. As long as the session lives nobody
//! else may end these. So a session looks for its own after every outage. Several servers do not lose what they have
//! acknowledged, unless all are set back at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use tenure_kv::{ClockExt, Error as StoreError, Key};
use tokio::sync::watch;

use super::{Inner, timing, withdrawal::was_gone};
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
    /// Names of locks. All are looked for in one order, so that a simulation is the same each time.
    locks: BTreeSet<Key>,
    /// Names of elections.
    elections: BTreeSet<Key>,
    /// Keys of members.
    members: BTreeSet<Key>,
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

    fn names(&self) -> Vec<Trace> {
        let known = self.known();
        let locks = known.locks.iter().cloned().map(Trace::Lock);
        let elections = known.elections.iter().cloned().map(Trace::Election);
        locks.chain(elections).chain(known.members.iter().cloned().map(Trace::Member)).collect()
    }
}

/// Where something may be.
enum Trace {
    Lock(Key),
    Election(Key),
    Member(Key),
}

fn add(names: &mut BTreeSet<Key>, name: &Key) {
    if names.contains(name) {
        return;
    }
    if names.len() >= MAX {
        names.clear();
    }
    names.insert(name.clone());
}

impl Inner {
    /// Whether the ticket was let go, or never was one of ours.
    pub(crate) fn has_let_go(&self, ticket: &Key) -> bool {
        !super::locked(&self.holds).contains_key(ticket)
    }

    /// Whether no member of this session has the place `key`.
    pub(crate) fn is_vacant(&self, key: &Key) -> bool {
        !super::locked(&self.seats).contains_key(key)
    }
}

/// After each outage that the session has outlived: sees to it that all that it holds is there, and ends what is there of
/// it and nobody sees to.
///
/// `outlived` is subscribed to before the first renewal, so that none is missed.
pub(super) async fn look_after_outages(inner: Arc<Inner>, outlived: watch::Receiver<u64>) {
    let stop = inner.stop.clone();
    tokio::select! {
        // The session's own end takes everything with it.
        () = stop.cancelled() => {}
        _ = inner.lost() => {}
        () = look_whenever_outlived(&inner, outlived) => {}
    }
}

async fn look_whenever_outlived(inner: &Inner, outlived: watch::Receiver<u64>) {
    let (mut held, mut strays) = (outlived.clone(), outlived);
    let seen = async {
        while held.changed().await.is_ok() {
            until_held_is_seen(inner).await;
        }
    };
    // Each goes through all names once it has begun, so that none is left out where outages follow each other.
    let ended = async {
        while strays.changed().await.is_ok() {
            until_strays_are_ended(inner).await;
        }
    };
    tokio::join!(seen, ended);
}

async fn until_strays_are_ended(inner: &Inner) {
    let mut left = inner.traces.names();
    let mut pause = timing::renewal_retry(inner.lease);
    // All processes come back at once, and it is rare that several servers have lost anything.
    let several = inner.store.info().replicas > 1;
    let apart = if several { inner.lease / u32::try_from(left.len()).unwrap_or(u32::MAX).max(1) } else { Duration::ZERO };
    while !left.is_empty() {
        let mut failed = Vec::new();
        for trace in left {
            if let Err(error) = look(inner, &trace).await {
                tracing::debug!(session = %inner.id, %error, "what an outage may have brought back is looked for again");
                failed.push(trace);
            }
            if !apart.is_zero() {
                inner.clock.sleep(apart).await;
            }
        }
        left = failed;
        if !left.is_empty() {
            inner.clock.sleep_until(inner.clock.now() + pause).await;
            pause = (pause * 2).min(timing::renewal_interval(inner.lease));
        }
    }
}

/// A hold whose ticket is not where it was granted is none.
async fn until_held_is_seen(inner: &Inner) {
    let mut pause = timing::renewal_retry(inner.lease);
    while let Err(error) = held_is_seen(inner).await {
        tracing::debug!(session = %inner.id, %error, "whether all that is held is still there is looked at again");
        inner.clock.sleep_until(inner.clock.now() + pause).await;
        pause = (pause * 2).min(timing::renewal_interval(inner.lease));
    }
}

async fn held_is_seen(inner: &Inner) -> Result<()> {
    let mut seen = Ok(());
    for granted in inner.granted_tickets().chunks(256) {
        let tickets: Vec<Key> = granted.iter().map(|(ticket, _)| ticket.clone()).collect();
        let found = inner.patient.entries(&tickets).await?;
        for ((ticket, token), entry) in granted.iter().zip(found) {
            match entry {
                Some(entry) if entry.is_live() && entry.revision == *token => {}
                // Let go while this was read, or about to be.
                _ if !inner.is_granted(ticket) => {}
                Some(entry) if !entry.is_live() && entry.revision > *token && !was_gone(&entry.state) => {
                    inner.end_hold(ticket, super::why_ended(Some(&entry.state)));
                }
                // On one server a read is the truth.
                None if inner.store.info().replicas > 1 => match inner.proves_gone(ticket).await {
                    Ok(true) => is_lost(inner, ticket),
                    Ok(false) => seen = Err(StoreError::unavailable("a server that lags does not show the ticket").into()),
                    Err(error) => seen = Err(error.into()),
                },
                _ => is_lost(inner, ticket),
            }
        }
    }
    seen
}

fn is_lost(inner: &Inner, ticket: &Key) {
    // Let go while that was proven.
    if inner.is_granted(ticket) {
        tracing::warn!(%ticket, "the ticket of a lock that is held is lost: the bucket was set back");
        inner.lost_its_past();
    }
}

async fn look(inner: &Inner, trace: &Trace) -> Result<()> {
    match trace {
        Trace::Lock(name) => mutex::end_strays(inner, name).await,
        Trace::Election(name) => election::end_strays(inner, name).await,
        Trace::Member(key) => membership::end_stray(inner, key).await,
    }
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
        assert!(matches!(&traces.names()[..], [Trace::Election(known)] if *known == name));
        drop(second);
        assert!(!traces.is_seen_to("s-2"));
    }
}
