//! One run: a store that is used, crashes and is opened again, over and over, as one seed decides.

use std::{path::Path, sync::Arc, time::Duration};

use fastrand::Rng;
use futures::{
    FutureExt, StreamExt,
    executor::block_on,
    future::{BoxFuture, join_all, ready},
    stream::BoxStream,
};
use rustix::io::Errno;

use super::{
    super::{
        disk::Disk,
        file::{File, FileOptions, Sync},
        medium::Medium,
    },
    Defect,
    ledger::{Answer, Group, Ledger, ensure},
    model::{Content, brief},
    rig::{Calls, Rig, Trouble},
};
use crate::{
    Batch, Change, Clock, Event, HandClock, Key, KeyRange, Moment, Op, Result as Outcome, Revision, Since, State, Store, Ttl,
};

/// The unit of TTLs and of late syncs: so long that the real time that passes does not count.
const HOUR: u32 = 3_600;
/// Writes what was acknowledged an hour later.
pub(super) const LATE: Sync = Sync::Every(Duration::from_secs(HOUR as u64));
const PATH: &str = "/rig";

/// What a run went through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// How often the process was killed or the power cut.
    pub(super) crashes: u64,
    /// How often that was while the file was being opened.
    pub(super) while_opening: u64,
    /// In how many lives a call failed.
    pub(super) troubles: u64,
    pub(super) commits: u64,
    /// How many of those were told that nobody knows.
    pub(super) unsure: u64,
    pub(super) damages: u64,
    /// How many of those were refused.
    pub(super) refused: u64,
    /// How many, all of a file that had crashed, took back the last commit as a torn write would.
    pub(super) fallbacks: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        let Self { crashes, while_opening, troubles, commits, unsure, damages, refused, fallbacks } = other;
        self.crashes += crashes;
        self.while_opening += while_opening;
        self.troubles += troubles;
        self.commits += commits;
        self.unsure += unsure;
        self.damages += damages;
        self.refused += refused;
        self.fallbacks += fallbacks;
    }
}

struct Run {
    dice: Rng,
    rig: Arc<Rig>,
    clock: HandClock,
    sync: Sync,
    ledger: Ledger,
    /// What was acknowledged before it was written is on disk from then on.
    flush_at: Option<Moment>,
    /// The last revision that a watch told.
    heard: u64,
    /// The disk is known to work again.
    healed: bool,
    tally: Tally,
}

/// Runs the story of `seed`.
pub(super) fn run(seed: u64, defect: Option<Defect>) -> Result<(Tally, Arc<Rig>), String> {
    let mut run = Run::new(seed, defect);
    for life in 0..run.dice.usize(4..=12) {
        run.life().map_err(|error| format!("life {life}: {error}"))?;
    }
    run.last_life().map_err(|error| format!("the last life: {error}"))?;
    Ok((run.tally, run.rig))
}

/// Crashes the same short story at each of its changes and syncs, and counts them.
pub(super) fn sweep(seed: u64, sync: Sync) -> Result<usize, String> {
    for cut in 0.. {
        let mut run = Run::new(seed, None);
        run.sync = sync;
        run.rig.cut_after(cut);
        let lived = run.live(6).and_then(|()| run.last_life());
        lived.map_err(|error| format!("cut at {cut}: {error}"))?;
        if run.rig.cuts() == 0 {
            return Ok(cut);
        }
    }
    unreachable!("the story has an end")
}

impl Run {
    fn new(seed: u64, defect: Option<Defect>) -> Self {
        let mut dice = Rng::with_seed(seed);
        let rig = Rig::empty(dice.u64(..), defect);
        Self {
            dice,
            rig,
            clock: HandClock::default(),
            sync: Sync::Always,
            ledger: Ledger::default(),
            flush_at: None,
            heard: 0,
            healed: false,
            tally: Tally::default(),
        }
    }

