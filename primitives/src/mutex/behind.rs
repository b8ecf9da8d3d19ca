//! Waiting behind one ticket, and passing over tickets whose session is dead.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use tenure_kv::{Key, Notice, Revision, State};

use crate::{
    Result, layout,
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

/// Ends the ticket of a dead session: from then on the store refuses what its holder fenced with it.
pub(super) async fn end_dead(inner: &Inner, ticket: &Key, revision: Revision) -> Result<()> {
    let mut leaving = Leaving::new(ticket.clone(), Some(revision));
    inner.end_ticket(&mut leaving).await?;
    Ok(())
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

    /// Waits until the ticket is gone. True when it is known that nothing else is before ours either.
    pub(super) async fn wait(self, inner: &Arc<Inner>) -> Result<bool> {
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
                    Look::Gone(first) => return Ok(first && !looked),
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
                        return Ok(was_held(&entry.state));
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
            return Ok(Look::Gone(was_held(&entry.state)));
        }
        if found.first().is_some_and(Option::is_none) {
            // Gone and forgotten, or not there yet on a lagging replica: the next search tells.
            return Ok(Look::Gone(false));
        }
        let Some(vigil) = vigil else { return Ok(Look::Waiting) };
        if vigil.saw(inner, found.get(1).and_then(Option::as_ref)) {
            return Ok(Look::Dead);
        }
        Ok(if vigil.never_seen() { Look::Unseen } else { Look::Waiting })
    }

    /// A ticket whose session does not exist: a commit proves it.
    async fn finish_unseen(self, inner: &Arc<Inner>, vigil: Option<Vigil>) -> Result<bool> {
        if let Some(mut vigil) = vigil
            && vigil.depose(inner).await
        {
            return self.finish_dead(inner).await;
        }
        // It does exist; the read lagged.
        Err(tenure_kv::Error::unavailable("a lagging read does not show the session").into())
    }

    async fn finish_dead(self, inner: &Arc<Inner>) -> Result<bool> {
        end_dead(inner, &self.ticket, self.revision).await?;
        Ok(false)
    }
}

enum Look {
    Waiting,
    Gone(bool),
    Unseen,
    Dead,
}

/// Whether a ticket's tombstone says that it had been granted.
fn was_held(state: &State) -> bool {
    matches!(state, State::Deleted(note) if *note == Bytes::from_static(HELD))
}
