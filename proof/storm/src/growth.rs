//! Whether a process grows: samples of its memory and its descriptors, and the judge of them; reads /proc.

use std::{collections::BTreeMap, fmt, fs};

/// One look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Memory that it has, in KiB.
    pub(crate) memory: u64,
    /// Descriptors that it has open.
    pub(crate) descriptors: u64,
}

impl Sample {
    /// Of the process `pid`; `None` when it is gone.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let memory = line.split_whitespace().next()?.parse().ok()?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
        Some(Self { memory, descriptors })
    }
}

/// All samples of many processes, each by its name and number.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    processes: BTreeMap<(String, u32), Vec<Sample>>,
}

/// How a process went, from the end of its first quarter to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) samples: usize,
    /// Medians of the second and of the last quarter.
    pub(crate) from: Sample,
    pub(crate) to: Sample,
    /// It grew more than it may.
    pub(crate) grew: bool,
}

/// Fewer samples say nothing of growth.
const ENOUGH: usize = 40;
/// What a process may grow by: a quarter, and this much besides. Allocators keep what was once needed.
const SLACK_KIB: u64 = 16 << 10;
const SLACK_DESCRIPTORS: u64 = 16;

impl Growth {
    /// Adds a look at the process `pid`, called `name`.
    pub(crate) fn look(&mut self, name: &str, pid: u32) {
        if let Some(sample) = Sample::of(pid) {
            self.add(name, pid, sample);
        }
    }

    fn add(&mut self, name: &str, pid: u32, sample: Sample) {
        self.processes.entry((name.to_owned(), pid)).or_default().push(sample);
    }

    /// How everybody went who was there long enough.
    pub(crate) fn courses(&self) -> Vec<Course> {
        let long = self.processes.iter().filter(|(_, samples)| samples.len() >= ENOUGH);
        long.map(|((name, pid), samples)| {
            let quarter = samples.len() / 4;
            let (from, to) = (median(&samples[quarter..2 * quarter]), median(&samples[samples.len() - quarter..]));
            let grew =
                to.memory > from.memory * 5 / 4 + SLACK_KIB || to.descriptors > from.descriptors * 5 / 4 + SLACK_DESCRIPTORS;
            Course { name: name.clone(), pid: *pid, samples: samples.len(), from, to, grew }
        })
        .collect()
    }
}

fn median(samples: &[Sample]) -> Sample {
    let middle = |what: fn(&Sample) -> u64| {
        let mut all: Vec<_> = samples.iter().map(what).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    Sample { memory: middle(|sample| sample.memory), descriptors: middle(|sample| sample.descriptors) }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pid, samples, from, to, grew } = self;
        let word = if *grew { "GREW" } else { "ok" };
        write!(
            f,
            "{word:<4} {name:<10} {pid:>7}  {:>7} -> {:>7} KiB  {:>4} -> {:>4} descriptors  {samples} samples",
            from.memory, to.memory, from.descriptors, to.descriptors
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(of: impl Fn(u64) -> Sample) -> bool {
        let mut growth = Growth::default();
        (0..100).for_each(|n| growth.add("client", 7, of(n)));
        let [course] = growth.courses().try_into().unwrap();
        course.grew
    }

    #[test]
    fn growth_is_told_from_a_warm_up_and_from_peaks() {
        assert!(!course(|_| Sample { memory: 30_000, descriptors: 20 }));
        assert!(!course(|n| Sample { memory: 30_000 + 1_000 * n.min(20), descriptors: 20 }), "a warm-up");
        assert!(!course(|n| Sample { memory: if n % 9 == 0 { 300_000 } else { 30_000 }, descriptors: 20 }), "peaks");
        assert!(course(|n| Sample { memory: 30_000 + 1_000 * n, descriptors: 20 }));
        assert!(course(|n| Sample { memory: 30_000, descriptors: 20 + n }));
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let sample = Sample::of(std::process::id()).unwrap();
        assert!(sample.memory > 0 && sample.descriptors > 0);
        let mut growth = Growth::default();
        growth.look("self", std::process::id());
        assert!(growth.courses().is_empty(), "one sample says nothing");
    }
}
