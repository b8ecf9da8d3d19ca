//! Members of a living session that have left: an outage of the server has brought them back.

use tenure_kv::{Key, Op};

use super::{keeper::farewell, record::Written};
use crate::{Result, session::Inner};

/// Ends the member of this session that has had the place `key`, if nobody has it now.
pub(crate) async fn end_stray(inner: &Inner, key: &Key) -> Result<()> {
    let Some(entry) = inner.patient.entry(key).await? else { return Ok(()) };
    // Written before this read, so whoever has the place has taken it by now.
    let own = Written::read(&entry).is_some_and(|written| written.session == inner.id);
    if !own || !inner.is_vacant(key) {
        return Ok(());
    }
    tracing::warn!(member = %key, "the server brought back a member that had left; it is ended");
    match inner.patient.commit(Op::purge(entry.key).if_at(entry.revision).ttl(farewell()).into()).await {
        Err(error) if !error.is_conflict() => Err(error.into()),
        _ => Ok(()),
    }
}
