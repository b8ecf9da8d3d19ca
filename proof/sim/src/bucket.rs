//! The bucket of a simulated server: every version of every key, so that a replica that lags can be asked, too.
//!
//! No time of its own and no network. It decides as the stores do: a tombstone counts as absent, a key whose TTL
//! has run out is gone without a word, revisions count writes.

use std::{collections::BTreeMap, ops::Bound, time::SystemTime};

use tenure_check::history::Micros;
use tenure_kv::{Batch, Change, Entry, Error, Expect, Key, KeyRange, Page, Result, Revision, State};

#[derive(Clone, Debug)]
struct Version {
    revision: Revision,
    state: State,
    /// When the server forgets it, if it is still the latest then.
    until: Option<Micros>,
}

impl Version {
    fn kept(&self, now: Micros) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn entry(&self, key: &Key) -> Entry {
        Entry { key: key.clone(), revision: self.revision, state: self.state.clone(), created: SystemTime::UNIX_EPOCH }
    }
}

/// What a reader knows of the bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    /// Everything up to here has been applied.
    pub(crate) through: Revision,
    /// By which time TTLs are judged.
    pub(crate) now: Micros,
}

#[derive(Debug, Default)]
pub(crate) struct Bucket {
    revision: Revision,
    keys: BTreeMap<Key, Vec<Version>>,
    /// When each revision was committed.
    times: Vec<(Micros, Revision)>,
    /// Delete markers are on, with what that does on a cluster: a renewal that lands near the expiry of what it
    /// replaces is acknowledged and wiped.
    pub(crate) markers: bool,
    /// Keys that will be wiped, and when.
    wiped: Vec<(Micros, Key)>,
}

/// How near to the expiry a renewal has to land to be wiped.
const NEAR: Micros = 50_000;

impl Bucket {
    pub(crate) fn latest(&self, now: Micros) -> Sight {
        Sight { through: self.revision, now }
    }

    /// What a replica knows that has applied everything up to `then`.
    pub(crate) fn at(&self, then: Micros, now: Micros) -> Sight {
        let count = self.times.partition_point(|(at, _)| *at <= then);
        let through = count.checked_sub(1).map_or(Revision::ZERO, |last| self.times[last].1);
        Sight { through, now }
    }

    fn version(&self, sight: Sight, key: &Key) -> Option<&Version> {
        let versions = self.keys.get(key)?;
        let count = versions.partition_point(|version| version.revision <= sight.through);
        versions[..count].last().filter(|version| version.kept(sight.now))
    }

    pub(crate) fn entry(&self, sight: Sight, key: &Key) -> Option<Entry> {
        self.version(sight, key).map(|version| version.entry(key))
    }

    /// Those of these keys that have a value.
    pub(crate) fn live(&self, sight: Sight, wanted: impl Fn(&Key) -> bool) -> Vec<Entry> {
        let keys = self.keys.keys().filter(|key| wanted(key));
        keys.filter_map(|key| self.entry(sight, key)).filter(Entry::is_live).collect()
    }

    /// Every entry of `range`, tombstones included, ascending by revision.
    pub(crate) fn entries(&self, sight: Sight, range: &KeyRange) -> Vec<Entry> {
        let prefix = range.literal_prefix();
        let mut found: Vec<Entry> = self
            .keys
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .filter(|(key, _)| range.contains(key))
            .filter_map(|(key, _)| self.entry(sight, key))
            .collect();
        found.sort_by_key(|entry| entry.revision);
        found
    }

    /// As a NATS server: tombstones count in `limit`, the first entry alone is never known to be the last, and where
    /// there is nothing it does not say how far it has looked.
    pub(crate) fn scan(&self, sight: Sight, range: &KeyRange, from: Revision, limit: usize) -> Page {
        let mut entries = self.entries(sight, range);
        if matches!(range, KeyRange::One(_)) {
            let through = entries.last().map_or(Revision::ZERO, |entry| entry.revision);
            entries.retain(|entry| entry.is_live() && entry.revision >= from);
            return Page { entries, through, complete: true };
        }
        entries.retain(|entry| entry.revision >= from);
        let complete = entries.is_empty() || limit > 1 && entries.len() <= limit;
        entries.truncate(limit.max(1));
        let through = match entries.last() {
            None => Revision::ZERO,
            Some(_) if complete => sight.through,
            Some(last) => last.revision,
        };
        entries.retain(Entry::is_live);
        Page { entries, through, complete }
    }

