//! Which sessions have ended, as of one look.

use std::collections::{BTreeSet, HashSet};

use tenure_kv::Store;

use crate::{Result, layout};

/// Sessions asked after in one request.
const AT_ONCE: usize = 256;

/// Those of `sessions` that are known to have ended.
pub(crate) async fn dead(store: &dyn Store, sessions: impl Iterator<Item = &str>) -> Result<HashSet<String>> {
    let sessions: Vec<&str> = sessions.collect::<BTreeSet<_>>().into_iter().collect();
    let mut dead = HashSet::new();
    for some in sessions.chunks(AT_ONCE) {
        let keys = some.iter().map(|id| layout::session_key(id)).collect::<Result<Vec<_>>>()?;
        for (id, entry) in some.iter().zip(store.entries(&keys).await?) {
            if entry.is_none_or(|entry| !entry.is_live()) {
                dead.insert((*id).to_owned());
            }
        }
    }
    Ok(dead)
}
