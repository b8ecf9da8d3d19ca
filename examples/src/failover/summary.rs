//! The end of a run in numbers.

use std::{collections::BTreeMap, io, time::Duration};

use serde::Serialize;

use super::{
    check::{Rule, Violation},
    record::{Guard, Nanos, News, Report},
    screen::{Screen, Tone, milliseconds},
};

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    /// The holder let go.
    Release,
    /// The holder was killed.
    Kill,
    /// The holder was stopped past its heartbeat.
    Pause,
    /// Nobody did anything to the holder.
    Loss,
}

impl Ending {
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "a release",
            Self::Kill => "SIGKILL",
            Self::Pause => "SIGSTOP",
            Self::Loss => "a loss",
        }
    }
}

/// How long it took until the next holder was told, from when the hold ended; for a pause, from when it began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    count: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Spread {
    /// The spread of at least one value.
    fn of(values: &mut [Nanos]) -> Self {
        values.sort_unstable();
        // Nearest rank: the smallest value that at least so many percent do not exceed.
        let rank = |percent: usize| {
            let at = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(at).copied().map_or(0.0, milliseconds)
        };
        Self { count: values.len(), p50_ms: rank(50), p99_ms: rank(99), max_ms: rank(100) }
    }
}

/// What a run was and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) ok: bool,
    pub(super) store: String,
    pub(super) workers: u16,
    pub(super) lease_ms: u128,
    pub(super) heartbeat_ms: u128,
    pub(super) hand_over: BTreeMap<Ending, Spread>,
    pub(super) holds: usize,
    pub(super) appends: usize,
    pub(super) refused_by_file: usize,
    pub(super) refused_by_store: usize,
    pub(super) violations: Vec<Violation>,
}

/// What a run was made with.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) store: String,
    pub(super) workers: u16,
    pub(super) lease: Duration,
    pub(super) heartbeat: Duration,
}

impl Summary {
    /// Sums up.
    pub(super) fn new(
        setting: Setting,
        hand_overs: BTreeMap<Ending, Vec<Nanos>>,
        reports: &[Report],
        violations: Vec<Violation>,
    ) -> Self {
        let count = |wanted: fn(&News) -> bool| reports.iter().filter(|report| wanted(&report.news)).count();
        Self {
            ok: violations.is_empty(),
            store: setting.store,
            workers: setting.workers,
            lease_ms: setting.lease.as_millis(),
            heartbeat_ms: setting.heartbeat.as_millis(),
            hand_over: hand_overs.into_iter().map(|(ending, mut values)| (ending, Spread::of(&mut values))).collect(),
            holds: count(|news| matches!(news, News::Granted { .. })),
            appends: count(|news| matches!(news, News::Appended { .. })),
            refused_by_file: count(|news| matches!(news, News::Refused { by: Guard::File, .. })),
            refused_by_store: count(|news| matches!(news, News::Refused { by: Guard::Store, .. })),
            violations,
        }
    }

    /// Shows the figures and the verdict.
    pub(super) fn show(&self, screen: &Screen) -> io::Result<()> {
        let head = format!("{:<16}  {:>5}  {:>9}  {:>9}  {:>9}", "hand-over after", "count", "p50 ms", "p99 ms", "max ms");
        screen.line("")?;
        screen.line(&screen.paint(Tone::Dim, &head))?;
        for (ending, Spread { count, p50_ms, p99_ms, max_ms }) in &self.hand_over {
            let note = match ending {
                Ending::Pause => format!("  (heartbeat {} ms)", self.heartbeat_ms),
                _ => String::new(),
            };
            screen.line(&format!("{:<16}  {count:>5}  {p50_ms:>9.1}  {p99_ms:>9.1}  {max_ms:>9.1}{note}", ending.name()))?;
        }
        screen.line("")?;
        screen.line(&format!(
            "{} appends by {} holders; stale writes refused: {} by the file, {} by the store",
            self.appends, self.holds, self.refused_by_file, self.refused_by_store
        ))?;
        for rule in Rule::ALL {
            const SHOWN: usize = 3;
            let broken: Vec<_> = self.violations.iter().filter(|violation| violation.rule == rule).collect();
            if broken.is_empty() {
                screen.line(&format!("  {}  {}", screen.paint(Tone::Good, "ok"), rule.promise()))?;
                continue;
            }
            screen.line(&format!("  {}  {}", screen.paint(Tone::Bad, "BROKEN"), rule.promise()))?;
            for violation in broken.iter().take(SHOWN) {
                screen.line(&format!("      {violation}"))?;
            }
            if broken.len() > SHOWN {
                screen.line(&format!("      and {} more", broken.len() - SHOWN))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let mut values: Vec<Nanos> = (1..=200).rev().map(|ms| ms * 1_000_000).collect();
        let spread = Spread::of(&mut values);
        assert_eq!((spread.count, spread.p50_ms, spread.p99_ms, spread.max_ms), (200, 100.0, 198.0, 200.0));
        let alone = Spread::of(&mut [5_000_000]);
        assert_eq!((alone.p50_ms, alone.p99_ms, alone.max_ms), (5.0, 5.0, 5.0));
    }
}
