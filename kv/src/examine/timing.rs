//! How fast a store answers, against the lease that rests on it.

use std::time::Duration;

use super::Finding;

/// How often each thing is done.
pub(crate) const ROUNDS: usize = 25;

/// A lease leaves room for this many slow answers.
const ROOM: u32 = 10;

/// What `rounds` say of `lease`. `None` where there are none.
pub(crate) fn judged(what: &str, rounds: Vec<Duration>, lease: Duration) -> Option<Finding> {
    (!rounds.is_empty()).then(|| judge_round_trips(what, rounds, lease))
}

/// How long round trips of one kind, such as `read`, took, and whether a lease of `lease` has room for slow ones.
pub fn judge_round_trips(what: &str, mut rounds: Vec<Duration>, lease: Duration) -> Finding {
    rounds.sort_unstable();
    let slowest = rounds.last().copied().unwrap_or_default();
    let at = |percent: usize| rounds.get((rounds.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(slowest);
    let (median, late) = (at(50), at(99));
    let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let measured = [("p50", median), ("p99", late), ("max", slowest)];
    let measured = measured.map(|(name, time)| (format!("{what}_{name}"), ms(time))).into();
    let count = rounds.len();
    let says = format!("{count} {what}s: p50 {} ms, p99 {} ms, max {} ms", ms(median), ms(late), ms(slowest));
    let finding = if lease < late * ROOM {
        let least = late * ROOM;
        let says = format!("{says}; a lease of {} ms leaves no room for {ROOM} of the slow ones", ms(lease));
        Finding::warning(what, says)
            .mend(format!("use leases of at least {} ms, such as with --lease, or a store that is nearer", least.as_millis() + 1))
    } else {
        Finding::ok(what, says)
    };
    finding.measured(measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    #[test]
    fn a_lease_needs_room_for_slow_answers() {
        let rounds = |slowest: u64| (1..25).map(|_| 2).chain([slowest]).map(Duration::from_millis).collect::<Vec<_>>();
        let level = |slowest, lease| judge_round_trips("read", rounds(slowest), Duration::from_millis(lease)).level;
        assert_eq!((level(20, 200), level(20, 199)), (Level::Ok, Level::Warning));
        assert_eq!(judged("read", Vec::new(), Duration::from_secs(1)), None);
        let finding = judge_round_trips("read", rounds(20), Duration::from_secs(5));
        assert_eq!((finding.measured_ms["read_p50"], finding.measured_ms["read_max"]), (2.0, 20.0));
    }
}
