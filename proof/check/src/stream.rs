//! The bucket's own stream: who wrote what to a key before and after a revision, and when at the earliest and
//! at the latest each write was committed.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use crate::history::{Line, Micros, Write, WriteState};

/// A write with its line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) line: usize,
    /// The epoch that it is looked at in; that of the write, unless it survived a rollback.
    pub(crate) epoch: u64,
    pub(crate) write: &'a Write,
    /// When it was committed, at the earliest and at the latest.
    pub(crate) earliest: Micros,
    pub(crate) latest: Micros,
}

impl Entry<'_> {
    pub(crate) const fn revision(&self) -> u64 {
        self.write.revision
    }

    /// The epoch that it survived from.
    pub(crate) fn survived(&self) -> Option<u64> {
        (self.write.epoch != self.epoch).then_some(self.write.epoch)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.write.state == WriteState::Live
    }
}

/// What somebody who took part knows about when a revision was committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    /// Not before this.
    pub(crate) after: Micros,
    /// Not after this.
    pub(crate) before: Micros,
}

#[derive(Debug, Default)]
struct Epoch<'a> {
    /// Ascending by revision.
    writes: Vec<Entry<'a>>,
    /// Places in `writes`, ascending.
    keys: BTreeMap<&'a str, Vec<usize>>,
}

/// The stream of every incarnation of the bucket.
#[derive(Debug, Default)]
pub(crate) struct Stream<'a> {
    epochs: BTreeMap<u64, Epoch<'a>>,
    nonces: HashMap<&'a str, Vec<(u64, usize)>>,
    /// A revision that is not recorded may have been written all the same.
    may_miss: bool,
}

impl<'a> Stream<'a> {
    /// `may_miss`: the recorder looked from outside and may have been late.
    pub(crate) fn new(lines: &'a [Line], may_miss: bool) -> Self {
        let mut stream = Self { may_miss, ..Self::default() };
        for (line, write) in lines.iter().enumerate() {
            if let Line::Write(write) = write {
                let (earliest, latest) = write.at.map_or((0, Micros::MAX), |at| (at, at));
                let entry = Entry { line, epoch: write.epoch, write, earliest, latest };
                stream.epochs.entry(write.epoch).or_default().writes.push(entry);
            }
        }
        let mut before: Vec<Entry<'a>> = Vec::new();
        for (number, epoch) in &mut stream.epochs {
            epoch.writes.sort_by_key(Entry::revision);
            epoch.writes.dedup_by_key(|entry| entry.revision());
            // An epoch that goes on where an earlier one was begins with what was there.
            let first = epoch.writes.first().map_or(0, Entry::revision);
            let survived = before.iter().take_while(|entry| entry.revision() < first);
            let survived: Vec<_> = survived.map(|entry| Entry { epoch: *number, ..*entry }).collect();
            epoch.writes.splice(0..0, survived);
            before.clone_from(&epoch.writes);
            for (place, entry) in epoch.writes.iter().enumerate() {
                epoch.keys.entry(&entry.write.key).or_default().push(place);
                if let Some(nonce) = &entry.write.value.nonce {
                    stream.nonces.entry(nonce).or_default().push((*number, place));
                }
            }
        }
        stream
    }

    /// Takes in what the operations tell about instants. Commits are in the order of revisions, so what is known of
    /// one bounds its neighbours.
    pub(crate) fn bound(&mut self, known: impl IntoIterator<Item = Known>) {
        for Known { epoch, revision, after, before } in known {
            let Some(epoch) = self.epochs.get_mut(&epoch) else { continue };
            let place = epoch.writes.partition_point(|entry| entry.revision() < revision);
            // Whatever is below was committed before, whatever is above after, recorded or not.
            if let Some(entry) = epoch.writes.get_mut(place).filter(|entry| entry.write.at.is_none()) {
                entry.earliest = entry.earliest.max(after);
            }
            let upper = place + usize::from(epoch.writes.get(place).is_some_and(|entry| entry.revision() == revision));
            if let Some(entry) = upper.checked_sub(1).and_then(|place| epoch.writes.get_mut(place))
                && entry.write.at.is_none()
            {
                entry.latest = entry.latest.min(before);
            }
        }
        for epoch in self.epochs.values_mut() {
            let mut earliest = 0;
            for entry in &mut epoch.writes {
                earliest = earliest.max(entry.earliest);
                if entry.write.at.is_none() {
                    entry.earliest = earliest;
                }
            }
            let mut latest = Micros::MAX;
            for entry in epoch.writes.iter_mut().rev() {
                latest = latest.min(entry.latest);
                if entry.write.at.is_none() {
                    entry.latest = latest;
                }
            }
        }
    }

