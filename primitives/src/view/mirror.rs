//! What a view holds, as values; no I/O.
//!
//! Each key stands once, at the place of its last write in the order of arrival. So whoever has read up to
//! some place finds everything that has changed since beyond it, and several writes to one key merge into
//! the last. Tombstones stay until every reader has passed them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use tenure_kv::{Entry, Key, Revision, State};

/// Tombstones kept at most for readers that have stopped reading.
const MAX_GRAVES: usize = 65_536;

/// The state of a [`View`](super::View) at one revision.
#[derive(Debug, Default)]
pub struct Snapshot {
    items: HashMap<Key, Item>,
    /// Every item's place. Places grow with revisions, and two keys never share one.
    places: BTreeMap<u64, Key>,
    /// Where tombstones are, first to go first; some may have been overtaken by a later write.
    graves: VecDeque<(u64, Key)>,
    last: u64,
    taken: u64,
    live: usize,
    revision: Revision,
}

#[derive(Debug)]
struct Item {
    entry: Entry,
    place: u64,
}

impl Snapshot {
    /// Every write to the range up to here has been taken in, or a later one to the same key has been or is
    /// about to be.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys have a value.
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether no key has a value.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The entry of `key`, if it has a value.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.items.get(key).map(|item| &item.entry).filter(|entry| entry.is_live())
    }

    /// The entries that have a value, ascending by revision.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.places.values().filter_map(|key| self.get(key))
    }

    /// How many writes have been taken in, those that changed nothing too: another number, another look.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Takes in a write, and returns the place of the one to the same key that it replaces.
    pub(super) fn apply(&mut self, mut entry: Entry) -> Option<u64> {
        self.taken += 1;
        let known = self.items.get(&entry.key);
        if known.is_some_and(|item| !is_news(&entry, &item.entry)) {
            return None;
        }
        self.revision = self.revision.max(entry.revision);
        let was_live = known.is_some_and(|item| item.entry.is_live());
        if known.is_none() && !entry.is_live() {
            return None;
        }
        if let State::Live(value) = &mut entry.state {
            // A store may hand out part of what it has received, and that would be kept whole.
            *value = Bytes::copy_from_slice(value);
        }
        self.last += 1;
        let (place, key, live) = (self.last, entry.key.clone(), entry.is_live());
        if !live {
            self.graves.push_back((place, key.clone()));
        }
        let old = self.items.insert(key.clone(), Item { entry, place }).map(|old| old.place);
        if let Some(old) = old {
            self.places.remove(&old);
        }
        self.places.insert(place, key);
        self.live = self.live + usize::from(live) - usize::from(was_live);
        old
    }

    /// Forgets the tombstones that every reader has passed.
    pub(super) fn bury(&mut self, passed: u64) {
        while self.graves.front().is_some_and(|(place, _)| *place <= passed) {
            if let Some((place, key)) = self.graves.pop_front()
                && self.places.remove(&place).is_some()
            {
                self.items.remove(&key);
            }
        }
    }

    /// Up to where tombstones must go for want of room: the older half, so that who still reads is spared.
    pub(super) fn overfull(&self) -> Option<u64> {
        let middle = || self.graves.get(MAX_GRAVES / 2).map(|(place, _)| *place);
        (self.graves.len() > MAX_GRAVES).then(middle).flatten()
    }

    /// The first write beyond `place`, tombstones included.
    pub(super) fn after(&self, place: u64) -> Option<(u64, &Entry)> {
        let (place, key) = self.places.range(place + 1..).next()?;
        self.items.get(key).map(|item| (*place, &item.entry))
    }
}

/// Whether `entry` is later than `known`. One revision names one write, so what is told again is no news and
/// keeps its place; only that a key is found gone may have the revision of its last write.
fn is_news(entry: &Entry, known: &Entry) -> bool {
    entry.revision > known.revision || (entry.revision == known.revision && known.is_live() && !entry.is_live())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// Whether the write changed anything.
    fn write(snapshot: &mut Snapshot, key: &str, revision: u64, live: bool) -> bool {
        let state = if live { State::Live("v".into()) } else { State::Purged };
        let (key, revision, last) = (Key::new(key).unwrap(), Revision::new(revision), snapshot.last());
        snapshot.apply(Entry { key, revision, state, created: SystemTime::UNIX_EPOCH });
        snapshot.last() > last
    }

    fn told(snapshot: &Snapshot, mut from: u64) -> Vec<(String, u64, bool)> {
        let mut all = Vec::new();
        while let Some((place, entry)) = snapshot.after(from) {
            all.push((entry.key.to_string(), entry.revision.get(), entry.is_live()));
            from = place;
        }
        all
    }

    #[test]
    fn several_writes_to_a_key_merge_into_the_last_and_keep_the_order() {
        let mut view = Snapshot::default();
        for (key, revision) in [("a", 1), ("b", 2), ("a", 3)] {
            assert!(write(&mut view, key, revision, true));
        }
        assert_eq!(told(&view, 0), [("b".into(), 2, true), ("a".into(), 3, true)]);
        assert_eq!(told(&view, 2), [("a".into(), 3, true)]);
        assert!(!write(&mut view, "a", 1, true), "older than what is known");
        assert_eq!((view.len(), view.revision()), (2, Revision::new(3)));
    }

    #[test]
    fn what_is_told_again_keeps_its_place() {
        let mut view = Snapshot::default();
        for (key, revision) in [("a", 1), ("b", 2)] {
            write(&mut view, key, revision, true);
        }
        assert!(!write(&mut view, "a", 1, true));
        assert_eq!(view.entries().map(|entry| entry.revision.get()).collect::<Vec<_>>(), [1, 2]);
        assert!(write(&mut view, "b", 2, false), "found gone");
        assert!(!write(&mut view, "b", 2, true), "a key does not come back at its old revision");
        assert_eq!(view.len(), 1);
    }

    #[test]
    fn a_tombstone_stays_until_all_have_passed_it() {
        let mut view = Snapshot::default();
        write(&mut view, "a", 1, true);
        write(&mut view, "a", 2, false);
        assert_eq!(told(&view, 1), [("a".into(), 2, false)]);
        assert!(view.is_empty() && view.get(&Key::new("a").unwrap()).is_none());
        view.bury(1);
        assert_eq!(told(&view, 1).len(), 1);
        view.bury(2);
        assert!(told(&view, 0).is_empty() && view.items.is_empty() && view.places.is_empty());
        assert!(!write(&mut view, "never", 3, false), "nobody has heard of it");
        assert_eq!(view.revision(), Revision::new(3));
    }

    #[test]
    fn a_key_that_comes_back_outlives_its_grave() {
        let mut view = Snapshot::default();
        write(&mut view, "a", 1, true);
        write(&mut view, "a", 2, false);
        write(&mut view, "a", 3, true);
        view.bury(u64::MAX);
        assert_eq!(told(&view, 0), [("a".into(), 3, true)]);
        assert_eq!(view.len(), 1);
    }

    #[test]
    fn keys_that_went_at_one_revision_are_all_told() {
        let mut view = Snapshot::default();
        for (key, revision, live) in [("a", 1, true), ("b", 2, true), ("a", 9, false), ("b", 9, false)] {
            write(&mut view, key, revision, live);
        }
        assert_eq!(told(&view, 2), [("a".into(), 9, false), ("b".into(), 9, false)]);
    }
}
