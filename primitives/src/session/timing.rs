//! The lengths of time that safety rests on; pure.

use std::time::Duration;

use tenure_kv::mutants::{self, Mutant};

/// The shortest lease.
pub const MIN_LEASE: Duration = Duration::from_millis(150);
/// The longest lease.
pub const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

const MS: Duration = Duration::from_millis(1);

/// How long after *sending* a renewal its sender may rely on it, by its own clock.
pub(crate) fn validity(lease: Duration) -> Duration {
    lease - (lease / 20).clamp(10 * MS, 250 * MS)
}

/// How long whoever waits must have seen no renewal, by its own clock, before it may depose.
///
/// Longer than [`validity`] by the margins of both and by the 1% that two clocks' rates may differ.
pub(crate) fn silence(lease: Duration) -> Duration {
    lease + lease / 100 + (lease / 50).clamp(5 * MS, 20 * MS)
}

/// From the sending of one renewal to the next.
pub(crate) fn renewal_interval(lease: Duration) -> Duration {
    lease / 3
}

/// How long to wait before trying a renewal again that the store refused to take.
pub(crate) fn renewal_retry(lease: Duration) -> Duration {
    (lease / 20).min(500 * MS)
}

/// How long an answer is waited for before it counts as lost, where nothing but that answer can be waited for.
pub(crate) fn patience(lease: Duration) -> Duration {
    renewal_interval(lease).clamp(500 * MS, Duration::from_secs(5))
}

/// How long a tombstone stands in the way of a ticket that was sent and not answered. The session may live
/// on for any time, and a ticket that lands once this is over is its own, so nobody would ever end it.
pub(crate) fn forestall() -> tenure_kv::Ttl {
    tenure_kv::Ttl::at_least(Duration::from_secs(24 * 60 * 60))
}

/// The session's TTL: garbage collection, long after everybody else could have deposed it.
pub(crate) fn garbage(lease: Duration) -> tenure_kv::Ttl {
    if mutants::is_on(Mutant::TtlDecides) {
        return tenure_kv::Ttl::at_least(lease);
    }
    tenure_kv::Ttl::at_least(lease * 2 + Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_depose_while_the_holder_may_rely_on_its_lease() {
        for ms in [150, 200, 300, 1_000, 2_000, 5_000, 15_000, 60_000, 86_400_000] {
            let lease = Duration::from_millis(ms);
            // The holder's clock is slow and the observer's fast, 1% apart.
            assert!(validity(lease).mul_f64(1.01) < silence(lease), "{lease:?}");
            assert!(renewal_interval(lease) * 2 < validity(lease), "two renewals must fit: {lease:?}");
            let promised = if ms < 1_000 { lease + 60 * MS } else { lease + 250 * MS };
            if ms <= 15_000 {
                assert!(silence(lease) + 20 * MS <= promised, "fail-over is late: {lease:?}");
            }
        }
    }
}
