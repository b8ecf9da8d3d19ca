//! What a seed means: how many processes there are, what they do, and everything that goes wrong, all drawn before
//! anything runs. A plan can be run with some of its faults left out, and everything else stays as it was.

use std::{fmt, time::Duration};

use tenure_check::history::{FaultKind, Micros};

use crate::{
    actors::Habits,
    clock::Drift,
    streams::NOTICED,
    wire::{Cut, chance},
};

/// Milliseconds of the world.
pub(crate) const MS: Micros = 1_000;

/// Everything about one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    pub(crate) clustered: bool,
    pub(crate) patience: Duration,
    pub(crate) machines: Vec<Machine>,
    /// What goes wrong.
    pub faults: Vec<Planned>,
    /// Faults begin and end before this.
    pub(crate) quiet: Micros,
    pub(crate) longest: Duration,
}

/// One machine and the process on it, which has as many sessions at a time on its one store as it has habits, as a
/// daemon has.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) drift: Drift,
    pub(crate) origin: Micros,
    pub(crate) starts: Micros,
    pub(crate) habits: Vec<Habits>,
}

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub struct Planned {
    pub(crate) from: Micros,
    pub(crate) until: Micros,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// The process dies; another starts when the fault is over.
    Crash(usize),
    /// Nothing of the process runs.
    Pause(usize),
    Cut(usize, Cut),
    /// Nobody reaches the server.
    Outage(Cut),
    LoseRequests(usize, f64),
    LoseAnswers(usize, f64),
    Twice(usize),
    Slow(usize, Micros),
    Stale(usize, Micros),
    /// Somebody sets the machine's wall clock.
    WallStep(usize, i64),
    CutStreams(usize),
    /// All servers lose power, and come back with what they had so long before.
    Rollback(Micros),
    /// An operator deletes the bucket.
    Anew,
}

impl What {
    pub(crate) const fn slot(self) -> Option<usize> {
        match self {
            Self::Crash(slot)
            | Self::Pause(slot)
            | Self::Cut(slot, _)
            | Self::LoseRequests(slot, _)
            | Self::LoseAnswers(slot, _)
            | Self::Twice(slot)
            | Self::Slow(slot, _)
            | Self::Stale(slot, _)
            | Self::WallStep(slot, _)
            | Self::CutStreams(slot) => Some(slot),
            Self::Outage(_) | Self::Rollback(_) | Self::Anew => None,
        }
    }

    pub(crate) const fn kind(self) -> FaultKind {
        match self {
            Self::Crash(_) => FaultKind::Crash,
            Self::Pause(_) => FaultKind::Pause,
            Self::Cut(..) | Self::Outage(_) => FaultKind::Partition,
            Self::LoseRequests(..) => FaultKind::LoseRequest,
            Self::LoseAnswers(..) => FaultKind::LoseAnswer,
            Self::Twice(_) => FaultKind::Duplicate,
            Self::Slow(..) => FaultKind::Delay,
            Self::Stale(..) => FaultKind::StaleReads,
            Self::WallStep(..) => FaultKind::ClockStep,
            Self::CutStreams(_) => FaultKind::CutWatch,
            Self::Rollback(_) => FaultKind::Rollback,
            Self::Anew => FaultKind::Recreate,
        }
    }
}

