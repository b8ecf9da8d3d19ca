//! Getting rid of tickets whose owner has turned away, in the session's own tasks.

use std::sync::Arc;

use bytes::Bytes;
use tenure_kv::{
    Error, Key, KeyRange, Op, Revision, State, Store, Ttl,
    mutants::{self, Mutant},
};

use super::{Inner, Pauses, timing};
use crate::{
    Loss,
    record::{ABSENT, BROKEN, HELD},
};

/// How a ticket came to its end, as far as the caller of [`Inner::end_ticket`] is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By this very call, or by an earlier one of ours.
    ByUs,
    /// By somebody else: the session was deposed, or the hold was broken.
    ByOthers(Loss),
}

/// A ticket to end.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    pub(crate) ticket: Key,
    /// Where it is; `None` while the write that creates it may still be on its way.
    pub(crate) token: Option<Revision>,
    /// It was granted, so everything before it is gone.
    pub(crate) held: bool,
    /// An earlier try to end it went unanswered, so the end that is found may be ours.
    pub(crate) unanswered: bool,
    /// Where the tombstone is, once a try was answered.
    pub(crate) tombstone: Option<Revision>,
}

impl Leaving {
    pub(crate) const fn new(ticket: Key, token: Option<Revision>) -> Self {
        Self { ticket, token, held: false, unanswered: false, tombstone: None }
    }
}

impl Inner {
    /// Ends a ticket for good, in a task of the session: for owners that cannot wait.
    pub(crate) fn leave(self: &Arc<Self>, leaving: Leaving) {
        let inner = self.clone();
        self.spawn(async move {
            let (stop, lost) = (inner.stop.clone(), inner.lost());
            tokio::select! {
                // The session's own end takes its tickets with it.
                () = stop.cancelled() => {}
                _ = lost => {}
                () = inner.ending(inner.leave_for_good(leaving)) => {}
            }
        });
    }

    async fn leave_for_good(&self, mut leaving: Leaving) {
        let mut pauses = Pauses::of(self);
        while let Err(error) = self.end_ticket(&mut leaving).await {
            tracing::debug!(ticket = %leaving.ticket, %error, "the ticket could not be withdrawn; trying again");
            pauses.pause(self).await;
        }
    }

    /// Ends a ticket; on `Ok` it is gone and cannot come to be later.
    ///
    /// # Cancel safety
    /// Dropping leaves open whether it is gone; call again.
    pub(crate) async fn end_ticket(&self, leaving: &mut Leaving) -> Result<Ended, Error> {
        let ended = match leaving.token {
            Some(token) => self.end_at(leaving, token).await,
            None => self.forestall(leaving).await,
        };
        leaving.unanswered |= matches!(&ended, Err(error) if !error.is_unavailable());
        ended
    }

    /// Why a ticket of ours that somebody else has ended is gone.
    pub(crate) async fn why_gone(&self, ticket: &Key) -> Loss {
        if let Some(loss) = self.validity.lost() {
            return loss;
        }
        let found = self.patient.entry(ticket).await;
        why_ended(found.ok().flatten().as_ref().map(|entry| &entry.state))
    }

    async fn forestall(&self, leaving: &mut Leaving) -> Result<Ended, Error> {
        match self.settle_ticket(&leaving.ticket).await? {
            Some(token) => self.end_at(leaving, token).await,
            None => Ok(Ended::ByUs),
        }
    }

    async fn end_at(&self, leaving: &mut Leaving, token: Revision) -> Result<Ended, Error> {
        if leaving.held && mutants::is_on(Mutant::ReleaseWithoutCas) {
            return release_whoever_is_first(&*self.patient, &leaving.ticket).await;
        }
        let ticket = leaving.ticket.clone();
        let op = if leaving.held { Op::delete(ticket).note(Bytes::from_static(HELD)) } else { Op::purge(ticket) };
        match self.patient.commit(op.if_at(token).ttl(Ttl::MIN).into()).await {
            Ok(revision) => {
                leaving.tombstone = Some(revision);
                Ok(Ended::ByUs)
            }
            Err(Error::Conflict { .. }) => match self.patient.entry(&leaving.ticket).await? {
                // Nobody writes a ticket twice: what is live there is ours, seen by a lagging read.
                Some(entry) if entry.is_live() => Err(Error::unavailable("a lagging read still shows the ticket")),
                Some(entry) if is_note(&entry.state, HELD) => Ok(Ended::ByUs),
                Some(entry) if !leaving.held && entry.state == State::Purged => Ok(Ended::ByUs),
                Some(entry) if was_gone(&entry.state) => Ok(without_trace(leaving)),
                Some(entry) => Ok(Ended::ByOthers(why_ended(Some(&entry.state)))),
                None => self.prove_gone(leaving).await,
            },
            Err(error) => Err(error),
        }
    }

