//! The one clock of a machine that all processes of a history read.

use tenure_check::history::Micros;
use tenure_kv::{BootClock, Clock as _};

/// Microseconds since the machine started, suspends counted.
pub(crate) fn now() -> Micros {
    u64::try_from(BootClock.now().since_origin().as_micros()).unwrap_or(u64::MAX)
}
