//! What a simulation needs to own: chance. Nothing here is for services.

use std::cell::RefCell;

thread_local! {
    static CHANCE: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
}

/// From now on ids made in this thread, and what it draws elsewhere in this crate, follow from `seed`; `None` ends that.
pub fn seed(seed: Option<u64>) {
    CHANCE.set(seed.map(fastrand::Rng::with_seed));
    fastrand::seed(seed.unwrap_or_else(|| fastrand::Rng::new().u64(..)));
}

pub(crate) fn next_id() -> Option<String> {
    CHANCE.with_borrow_mut(|chance| chance.as_mut().map(|chance| format!("{:032x}", chance.u128(..))))
}