    /// Applies all of `batch` or nothing, and returns what was written.
    pub(crate) fn commit(&mut self, now: Micros, batch: Batch) -> Result<Vec<Entry>> {
        self.wipe(now);
        let sight = self.latest(now);
        for op in &batch.ops {
            let here = self.version(sight, &op.key);
            let clash = match op.expect {
                Expect::Any => None,
                Expect::Absent => here.filter(|found| found.state.is_live()).map(|found| (&op.key, Some(found.revision))),
                Expect::At(wanted) => mismatch(&op.key, wanted, here),
            };
            let fence = op.fence.as_ref().filter(|fence| !passes_unseen(fence.revision));
            let clash =
                clash.or_else(|| fence.and_then(|fence| mismatch(&fence.key, fence.revision, self.version(sight, &fence.key))));
            if let Some((key, found)) = clash {
                return Err(Error::conflict(key, found));
            }
        }
        Ok(batch.ops.into_iter().map(|op| self.install(now, op)).collect())
    }

    fn install(&mut self, now: Micros, op: tenure_kv::Op) -> Entry {
        self.revision = self.revision.next();
        self.times.push((now, self.revision));
        let (state, ttl) = match op.change {
            Change::Put(value, ttl) => (State::Live(value), ttl),
            Change::Delete { marker, note } => (State::Deleted(note), marker),
            Change::Purge { marker } => (State::Purged, marker),
        };
        let until = ttl.map(|ttl| now + u64::from(ttl.as_secs()) * 1_000_000);
        let versions = self.keys.entry(op.key.clone()).or_default();
        if self.markers
            && state.is_live()
            && let Some(expiry) = versions.last().and_then(|last| last.until)
            && now < expiry
            && expiry - now < NEAR
        {
            self.wiped.push((expiry, op.key.clone()));
        }
        let version = Version { revision: self.revision, state, until };
        let entry = version.entry(&op.key);
        versions.push(version);
        entry
    }

    fn wipe(&mut self, now: Micros) {
        let keys = &mut self.keys;
        self.wiped.retain(|(at, key)| {
            if *at <= now
                && let Some(last) = keys.get_mut(key).and_then(|versions| versions.last_mut())
            {
                last.until = Some(*at);
            }
            *at > now
        });
    }

    /// Goes back to what it was at `then`, as after a power cut of servers that had not flushed.
    pub(crate) fn roll_back(&mut self, then: Micros, now: Micros) {
        self.revision = self.at(then, now).through;
        let revision = self.revision;
        self.times.retain(|(at, _)| *at <= then);
        self.keys.retain(|_, versions| {
            versions.retain(|version| version.revision <= revision);
            !versions.is_empty()
        });
        self.wiped.clear();
    }

    /// Is deleted and made anew, empty.
    pub(crate) fn make_anew(&mut self) {
        *self = Self { markers: self.markers, ..Self::default() };
    }
}

/// With the defect `wildcard-fence` the stale fence of every other write slips through, as an expectation on a wildcard
/// did on three servers where writes raced.
fn passes_unseen(revision: Revision) -> bool {
    tenure_kv::mutants::is_on(tenure_kv::mutants::Mutant::WildcardFence) && revision.get().is_multiple_of(2)
}

/// A key that was never written, or is forgotten, is at [`Revision::ZERO`].
fn mismatch<'a>(key: &'a Key, wanted: Revision, found: Option<&Version>) -> Option<(&'a Key, Option<Revision>)> {
    let found = found.map(|found| found.revision);
    (found.unwrap_or(Revision::ZERO) != wanted).then_some((key, found))
}
