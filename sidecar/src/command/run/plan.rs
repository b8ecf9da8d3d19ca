//! When to stop the command: a decision over values.

use std::time::Duration;

use tenure_kv::Moment;

use super::hold::Validity;

/// The longest time a command has to end after TERM unless `--kill-after` says otherwise.
pub(crate) const KILL_AFTER: Duration = Duration::from_secs(5);
/// What is left between TERM and KILL when the hold is over already: others may be running.
pub(super) const ABRUPT: Duration = Duration::from_millis(100);

/// What to do with the command when what it runs under cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnLost {
    /// TERM while it is still held, KILL before it could pass on.
    Term,
    /// KILL before it could pass on.
    Kill,
    /// Let the command run on, with a warning.
    Ignore,
}

/// How to stop, with the times worked out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) on_lost: OnLost,
    /// Between TERM and KILL.
    pub(crate) grace: Duration,
    /// Between KILL and the end of the lease: for the kernel to end the processes.
    pub(crate) margin: Duration,
}

impl Policy {
    /// The times that fit `lease`: TERM never takes more than half of it, so that a renewal (sent every
    /// third) which is merely slow does not stop the command. When nothing was asked for it takes a fifth: a cluster
    /// that has lost its leader takes some five seconds to choose another, which a lease of 15 s is to outlive.
    pub(crate) fn new(on_lost: OnLost, kill_after: Option<Duration>, lease: Duration) -> Self {
        let grace = kill_after.map_or(KILL_AFTER.min(lease / 5), |asked| asked.min(lease / 2));
        let margin = (lease / 20).clamp(Duration::from_millis(5), Duration::from_millis(250));
        Self { on_lost, grace, margin }
    }
}

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// The loss was reported and the command runs on.
    Ignoring,
    /// TERM was sent.
    Terminating {
        kill_at: Moment,
    },
    Killed,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing until then, unless something changes.
    Until(Moment),
    /// Nothing, however long it takes.
    Rest,
    /// Say that the lock is lost.
    Warn,
    /// Send TERM, unless it was sent, and plan the KILL.
    Terminate { kill_at: Moment },
    /// Send KILL.
    Kill,
}

