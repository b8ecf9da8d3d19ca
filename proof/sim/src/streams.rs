//! The server's side of watches and notices: what they are told, and how they heal.

use std::collections::BTreeMap;

use tenure_check::history::Micros;
use tenure_kv::{Entry, Error, Event as Told, Key, KeyRange, Notice, Revision, Since, State};
use tokio::sync::mpsc;

use crate::world::{Event, Inner};

/// By when a watch has noticed that its bucket was made anew.
pub(crate) const NOTICED: Micros = 4_000_000;

/// All that is listened to. Those that nobody holds any more are swept out as they are come across.
#[derive(Default)]
pub(crate) struct Streams {
    watches: Vec<Watch>,
    follows: Vec<Follow>,
}

struct Watch {
    slot: usize,
    range: KeyRange,
    to: mpsc::UnboundedSender<tenure_kv::Result<Told>>,
    /// Everything up to here was told, or superseded by something told.
    told: Revision,
    /// What was told to have a value.
    live: BTreeMap<Key, Revision>,
    /// When the last thing told arrives: what is told keeps its order.
    last: Micros,
    cut: bool,
}

struct Follow {
    slot: usize,
    key: Key,
    to: mpsc::UnboundedSender<Notice>,
    /// From when the server knows of it.
    from: Micros,
    last: Micros,
    cut: bool,
}

impl Inner {
    /// Tells all who listen of a write.
    pub(crate) fn publish(&mut self, entry: &Entry) {
        let mut watches = std::mem::take(&mut self.streams.watches);
        watches.retain(|watch| !watch.to.is_closed());
        for watch in watches.iter_mut().filter(|watch| watch.range.contains(&entry.key)) {
            if self.wires[watch.slot].hears_nothing() {
                watch.cut = true;
            }
            if !watch.cut {
                self.tell(watch, Ok(Told::Entry(entry.clone())));
            }
        }
        self.streams.watches = watches;
        let mut follows = std::mem::take(&mut self.streams.follows);
        follows.retain(|follow| !follow.to.is_closed());
        for follow in follows.iter_mut().filter(|follow| follow.key == entry.key) {
            if self.wires[follow.slot].hears_nothing() {
                follow.cut = true;
            }
            if !follow.cut && follow.from <= self.now {
                self.notice(follow, Notice::Entry(entry.clone()), 0);
            }
        }
        self.streams.follows = follows;
    }

    fn tell(&mut self, watch: &mut Watch, told: tenure_kv::Result<Told>) {
        if let Ok(Told::Entry(entry)) = &told {
            watch.told = watch.told.max(entry.revision);
            if entry.is_live() {
                watch.live.insert(entry.key.clone(), entry.revision);
            } else {
                watch.live.remove(&entry.key);
            }
        }
        watch.last = watch.last.max(self.now + self.wires[watch.slot].delay(&mut self.rng));
        self.agenda.add(watch.last, Event::Told { slot: watch.slot, to: watch.to.clone(), told });
    }

    fn notice(&mut self, follow: &mut Follow, notice: Notice, after: Micros) {
        let at = self.now + after + self.wires[follow.slot].delay(&mut self.rng);
        if after == 0 {
            follow.last = follow.last.max(at);
        }
        let at = at.max(follow.last);
        self.agenda.add(at, Event::Noticed { slot: follow.slot, to: follow.to.clone(), notice });
    }

    pub(crate) fn open_watch(
        &mut self,
        slot: usize,
        range: KeyRange,
        since: Since,
        to: mpsc::UnboundedSender<tenure_kv::Result<Told>>,
    ) {
        let sight = self.bucket.latest(self.now);
        let from = match since {
            Since::Current | Since::History => Some(Revision::ZERO),
            Since::After(revision) => Some(revision),
            Since::Now => None,
        };
        let told = sight.through;
        let mut watch = Watch { slot, range, to, told, live: BTreeMap::new(), last: self.now, cut: false };
        if let Some(from) = from {
            for entry in self.bucket.entries(sight, &watch.range).into_iter().filter(|entry| entry.revision > from) {
                self.tell(&mut watch, Ok(Told::Entry(entry)));
            }
        }
        self.tell(&mut watch, Ok(Told::CaughtUp));
        self.streams.watches.push(watch);
    }

