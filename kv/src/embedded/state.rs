//! What an embedded store holds, and the pure decision whether a batch may change it. No I/O, no clock.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::SystemTime,
};

use crate::{Batch, Change, Entry, Error, Expect, Key, KeyRange, Moment, Page, Result, Revision, State as Value, Ttl};

/// A decided write: the entry as readers will see it, and how long it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) entry: Entry,
    pub(super) ttl: Option<Ttl>,
}

/// The latest write to a key, as far as preconditions look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Latest {
    revision: Revision,
    live: bool,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    until: Option<Moment>,
}

impl Slot {
    fn kept(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The keys whose time has come, from [`State::due`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Keys with a value that ran out. They are hidden from readers until the caller writes the expiry.
    pub(super) expired: Vec<Key>,
    /// Tombstones that ran out, already gone.
    pub(super) forgotten: Vec<Key>,
}

/// Every key's latest write. Values and tombstones live apart, so that reading a range never wades
/// through what was deleted.
///
/// What ran out is invisible from that moment on, whether or not it was collected yet.
#[derive(Debug, Default)]
pub(super) struct State {
    revision: Revision,
    live: BTreeMap<Key, Slot>,
    dead: BTreeMap<Key, Slot>,
    timers: BTreeMap<(Moment, Revision), Key>,
}

impl State {
    pub(super) const fn revision(&self) -> Revision {
        self.revision
    }

    /// Moves the revision forward; it never goes back.
    pub(super) fn advance_to(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Decides `batch` and, if every precondition holds, applies it.
    pub(super) fn apply(&mut self, now: Moment, created: SystemTime, batch: Batch) -> Result<Vec<Write>> {
        let writes = decide(batch, self.revision, created, |key| self.latest(now, key))?;
        for write in &writes {
            self.install(now, write.clone());
        }
        Ok(writes)
    }

    /// Takes what [`decide`] or [`Staged`] allowed.
    pub(super) fn install(&mut self, now: Moment, write: Write) {
        let Write { entry, ttl } = write;
        self.revision = self.revision.max(entry.revision);
        let key = entry.key.clone();
        let until = ttl.map(|ttl| now + ttl.as_duration());
        if let Some(until) = until {
            self.timers.insert((until, entry.revision), key.clone());
        }
        let live = entry.is_live();
        let gone = entry.state == Value::Expired;
        let slot = Slot { entry, until };
        let old = if live {
            // A key with a value has no tombstone, so a replaced value spares the second look-up.
            self.live.insert(key.clone(), slot).or_else(|| self.dead.remove(&key))
        } else {
            let old = self.live.remove(&key);
            let dead = if gone { self.dead.remove(&key) } else { self.dead.insert(key, slot) };
            old.or(dead)
        };
        if let Some(Slot { entry, until: Some(until) }) = old {
            self.timers.remove(&(until, entry.revision));
        }
    }

    /// Up to `limit` keys whose time has come. Tombstones are forgotten here and now; a value's expiry
    /// is a write of its own, which is up to the caller.
    pub(super) fn due(&mut self, now: Moment, limit: usize) -> Due {
        let mut due = Due::default();
        if self.next_deadline().is_none_or(|at| at > now) {
            return due;
        }
        let reached: Vec<_> =
            self.timers.range(..=(now, Revision::new(u64::MAX))).take(limit).map(|(at, key)| (*at, key.clone())).collect();
        for (at, key) in reached {
            if let Some(slot) = self.dead.remove(&key) {
                self.timers.remove(&at);
                debug_assert_eq!(slot.entry.revision, at.1, "a timer belongs to the latest write");
                due.forgotten.push(key);
            } else {
                due.expired.push(key);
            }
        }
        due
    }

    /// Writes the expiry of `keys`, which are [`due`](Self::due).
    pub(super) fn expire(&mut self, now: Moment, created: SystemTime, keys: Vec<Key>) -> Vec<Write> {
        let mut writes = Vec::with_capacity(keys.len());
        for key in keys {
            let write = expiry(key, self.revision.next(), created);
            self.install(now, write.clone());
            writes.push(write);
        }
        writes
    }

    /// When the next TTL runs out.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn entry(&self, now: Moment, key: &Key) -> Option<&Entry> {
        self.live.get(key).or_else(|| self.dead.get(key)).filter(|slot| slot.kept(now)).map(|slot| &slot.entry)
    }

    /// Live entries of `range` from revision `from` on, the lowest `limit` of them.
    pub(super) fn scan(&self, now: Moment, range: &KeyRange, from: Revision, limit: usize) -> Page {
        let limit = limit.max(1);
        let mut found: Vec<&Entry> = within(&self.live, range)
            .filter(|slot| slot.entry.revision >= from && slot.kept(now))
            .map(|slot| &slot.entry)
            .collect();
        let complete = found.len() <= limit;
        if !complete {
            found.select_nth_unstable_by_key(limit, |entry| entry.revision);
            found.truncate(limit);
        }
        found.sort_unstable_by_key(|entry| entry.revision);
        let through = match found.last() {
            Some(last) if !complete => last.revision,
            _ => self.revision,
        };
        Page { entries: found.into_iter().cloned().collect(), through, complete }
    }

    /// Every entry of `range` written after `after`, tombstones included, in no order.
    pub(super) fn snapshot(&self, now: Moment, range: &KeyRange, after: Revision) -> Vec<Entry> {
        within(&self.live, range)
            .chain(within(&self.dead, range))
            .filter(|slot| slot.entry.revision > after && slot.kept(now))
            .map(|slot| slot.entry.clone())
            .collect()
    }

    fn latest(&self, now: Moment, key: &Key) -> Option<Latest> {
        self.entry(now, key).map(|entry| Latest { revision: entry.revision, live: entry.is_live() })
    }
}

/// Decisions that build on a [`State`] and on each other, not yet visible in the state.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    state: &'a State,
    now: Moment,
    created: SystemTime,
    revision: Revision,
    latest: HashMap<Key, Option<Latest>>,
    writes: Vec<Write>,
}

impl<'a> Staged<'a> {
    pub(super) fn on(state: &'a State, now: Moment, created: SystemTime) -> Self {
        Self { state, now, created, revision: state.revision, latest: HashMap::new(), writes: Vec::new() }
    }

