//! A former state of a store, to answer stale reads from.

use std::{collections::BTreeMap, fmt, sync::Arc};

use futures::StreamExt;

use crate::{Entry, Error, Event, Key, KeyRange, Page, Result, Revision, Since, Store};

/// Everything a store held at some moment. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    entries: Arc<BTreeMap<Key, Entry>>,
    through: Revision,
}

impl Snapshot {
    /// What `store` holds now.
    ///
    /// # Errors
    /// As [`Store::watch`].
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn of(store: &dyn Store) -> Result<Self> {
        let mut events = store.watch(KeyRange::All, Since::Current).await?;
        let mut entries = BTreeMap::new();
        let mut through = Revision::ZERO;
        while let Some(event) = events.next().await {
            match event? {
                Event::Entry(entry) => {
                    through = through.max(entry.revision);
                    entries.insert(entry.key.clone(), entry);
                }
                Event::Gap => {}
                Event::CaughtUp => return Ok(Self { entries: Arc::new(entries), through }),
            }
        }
        Err(Error::unavailable("the store ended the watch"))
    }

    /// The last revision it knows of.
    pub const fn through(&self) -> Revision {
        self.through
    }

    pub(super) fn entry(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).cloned()
    }

    pub(super) fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Page {
        let mut entries: Vec<_> = self
            .entries
            .values()
            .filter(|entry| entry.is_live() && entry.revision >= from && range.contains(&entry.key))
            .cloned()
            .collect();
        entries.sort_by_key(|entry| entry.revision);
        let complete = entries.len() <= limit;
        entries.truncate(limit);
        let through = match entries.last() {
            Some(last) if !complete => last.revision,
            _ => self.through,
        };
        Page { entries, through, complete }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("keys", &self.entries.len()).field("through", &self.through).finish()
    }
}
