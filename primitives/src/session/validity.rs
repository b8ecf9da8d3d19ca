//! Whether the lease still holds, by the holder's own clock; no I/O.

use std::time::Duration;

use tenure_kv::{Clock, Moment};

use crate::{
    Loss,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The holder's own account of its lease.
///
/// The clock is read while the account is locked, so whoever has seen the lease past its deadline never
/// sees it valid again without [`interruptions`](Account::interruptions) having moved.
#[derive(Debug)]
pub(crate) struct Validity {
    account: Mutex<Account>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    deadline: Moment,
    interruptions: u64,
    lost: Option<Loss>,
}

impl Validity {
    pub(crate) fn until(deadline: Moment) -> Self {
        Self { account: Mutex::new(Account { deadline, interruptions: 0, lost: None }) }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A renewal was acknowledged that is good until `deadline`. Says whether the lease had run out before.
    pub(crate) fn renewed(&self, clock: &dyn Clock, deadline: Moment) -> bool {
        let mut account = self.account();
        let late = clock.now() >= account.deadline;
        if late {
            account.interruptions += 1;
        }
        account.deadline = account.deadline.max(deadline);
        late
    }

    /// Ends the lease for good; the first reason stays.
    pub(crate) fn lose(&self, loss: Loss) -> Loss {
        *self.account().lost.get_or_insert(loss)
    }

    pub(crate) fn lost(&self) -> Option<Loss> {
        self.account().lost
    }

    pub(crate) fn deadline(&self) -> Moment {
        self.account().deadline
    }

    /// How often the lease has run out and was renewed late.
    pub(crate) fn interruptions(&self) -> u64 {
        self.account().interruptions
    }

    /// Time left, zero when past the deadline or lost.
    pub(crate) fn remaining(&self, clock: &dyn Clock) -> Duration {
        let account = self.account();
        if account.lost.is_some() { Duration::ZERO } else { account.deadline.saturating_since(clock.now()) }
    }

    /// Time left for a hold that does not outlive an interruption.
    pub(crate) fn remaining_since(&self, clock: &dyn Clock, interruptions: u64) -> Duration {
        let account = self.account();
        if account.lost.is_some() || account.interruptions != interruptions {
            return Duration::ZERO;
        }
        account.deadline.saturating_since(clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenure_kv::HandClock;

    #[test]
    fn a_lease_that_ran_out_is_never_quietly_valid_again() {
        let clock = HandClock::default();
        let at = |ms| Moment::new(Duration::from_millis(ms));
        let lease = Validity::until(at(100));
        assert!(!lease.renewed(&clock, at(150)));
        clock.set(at(150));
        assert_eq!(lease.remaining_since(&clock, 0), Duration::ZERO);
        assert!(lease.renewed(&clock, at(300)));
        assert_eq!(lease.remaining_since(&clock, 0), Duration::ZERO);
        assert_eq!(lease.remaining(&clock), Duration::from_millis(150));
        assert_eq!(lease.lose(Loss::Deposed), Loss::Deposed);
        assert_eq!(lease.lose(Loss::Closed), Loss::Deposed);
        assert_eq!(lease.remaining(&clock), Duration::ZERO);
    }
}