    /// Decides `batch` as if everything staged before it were applied, and stages it.
    pub(super) fn apply(&mut self, batch: Batch) -> Result<Revision> {
        let writes = decide(batch, self.revision, self.created, |key| match self.latest.get(key) {
            Some(latest) => *latest,
            None => self.state.latest(self.now, key),
        })?;
        self.push(writes);
        Ok(self.revision)
    }

    /// Stages the expiry of `keys`, which are [`due`](State::due).
    pub(super) fn expire(&mut self, keys: Vec<Key>) {
        for key in keys {
            let write = expiry(key, self.revision.next(), self.created);
            self.push(vec![write]);
        }
    }

    pub(super) fn into_writes(self) -> Vec<Write> {
        self.writes
    }

    fn push(&mut self, writes: Vec<Write>) {
        for write in writes {
            let Entry { key, revision, state, .. } = &write.entry;
            let latest = (*state != Value::Expired).then_some(Latest { revision: *revision, live: state.is_live() });
            self.latest.insert(key.clone(), latest);
            self.revision = *revision;
            self.writes.push(write);
        }
    }
}

/// The writes that `batch` comes to after `base`, if its preconditions hold of `latest`. The batch is valid.
fn decide(batch: Batch, base: Revision, created: SystemTime, latest: impl Fn(&Key) -> Option<Latest>) -> Result<Vec<Write>> {
    for op in &batch.ops {
        let found = match op.expect {
            Expect::Any => None,
            Expect::Absent => latest(&op.key).filter(|found| found.live).map(|found| (&op.key, Some(found.revision))),
            Expect::At(wanted) => mismatch(&op.key, wanted, latest(&op.key)),
        };
        let found =
            found.or_else(|| op.fence.as_ref().and_then(|fence| mismatch(&fence.key, fence.revision, latest(&fence.key))));
        if let Some((key, revision)) = found {
            return Err(Error::conflict(key, revision));
        }
    }
    let mut revision = base;
    let write = |op: crate::Op| {
        revision = revision.next();
        let (state, ttl) = match op.change {
            Change::Put(value, ttl) => (Value::Live(value), ttl),
            Change::Delete { marker, note } => (Value::Deleted(note), marker),
            Change::Purge { marker } => (Value::Purged, marker),
        };
        Write { entry: Entry { key: op.key, revision, state, created }, ttl }
    };
    Ok(batch.ops.into_iter().map(write).collect())
}

/// A key that was never written, or is forgotten, is at [`Revision::ZERO`].
fn mismatch(key: &Key, wanted: Revision, found: Option<Latest>) -> Option<(&Key, Option<Revision>)> {
    let found = found.map(|found| found.revision);
    (found.unwrap_or(Revision::ZERO) != wanted).then_some((key, found))
}

fn expiry(key: Key, revision: Revision, created: SystemTime) -> Write {
    Write { entry: Entry { key, revision, state: Value::Expired, created }, ttl: None }
}

fn within<'a>(map: &'a BTreeMap<Key, Slot>, range: &'a KeyRange) -> impl Iterator<Item = &'a Slot> {
    let prefix = prefix(range);
    let from: (Bound<&str>, Bound<&str>) = (Bound::Included(&prefix), Bound::Unbounded);
    map.range::<str, _>(from)
        .take_while(move |(key, _)| key.as_str().starts_with(&prefix))
        .filter(|(key, _)| range.contains(key))
        .map(|(_, slot)| slot)
}

/// The literal text before the first free token, its dot included: no foreign key lies between.
pub(super) fn prefix(range: &KeyRange) -> String {
    match range {
        KeyRange::Under(parent) => format!("{parent}."),
        other => other.literal_prefix().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Op;

    const DAWN: SystemTime = SystemTime::UNIX_EPOCH;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn rev(n: u64) -> Revision {
        Revision::new(n)
    }

    fn ttl(seconds: u32) -> Ttl {
        Ttl::from_secs(seconds).unwrap()
    }

    fn put(text: &str) -> Op {
        Op::put(key(text), text.to_owned())
    }

    /// The revisions of what `op` wrote at second `now`, or `None` for a conflict.
    fn apply(state: &mut State, now: u64, batch: impl Into<Batch>) -> Option<Vec<u64>> {
        match state.apply(at(now), DAWN, batch.into()) {
            Ok(writes) => Some(writes.iter().map(|write| write.entry.revision.get()).collect()),
            Err(error) => {
                assert!(error.is_conflict(), "{error}");
                None
            }
        }
    }

    fn found(state: &State, range: &str, from: u64, limit: usize) -> (Vec<u64>, u64, bool) {
        let page = state.scan(at(0), &KeyRange::new(range).unwrap(), rev(from), limit);
        (page.entries.iter().map(|entry| entry.revision.get()).collect(), page.through.get(), page.complete)
    }

    #[test]
    fn a_tombstone_counts_as_absent_and_still_has_a_revision() {
        let mut state = State::default();
        assert_eq!(apply(&mut state, 0, put("a").if_at(Revision::ZERO)), Some(vec![1]));
        assert_eq!(apply(&mut state, 0, put("a").if_absent()), None);
        assert_eq!(apply(&mut state, 0, Op::delete(key("a")).if_at(rev(1))), Some(vec![2]));
        assert_eq!(apply(&mut state, 0, put("a").if_at(Revision::ZERO)), None);
        assert_eq!(apply(&mut state, 0, put("a").if_at(rev(1))), None);
        assert_eq!(apply(&mut state, 0, put("a").if_at(rev(2))), Some(vec![3]));
        assert_eq!(apply(&mut state, 0, Op::purge(key("a"))), Some(vec![4]));
        assert_eq!(apply(&mut state, 0, put("a").if_absent()), Some(vec![5]));
    }

    #[test]
    fn a_forgotten_tombstone_is_as_if_never_written() {
        let mut state = State::default();
        apply(&mut state, 0, put("a"));
        assert_eq!(apply(&mut state, 0, Op::delete(key("a")).ttl(ttl(2))), Some(vec![2]));
        assert_eq!(apply(&mut state, 1, put("a").if_at(Revision::ZERO)), None);
        assert_eq!(apply(&mut state, 2, put("b").fenced(key("a"), rev(2))), None);
        assert_eq!(state.due(at(2), 9), Due { expired: vec![], forgotten: vec![key("a")] });
        assert_eq!(apply(&mut state, 2, put("a").if_at(rev(2))), None);
        assert_eq!(apply(&mut state, 2, put("a").if_at(Revision::ZERO)), Some(vec![3]));
    }

    #[test]
    fn a_value_that_ran_out_is_hidden_at_once_and_expires_at_a_new_revision() {
        let mut state = State::default();
        apply(&mut state, 0, put("a").ttl(ttl(3)));
        assert!(state.entry(at(2), &key("a")).is_some());
        assert!(state.entry(at(3), &key("a")).is_none());
        assert_eq!(state.next_deadline(), Some(at(3)));
        let due = state.due(at(3), 9);
        assert_eq!(due.expired, [key("a")]);
        let writes = state.expire(at(3), DAWN, due.expired);
        assert_eq!(writes.len(), 1);
        assert_eq!((writes[0].entry.revision, &writes[0].entry.state), (rev(2), &Value::Expired));
        assert_eq!(state.next_deadline(), None);
        assert_eq!(apply(&mut state, 3, put("a").if_at(Revision::ZERO)), Some(vec![3]));
    }

    #[test]
    fn a_rewritten_key_leaves_no_timer_behind() {
        let mut state = State::default();
        for _ in 0..10 {
            apply(&mut state, 0, put("a").ttl(ttl(5)));
            apply(&mut state, 0, Op::delete(key("a")).ttl(ttl(4)));
        }
        assert_eq!(state.timers.len(), 1);
        apply(&mut state, 0, put("a"));
        assert_eq!((state.timers.len(), state.dead.len(), state.live.len()), (0, 0, 1));
    }

    #[test]
    fn a_batch_is_all_or_nothing_at_consecutive_revisions() {
        let mut state = State::default();
        apply(&mut state, 0, put("b"));
        assert_eq!(apply(&mut state, 0, Batch::new().and(put("a")).and(put("b").if_absent()).and(put("c"))), None);
        assert!(state.entry(at(0), &key("a")).is_none());
        assert_eq!(state.revision(), rev(1));
        assert_eq!(
            apply(&mut state, 0, Batch::new().and(put("a")).and(put("b").if_at(rev(1))).and(put("c"))),
            Some(vec![2, 3, 4])
        );
    }

    #[test]
    fn a_fence_compares_the_latest_write() {
        let mut state = State::default();
        assert_eq!(apply(&mut state, 0, put("x").fenced(key("f"), rev(1))), None);
        assert_eq!(apply(&mut state, 0, put("x").fenced(key("f"), Revision::ZERO)), Some(vec![1]));
        apply(&mut state, 0, put("f"));
        assert_eq!(apply(&mut state, 0, put("x").fenced(key("f"), rev(2))), Some(vec![3]));
        assert_eq!(apply(&mut state, 0, put("x").fenced(key("f"), rev(1))), None);
        assert_eq!(apply(&mut state, 0, put("x").fenced(key("f"), Revision::ZERO)), None);
    }

    #[test]
    fn a_scan_is_ordered_by_revision_and_bounded() {
        let mut state = State::default();
        for name in ["r.c", "r.a", "q", "r-x", "r.b", "r", "r.a.z"] {
            apply(&mut state, 0, put(name));
        }
        apply(&mut state, 0, Op::delete(key("r.b")));
        assert_eq!(found(&state, "r.*", 0, 9), (vec![1, 2], 8, true));
        assert_eq!(found(&state, "r.>", 0, 9), (vec![1, 2, 7], 8, true));
        assert_eq!(found(&state, "r.>", 2, 1), (vec![2], 2, false));
        assert_eq!(found(&state, "r", 0, 9), (vec![6], 8, true));
        assert_eq!(found(&state, ">", 0, 2), (vec![1, 2], 2, false));
        assert_eq!(found(&state, ">", 3, 9), (vec![3, 4, 6, 7], 8, true));
    }

    #[test]
    fn staged_decisions_see_each_other_and_nobody_else_sees_them() {
        let mut state = State::default();
        apply(&mut state, 0, put("a").ttl(ttl(1)));
        let due = state.due(at(1), 9);
        let mut staged = Staged::on(&state, at(1), DAWN);
        staged.expire(due.expired);
        assert_eq!(staged.apply(put("a").if_at(rev(1)).into()).unwrap_err().to_string(), "a is not as expected");
        assert_eq!(staged.apply(put("a").if_absent().into()).unwrap(), rev(3));
        assert!(staged.apply(put("a").if_absent().into()).unwrap_err().is_conflict());
        assert_eq!(staged.apply(put("b").fenced(key("a"), rev(3)).into()).unwrap(), rev(4));
        let writes = staged.into_writes();
        assert_eq!(state.revision(), rev(1));
        for write in writes {
            state.install(at(1), write);
        }
        assert_eq!(state.revision(), rev(4));
        assert_eq!(state.entry(at(9), &key("a")).map(|entry| entry.revision), Some(rev(3)));
        assert_eq!(state.next_deadline(), None);
    }
}