    /// Somebody begins to follow a key.
    pub(crate) fn subscribe(&mut self, slot: usize, key: Key, to: mpsc::UnboundedSender<Notice>) {
        let at = self.now + self.wires[slot].delay(&mut self.rng);
        self.agenda.add(at, Event::Follow { slot, key, to });
    }

    pub(crate) fn open_follow(&mut self, slot: usize, key: Key, to: mpsc::UnboundedSender<Notice>) {
        let from = if self.clustered { self.now + self.rng.u64(..15_000) } else { self.now };
        let cut = self.wires[slot].hears_nothing();
        let mut follow = Follow { slot, key, to, from, last: self.now, cut };
        self.expect_delay(&mut follow);
        self.streams.follows.push(follow);
    }

    /// In a cluster a new listener is not known at once, so it is told to look again after a while.
    fn expect_delay(&mut self, follow: &mut Follow) {
        if self.clustered {
            for after in [20_000, 200_000] {
                self.notice(follow, Notice::Recheck, after);
            }
        }
    }

    /// The wire of a process was cut and is not any more: its streams are made again.
    pub(crate) fn resume(&mut self, slot: usize) {
        if self.wires[slot].hears_nothing() {
            return;
        }
        self.outages[slot] += 1;
        let mut watches = std::mem::take(&mut self.streams.watches);
        for watch in watches.iter_mut().filter(|watch| watch.slot == slot) {
            watch.cut = false;
            self.heal(watch);
        }
        self.streams.watches = watches;
        let mut follows = std::mem::take(&mut self.streams.follows);
        for follow in follows.iter_mut().filter(|follow| follow.slot == slot) {
            follow.cut = false;
            follow.from = if self.clustered { self.now + self.rng.u64(..15_000) } else { self.now };
            self.notice(follow, Notice::Reconnected, 0);
            self.expect_delay(follow);
        }
        self.streams.follows = follows;
    }

    /// A gap, then the latest of all that moved, and the end of what is not there any more.
    fn heal(&mut self, watch: &mut Watch) {
        self.tell(watch, Ok(Told::Gap));
        let sight = self.bucket.latest(self.now);
        let there = self.bucket.entries(sight, &watch.range);
        let gone: Vec<Key> = watch.live.keys().filter(|key| !there.iter().any(|entry| entry.key == **key)).cloned().collect();
        let told = watch.told;
        for entry in there.into_iter().filter(|entry| entry.revision > told) {
            self.tell(watch, Ok(Told::Entry(entry)));
        }
        for key in gone {
            let revision = watch.told.max(sight.through);
            let created = std::time::SystemTime::UNIX_EPOCH;
            self.tell(watch, Ok(Told::Entry(Entry { key, revision, state: State::Expired, created })));
        }
    }

    /// The watches of a process break while its connection holds. Plain subscriptions are part of that, but among several
    /// servers they may hear nothing, too.
    pub(crate) fn cut_watches(&mut self, slot: usize) {
        if self.clustered {
            return self.cut_streams(slot);
        }
        self.streams.watches.iter_mut().filter(|watch| watch.slot == slot).for_each(|watch| watch.cut = true);
    }

    /// The streams of a process break; until they are made again they hear nothing.
    pub(crate) fn cut_streams(&mut self, slot: usize) {
        self.streams.watches.iter_mut().filter(|watch| watch.slot == slot).for_each(|watch| watch.cut = true);
        self.streams.follows.iter_mut().filter(|follow| follow.slot == slot).for_each(|follow| follow.cut = true);
    }

    /// The bucket was made anew under those who watch it, which each of them notices when it looks again; a plain
    /// listener hears of nothing but what is written next.
    pub(crate) fn end_watches(&mut self) {
        for mut watch in std::mem::take(&mut self.streams.watches) {
            let noticed = self.now + self.rng.u64(..NOTICED);
            watch.last = watch.last.max(noticed);
            self.tell(&mut watch, Err(Error::unavailable("the bucket was made anew")));
        }
    }

    /// The servers come back with an earlier state: watches end, and listeners are told to look.
    pub(crate) fn restart_streams(&mut self) {
        for mut watch in std::mem::take(&mut self.streams.watches) {
            self.tell(&mut watch, Err(Error::unavailable("the bucket went back")));
        }
        let mut follows = std::mem::take(&mut self.streams.follows);
        for follow in &mut follows {
            self.notice(follow, Notice::Reconnected, 0);
        }
        self.streams.follows = follows;
    }
}
