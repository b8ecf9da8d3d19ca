//! A disk in memory that keeps what was synced, loses, tears and reorders what was not, and fails on demand.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use fastrand::Rng;
use rustix::io::Errno;

use super::{super::medium::Medium, Defect};

/// What reaches a disk whole or not at all.
const SECTOR: usize = 512;
/// Where the two commits of a redb file are that it chooses from, and in each the number and the checksum.
const SLOTS: [usize; 2] = [64, 192];
const NUMBER: usize = 104;
const CHECKSUM: usize = 112;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Write(u64, Vec<u8>),
    Len(u64),
    Sync,
}

/// Which calls are in trouble.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Calls {
    Reads,
    /// Changes of length too.
    Writes,
    Syncs,
    All,
}

/// Which call fails, with what, and how often in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) calls: Calls,
    pub(super) after: usize,
    pub(super) times: usize,
    pub(super) errno: Errno,
}

#[derive(Debug, Default)]
pub(super) struct Rig(Mutex<Parts>);

#[derive(Debug, Default)]
pub(super) struct Parts {
    /// What readers see.
    pub(super) bytes: Vec<u8>,
    /// Every step that was made.
    pub(super) journal: Vec<Step>,
    pub(super) trouble: Option<Trouble>,
    /// What surely outlives a power cut.
    durable: Vec<u8>,
    /// The steps since, of which any part may.
    pending: Vec<Step>,
    /// The last sync did not make the first page durable, or anything, as a defect wants it.
    late: Vec<Step>,
    /// The file's name is durable.
    named: bool,
    /// The power goes at this change or sync from now on.
    cut: Option<usize>,
    /// How often it did.
    cuts: usize,
    off: bool,
    struck: bool,
    sync_failed: bool,
    defect: Option<Defect>,
    dice: Dice,
}

#[derive(Debug)]
struct Dice(Rng);

impl Default for Dice {
    fn default() -> Self {
        Self(Rng::with_seed(1))
    }
}

impl Rig {
    /// A disk with a file that has lain there for long.
    pub(super) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Parts { durable: bytes.clone(), bytes, named: true, ..Parts::default() })))
    }

    /// The same under software with a defect.
    pub(super) fn damaged(bytes: Vec<u8>, defect: Option<Defect>) -> Arc<Self> {
        let rig = Self::new(bytes);
        rig.parts().defect = defect;
        rig
    }

    /// A disk without the file, whose luck is decided by `seed`.
    pub(super) fn empty(seed: u64, defect: Option<Defect>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Parts { dice: Dice(Rng::with_seed(seed)), defect, ..Parts::default() })))
    }

    pub(super) fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap()
    }

    /// Cuts the power at the change or sync after the next `changes`.
    pub(super) fn cut_after(&self, changes: usize) {
        self.parts().cut = Some(changes);
    }

    /// How often the power went at a change or sync.
    pub(super) fn cuts(&self) -> usize {
        self.parts().cuts
    }

    /// Cuts the power now.
    pub(super) fn turn_off(&self) {
        self.parts().off = true;
    }

    /// Whether the file is as it was.
    pub(super) fn is_untouched(&self) -> bool {
        self.parts().journal.iter().all(|step| *step == Step::Sync)
    }

    /// Whether the power is off.
    pub(super) fn is_off(&self) -> bool {
        self.parts().off
    }

    /// Whether a call failed, other than for want of power, since the start.
    pub(super) fn has_failed(&self) -> bool {
        self.parts().struck
    }

    /// Whether a sync failed since the start.
    pub(super) fn has_failed_to_sync(&self) -> bool {
        self.parts().sync_failed
    }

    /// No call fails any more.
    pub(super) fn heal(&self) {
        self.parts().trouble = None;
    }

    /// Starts the process anew on a machine that went on: nothing that was written is lost.
    pub(super) fn restart(&self) {
        self.parts().start();
    }

    /// Starts the machine anew: of what was not synced anything may be there, and anything not.
    pub(super) fn power_cycle(&self) {
        let parts = &mut *self.parts();
        parts.pending.splice(0..0, std::mem::take(&mut parts.late));
        let chance = *parts.dice.0.choice([0, 10, 50, 90, 100].iter()).unwrap();
        let mut durable = std::mem::take(&mut parts.durable);
        scatter(&mut durable, &std::mem::take(&mut parts.pending), chance, &mut parts.dice.0);
        if !parts.named && parts.dice.0.bool() {
            durable.clear();
        }
        parts.bytes.clone_from(&durable);
        parts.durable = durable;
        parts.start();
    }
}

impl Parts {
    fn start(&mut self) {
        (self.cut, self.off, self.trouble) = (None, false, None);
        (self.struck, self.sync_failed) = (false, false);
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        self.power(Some(&step))?;
        let calls = if step == Step::Sync { Calls::Syncs } else { Calls::Writes };
        if let Err(error) = self.trouble(calls) {
            match step {
                Step::Sync => self.fail_to_sync(),
                // Some sectors at its front were written.
                Step::Write(at, data) => {
                    let end = (at as usize + self.dice.0.usize(..=data.len())) / SECTOR * SECTOR;
                    self.take(Step::Write(at, data[..end.saturating_sub(at as usize)].to_vec()));
                }
                Step::Len(_) => {}
            }
            return Err(error);
        }
        self.take(step.clone());
        self.journal.push(step);
        Ok(())
    }