    /// From an opening to an end, through what luck has in store.
    fn life(&mut self) -> Result<(), String> {
        self.sync = if self.dice.u8(..4) == 0 { LATE } else { Sync::Always };
        let (cut, trouble) = match self.dice.u8(..10) {
            0..3 => (12, false),
            3..5 => (150, false),
            5..7 => (150, true),
            7..9 => (0, true),
            _ => (0, false),
        };
        if cut > 0 {
            self.rig.cut_after(self.dice.usize(..cut));
        }
        if trouble {
            let calls = [Calls::Reads, Calls::Writes, Calls::Writes, Calls::All, Calls::Syncs, Calls::Syncs, Calls::Syncs];
            let calls = *self.dice.choice(&calls).unwrap();
            let after = self.dice.usize(..if calls == Calls::Syncs { 12 } else { 80 });
            let times = if self.dice.bool() { self.dice.usize(1..4) } else { usize::MAX };
            let errno = if self.dice.bool() { Errno::IO } else { Errno::NOSPC };
            self.rig.parts().trouble = Some(Trouble { calls, after, times, errno });
        }
        let groups = self.dice.usize(..14);
        self.live(groups)
    }

    fn live(&mut self, groups: usize) -> Result<(), String> {
        self.healed = false;
        let Some(store) = self.open()? else {
            self.tally.while_opening += 1;
            return self.crash();
        };
        let mut events = watch(&store, Since::Now);
        for _ in 0..groups {
            self.group(&store, &mut events)?;
            if self.rig.is_off() {
                break;
            }
        }
        drop(events);
        self.tally.troubles += u64::from(self.rig.has_failed());
        self.end(store)
    }

    /// Nothing fails, and everything works.
    fn last_life(&mut self) -> Result<(), String> {
        self.sync = Sync::Always;
        for groups in [3, 0] {
            let store = self.open()?.ok_or("it was cut off")?;
            let mut events = watch(&store, Since::Now);
            for _ in 0..groups {
                self.group(&store, &mut events)?;
            }
        }
        Ok(())
    }

    /// `None` when the power went.
    fn open(&mut self) -> Result<Option<File>, String> {
        let store = match self.try_open() {
            Ok(store) => store,
            Err(_) if self.rig.is_off() => return Ok(None),
            Err(error) => {
                ensure!(self.rig.has_failed(), "it cannot be opened: {error}");
                ensure!(error.is_unavailable(), "a disk that fails was called {error:?}");
                self.rig.heal();
                match self.try_open() {
                    Ok(store) => store,
                    Err(_) if self.rig.is_off() => return Ok(None),
                    Err(error) => return Err(format!("it cannot be opened once the disk works: {error}")),
                }
            }
        };
        let (found, revision) = (everything(&store), revision(&store));
        self.ledger.take_stock(&found, revision, self.clock.now())?;
        (self.flush_at, self.heard) = (None, revision);
        Ok(Some(store))
    }

    fn try_open(&self) -> Outcome<File> {
        let (disk, loaded) = Disk::on(Path::new(PATH), self.rig.clone())?;
        File::over(Path::new(PATH), disk, loaded, FileOptions { sync: self.sync }, Arc::new(self.clock.clone()))
    }

    /// Sends some commits at once, and holds what comes of them against what may.
    fn group(&mut self, store: &File, events: &mut BoxStream<'static, Outcome<Event>>) -> Result<(), String> {
        if !self.rig.has_failed() {
            self.clock.advance(Duration::from_secs(u64::from(HOUR / 2 * self.dice.u32(..8).saturating_sub(5))));
        } else if self.dice.u8(..3) == 0 {
            self.rig.heal();
            self.healed = !self.rig.has_failed_to_sync();
        }
        let batches: Vec<_> = (0..self.dice.usize(1..8)).map(|_| self.batch()).collect();
        let outcomes = self.send(store, &batches);
        self.hear(events)?;
        let answers = outcomes.into_iter().map(|outcome| outcome.map_or(Ok(Answer::Unheard), Answer::of));
        let answers = answers.collect::<Result<Vec<_>, _>>()?;
        self.tally.commits += batches.len() as u64;
        self.tally.unsure += answers.iter().filter(|answer| matches!(answer, Answer::Unsure(_))).count() as u64;
        let group = Group {
            now: self.clock.now(),
            batches: &batches,
            answers: &answers,
            found: everything(store),
            troubled: self.rig.has_failed() && !self.healed,
            cut: self.rig.is_off(),
        };
        let before = self.ledger.shown.revision;
        let judged = match self.sync {
            Sync::Always => self.ledger.judge(&group),
            Sync::Every(_) => self.ledger.judge_late(&group),
        };
        judged.map_err(|error| {
            let batches = batches.iter().zip(&answers).map(|(batch, answer)| format!("\n{} => {answer:?}", words(batch)));
            format!("{error}\nby{}", batches.collect::<String>())
        })?;
        if let Sync::Every(interval) = self.sync {
            if self.ledger.shown.revision > before {
                self.flush_at.get_or_insert(group.now + interval);
            }
            if self.flush_at.is_some_and(|at| at <= group.now) && !self.rig.has_failed() && !group.cut {
                self.ledger.flushed();
                self.flush_at = None;
            }
        }
        Ok(())
    }

