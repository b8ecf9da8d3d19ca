//! Reads after one's own writes: a replica that answers reads may not have what was acknowledged a moment ago, and
//! whoever wrote it is not to be told that it is not there.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::read::Reader;
use crate::{Change, Entry, Key, KeyRange, Op, Page, Result, Revision};

/// How long a write is remembered at least, while there are not too many.
const KEPT: Duration = Duration::from_secs(10);
/// So many writes are remembered at least.
const MOST: usize = 1_024;
/// No tombstone is gone before that: until then a key that shows nothing is one that the replica does not have yet.
const TOMBSTONES_LAST: Duration = Duration::from_secs(1);
/// How long a replica that has it is looked for: each try may ask another one. A bucket that was made anew, or went
/// back, has none, and those who hold something there are to hear of it soon.
const PATIENCE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// The last acknowledged write to a key.
#[derive(Clone, Copy, Debug)]
struct Note {
    revision: Revision,
    live: bool,
    at: Instant,
}

impl Note {
    fn is_young(self) -> bool {
        self.at.elapsed() < TOMBSTONES_LAST
    }

    /// Whether what was found is older than this.
    fn is_after(self, found: Option<Revision>) -> bool {
        match found {
            Some(found) => found < self.revision,
            None => self.live && self.is_young(),
        }
    }
}

/// Two halves, of which the older is thrown away when the other is full or old.
#[derive(Debug)]
struct Notes {
    newer: HashMap<Key, Note>,
    older: HashMap<Key, Note>,
    since: Instant,
    /// Since when no read has shown what was written.
    doubted: Option<Instant>,
}

impl Notes {
    fn get(&self, key: &Key) -> Option<Note> {
        self.newer.get(key).or_else(|| self.older.get(key)).copied()
    }
}

/// What was written through one store lately.
#[derive(Debug)]
pub(super) struct Own(Mutex<Notes>);

impl Own {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Notes { newer: HashMap::new(), older: HashMap::new(), since: Instant::now(), doubted: None }))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `ops` were applied, the last of them at `last`: their revisions follow each other.
    pub(super) fn note(&self, ops: &[Op], last: Revision) {
        let now = Instant::now();
        let mut notes = self.notes();
        if notes.newer.len() >= MOST || now.duration_since(notes.since) >= KEPT {
            notes.older = std::mem::take(&mut notes.newer);
            notes.since = now;
        }
        for (back, op) in ops.iter().rev().enumerate() {
            let revision = Revision::new(last.get().saturating_sub(back as u64));
            let note = Note { revision, live: matches!(op.change, Change::Put(..)), at: now };
            // Answers may come in another order than their revisions.
            if notes.get(&op.key).is_none_or(|before| before.revision < revision) {
                notes.newer.insert(op.key.clone(), note);
            }
        }
    }

    /// Whether a search for what was written goes on. Where it has been in vain for too long, by whomever, it is probably
    /// another bucket, and what was written is no longer believed in.
    fn is_worth_a_search(&self) -> bool {
        let mut notes = self.notes();
        let doubted = notes.doubted.filter(|since| since.elapsed() < 10 * PATIENCE).unwrap_or_else(Instant::now);
        notes.doubted = Some(doubted);
        let worth = doubted.elapsed() < PATIENCE;
        if !worth {
            notes.newer.clear();
            notes.older.clear();
            notes.doubted = None;
        }
        worth
    }

    /// Those of which a later write is known than what was found.
    fn behind<'a>(&self, found: impl Iterator<Item = (&'a Key, Option<Revision>)>) -> Vec<Key> {
        let mut notes = self.notes();
        let (mut behind, mut shown) = (Vec::new(), false);
        for (key, found) in found {
            if let Some(note) = notes.get(key) {
                if note.is_after(found) {
                    behind.push(key.clone());
                } else {
                    shown |= found.is_some();
                }
            }
        }
        if shown && behind.is_empty() {
            notes.doubted = None;
        }
        behind
    }

    /// What was written in `range` at `from` or later and after all that `page` shows, and may yet have been deleted by
    /// others.
    fn missing(&self, range: &KeyRange, from: Revision, page: &Page) -> Vec<Key> {
        let notes = self.notes();
        let all = notes.newer.iter().chain(&notes.older);
        let least = page.through.next().max(from);
        let missing = |(key, note): &(&Key, &Note)| note.live && note.revision >= least && note.is_young() && range.contains(key);
        all.filter(missing).map(|(key, _)| key.clone()).collect()
    }

    /// The last writes to `keys`, from a replica that has one's own.
    pub(super) async fn entries(&self, reader: Reader<'_>, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let mut search = Search::begin();
        loop {
            let entries = reader.entries(keys).await?;
            let found = entries.iter().map(|entry| entry.as_ref().map(|entry| entry.revision));
            let behind = self.behind(keys.iter().zip(found));
            if behind.is_empty() || !search.goes_on(self).await {
                return Ok(entries);
            }
        }
    }

    /// The last write to `key`, from a replica that has one's own.
    pub(super) async fn entry(&self, reader: Reader<'_>, key: &Key) -> Result<Option<Entry>> {
        let mut search = Search::begin();
        loop {
            let entry = reader.entry(key).await?;
            let behind = self.behind(std::iter::once((key, entry.as_ref().map(|entry| entry.revision))));
            if behind.is_empty() || !search.goes_on(self).await {
                return Ok(entry);
            }
        }
    }

    /// What was written to `key` at `revision`, from a replica that has it if it is one's own last.
    pub(super) async fn entry_at(&self, reader: Reader<'_>, key: &Key, revision: Revision) -> Result<Option<Entry>> {
        let mut search = Search::begin();
        loop {
            let entry = reader.entry_at(key, revision).await?;
            let own = entry.is_none() && self.notes().get(key).is_some_and(|note| note.revision == revision && note.is_young());
            if !own || !search.goes_on(self).await {
                return Ok(entry);
            }
        }
    }

    /// What is in `range`, from a replica that has one's own writes.
    pub(super) async fn scan(&self, reader: Reader<'_>, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        let mut search = Search::begin();
        loop {
            let page = reader.scan(range, from, limit).await?;
            let mut behind = self.behind(page.entries.iter().map(|entry| (&entry.key, Some(entry.revision))));
            if behind.is_empty() && page.complete {
                behind = self.missing(range, from, &page);
                if !behind.is_empty() {
                    // Others may have deleted it, which that replica would show as well.
                    let entries = self.entries(reader, &behind).await?;
                    behind = entries.into_iter().flatten().filter(Entry::is_live).map(|entry| entry.key).collect();
                }
            }
            if behind.is_empty() || !search.goes_on(self).await {
                return Ok(page);
            }
        }
    }
}

/// The search for a replica that is not behind.
struct Search {
    pause: Duration,
}

impl Search {
    const fn begin() -> Self {
        Self { pause: Duration::from_millis(1) }
    }

    /// Waits before the next try. False when there is to be none.
    async fn goes_on(&mut self, own: &Own) -> bool {
        if !own.is_worth_a_search() {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}
