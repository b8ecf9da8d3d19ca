//! Waiting behind one ticket, and passing over tickets whose session is dead.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tenure_kv::{Entry, Key, Notice, Revision, State};

use crate::{
    Result, layout,
    queue::ROW,
    record::HELD,
    session::{Inner, Leaving, Vigil, Wake},
};

/// Ends a ticket if its session is known to be dead, without waiting. True when it is gone.
pub(super) async fn pass_over(inner: &Inner, ticket: &Key, revision: Revision, session: &str) -> Result<bool> {
    if session == inner.id {
        return Ok(false);
    }
    let dead = inner.is_dead(session).await?;
    if dead {
        end_dead(inner, ticket, revision).await?;
    }
    Ok(dead)
}

/// Tickets of the dead that are ended at once.
const AT_ONCE: usize = 16;

/// Passes over `tickets`, from the front of a queue on, as long as their sessions are known to be dead. True when all were.
pub(super) async fn all_dead(inner: &Inner, mut tickets: &[(Key, Revision)]) -> Result<bool> {
    while let Some(((ticket, revision), others)) = tickets.split_first() {
        let Some((_, session)) = layout::parse_ticket(ticket) else { return Ok(false) };
        if !pass_over(inner, ticket, *revision, session).await? {
            return Ok(false);
        }
        let passed = pass_over_row(inner, &others[..others.len().min(ROW)]).await?;
        tickets = &others[passed..];
    }
    Ok(true)
}

/// Ends those of `row`, tickets next to each other in a queue, that come before the first of somebody who is not known to
/// have died, and says how many they were. One process may have left thousands, and one after the other they would hold up
/// whoever is next.
pub(super) async fn pass_over_row(inner: &Inner, row: &[(Key, Revision)]) -> Result<usize> {
    // In a bucket that was set back who was dead may live again.
    let outages = inner.store.outages();
    let Some(first) = row.first().and_then(session_of) else { return Ok(0) };
    let mut dead = died(inner, BTreeSet::from([first])).await?;
    // Where the first lives the others need not be asked after: many may have died of whom nobody knows yet.
    if !dead.is_empty() {
        let others = row.iter().filter_map(session_of).filter(|session| !dead.contains(session));
        dead.extend(died(inner, others.collect()).await?);
    }
    let left = row.iter().take_while(|ticket| session_of(ticket).is_some_and(|session| dead.contains(session)));
    let left: Vec<_> = left.cloned().collect();
    let passed = left.len();
    end_all_dead(inner, left, outages).await?;
    Ok(passed)
}

fn session_of((ticket, _): &(Key, Revision)) -> Option<&str> {
    layout::parse_ticket(ticket).map(|(_, session)| session)
}

/// Those of `sessions` whose tombstones can be read. Nothing else proves it: what a read does not show may be there.
async fn died<'a>(inner: &Inner, sessions: BTreeSet<&'a str>) -> Result<BTreeSet<&'a str>> {
    let others: Vec<&str> = sessions.into_iter().filter(|session| *session != inner.id).collect();
    if others.is_empty() {
        return Ok(BTreeSet::new());
    }
    let keys = others.iter().map(|session| layout::session_key(session)).collect::<Result<Vec<_>>>()?;
    let found = inner.patient.entries(&keys).await?;
    let dead = |entry: &Option<Entry>| entry.as_ref().is_some_and(|entry| !entry.is_live());
    Ok(others.into_iter().zip(found).filter(|(_, entry)| dead(entry)).map(|(session, _)| session).collect())
}

/// Ends all of these tickets, whose sessions were known to be dead after so many `outages` of the store, or says why one of
/// them could not be.
pub(super) async fn end_all_dead(inner: &Inner, tickets: Vec<(Key, Revision)>, outages: u64) -> Result<()> {
    let all = stream::iter(tickets).map(async |(ticket, revision)| {
        if inner.store.outages() != outages {
            return Err(tenure_kv::Error::unavailable("the store was out of reach since the session was seen dead").into());
        }
        let ended = end_dead(inner, &ticket, revision).await;
        ended.inspect_err(|error| tracing::debug!(%ticket, %error, "the ticket of a dead session could not be ended"))
    });
    // One that is refused holds up no other.
    let outcomes: Vec<Result<()>> = all.buffer_unordered(AT_ONCE).collect().await;
    outcomes.into_iter().collect()
}

/// Ends the ticket of a dead session: from then on the store refuses what its holder fenced with it.
async fn end_dead(inner: &Inner, ticket: &Key, revision: Revision) -> Result<()> {
    let mut leaving = Leaving::new(ticket.clone(), Some(revision));
    inner.end_ticket(&mut leaving).await?;
    Ok(())
}

/// How a wait behind one ticket ended.
pub(super) enum Passed {
    /// It had been granted, so nothing else is before ours either.
    Held,
    /// It is gone.
    Gone,
    /// Its session is dead, and may have left more.
    Dead,
}

