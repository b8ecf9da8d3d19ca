//! The instances of a group as they can be chosen from, and what is known of each; no I/O.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tenure_kv::Moment;

use super::aside::{Cooling, Faults};
use crate::{InstanceState, MemberRecord};

/// What is known of an instance by those who use it; outlives changes of what the instance says of itself.
#[derive(Debug, Default)]
pub(super) struct Track {
    in_flight: AtomicUsize,
    faults: Mutex<Faults>,
    /// `faults.until()` in nanoseconds, so that most picks take no lock.
    aside_until: AtomicU64,
}

impl Track {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failed(&self, generation: u64, now: Moment, cooling: Cooling) {
        self.change(|faults| faults.failed(generation, now, cooling));
    }

    pub(super) fn succeeded(&self, generation: u64) {
        // A success after a success is the usual case, and changes nothing.
        if self.aside_until.load(Ordering::Relaxed) != 0 {
            self.change(|faults| faults.succeeded(generation));
        }
    }

    pub(super) fn is_aside(&self, now: Moment) -> bool {
        nanos(now) < self.aside_until.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut faults);
        self.aside_until.store(nanos(faults.until()), Ordering::Relaxed);
    }
}

fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.since_origin().as_nanos()).unwrap_or(u64::MAX)
}

/// An instance and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) member: Arc<MemberRecord>,
    pub(super) track: Arc<Track>,
}

/// The instances of a group as they are now.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: HashMap<String, Slot>,
    /// Passing in our zone, passing, warning in our zone, warning: by id.
    tiers: [Vec<Slot>; 4],
}

