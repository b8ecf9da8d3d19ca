//! What happened in a test, and the one judge of it; no I/O, no clock of its own.

use std::{collections::BTreeMap, fmt};

use tenure_kv::Moment;

/// One hold of one lock, as its holder saw it.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) lock: String,
    pub(super) epoch: String,
    pub(super) token: u64,
    /// When `lock()` had returned.
    pub(super) granted: Moment,
    /// The last moment known to lie before an `is_held()` that was true.
    pub(super) held: Moment,
}

/// What must never happen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// Two holds have one token.
    SameToken(String, u64),
    /// The hold with the second token began before that with the first, lower one.
    OutOfOrder(String, u64, u64),
    /// The holder with the first token relied on the lock when the one with the second had it.
    TwoHolders(String, u64, u64),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameToken(lock, token) => write!(f, "{lock}: two holds have the token {token}"),
            Self::OutOfOrder(lock, first, second) => write!(f, "{lock}: {second} was granted before {first}"),
            Self::TwoHolders(lock, first, second) => write!(f, "{lock}: {first} was still relied on when {second} was granted"),
        }
    }
}

/// Judges a history: for each lock of each epoch tokens are unique, holds began in the order of their
/// tokens (which are the revisions of the tickets, so this is also first come, first served), and no
/// holder could rely on the lock when a later one had it.
pub(super) fn judge(history: &[Hold]) -> Vec<Violation> {
    let mut locks = BTreeMap::<_, Vec<&Hold>>::new();
    for hold in history {
        locks.entry((&hold.lock, &hold.epoch)).or_default().push(hold);
    }
    let mut found = Vec::new();
    for ((lock, _), mut holds) in locks {
        holds.sort_by_key(|hold| hold.token);
        // The last moment at which any hold so far was relied on, and whose.
        let mut relied: Option<&Hold> = None;
        let mut begun: Option<&Hold> = None;
        for hold in holds {
            if let Some(before) = begun {
                if before.token == hold.token {
                    found.push(Violation::SameToken(lock.clone(), hold.token));
                } else if before.granted > hold.granted {
                    found.push(Violation::OutOfOrder(lock.clone(), before.token, hold.token));
                }
            }
            if let Some(before) = relied.filter(|before| before.token != hold.token && before.held >= hold.granted) {
                found.push(Violation::TwoHolders(lock.clone(), before.token, hold.token));
            }
            relied = [relied, Some(hold)].into_iter().flatten().max_by_key(|hold| hold.held);
            begun = [begun, Some(hold)].into_iter().flatten().max_by_key(|hold| hold.granted);
        }
    }
    found
}

/// Fails with everything that is wrong with `history`.
#[track_caller]
pub(super) fn must_be_sound(history: &[Hold]) {
    let found = judge(history);
    let told: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "of {} holds: {}", history.len(), told.join("; "));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hold(lock: &str, token: u64, granted: u64, held: u64) -> Hold {
        let at = |ms| Moment::new(Duration::from_millis(ms));
        Hold { lock: lock.to_owned(), epoch: "e".to_owned(), token, granted: at(granted), held: at(held) }
    }

    #[test]
    fn a_good_history_passes() {
        let good = [hold("a", 7, 30, 40), hold("a", 2, 10, 20), hold("b", 5, 15, 35), hold("a", 9, 41, 50)];
        assert_eq!(judge(&good), []);
        must_be_sound(&good);
    }

    #[test]
    fn two_holders_at_one_moment_are_found() {
        let bad = [hold("a", 2, 10, 25), hold("a", 7, 20, 40)];
        assert_eq!(judge(&bad), [Violation::TwoHolders("a".into(), 2, 7)]);
    }

    #[test]
    fn a_holder_that_outlives_the_next_one_is_found() {
        let bad = [hold("a", 2, 10, 145), hold("a", 7, 120, 130), hold("a", 9, 140, 150), hold("a", 11, 160, 170)];
        assert_eq!(judge(&bad), [Violation::TwoHolders("a".into(), 2, 7), Violation::TwoHolders("a".into(), 2, 9)]);
    }

    #[test]
    fn tokens_out_of_order_are_found() {
        let bad = [hold("a", 7, 10, 20), hold("a", 2, 30, 40)];
        assert!(judge(&bad).contains(&Violation::OutOfOrder("a".into(), 2, 7)));
    }

    #[test]
    fn a_token_given_twice_is_found() {
        let bad = [hold("a", 2, 10, 20), hold("a", 2, 30, 40)];
        assert_eq!(judge(&bad), [Violation::SameToken("a".into(), 2)]);
    }

    #[test]
    fn epochs_are_judged_apart() {
        let mut later = hold("a", 1, 30, 40);
        later.epoch = "f".to_owned();
        assert_eq!(judge(&[hold("a", 9, 10, 20), later]), []);
    }
}
