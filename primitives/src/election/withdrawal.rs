//! Turning away from a campaign: afterwards no key names this candidate, and none ever will.
//!
//! A candidate can come to lead by a write of its own, which may be on its way, or by one of the leader's
//! that hands the office over. The latter ends the candidate's key in the same batch, at the revision at
//! which it was written once. So ending that key oneself proves that nobody has handed anything over;
//! finding it ended by the leader tells the very revision that names us. No read has to be fresh.

use std::sync::Arc;

use bytes::Bytes;
use tenure_kv::{Entry, Error, Key, Op, Result, Revision, State, Store, Ttl};

use super::record::{Record, TRANSFERRED};
use crate::session::{Inner, Pauses, timing};

/// A candidate's own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// Not there, and never will be.
    No,
    /// Sent and not answered.
    Sent,
    /// Written at this revision, and only the leader or we end it.
    At(Revision),
}

/// What one candidate may have left in the bucket.
#[derive(Clone, Debug)]
pub(super) struct Withdrawal {
    pub(super) election: Key,
    pub(super) candidate: Key,
    pub(super) id: String,
    /// Says that this candidate is seen to.
    pub(super) seen_to: Arc<()>,
    pub(super) listed: Listed,
    /// Where the election's key was to be for a campaign write of ours that is not accounted for.
    pub(super) sent: Option<Revision>,
    /// Where the election's key names us.
    pub(super) named: Option<Revision>,
}

/// What stands in a key beyond a revision.
pub(super) enum Beyond {
    Entry(Entry),
    /// There had been nothing any more, and now there is a tombstone of ours.
    Nothing(Revision),
}

impl Withdrawal {
    pub(super) fn is_needed(&self) -> bool {
        self.listed != Listed::No || self.sent.is_some() || self.named.is_some()
    }

    /// Withdraws for good, in a task of the session.
    pub(super) fn go_on(mut self, inner: &Arc<Inner>) {
        if !self.is_needed() {
            return;
        }
        let owner = inner.clone();
        inner.spawn(async move {
            let (inner, stop, lost) = (&owner, owner.stop.clone(), owner.lost());
            tokio::select! {
                // The session's own end takes its candidates with it.
                () = stop.cancelled() => {}
                _ = lost => {}
                () = inner.ending(self.until_done(inner)) => {}
            }
        });
    }

    pub(super) async fn until_done(&mut self, inner: &Inner) {
        let mut pauses = Pauses::of(inner);
        while let Err(error) = self.attempt(inner).await {
            tracing::debug!(candidate = %self.candidate, %error, "the candidature could not be withdrawn; trying again");
            pauses.pause(inner).await;
        }
    }

    /// On `Ok` nothing names this candidate, nor ever will.
    ///
    /// # Cancel safety
    /// Dropping leaves open what was done; call again.
    pub(super) async fn attempt(&mut self, inner: &Inner) -> Result<()> {
        let store = &*inner.patient;
        // A session that is lost takes its candidates with it.
        inner.vouched().await.map_err(|_| Error::unavailable("the session is lost"))?;
        self.unlist(store).await?;
        if let Some(at) = self.sent {
            self.settle(store, at).await?;
        }
        if let Some(at) = self.named {
            self.resign(store, at).await?;
        }
        Ok(())
    }