    /// The tombstone has been forgotten already; or the server that refused lags, and so does the read, and the ticket
    /// is there. Taken for gone it would stand in everybody's way for ever, so a commit has to prove it.
    async fn prove_gone(&self, leaving: &Leaving) -> Result<Ended, Error> {
        let before = self.witness.mark();
        match self.patient.commit(where_nothing_is(&leaving.ticket).ttl(Ttl::MIN).into()).await {
            // It went with the bucket.
            Ok(revision) if self.acknowledged(before, revision).is_err() => Ok(Ended::ByOthers(Loss::StoreReset)),
            Ok(_) => Ok(without_trace(leaving)),
            Err(Error::Conflict { .. }) => Err(Error::unavailable("a server that lags does not show the ticket")),
            // It is the proof that is open, and not whether a try of ours has ended the ticket.
            Err(error) if error.is_unknown() => Err(Error::unavailable("whether the ticket is gone was not answered")),
            Err(error) => Err(error),
        }
    }

    /// Whether a commit proves that nothing is in the place of a ticket any more, and not even its tombstone; false where
    /// something is.
    pub(super) async fn proves_gone(&self, ticket: &Key) -> Result<bool, Error> {
        match self.patient.commit(where_nothing_is(ticket).ttl(Ttl::MIN).into()).await {
            Ok(_) => Ok(true),
            Err(Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Finds out about a ticket whose one creating write was not answered: its revision if it landed, or
    /// `None` if it never will or has been ended since.
    ///
    /// That write may land at any time; it is only taken where there is not even a tombstone, so a
    /// tombstone in its place makes it fail.
    ///
    /// # Cancel safety
    /// Dropping leaves all open; call again.
    pub(crate) async fn settle_ticket(&self, ticket: &Key) -> Result<Option<Revision>, Error> {
        match self.patient.commit(where_nothing_is(ticket).ttl(timing::forestall()).into()).await {
            Ok(_) => Ok(None),
            Err(Error::Conflict { .. }) => match self.patient.entry(ticket).await? {
                Some(entry) => Ok(entry.is_live().then_some(entry.revision)),
                None => Err(Error::unavailable("a lagging read does not show the ticket yet")),
            },
            Err(error) => Err(error),
        }
    }
}

/// Why somebody else left this in the place of a held ticket.
pub(crate) fn why_ended(state: Option<&State>) -> Loss {
    match state {
        Some(State::Deleted(note)) if note.as_ref() == BROKEN => Loss::Broken,
        // Tombstones of broken tickets outlast every lease; all others are left by those who depose.
        _ => Loss::Deposed,
    }
}

/// The ticket was gone without a trace before this was left in its place.
pub(super) fn was_gone(state: &State) -> bool {
    is_note(state, ABSENT)
}

fn is_note(state: &State, note: &[u8]) -> bool {
    matches!(state, State::Deleted(found) if found.as_ref() == note)
}

/// A tombstone that is only taken where not even a tombstone is. Landing late over the one that ended the ticket it
/// would hide who did.
fn where_nothing_is(ticket: &Key) -> Op {
    Op::delete(ticket.clone()).note(Bytes::from_static(ABSENT)).if_at(Revision::ZERO)
}

/// How a ticket ended whose tombstone has been forgotten.
fn without_trace(leaving: &Leaving) -> Ended {
    if leaving.unanswered { Ended::ByUs } else { Ended::ByOthers(why_ended(None)) }
}

/// The defect [`Mutant::ReleaseWithoutCas`].
async fn release_whoever_is_first(store: &dyn Store, ticket: &Key) -> Result<Ended, Error> {
    let Some((lock, _)) = ticket.as_str().rsplit_once('.') else { return Ok(Ended::ByUs) };
    let page = store.scan(&KeyRange::children(&Key::new(lock)?)?, Revision::ZERO, 1).await?;
    if let Some(first) = page.entries.first() {
        store.commit(Op::delete(first.key.clone()).note(Bytes::from_static(HELD)).ttl(Ttl::MIN).into()).await?;
    }
    Ok(Ended::ByUs)
}
