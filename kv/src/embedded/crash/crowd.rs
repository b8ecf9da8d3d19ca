//! Many threads commit at once, as they come, until the power goes.
//!
//! Which commits come together is up to the threads, so a seed is not the same run twice; what is checked holds of all.

use std::{path::Path, sync::Arc, time::Duration};

use fastrand::Rng;
use futures::executor::block_on;

use super::{
    super::{
        disk::Disk,
        file::{File, FileOptions, Sync},
    },
    ledger::ensure,
    rig::Rig,
};
use crate::{Batch, BootClock, Entry, Key, KeyRange, Op, Revision, Store};

const THREADS: usize = 4;
const PATH: &str = "/rig";

/// One that writes the same number under two keys at once, and the next number, and so on.
#[derive(Debug)]
struct Thread {
    keys: [Key; 2],
    /// The last number that it tried to write.
    tried: u64,
    /// The last number that must be there.
    sure: u64,
    /// Numbers that may be lost from some revision on.
    late: Vec<(u64, u64)>,
    dice: Rng,
}

impl Thread {
    fn new(n: usize, dice: &mut Rng) -> Self {
        let keys = ["a", "b"].map(|side| Key::new(format!("{side}.{n}")).unwrap());
        Self { keys, tried: 0, sure: 0, late: Vec::new(), dice: dice.fork() }
    }

    /// Goes on until the power goes. Returns the last revision it was told.
    fn write(&mut self, store: &File, rig: &Rig, sync: Sync) -> Result<u64, String> {
        let mut last = 0;
        loop {
            self.tried += 1;
            let value = format!("{:<width$}", self.tried, width = self.dice.usize(1..900));
            let batch: Batch = self.keys.iter().map(|key| Op::put(key.clone(), value.clone())).collect();
            let outcome = block_on(store.commit(batch));
            // An answer that came after the power went was not heard.
            if rig.is_off() {
                return Ok(last);
            }
            last = outcome.map_err(|error| format!("{self:?} was told {error}"))?.get();
            match sync {
                Sync::Always => self.sure = self.tried,
                Sync::Every(_) => self.late.push((self.tried, last)),
            }
        }
    }

    /// Checks what it finds, given that the store has everything `through` some revision, and nothing after it.
    fn check(&mut self, found: &[Option<Entry>; 2], through: u64) -> Result<(), String> {
        let number = |entry: &Entry| std::str::from_utf8(entry.value()?).ok()?.trim().parse::<u64>().ok();
        let n = match found {
            [None, None] => 0,
            [Some(a), Some(b)] if a.value() == b.value() && a.revision.next() == b.revision => {
                number(a).ok_or_else(|| format!("{a:?} is not a number"))?
            }
            half => return Err(format!("{self:?} finds half a batch: {half:?}")),
        };
        let must = self.late.iter().rfind(|(_, revision)| *revision <= through).map_or(self.sure, |(n, _)| *n);
        ensure!((must..=self.tried).contains(&n), "{self:?} finds {n}, and revision {through}");
        self.sure = n;
        self.late.clear();
        Ok(())
    }
}

/// Runs the story of `seed` and returns how often it crashed.
pub(super) fn run(seed: u64) -> Result<u64, String> {
    let mut dice = Rng::with_seed(seed);
    let rig = Rig::empty(dice.u64(..), None);
    let mut threads: Vec<_> = (0..THREADS).map(|n| Thread::new(n, &mut dice)).collect();
    let mut highest = 0;
    let lives = dice.u64(4..9);
    for _ in 0..lives {
        let sync = if dice.u8(..3) == 0 { Sync::Every(Duration::from_millis(1)) } else { Sync::Always };
        rig.cut_after(dice.usize(..150));
        if let Some(store) = open(&rig, sync)? {
            check(&store, &mut threads, highest)?;
            let told = std::thread::scope(|scope| {
                let running = threads.iter_mut().map(|thread| scope.spawn(|| thread.write(&store, &rig, sync)));
                running.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>, _>>()
            });
            highest = told?.into_iter().fold(highest, u64::max);
        }
        if dice.u8(..3) == 0 { rig.restart() } else { rig.power_cycle() }
    }
    let store = open(&rig, Sync::Always)?.ok_or("the power went unasked")?;
    check(&store, &mut threads, highest)?;
    Ok(lives)
}

/// `None` when the power went.
fn open(rig: &Arc<Rig>, sync: Sync) -> Result<Option<File>, String> {
    let path = Path::new(PATH);
    let opened = Disk::on(path, rig.clone())
        .and_then(|(disk, loaded)| File::over(path, disk, loaded, FileOptions { sync }, Arc::new(BootClock)));
    match opened {
        Ok(store) => Ok(Some(store)),
        Err(_) if rig.is_off() => Ok(None),
        Err(error) => Err(format!("it cannot be opened: {error}")),
    }
}

fn check(store: &File, threads: &mut [Thread], highest: u64) -> Result<(), String> {
    let page = block_on(store.scan(&KeyRange::All, Revision::ZERO, 1_000)).unwrap();
    let (given, through) = (page.through.get(), page.entries.last().map_or(0, |entry| entry.revision.get()));
    ensure!(given >= highest, "no revision above {given} was given out, it says; but {highest} was");
    for thread in threads {
        let found = thread.keys.each_ref().map(|key| page.entries.iter().find(|entry| entry.key == *key).cloned());
        thread.check(&found, through)?;
    }
    Ok(())
}