    /// Ends the candidate's own key: from then on nobody can hand the office to it.
    pub(super) async fn unlist(&mut self, store: &dyn Store) -> Result<()> {
        if self.listed == Listed::Sent {
            self.find_listing(store).await?;
        }
        let Listed::At(at) = self.listed else { return Ok(()) };
        match store.commit(Op::purge(self.candidate.clone()).if_at(at).ttl(Ttl::MIN).into()).await {
            Ok(_) => self.listed = Listed::No,
            Err(Error::Conflict { .. }) => match store.entry(&self.candidate).await? {
                Some(entry) if entry.is_live() => return Err(lagging()),
                Some(entry) => self.ended(&entry),
                // Ours has been forgotten already, or a replica lags: a commit tells. What the leader leaves stays.
                None => {
                    let op = Op::purge(self.candidate.clone()).if_at(Revision::ZERO).ttl(Ttl::MIN);
                    store.commit(op.into()).await.map_err(|error| if error.is_conflict() { lagging() } else { error })?;
                    self.listed = Listed::No;
                }
            },
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Finds out about a candidate's key whose one creating write was not answered.
    ///
    /// That write is only taken where there is not even a tombstone, so one in its place makes it fail; it
    /// stays for a day, for a write may arrive late.
    pub(super) async fn find_listing(&mut self, store: &dyn Store) -> Result<()> {
        let op = Op::purge(self.candidate.clone()).if_at(Revision::ZERO).ttl(timing::forestall());
        match store.commit(op.into()).await {
            Ok(_) => self.listed = Listed::No,
            Err(Error::Conflict { .. }) => match store.entry(&self.candidate).await? {
                Some(entry) if entry.is_live() => self.listed = Listed::At(entry.revision),
                Some(entry) => self.ended(&entry),
                None => return Err(lagging()),
            },
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The candidate's key was ended, by the leader or by others.
    fn ended(&mut self, tombstone: &Entry) {
        self.listed = Listed::No;
        if is_handed_over(&tombstone.state) {
            self.named = Some(tombstone.revision.next());
        }
    }

    /// Makes sure that a campaign write which was to replace `at` never lands, or finds that it has.
    async fn settle(&mut self, store: &dyn Store, at: Revision) -> Result<()> {
        match store.commit(Op::purge(self.election.clone()).if_at(at).ttl(timing::forestall()).into()).await {
            Ok(_) => self.sent = None,
            Err(Error::Conflict { .. }) => {
                if let Beyond::Entry(entry) = beyond(store, &self.election, at).await?
                    && self.is_named(&entry)
                {
                    self.named = Some(entry.revision);
                }
                self.sent = None;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn resign(&mut self, store: &dyn Store, at: Revision) -> Result<()> {
        match store.commit(resignation(&self.election, &self.id, at).into()).await {
            Ok(_) => self.named = None,
            Err(Error::Conflict { .. }) => {
                let now = beyond(store, &self.election, at).await?;
                self.named = match now {
                    Beyond::Entry(entry) if self.is_named(&entry) => Some(entry.revision),
                    Beyond::Entry(_) | Beyond::Nothing(_) => None,
                };
                if self.named.is_some() {
                    return Err(lagging());
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn is_named(&self, entry: &Entry) -> bool {
        Record::read(entry).is_some_and(|record| record.candidate == self.id)
    }
}

/// The end of an office. It stays for a day: as long as it is there, a campaign write that arrives late
/// finds another revision than the one it was to replace.
pub(super) fn resignation(election: &Key, id: &str, at: Revision) -> Op {
    Op::delete(election.clone()).note(Bytes::copy_from_slice(id.as_bytes())).if_at(at).ttl(timing::forestall())
}

pub(super) fn is_handed_over(state: &State) -> bool {
    matches!(state, State::Deleted(note) if note.as_ref() == TRANSFERRED)
}

/// Reads `key`, which a commit has shown not to be at `at` any more.
pub(super) async fn beyond(store: &dyn Store, key: &Key, at: Revision) -> Result<Beyond> {
    match store.entry(key).await? {
        Some(entry) if entry.revision > at => Ok(Beyond::Entry(entry)),
        None if at > Revision::ZERO => {
            let op = Op::purge(key.clone()).if_at(Revision::ZERO).ttl(timing::forestall());
            let taken = store.commit(op.into()).await;
            Ok(Beyond::Nothing(taken.map_err(|error| if error.is_conflict() { lagging() } else { error })?))
        }
        _ => Err(lagging()),
    }
}

pub(super) fn lagging() -> Error {
    Error::unavailable("a lagging read does not show what a commit has found")
}