    pub(crate) fn at(&self, epoch: u64, revision: u64) -> Option<Entry<'a>> {
        let writes = &self.epochs.get(&epoch)?.writes;
        let place = writes.binary_search_by_key(&revision, Entry::revision).ok()?;
        writes.get(place).copied()
    }

    /// The last write to `key` below `revision`.
    pub(crate) fn before(&self, epoch: u64, key: &str, revision: u64) -> Option<Entry<'a>> {
        let epoch = self.epochs.get(&epoch)?;
        let places = epoch.keys.get(key)?;
        let next = places.partition_point(|place| epoch.writes[*place].revision() < revision);
        Some(epoch.writes[places[next.checked_sub(1)?]])
    }

    /// The first write to `key` above `revision`.
    pub(crate) fn after(&self, epoch: u64, key: &str, revision: u64) -> Option<Entry<'a>> {
        let epoch = self.epochs.get(&epoch)?;
        let places = epoch.keys.get(key)?;
        let next = places.partition_point(|place| epoch.writes[*place].revision() <= revision);
        places.get(next).map(|place| epoch.writes[*place])
    }

    /// The last write to `key` in the last epoch.
    pub(crate) fn final_state(&self, key: &str) -> Option<Entry<'a>> {
        let (epoch, _) = self.epochs.last_key_value()?;
        self.before(*epoch, key, u64::MAX)
    }

    pub(crate) fn epochs(&self) -> impl Iterator<Item = u64> {
        self.epochs.keys().copied()
    }

    /// The instant of the first write of an epoch, where it is known.
    pub(crate) fn began(&self, epoch: u64) -> Option<Micros> {
        self.own(epoch).find_map(|entry| entry.write.at)
    }

    /// The writes of an epoch without those that survived from before.
    pub(crate) fn own(&self, epoch: u64) -> impl Iterator<Item = &Entry<'a>> {
        self.writes(epoch).iter().filter(|entry| entry.survived().is_none())
    }

    pub(crate) fn last_epoch(&self) -> u64 {
        self.epochs.last_key_value().map_or(1, |(epoch, _)| *epoch)
    }

    /// The writes of an epoch, ascending.
    pub(crate) fn writes(&self, epoch: u64) -> &[Entry<'a>] {
        self.epochs.get(&epoch).map_or(&[], |epoch| &epoch.writes)
    }

    /// The keys of an epoch that begin with `prefix`, each with its writes, ascending.
    pub(crate) fn keys_under(&self, epoch: u64, prefix: &str) -> Vec<(&'a str, Vec<Entry<'a>>)> {
        let Some(epoch) = self.epochs.get(&epoch) else { return Vec::new() };
        epoch
            .keys
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, places)| (*key, places.iter().map(|place| epoch.writes[*place]).collect()))
            .collect()
    }

    /// Everywhere that `nonce` was written.
    pub(crate) fn nonce(&self, nonce: &str) -> Vec<(u64, Entry<'a>)> {
        let places = self.nonces.get(nonce).map_or(&[][..], Vec::as_slice);
        places.iter().map(|(epoch, place)| (*epoch, self.epochs[epoch].writes[*place])).collect()
    }

    /// Whether something may have been written between the two revisions that is not recorded.
    pub(crate) fn gap(&self, epoch: u64, above: u64, below: u64) -> bool {
        if !self.may_miss || below <= above {
            return false;
        }
        let writes = self.writes(epoch);
        let first = writes.partition_point(|entry| entry.revision() <= above);
        let last = writes.partition_point(|entry| entry.revision() < below);
        // Past the last write that was recorded nothing is known to have been missed.
        let below = below.min(writes.last().map_or(0, |entry| entry.revision() + 1));
        below > above && (last - first) as u64 != below - above - 1
    }

    /// How many revisions are missing between those recorded.
    pub(crate) fn missing(&self) -> u64 {
        let missing = |epoch: &Epoch<'_>| {
            let (first, last) = (epoch.writes.first()?.revision(), epoch.writes.last()?.revision());
            Some(last - first + 1 - epoch.writes.len() as u64)
        };
        self.epochs.values().filter_map(missing).sum()
    }
}