impl Table {
    /// The table of `members`. Who is in `before` and still the same process keeps what is known of it.
    pub(super) fn new<'a>(zone: Option<&str>, members: impl Iterator<Item = &'a Arc<MemberRecord>>, before: &Self) -> Self {
        let mut slots = HashMap::new();
        for member in members {
            let same =
                |slot: &&Slot| slot.member.session == member.session && slot.member.instance.address == member.instance.address;
            let known = before.slots.get(&member.id).filter(same);
            let track = known.map(|slot| slot.track.clone()).unwrap_or_default();
            slots.insert(member.id.clone(), Slot { member: member.clone(), track });
        }
        let mut sorted: Vec<_> = slots.values().cloned().collect();
        sorted.sort_unstable_by(|a, b| a.member.id.cmp(&b.member.id));
        let tier = |state: InstanceState, near: bool| {
            let near = |slot: &&Slot| !near || (zone.is_some() && slot.member.instance.zone.as_deref() == zone);
            sorted.iter().filter(|slot| slot.member.instance.state == state).filter(near).cloned().collect()
        };
        let passing = [tier(InstanceState::Passing, true), tier(InstanceState::Passing, false)];
        let warning = [tier(InstanceState::Warning, true), tier(InstanceState::Warning, false)];
        let ([a, b], [c, d]) = (passing, warning);
        Self { slots, tiers: [a, b, c, d] }
    }

    /// Every member, whatever its state.
    pub(super) fn members(&self) -> impl Iterator<Item = &Arc<MemberRecord>> {
        self.slots.values().map(|slot| &slot.member)
    }

    /// The instance `id`, if it is passing or warning.
    pub(super) fn usable(&self, id: &str) -> Option<&Slot> {
        self.slots.get(id).filter(|slot| slot.member.instance.state.is_available())
    }

    /// Those to choose from: passing before warning, then our zone before others, without those set aside.
    /// Where all are set aside, the one whose last error is the oldest. Empty only if nobody is usable.
    pub(super) fn available(&self, now: Moment) -> Cow<'_, [Slot]> {
        for tier in self.tiers.iter().filter(|tier| !tier.is_empty()) {
            if !tier.iter().any(|slot| slot.track.is_aside(now)) {
                return Cow::Borrowed(tier);
            }
            let up: Vec<_> = tier.iter().filter(|slot| !slot.track.is_aside(now)).cloned().collect();
            if !up.is_empty() {
                return Cow::Owned(up);
            }
        }
        let usable = self.tiers[1].iter().chain(&self.tiers[3]);
        Cow::Owned(usable.min_by_key(|slot| slot.track.faults().last()).cloned().into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Instance, roster};

    const COOLING: Cooling = Cooling { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

    fn member(id: &str, zone: &str, state: InstanceState) -> Arc<MemberRecord> {
        Arc::new(roster::tests::member(id, 1, Instance::at(format!("{id}:80")).zone(zone).state(state)))
    }

    fn table(of: &[(&str, &str, InstanceState)]) -> Table {
        let members: Vec<_> = of.iter().map(|(id, zone, state)| member(id, zone, *state)).collect();
        Table::new(Some("near"), members.iter(), &Table::default())
    }

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn ids(table: &Table, now: Moment) -> Vec<String> {
        table.available(now).iter().map(|slot| slot.member.id.clone()).collect()
    }

    fn fail(table: &Table, id: &str, now: Moment) {
        let track = &table.slots[id].track;
        track.failed(track.faults().generation(), now, COOLING);
    }

    #[test]
    fn only_who_passes_is_chosen_then_who_warns_and_nobody_else() {
        use InstanceState::{Critical, Draining, Maintenance, Passing, Warning};
        let all = [
            ("a", "near", Critical),
            ("b", "near", Draining),
            ("c", "near", Maintenance),
            ("d", "near", Warning),
            ("e", "far", Passing),
        ];
        assert_eq!(ids(&table(&all), at(0)), ["e"], "passing elsewhere is better than warning here");
        assert_eq!(ids(&table(&all[..4]), at(0)), ["d"]);
        assert!(ids(&table(&all[..3]), at(0)).is_empty());
    }

    #[test]
    fn our_zone_comes_first_and_others_stand_in() {
        let table = table(&[
            ("a", "far", InstanceState::Passing),
            ("b", "near", InstanceState::Passing),
            ("c", "near", InstanceState::Passing),
        ]);
        assert_eq!(ids(&table, at(0)), ["b", "c"]);
        fail(&table, "b", at(0));
        assert_eq!(ids(&table, at(0)), ["c"]);
        fail(&table, "c", at(0));
        assert_eq!(ids(&table, at(0)), ["a"]);
        assert_eq!(ids(&table, at(1)), ["b", "c"], "the time is over");
    }

    #[test]
    fn where_all_are_aside_the_least_recently_failed_is_used() {
        let table = table(&[
            ("a", "far", InstanceState::Passing),
            ("b", "near", InstanceState::Passing),
            ("c", "far", InstanceState::Warning),
        ]);
        for (id, when) in [("b", 10), ("c", 11), ("a", 12)] {
            fail(&table, id, at(when));
            fail(&table, id, at(when));
        }
        assert_eq!(ids(&table, at(12)), ["b"]);
        fail(&table, "b", at(12));
        fail(&table, "b", at(13));
        assert_eq!(ids(&table, at(12)), ["c"]);
    }

    #[test]
    fn what_is_known_stays_while_the_instance_is_the_same() {
        let first = table(&[("a", "near", InstanceState::Passing), ("b", "near", InstanceState::Passing)]);
        fail(&first, "a", at(0));
        first.slots["a"].track.began();
        let updated = member("a", "far", InstanceState::Warning);
        let same = Table::new(None, [&updated].into_iter(), &first);
        assert!(same.slots["a"].track.is_aside(at(0)));
        assert_eq!(same.slots["a"].track.in_flight(), 1);
        assert!(same.usable("b").is_none(), "it has left");
        for other in [
            MemberRecord { session: "t".into(), ..(*updated).clone() },
            MemberRecord { instance: Instance::at("elsewhere"), ..(*updated).clone() },
        ] {
            let moved = Table::new(None, [&Arc::new(other)].into_iter(), &same);
            assert!(!moved.slots["a"].track.is_aside(at(0)), "another process");
        }
    }
}
