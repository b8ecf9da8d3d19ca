//! The loop that looks, owned by the member that it looks at.

use std::sync::Arc;

use tenure_kv::Clock;
use tokio::sync::watch;

use super::{Check, InstanceState, Kind, verdict::Verdict};

/// Looks again and again and tells every new verdict to `tell`. Runs until it is dropped.
pub(in crate::membership) async fn run(
    check: Check,
    clock: Arc<dyn Clock>,
    mut beats: watch::Receiver<()>,
    tell: impl Fn(InstanceState) + Send,
) {
    let mut verdict = Verdict::new(check.initial, check.rise, check.fall);
    if check.kind == Kind::Heartbeat && check.initial == InstanceState::Passing {
        // Joining counts as a beat, and so is the first result.
        verdict.result(InstanceState::Passing);
    }
    let mut shown = check.initial;
    let mut from = clock.now();
    loop {
        let result = match &check.kind {
            Kind::Heartbeat => tokio::select! {
                biased;
                beat = beats.changed() => {
                    if beat.is_err() {
                        return;
                    }
                    InstanceState::Passing
                }
                () = clock.sleep_until(from + check.interval) => InstanceState::Critical,
            },
            #[cfg(feature = "checks")]
            kind => tokio::select! {
                biased;
                result = super::probe::look(kind) => result,
                () = clock.sleep_until(from + check.timeout) => {
                    tracing::debug!(check = %kind, "the check was not answered in time");
                    InstanceState::Critical
                }
            },
        };
        let now = verdict.result(result);
        if now != shown {
            shown = now;
            tell(now);
        }
        from = match check.kind {
            Kind::Heartbeat => clock.now(),
            #[cfg(feature = "checks")]
            _ => {
                clock.sleep_until(from + check.interval).await;
                clock.now()
            }
        };
    }
}
