//! Tests of the durable side: crashes, disks that fail, and any damage.
//!
//! [`story`] is the long one. One seed is one run: a store in a file, used with many commits at once, is killed or loses
//! power at any write or sync, on a disk that tears, reorders and loses what was not synced and that fails at any
//! call, and is opened again, crashes while it is being opened included. [`crowd`] does the same with threads that
//! nothing keeps in step. `cargo test` does 2,000 crashes and 200 in a crowd; more with
//!
//! ```text
//! TENURE_CRASH_POINTS=100000 cargo test -p tenure-kv --lib crash -- --nocapture
//! ```
//!
//! A failure names its seed, and `TENURE_CRASH_SEED=<seed>` in place of the other variable runs that one alone.

mod crowd;
mod defects;
mod ledger;
mod model;
mod rig;
mod steps;
mod story;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

pub(super) use defects::Defect;
use rig::Step;
use story::Tally;

const POINTS: &str = "TENURE_CRASH_POINTS";
const SEED: &str = "TENURE_CRASH_SEED";
const POINTS_OF_CI: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// Runs one seed after the other until there were `points` crashes, on all processors.
fn until<T: Default + Send>(points: u64, one: impl Fn(u64) -> T + Sync, add: impl Fn(&mut T, &T) -> u64 + Sync) -> T {
    let (next, crashes, sum) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(T::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while crashes.load(Ordering::Relaxed) < points {
                    let tally = one(next.fetch_add(1, Ordering::Relaxed));
                    crashes.fetch_add(add(&mut sum.lock().unwrap(), &tally), Ordering::Relaxed);
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

fn told<T>(seed: u64, test: &str, run: impl FnOnce() -> Result<T, String> + std::panic::UnwindSafe) -> T {
    let again = || format!("run it again: {SEED}={seed} cargo test -p tenure-kv --lib crash::{test}");
    match std::panic::catch_unwind(run) {
        Ok(Ok(tally)) => tally,
        Ok(Err(error)) => panic!("{error}\n{}", again()),
        Err(panic) => {
            eprintln!("{}", again());
            std::panic::resume_unwind(panic)
        }
    }
}

#[test]
fn no_crash_and_no_failure_of_the_disk_loses_tears_or_takes_back_anything() {
    let one = |seed| told(seed, "no_crash", || story::run(seed, None).map(|(tally, _)| tally));
    if let Some(seed) = number(SEED) {
        println!("{:?}", one(seed));
        return;
    }
    let tally = until(number(POINTS).unwrap_or(POINTS_OF_CI), one, |sum: &mut Tally, tally| {
        sum.add(tally);
        tally.crashes
    });
    println!("{tally:?}");
    for (what, count) in [
        ("crashes while opening", tally.while_opening),
        ("failures of the disk", tally.troubles),
        ("unsure answers", tally.unsure),
        ("damages refused", tally.refused),
    ] {
        assert!(count > 20, "only {count} {what}");
    }
}

#[test]
fn no_crash_at_any_write_or_sync_of_a_story_does() {
    for sync in [super::Sync::Always, story::LATE] {
        for seed in 0..3 {
            let steps = told(seed, "no_crash_at_any", || story::sweep(seed, sync));
            assert!(steps > 20, "seed {seed} has only {steps} steps");
        }
    }
}

#[test]
fn no_crash_in_a_crowd_of_threads_does() {
    let one = |seed| told(seed, "no_crash_in_a_crowd", || crowd::run(seed));
    if let Some(seed) = number(SEED) {
        one(seed);
        return;
    }
    let crashes = until(number(POINTS).unwrap_or(POINTS_OF_CI) / 10, one, |sum: &mut u64, crashes| {
        *sum += crashes;
        *crashes
    });
    println!("{crashes} crashes in a crowd");
}

#[test]
fn the_same_seed_is_the_same_run() {
    // Records have a time by the wall clock in them, so only the shape is the same.
    let shape = |step: &Step| match step {
        Step::Write(at, bytes) => (0, *at, bytes.len()),
        Step::Len(len) => (1, *len, 0),
        Step::Sync => (2, 0, 0),
    };
    for seed in 0..8 {
        let journals = [(); 2].map(|()| story::run(seed, None).unwrap().1.parts().journal.iter().map(shape).collect::<Vec<_>>());
        assert_eq!(journals[0], journals[1], "seed {seed}");
    }
}
