//! How many orders, and which.

use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

/// The same ones in each run; more of them begin with those that fewer try.
const SEED: u64 = 1;
/// Where few changes of who runs make the defect, and a random order seldom makes just those.
const CHANGES: usize = 3;
/// A database needs more than the scheduler's default.
const STACK: usize = 1 << 20;
/// A run that comes to so many goes in circles.
const STEPS: usize = 20_000;

/// Runs `threads` in `few` random orders, or as many as `TENURE_ORDERS` says, and in as many where few changes of who runs
/// are spread over the run.
///
/// # Panics
/// When `threads` does in one of them, or nobody can go on. What is printed then repeats that order, see
/// [`shuttle::replay`].
pub fn in_many_orders(few: usize, threads: fn()) {
    let orders = std::env::var("TENURE_ORDERS").map_or(few, |text| text.parse().unwrap());
    run(RandomScheduler::new_from_seed(SEED, orders), threads);
    run(PctScheduler::new_from_seed(SEED, CHANGES, orders), threads);
}

fn run(scheduler: impl Scheduler + 'static, threads: fn()) {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(threads);
}