/// The lock's name and the session in a ticket's key, or the election's and the session in a candidate's.
pub(crate) fn parse_ticket<'a>(key: &'a str, range: &str) -> Option<(&'a str, &'a str)> {
    let (name, ticket) = key.strip_prefix(range)?.strip_prefix('.')?.rsplit_once('.')?;
    let (session, n) = ticket.rsplit_once('-')?;
    (!n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())).then_some((name, session))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Value;

    fn write(revision: u64, key: &str, at: Option<Micros>) -> Line {
        let value = Value { nonce: Some(format!("n{revision}")), ..Value::default() };
        Line::Write(Write { revision, epoch: 1, key: key.into(), state: WriteState::Live, value, note: None, at })
    }

    #[test]
    fn a_key_is_looked_up_around_a_revision() {
        let lines = [write(1, "a", None), write(2, "b", None), write(5, "a", None)];
        let stream = Stream::new(&lines, true);
        let revision = |entry: Option<Entry<'_>>| entry.map(|entry| entry.revision());
        assert_eq!(revision(stream.before(1, "a", 5)), Some(1));
        assert_eq!(revision(stream.before(1, "a", 1)), None);
        assert_eq!(revision(stream.after(1, "a", 1)), Some(5));
        assert_eq!(revision(stream.after(1, "a", 5)), None);
        assert_eq!(revision(stream.at(1, 2)), Some(2));
        assert_eq!(revision(stream.at(1, 3)), None);
        assert_eq!(stream.nonce("n5").len(), 1);
        assert_eq!(stream.missing(), 2);
        assert!(stream.gap(1, 2, 5) && stream.gap(1, 0, 9) && !stream.gap(1, 0, 3) && !stream.gap(1, 5, u64::MAX));
        assert!(!Stream::new(&lines, false).gap(1, 2, 5));
    }

    #[test]
    fn a_bucket_set_back_begins_with_what_was_there() {
        let mut lines = vec![write(1, "a", Some(10)), write(2, "b", Some(20)), write(3, "a", Some(30)), write(3, "b", Some(90))];
        if let Some(Line::Write(write)) = lines.last_mut() {
            write.epoch = 2;
        }
        let stream = Stream::new(&lines, false);
        let seen = |entry: Entry<'_>| (entry.revision(), entry.earliest, entry.survived());
        assert_eq!(stream.before(2, "a", u64::MAX).map(seen), Some((1, 10, Some(1))));
        assert_eq!(stream.before(2, "b", u64::MAX).map(seen), Some((3, 90, None)));
        assert_eq!((stream.began(2), stream.own(2).count(), stream.writes(2).len()), (Some(90), 1, 3));
    }

    #[test]
    fn what_is_known_of_one_write_bounds_its_neighbours() {
        let lines = [write(1, "a", None), write(2, "b", None), write(3, "a", Some(70)), write(4, "a", None)];
        let mut stream = Stream::new(&lines, false);
        stream.bound([
            Known { epoch: 1, revision: 1, after: 10, before: 40 },
            Known { epoch: 1, revision: 2, after: 5, before: 30 },
            Known { epoch: 1, revision: 9, after: 0, before: 90 },
        ]);
        let bounds: Vec<_> = stream.writes(1).iter().map(|entry| (entry.earliest, entry.latest)).collect();
        assert_eq!(bounds, [(10, 30), (10, 30), (70, 70), (70, 90)]);
    }

    #[test]
    fn a_ticket_tells_its_lock_and_its_session() {
        assert_eq!(parse_ticket("lock.a/b.c.s1-7", "lock"), Some(("a/b.c", "s1")));
        assert_eq!(parse_ticket("lock.a.s-x", "lock"), None);
        assert_eq!(parse_ticket("data.a.s-1", "lock"), None);
    }
}