impl Passed {
    fn of(state: &State) -> Self {
        if was_held(state) { Self::Held } else { Self::Gone }
    }
}

/// Waiting behind one ticket.
pub(super) struct Behind {
    ticket: Key,
    revision: Revision,
    session: String,
}

impl Behind {
    pub(super) fn new(inner: &Inner, ticket: Key, revision: Revision) -> Self {
        let session = layout::parse_ticket(&ticket).map_or(inner.id.as_str(), |(_, session)| session).to_owned();
        Self { ticket, revision, session }
    }

    /// Waits until the ticket is gone.
    pub(super) async fn wait(self, inner: &Arc<Inner>) -> Result<Passed> {
        let mut notices = inner.patient.follow(&self.ticket).await?;
        // Our own session's tickets go with our own session, which the caller watches.
        let mut vigil = if self.session == inner.id { None } else { Some(Vigil::new(inner, &self.session).await?) };
        let (mut read, mut looked) = (true, false);
        loop {
            if read {
                read = false;
                match self.look(inner, vigil.as_mut()).await? {
                    Look::Waiting => looked = true,
                    // What went unheard may have been followed by the end of our own ticket: search again.
                    Look::Gone(Passed::Held) if looked => return Ok(Passed::Gone),
                    Look::Gone(passed) => return Ok(passed),
                    Look::Unseen => return self.finish_unseen(inner, vigil).await,
                    Look::Dead => return self.finish_dead(inner).await,
                }
            }
            // A back-up for notices that a store may lose; rare enough to cost nothing.
            let backup = inner.clock.now() + inner.lease;
            let wake = async {
                match vigil.as_mut() {
                    Some(vigil) => vigil.wake(inner).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                notice = notices.next() => match notice {
                    Some(Notice::Entry(entry)) if entry.revision > self.revision => {
                        return Ok(Passed::of(&entry.state));
                    }
                    Some(Notice::Entry(_)) => {}
                    Some(Notice::Recheck) => read = true,
                    Some(Notice::Reconnected) => {
                        if let Some(vigil) = &mut vigil {
                            vigil.cut_off(inner);
                        }
                        read = true;
                    }
                    None => return Err(tenure_kv::Error::unavailable("the store ended its notices").into()),
                },
                wake = wake => match wake {
                    Wake::Read => read = true,
                    Wake::Dead => return self.finish_dead(inner).await,
                    Wake::Silent => {
                        if let Some(vigil) = &mut vigil
                            && vigil.depose(inner).await
                        {
                            return self.finish_dead(inner).await;
                        }
                    }
                },
                () = inner.clock.sleep_until(backup) => read = true,
            }
        }
    }

    /// One read of the ticket and of the session behind it.
    async fn look(&self, inner: &Inner, vigil: Option<&mut Vigil>) -> Result<Look> {
        let mut keys = vec![self.ticket.clone()];
        keys.extend(vigil.as_ref().map(|vigil| vigil.key().clone()));
        let found = match inner.patient.entries(&keys).await {
            Ok(found) => found,
            Err(error) => {
                if let Some(vigil) = vigil {
                    vigil.cut_off(inner);
                }
                return Err(error.into());
            }
        };
        if let Some(Some(entry)) = found.first()
            && entry.revision > self.revision
        {
            return Ok(Look::Gone(Passed::of(&entry.state)));
        }
        if found.first().is_some_and(Option::is_none) {
            // Gone and forgotten, or not there yet on a lagging replica: the next search tells.
            return Ok(Look::Gone(Passed::Gone));
        }
        let Some(vigil) = vigil else { return Ok(Look::Waiting) };
        if vigil.saw(inner, found.get(1).and_then(Option::as_ref)) {
            return Ok(Look::Dead);
        }
        Ok(if vigil.never_seen() { Look::Unseen } else { Look::Waiting })
    }

    /// A ticket whose session does not exist: a commit proves it.
    async fn finish_unseen(self, inner: &Arc<Inner>, vigil: Option<Vigil>) -> Result<Passed> {
        if let Some(mut vigil) = vigil
            && vigil.depose(inner).await
        {
            return self.finish_dead(inner).await;
        }
        // It does exist; the read lagged.
        Err(tenure_kv::Error::unavailable("a lagging read does not show the session").into())
    }

    async fn finish_dead(self, inner: &Arc<Inner>) -> Result<Passed> {
        end_dead(inner, &self.ticket, self.revision).await?;
        Ok(Passed::Dead)
    }
}

enum Look {
    Waiting,
    Gone(Passed),
    Unseen,
    Dead,
}

/// Whether a ticket's tombstone says that it had been granted.
fn was_held(state: &State) -> bool {
    matches!(state, State::Deleted(note) if *note == Bytes::from_static(HELD))
}
