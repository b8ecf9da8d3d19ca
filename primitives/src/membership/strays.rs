//! Members of a living session that have left: an outage of the server has brought them back.

use tenure_kv::Op;

use super::{keeper::farewell, record::Written};
use crate::{Result, session::Inner};

/// Ends all of this session in the places that it has had.
pub(crate) async fn end_strays(inner: &Inner) -> Result<()> {
    for keys in inner.traces.members().chunks(256) {
        for entry in inner.patient.entries(keys).await?.into_iter().flatten() {
            // Written before this read, so whoever has the place has taken it by now.
            let own = Written::read(&entry).is_some_and(|written| written.session == inner.id);
            if own && inner.is_vacant(&entry.key) {
                tracing::warn!(member = %entry.key, "the server brought back a member that had left; it is ended");
                match inner.patient.commit(Op::purge(entry.key).if_at(entry.revision).ttl(farewell()).into()).await {
                    Err(error) if !error.is_conflict() => return Err(error.into()),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}