    /// Cuts the power if it is time, before or after `step` is done, which nobody hears of.
    fn power(&mut self, step: Option<&Step>) -> io::Result<()> {
        if let Some(cut) = &mut self.cut {
            match cut.checked_sub(1) {
                Some(left) => *cut = left,
                None => {
                    self.cut = None;
                    self.cuts += 1;
                    self.off = true;
                    if let Some(step) = step.filter(|_| self.dice.0.bool()) {
                        self.take(step.clone());
                    }
                    return Err(Errno::IO.into());
                }
            }
        }
        Ok(())
    }

    fn trouble(&mut self, calls: Calls) -> io::Result<()> {
        if self.off {
            return Err(Errno::IO.into());
        }
        if let Some(trouble) = &mut self.trouble
            && (trouble.calls == calls || trouble.calls == Calls::All)
        {
            if trouble.after > 0 {
                trouble.after -= 1;
            } else if trouble.times > 0 {
                trouble.times -= 1;
                self.struck = true;
                return Err(trouble.errno.into());
            }
        }
        Ok(())
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Sync => self.sync(),
            step => {
                apply(&mut self.bytes, &step);
                self.pending.push(step);
            }
        }
    }

    fn sync(&mut self) {
        let done = std::mem::take(&mut self.pending);
        let done = match self.defect {
            Some(Defect::NeverSyncs) => {
                self.pending = done;
                return;
            }
            Some(Defect::AcknowledgesBeforeSync) => std::mem::replace(&mut self.late, done),
            Some(Defect::SyncsAllButTheHeader) => {
                let (head, rest) = done.into_iter().partition(|step| matches!(step, Step::Write(0, _)));
                self.pending = head;
                rest
            }
            _ => done,
        };
        done.iter().for_each(|step| apply(&mut self.durable, step));
    }

    /// Any part of what is pending is durable now. The rest may be tried again by the next sync, or be taken
    /// for written though it is not, and may or may not be what readers go on to see.
    fn fail_to_sync(&mut self) {
        self.sync_failed = true;
        let pending = std::mem::take(&mut self.pending);
        let chance = self.dice.0.u64(..=100);
        let mut durable = std::mem::take(&mut self.durable);
        for step in &pending {
            // What a length is, is in the file system's own journal.
            match step {
                Step::Len(_) => apply(&mut durable, step),
                _ => scatter(&mut durable, std::slice::from_ref(step), chance, &mut self.dice.0),
            }
        }
        match self.dice.0.u8(..4) {
            0 => self.pending = pending,
            1 => self.bytes.clone_from(&durable),
            _ => {}
        }
        self.durable = durable;
    }
}

pub(super) fn apply(bytes: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(at, data) => {
            let end = *at as usize + data.len();
            // Only what a length that was lost had made room for.
            bytes.resize(bytes.len().max(end), 0);
            bytes[*at as usize..end].copy_from_slice(data);
        }
        Step::Len(len) => bytes.resize(*len as usize, 0),
        Step::Sync => {}
    }
}

/// Does of `steps` what luck wants: each sector of a write with a `chance` in a hundred, in their order or in any,
/// and one of the lengths.
fn scatter(bytes: &mut Vec<u8>, steps: &[Step], chance: u64, dice: &mut Rng) {
    let happens = |dice: &mut Rng| dice.u64(..100) < chance;
    let mut pieces = Vec::new();
    let mut len = bytes.len();
    for step in steps {
        match step {
            Step::Write(at, data) => {
                let (mut at, mut rest) = (*at, data.as_slice());
                while !rest.is_empty() {
                    let (sector, more) = rest.split_at(rest.len().min(SECTOR - at as usize % SECTOR));
                    if happens(dice) {
                        pieces.push(Step::Write(at, sector.to_vec()));
                    }
                    at += sector.len() as u64;
                    rest = more;
                }
            }
            Step::Len(new) if happens(dice) => len = *new as usize,
            Step::Len(_) | Step::Sync => {}
        }
    }
    if chance < 100 && dice.bool() {
        dice.shuffle(&mut pieces);
    }
    pieces.iter().for_each(|piece| apply(bytes, piece));
    bytes.resize(len, 0);
}

impl Medium for Rig {
    fn len(&self) -> io::Result<u64> {
        let mut parts = self.parts();
        parts.trouble(Calls::Reads)?;
        Ok(parts.bytes.len() as u64)
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let parts = &mut *self.parts();
        parts.trouble(Calls::Reads)?;
        let from = parts.bytes.get(at as usize..at as usize + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        if parts.defect == Some(Defect::TakesTheWrongSlot) && at == 0 && out.starts_with(b"redb") {
            let number =
                |slot: &usize| out.get(slot + NUMBER..slot + CHECKSUM).map(|number| number.iter().rev().collect::<Vec<_>>());
            let last = SLOTS.into_iter().max_by_key(number).unwrap();
            if let Some(byte) = out.get_mut(last + CHECKSUM) {
                *byte ^= 1;
            }
        }
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.parts().step(Step::Write(at, bytes.to_vec()))
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        self.parts().step(Step::Len(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.parts().step(Step::Sync)
    }

    fn settle(&self) -> io::Result<()> {
        self.parts().step(Step::Sync)?;
        let parts = &mut *self.parts();
        if parts.defect != Some(Defect::TrustsTheCache) {
            parts.bytes.clone_from(&parts.durable);
            parts.late.iter().chain(&parts.pending).for_each(|step| apply(&mut parts.bytes, step));
        }
        Ok(())
    }

    fn sync_name(&self, _: &Path) -> io::Result<()> {
        let parts = &mut *self.parts();
        parts.power(None)?;
        parts.trouble(Calls::Syncs)?;
        if parts.defect != Some(Defect::ForgetsTheDirectory) {
            parts.named = true;
        }
        Ok(())
    }

    fn defect(&self) -> Option<Defect> {
        self.parts().defect
    }
}