/// What to do at `now`.
pub(super) fn next(policy: Policy, phase: Phase, known: &Validity, now: Moment) -> Step {
    let before = |at: Moment, by: Duration| Moment::new(at.since_origin().saturating_sub(by));
    let over = known.over;
    let last = before(known.until, policy.margin);
    match phase {
        Phase::Killed | Phase::Ignoring => Step::Rest,
        Phase::Terminating { kill_at } => {
            let sooner = if over { kill_at.min(now + ABRUPT) } else { kill_at };
            if now >= sooner {
                Step::Kill
            } else if sooner < kill_at {
                Step::Terminate { kill_at: sooner }
            } else {
                Step::Until(kill_at)
            }
        }
        // Asked to make way: there is time, but no more than the lease has.
        Phase::Running if known.wanted.is_some() && !over && now < before(last, policy.grace) => {
            Step::Terminate { kill_at: now + policy.grace }
        }
        Phase::Running => match policy.on_lost {
            OnLost::Ignore if over || now >= known.until => Step::Warn,
            OnLost::Ignore => Step::Until(known.until),
            OnLost::Kill if over || now >= last => Step::Kill,
            OnLost::Kill => Step::Until(last),
            OnLost::Term if now >= last => Step::Kill,
            OnLost::Term if over => Step::Terminate { kill_at: last.min(now + ABRUPT.min(policy.grace)) },
            OnLost::Term if now >= before(last, policy.grace) => Step::Terminate { kill_at: last },
            OnLost::Term => Step::Until(before(last, policy.grace)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(6);

    fn at(ms: u64) -> Moment {
        Moment::new(Duration::from_millis(ms))
    }

    fn held(until: u64) -> Validity {
        Validity { until: at(until), over: false, why: "".into(), wanted: None }
    }

    fn over(until: u64) -> Validity {
        Validity { over: true, ..held(until) }
    }

    fn policy(on_lost: OnLost) -> Policy {
        Policy { grace: Duration::from_secs(2), margin: Duration::from_millis(100), on_lost }
    }

    #[test]
    fn grace_is_what_the_lease_allows() {
        let grace = |asked: Option<u64>| Policy::new(OnLost::Term, asked.map(Duration::from_secs), LEASE).grace;
        assert_eq!(grace(None), LEASE / 5);
        assert_eq!(grace(Some(1)), Duration::from_secs(1));
        assert_eq!(grace(Some(60)), LEASE / 2);
        assert_eq!(Policy::new(OnLost::Term, None, Duration::from_secs(60)).grace, KILL_AFTER);
    }

    #[test]
    fn term_then_kill_all_before_the_end() {
        let policy = policy(OnLost::Term);
        assert_eq!(next(policy, Phase::Running, &held(10_000), at(0)), Step::Until(at(7_900)));
        assert_eq!(next(policy, Phase::Running, &held(10_000), at(7_900)), Step::Terminate { kill_at: at(9_900) });
        let terminating = Phase::Terminating { kill_at: at(9_900) };
        assert_eq!(next(policy, terminating, &held(10_000), at(8_000)), Step::Until(at(9_900)));
        assert_eq!(next(policy, terminating, &held(10_000), at(9_900)), Step::Kill);
        assert_eq!(next(policy, Phase::Killed, &held(10_000), at(9_901)), Step::Rest);
    }

    #[test]
    fn a_renewal_moves_the_end() {
        let policy = policy(OnLost::Term);
        assert_eq!(next(policy, Phase::Running, &held(12_000), at(7_900)), Step::Until(at(9_900)));
    }

    #[test]
    fn a_renewal_after_term_does_not_stay_the_kill() {
        let terminating = Phase::Terminating { kill_at: at(9_900) };
        assert_eq!(next(policy(OnLost::Term), terminating, &held(20_000), at(9_900)), Step::Kill);
    }

    #[test]
    fn late_means_kill_without_term() {
        assert_eq!(next(policy(OnLost::Term), Phase::Running, &held(10_000), at(9_950)), Step::Kill);
        assert_eq!(next(policy(OnLost::Term), Phase::Running, &over(10_000), at(50_000)), Step::Kill);
    }

    #[test]
    fn a_hold_that_is_over_leaves_a_moment() {
        let policy = policy(OnLost::Term);
        assert_eq!(next(policy, Phase::Running, &over(10_000), at(1_000)), Step::Terminate { kill_at: at(1_100) });
        let terminating = Phase::Terminating { kill_at: at(9_900) };
        assert_eq!(next(policy, terminating, &over(10_000), at(8_000)), Step::Terminate { kill_at: at(8_100) });
        let hurried = Phase::Terminating { kill_at: at(8_100) };
        assert_eq!(next(policy, hurried, &over(10_000), at(8_050)), Step::Until(at(8_100)));
    }

    #[test]
    fn who_is_asked_to_make_way_gets_the_whole_grace() {
        let asked = |until| Validity { wanted: Some("b".into()), ..held(until) };
        for on_lost in [OnLost::Term, OnLost::Kill, OnLost::Ignore] {
            assert_eq!(next(policy(on_lost), Phase::Running, &asked(10_000), at(500)), Step::Terminate { kill_at: at(2_500) });
        }
        let late = next(policy(OnLost::Term), Phase::Running, &asked(10_000), at(8_000));
        assert_eq!(late, Step::Terminate { kill_at: at(9_900) });
        let terminating = Phase::Terminating { kill_at: at(2_500) };
        assert_eq!(next(policy(OnLost::Term), terminating, &asked(10_000), at(600)), Step::Until(at(2_500)));
    }

    #[test]
    fn kill_and_ignore() {
        let kill = policy(OnLost::Kill);
        assert_eq!(next(kill, Phase::Running, &held(10_000), at(9_000)), Step::Until(at(9_900)));
        assert_eq!(next(kill, Phase::Running, &held(10_000), at(9_900)), Step::Kill);
        assert_eq!(next(kill, Phase::Running, &over(10_000), at(0)), Step::Kill);
        let ignore = policy(OnLost::Ignore);
        assert_eq!(next(ignore, Phase::Running, &held(10_000), at(9_950)), Step::Until(at(10_000)));
        assert_eq!(next(ignore, Phase::Running, &held(10_000), at(10_000)), Step::Warn);
        assert_eq!(next(ignore, Phase::Running, &over(10_000), at(0)), Step::Warn);
        assert_eq!(next(ignore, Phase::Ignoring, &over(10_000), at(0)), Step::Rest);
    }
}
