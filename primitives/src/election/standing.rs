//! Every election at a glance, for people and operators; needs no session.

use std::collections::BTreeMap;

use tenure_kv::{Key, KeyRange, Store, StoreExt};

use super::{Leader, record::Record};
use crate::{Result, living};

/// How one election stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The election's name.
    pub name: String,
    /// Who leads; none also when the leader's session is known to have ended.
    pub leader: Option<Leader>,
    /// How many wait to lead.
    pub candidates: usize,
}

/// Every election that somebody leads or waits to lead and whose name begins with `prefix` (any text, perhaps empty), by
/// name, as of one look.
///
/// # Errors
/// [`Error::Unavailable`](crate::Error::Unavailable) when the store is out of reach.
///
/// # Cancel safety
/// Safe to drop.
pub async fn standings(store: &dyn Store, prefix: &str) -> Result<Vec<Standing>> {
    let mut records = Vec::new();
    for (root, leads) in [("election", true), ("candidate", false)] {
        for entry in store.list(&KeyRange::Under(Key::new(root)?)).await? {
            let below = entry.key.under(root);
            let name = if leads { below } else { below.and_then(|below| Some(below.rsplit_once('.')?.0)) };
            if let Some(name) = name.filter(|name| name.starts_with(prefix))
                && let Some(record) = Record::read(&entry)
            {
                records.push((name.to_owned(), leads, record, entry.revision));
            }
        }
    }
    let dead = living::dead(store, records.iter().map(|(_, _, record, _)| &*record.session)).await?;
    let mut standings = BTreeMap::<String, Standing>::new();
    for (name, leads, record, revision) in records {
        if dead.contains(&record.session) {
            continue;
        }
        let standing = standings.entry(name.clone()).or_insert(Standing { name, leader: None, candidates: 0 });
        if leads {
            standing.leader = Some(record.leader(revision));
        } else {
            standing.candidates += 1;
        }
    }
    Ok(standings.into_values().collect())
}
