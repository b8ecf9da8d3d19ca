//! Candidates and leaders of a living session whom nobody runs: an outage of the server has brought them back.

use tenure_kv::{Entry, Key, Op, StoreExt, Ttl};

use super::{record::Record, withdrawal::resignation};
use crate::{Result, layout::Name, session::Inner};

/// Ends all of this session in the election called `name`.
pub(crate) async fn end_strays(inner: &Inner, name: &Key) -> Result<()> {
    let name = Name::new(name.as_str())?;
    let election = name.election()?;
    // Before the office: whoever is still listed could be named by its next holder.
    for entry in inner.patient.list(&name.candidates()?).await? {
        if stray(inner, &entry).is_some() {
            end(inner, &entry.key, Op::purge(entry.key.clone()).if_at(entry.revision).ttl(Ttl::MIN)).await?;
        }
    }
    if let Some(entry) = inner.patient.entry(&election).await?
        && let Some(candidate) = stray(inner, &entry)
    {
        end(inner, &election, resignation(&election, &candidate, entry.revision)).await?;
    }
    Ok(())
}

/// The candidate of this session that `entry` names, where nobody sees to that.
fn stray(inner: &Inner, entry: &Entry) -> Option<String> {
    // Written before this read, so whoever runs it has said so by now.
    let record = Record::read(entry).filter(|record| record.session == inner.id)?;
    (!inner.traces.is_seen_to(&record.candidate)).then_some(record.candidate)
}

async fn end(inner: &Inner, key: &Key, op: Op) -> Result<()> {
    tracing::warn!(%key, "the server brought back what had been given up; it is ended");
    match inner.patient.commit(op.into()).await {
        Err(error) if !error.is_conflict() => Err(error.into()),
        _ => Ok(()),
    }
}
