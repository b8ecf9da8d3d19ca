//! What a store must hold and answer, worked out apart from it: no disk, no groups, no threads.

use std::{collections::BTreeMap, fmt};

use crate::{Batch, Change, Entry, Expect, Key, Moment, State, Ttl};

/// What is known of a key's latest write.
#[derive(Clone, PartialEq)]
struct Slot {
    revision: u64,
    state: State,
    ttl: Option<Ttl>,
    until: Option<Moment>,
}

impl Slot {
    fn is_over(&self, now: Moment) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.until.map_or_else(String::new, |until| format!(" until {:?}", until.since_origin()));
        write!(f, "{} {}{until}", self.revision, brief(&self.state))
    }
}

/// A state in few words.
pub(super) fn brief(state: &State) -> String {
    match state {
        State::Live(value) => format!("{} × {:?}", value.len(), value.first().copied().unwrap_or_default()),
        other => format!("{other:?}"),
    }
}

/// Key, revision and state of everything there is.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Content(BTreeMap<Key, (u64, State)>);

impl Content {
    pub(super) fn get(&self, key: &Key) -> Option<&(u64, State)> {
        self.0.get(key)
    }
}

impl FromIterator<Entry> for Content {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        Self(entries.into_iter().map(|entry| (entry.key, (entry.revision.get(), entry.state))).collect())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(key, (revision, state))| write!(f, "{key}: {revision} {}; ", brief(state)))
    }
}

#[derive(Clone, Default, PartialEq)]
pub(super) struct Model {
    pub(super) revision: u64,
    slots: BTreeMap<Key, Slot>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}: ", self.revision)?;
        self.slots.iter().try_for_each(|(key, slot)| write!(f, "{key}: {slot:?}; "))
    }
}

impl Model {
    /// What to answer to each of `batches`, decided one after the other: the revision, or `None` for a conflict.
    pub(super) fn decide(&mut self, now: Moment, batches: &[Batch]) -> Vec<Option<u64>> {
        let before = self.revision;
        let mut due: Vec<_> = self.slots.iter().filter(|(_, slot)| slot.is_over(now)).collect();
        due.sort_by_key(|(_, slot)| (slot.until, slot.revision));
        let (expired, forgotten): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, slot)| slot.state.is_live());
        let [expired, forgotten] =
            [expired, forgotten].map(|keys| keys.into_iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
        for key in &expired {
            self.revision += 1;
            self.slots.remove(key);
        }
        let answers = batches.iter().map(|batch| self.apply(now, batch)).collect();
        // They go from the disk with the next write.
        for key in forgotten.iter().filter(|_| self.revision > before) {
            if self.slots.get(key).is_some_and(|slot| slot.is_over(now)) {
                self.slots.remove(key);
            }
        }
        answers
    }

    fn apply(&mut self, now: Moment, batch: &Batch) -> Option<u64> {
        let latest = |key: &Key| self.slots.get(key).filter(|slot| !slot.is_over(now));
        let at = |key: &Key| latest(key).map_or(0, |slot| slot.revision);
        let holds = batch.ops.iter().all(|op| {
            let expected = match op.expect {
                Expect::Any => true,
                Expect::Absent => latest(&op.key).is_none_or(|slot| !slot.state.is_live()),
                Expect::At(revision) => at(&op.key) == revision.get(),
            };
            expected && op.fence.as_ref().is_none_or(|fence| at(&fence.key) == fence.revision.get())
        });
        if !holds {
            return None;
        }
        for op in &batch.ops {
            self.revision += 1;
            let (state, ttl) = match &op.change {
                Change::Put(value, ttl) => (State::Live(value.clone()), *ttl),
                Change::Delete { marker, note } => (State::Deleted(note.clone()), *marker),
                Change::Purge { marker } => (State::Purged, *marker),
            };
            let until = ttl.map(|ttl| now + ttl.as_duration());
            self.slots.insert(op.key.clone(), Slot { revision: self.revision, state, ttl, until });
        }
        Some(self.revision)
    }

    /// What readers find.
    pub(super) fn shown(&self, now: Moment) -> Content {
        self.content(|slot| !slot.is_over(now))
    }

    /// What is on disk, including what is over but not collected yet.
    pub(super) fn kept(&self) -> Content {
        self.content(|_| true)
    }

    fn content(&self, wanted: impl Fn(&Slot) -> bool) -> Content {
        let wanted = self.slots.iter().filter(|(_, slot)| wanted(slot));
        Content(wanted.map(|(key, slot)| (key.clone(), (slot.revision, slot.state.clone()))).collect())
    }

    /// Whether this is what was `found` when the file was opened. Tombstones that are over may be gone.
    pub(super) fn is(&self, found: &Content, now: Moment) -> bool {
        let must: Content = self.content(|slot| slot.state.is_live() || !slot.is_over(now));
        let kept = self.kept();
        must.0.iter().all(|(key, entry)| found.get(key) == Some(entry))
            && found.0.iter().all(|(key, entry)| kept.get(key) == Some(entry))
    }

    /// The same after the file was opened with `found` in it and nothing above `revision` given out: TTLs begin anew.
    pub(super) fn reopened(&self, found: &Content, revision: u64, now: Moment) -> Self {
        let mut slots = self.slots.clone();
        slots.retain(|key, _| found.get(key).is_some());
        slots.values_mut().for_each(|slot| slot.until = slot.ttl.map(|ttl| now + ttl.as_duration()));
        Self { revision, slots }
    }
}