    /// `None` for those that nobody waits for. What is to be flushed by now is when this returns.
    fn send(&mut self, store: &File, batches: &[Batch]) -> Vec<Option<Outcome<Revision>>> {
        store.queue().hold();
        let mut commits: Vec<BoxFuture<'_, Option<Outcome<Revision>>>> = Vec::new();
        for batch in batches {
            let mut commit = store.commit(batch.clone());
            let heard = self.dice.u8(..12) > 0;
            commits.push(match commit.as_mut().now_or_never() {
                Some(outcome) => ready(Some(outcome)).boxed(),
                None if heard => commit.map(Some).boxed(),
                None => ready(None).boxed(),
            });
        }
        store.queue().let_go();
        let outcomes = block_on(join_all(commits));
        store.queue().hold();
        store.queue().let_go();
        outcomes
    }

    /// What a watch tells comes in order, and is not given out again.
    fn hear(&mut self, events: &mut BoxStream<'static, Outcome<Event>>) -> Result<(), String> {
        while let Some(Some(event)) = events.next().now_or_never() {
            match event {
                Ok(Event::Entry(entry)) => {
                    let revision = entry.revision.get();
                    ensure!(revision > self.heard, "a watch told of {revision} after {}", self.heard);
                    self.heard = revision;
                    self.ledger.tell(revision);
                }
                Ok(Event::CaughtUp) => {}
                other => return Err(format!("a watch told {other:?}")),
            }
        }
        Ok(())
    }

    fn batch(&mut self) -> Batch {
        let mut keys: Vec<_> = (0..10).map(|n| Key::new(format!("k.{n}")).unwrap()).collect();
        self.dice.shuffle(&mut keys);
        let known = self.ledger.shown.kept();
        let revision = |dice: &mut Rng, key: &Key| {
            let right = known.get(key).map_or(0, |(revision, _)| *revision);
            Revision::new(if dice.u8(..6) == 0 { dice.u64(..right + 2) } else { right })
        };
        let fence = keys.pop().unwrap();
        let ops = keys.drain(..self.dice.usize(1..5)).map(|key| {
            let dice = &mut self.dice;
            let at = revision(dice, &key);
            let mut op = match dice.u8(..8) {
                0 => Op::delete(key).note(format!("note {}", dice.u16(..))),
                1 => Op::purge(key),
                _ => {
                    let length = [8, 60, 200, 200, 900, 9_000, 60_000][dice.usize(..7).min(dice.usize(..7))];
                    Op::put(key, vec![dice.u8(..); dice.usize(..length)])
                }
            };
            if dice.u8(..4) == 0 {
                op = op.ttl(Ttl::from_secs(HOUR * dice.u32(1..4)).unwrap());
            }
            op = match dice.u8(..8) {
                0 => op.if_absent(),
                1 | 2 => op.if_at(at),
                _ => op,
            };
            if dice.u8(..8) == 0 {
                op = op.fenced(fence.clone(), revision(dice, &fence));
            }
            op
        });
        ops.collect()
    }

