//! Whoever is elected removes the candidates that dead sessions have left listed.

use std::{collections::HashMap, sync::Arc};

use tenure_kv::{Op, StoreExt, Ttl};

use super::{Ballot, challenge};
use crate::{Result, session::Inner};

/// Sweeps once, in a task of the session. What cannot be removed now is removed by the next leader; until then
/// nobody takes it for a candidate, for its session is dead.
pub(super) fn sweep(inner: &Arc<Inner>, ballot: &Ballot) {
    let (owner, ballot) = (inner.clone(), ballot.clone());
    inner.spawn(async move {
        let (stop, lost) = (owner.stop.clone(), owner.lost());
        tokio::select! {
            () = stop.cancelled() => {}
            _ = lost => {}
            swept = remove_dead(&owner, &ballot) => {
                if let Err(error) = swept {
                    tracing::debug!(election = ballot.name.as_str(), %error, "dead candidates are removed at the next sweep");
                }
            }
        }
    });
}

async fn remove_dead(inner: &Inner, ballot: &Ballot) -> Result<()> {
    let mut dead = HashMap::<String, bool>::new();
    for entry in inner.patient.list(&ballot.name.candidates()?).await? {
        let Some(record) = challenge::read(ballot, &entry.key, &entry) else { continue };
        if record.session == inner.id {
            continue;
        }
        let known = dead.get(&record.session).copied();
        let is_dead = match known {
            Some(known) => known,
            None => inner.is_dead(&record.session).await?,
        };
        dead.insert(record.session, is_dead);
        if is_dead {
            match inner.patient.commit(Op::purge(entry.key).if_at(entry.revision).ttl(Ttl::MIN).into()).await {
                Err(error) if !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(())
}