impl Plan {
    /// Draws the plan of `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let rng = &mut fastrand::Rng::with_seed(seed ^ 0x7e6e_7572);
        let leases = [150, 200, 300, 500, 900, 2_000, 5_000];
        // Mostly short ones, of which many fit into a run.
        let leases = if chance(rng, 0.1) { &leases[..] } else { &leases[..5] };
        let machines = rng.usize(2..=4);
        let base = leases[rng.usize(..leases.len())];
        let same = rng.bool();
        let crowd = chance(rng, 0.08);
        let machines: Vec<Machine> = (0..machines)
            .map(|n| {
                let lease = if same { base } else { leases[rng.usize(..leases.len())] };
                let habits = Habits {
                    seed: rng.u64(..),
                    lease: Duration::from_millis(lease),
                    lockers: if crowd && n == 0 { 10 } else { rng.usize(1..=3) },
                    electors: rng.usize(0..=2),
                    groups: rng.u8(..3) > 0,
                    partitions: rng.bool(),
                    registers: rng.usize(0..=2),
                    views: rng.bool(),
                    breaks: rng.u8(..8) == 0,
                };
                let more = if rng.u8(..4) == 0 { rng.usize(1..=2) } else { 0 };
                let others = (0..more).map(|_| Habits {
                    seed: rng.u64(..),
                    lease: Duration::from_millis(if same { base } else { leases[rng.usize(..leases.len())] }),
                    lockers: 1,
                    electors: rng.usize(0..=1),
                    groups: rng.u8(..3) == 0,
                    partitions: rng.bool(),
                    registers: 0,
                    views: false,
                    breaks: false,
                });
                let habits = std::iter::once(habits).chain(others.collect::<Vec<_>>()).collect();
                Machine { drift: rng.i64(-4_900..=4_900), origin: rng.u64(..1_000_000_000), starts: rng.u64(..200 * MS), habits }
            })
            .collect();
        let longest = machines.iter().flat_map(|machine| &machine.habits).map(|habits| habits.lease).max().unwrap_or_default();
        let mut plan = Self {
            seed,
            clustered: rng.bool(),
            patience: Duration::from_millis([250, 1_000, 4_000][rng.usize(..3)]),
            quiet: 0,
            faults: Vec::new(),
            machines,
            longest,
        };
        if rng.u8(..16) == 0 {
            return plan.lonely_leader(rng);
        }
        let active = rng.u64(2_000..8_000) * MS;
        let count = rng.usize(0..14);
        for _ in 0..count {
            let fault = plan.fault(rng, same, active);
            plan.faults.push(fault);
        }
        plan.faults.sort_by_key(|fault| fault.from);
        plan.quiet = plan.faults.iter().map(|fault| fault.until).max().unwrap_or_default().max(active) + 50 * MS;
        plan
    }

    /// Somebody leads with nobody to watch it, stands still for as long as the server keeps its session, and goes on at
    /// the last moment; only then somebody else comes.
    fn lonely_leader(mut self, rng: &mut fastrand::Rng) -> Self {
        let lease = Duration::from_millis(150);
        self.machines.truncate(2);
        for machine in &mut self.machines {
            let habits = Habits {
                lockers: 0,
                electors: 1,
                groups: false,
                partitions: false,
                registers: 0,
                views: false,
                breaks: false,
                lease,
                ..machine.habits[0].clone()
            };
            machine.habits = vec![habits];
        }
        let from = rng.u64(800..1_200) * MS;
        let until = from + 3_000 * MS - rng.u64(..70 * MS);
        self.machines[0].starts = 0;
        self.machines[1].starts = until + rng.u64(..300 * MS);
        self.longest = lease;
        self.faults = vec![Planned { from, until, what: What::Pause(0) }];
        self.quiet = until + 1_000 * MS;
        self
    }

    fn fault(&self, rng: &mut fastrand::Rng, same_leases: bool, active: Micros) -> Planned {
        let slot = rng.usize(..self.machines.len());
        let lease = Micros::try_from(self.machines[slot].habits[0].lease.as_micros()).unwrap_or(MS);
        let longest = Micros::try_from(self.longest.as_micros()).unwrap_or(MS);
        // Around the lease is where it matters; sometimes around the TTL, which is two leases and two seconds.
        let ttl = (2 * lease + 2_000 * MS).next_multiple_of(1_000_000);
        let span = match rng.u8(..10) {
            0..=2 => rng.u64(10 * MS..lease),
            3..=7 => rng.u64(lease / 2..3 * lease),
            8 => ttl - rng.u64(..200 * MS),
            _ => rng.u64(lease..(4_000 * MS).max(2 * lease)),
        };
        let from = rng.u64(300 * MS..active);
        let cut = [Cut::Silent, Cut::Silent, Cut::Answers, Cut::Refused][rng.usize(..4)];
        let (span, what) = match rng.u8(..40) {
            0..=4 => (span, What::Crash(slot)),
            5..=11 => (span, What::Pause(slot)),
            12..=17 => (span, What::Cut(slot, cut)),
            18 => (span, What::Outage(cut)),
            19..=21 => (span * 2, What::LoseRequests(slot, rng.f64() * 0.6)),
            22..=25 => (span * 2, What::LoseAnswers(slot, rng.f64() * 0.6)),
            26 | 27 => (span * 2, What::Twice(slot)),
            28..=30 => (span * 2, What::Slow(slot, rng.u64(MS..2 * lease))),
            31..=33 if self.clustered => (span * 2, What::Stale(slot, rng.u64(10 * MS..8_000 * MS))),
            34 => (MS, What::WallStep(slot, if rng.bool() { 3_600_000_000 } else { -3_600_000_000 })),
            35 | 36 => (span, What::CutStreams(slot)),
            // Leases of one length only: see `docs/reliability.md` for what is not promised otherwise.
            37 if same_leases => (longest * 11 / 10 + 300 * MS + span, What::Rollback(rng.u64(..3_000 * MS))),
            38 if same_leases => (NOTICED, What::Anew),
            _ => (span, What::Pause(slot)),
        };
        Planned { from, until: from + span, what }
    }

    /// When everything must be over at the latest: whoever holds something then keeps it for a few leases, one after the
    /// other, and everybody hears of it.
    pub(crate) fn end(&self) -> Micros {
        self.finish() + 12 * self.longest() + self.settle() + self.rest() + 5_000 * MS
    }

    /// When the actors are told to finish.
    pub(crate) fn finish(&self) -> Micros {
        self.quiet + 2 * self.longest() + 500 * MS
    }

    /// Beyond the longest lease, what it takes at most to be as before after a fault. Less than is promised: requests
    /// here take milliseconds, and one that is lost is waited for as long as the store is patient.
    pub(crate) fn settle(&self) -> Micros {
        2_000 * MS + Micros::try_from(self.patience.as_micros()).unwrap_or_default()
    }

    /// For how long nothing has to change before the end, so that the checks ask everybody for the last states.
    pub(crate) fn rest(&self) -> Micros {
        self.longest() + self.settle() + 300 * MS
    }

    fn longest(&self) -> Micros {
        Micros::try_from(self.longest.as_micros()).unwrap_or_default()
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} s to {:>9.3} s  {:?}", self.from as f64 / 1e6, self.until as f64 / 1e6, self.what)
    }
}