    /// The store is closed, killed, or cut off from power.
    fn end(&mut self, store: File) -> Result<(), String> {
        if !self.rig.is_off() && self.dice.bool() {
            if self.rig.has_failed() {
                self.ledger.collect(self.clock.now());
            }
            drop(store);
            if !self.rig.is_off() {
                let sound = !self.rig.has_failed();
                if sound {
                    self.ledger.closed();
                    self.damage(true)?;
                }
                self.wake();
                return Ok(());
            }
        } else {
            self.rig.turn_off();
            drop(store);
        }
        self.crash()
    }

    fn crash(&mut self) -> Result<(), String> {
        self.tally.crashes += 1;
        self.wake();
        self.damage(false)
    }

    /// Starts the process or the machine anew.
    fn wake(&mut self) {
        let restart = if self.rig.has_failed_to_sync() { 3 } else { 1 };
        if self.dice.u8(..4) < restart { self.rig.restart() } else { self.rig.power_cycle() }
    }

    /// Opens a copy with some bits turned over, a sector wiped out, or an end that is missing.
    fn damage(&mut self, closed: bool) -> Result<(), String> {
        let mut bytes = self.rig.parts().bytes.clone();
        if self.dice.u8(..4) > 0 || bytes.is_empty() {
            return Ok(());
        }
        let used: Vec<_> = (0..bytes.len()).step_by(64).filter(|at| bytes[*at..][..64].iter().any(|byte| *byte != 0)).collect();
        let place = |dice: &mut Rng| dice.choice(&used).map_or(0, |at| at + dice.usize(..64));
        match self.dice.u8(..8) {
            0 => {
                let at = place(&mut self.dice) / 512 * 512;
                let end = bytes.len().min(at + 512);
                bytes[at..end].fill(0);
            }
            1 => bytes.truncate(place(&mut self.dice)),
            _ => {
                for _ in 0..self.dice.usize(1..4) {
                    bytes[place(&mut self.dice)] ^= 1 << self.dice.u8(..8);
                }
            }
        }
        self.tally.damages += 1;
        let copy = Rig::damaged(bytes, self.rig.defect());
        match Disk::on(Path::new(PATH), copy.clone()) {
            Ok((_, loaded)) => {
                let (found, now) = (loaded.writes.into_iter().map(|write| write.entry).collect::<Content>(), self.clock.now());
                if !self.ledger.may_hold(&found, now) {
                    let before = !closed && self.ledger.held(&found, now);
                    ensure!(before, "a damaged file {}has\n{found:?}", if closed { "that was closed " } else { "" });
                    self.tally.fallbacks += 1;
                }
            }
            Err(error) => {
                ensure!(error.is_invalid(), "a damage was called {error:?}");
                ensure!(copy.is_untouched(), "a damaged file was written to");
                self.tally.refused += 1;
            }
        }
        Ok(())
    }
}

fn watch(store: &File, since: Since) -> BoxStream<'static, Outcome<Event>> {
    block_on(store.watch(KeyRange::All, since)).unwrap()
}

/// What readers find, tombstones included.
fn everything(store: &File) -> Content {
    let events = block_on(
        watch(store, Since::Current).take_while(|event| ready(!matches!(event, Ok(Event::CaughtUp)))).collect::<Vec<_>>(),
    );
    let entry = |event| match event {
        Ok(Event::Entry(entry)) => entry,
        other => panic!("a watch told {other:?}"),
    };
    events.into_iter().map(entry).collect()
}

/// The highest revision that may have been given out.
fn revision(store: &File) -> u64 {
    block_on(store.scan(&KeyRange::All, Revision::ZERO, 1_000)).unwrap().through.get()
}

/// A batch in few words.
fn words(batch: &Batch) -> String {
    let op = |op: &Op| {
        let change = match &op.change {
            Change::Put(value, ttl) => format!("{} for {ttl:?}", brief(&State::Live(value.clone()))),
            other => format!("{other:?}"),
        };
        let fence = op.fence.as_ref().map_or_else(String::new, |fence| format!(" while {} at {}", fence.key, fence.revision));
        format!("{}: {change} if {:?}{fence}; ", op.key, op.expect)
    };
    batch.ops.iter().map(op).collect()
}
