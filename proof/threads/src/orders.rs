//! How many orders, and which.

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

/// Orders of each kind, unless `TENURE_ORDERS` says otherwise.
const ORDERS: usize = 1_000;
/// The same ones in each run; more of them begin with those that fewer try.
const SEED: u64 = 1;
/// Where few changes of who runs make the defect, and a random order seldom makes just those.
const CHANGES: usize = 3;
/// A database needs more than the scheduler's default.
const STACK: usize = 1 << 20;

/// Runs `threads` in that many random orders, and in as many where few changes of who runs are spread over the run.
///
/// # Panics
/// When `threads` does in one of them, or nobody can go on. What is printed then repeats that order, see
/// [`shuttle::replay`].
pub fn in_many_orders(threads: fn()) {
    let orders = std::env::var("TENURE_ORDERS").map_or(ORDERS, |text| text.parse().unwrap());
    run(RandomScheduler::new_from_seed(SEED, orders), threads);
    run(PctScheduler::new_from_seed(SEED, CHANGES, orders), threads);
}

fn run(scheduler: impl Scheduler + 'static, threads: fn()) {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(threads);
}
