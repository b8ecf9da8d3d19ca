//! One run: processes, server and faults take their turns until everything is over.

use std::{io, sync::Arc};

use tenure_check::history::{Fault, Head, History, Line, Micros};
use tenure_kv::{Clock, Store};

use crate::{
    actors::{self, Actor},
    clock::MachineClock,
    plan::{MS, Plan, What},
    process::Process,
    store::Remote,
    wire::{Cut, LAG},
    world::{Event, World},
};

/// What happened, and whether it came to an end.
#[derive(Debug)]
pub struct Played {
    /// The lines.
    pub history: History,
    /// What was still going on when everything had to be over.
    pub unfinished: Option<String>,
}

/// Runs `plan` with those of its faults that `keep` names.
///
/// # Errors
/// When a runtime cannot be made.
pub fn run(plan: &Plan, keep: &[bool]) -> io::Result<Played> {
    tenure::testing::seed(Some(plan.seed));
    let stage = Stage::new(plan, keep);
    let played = stage.play();
    tenure::testing::seed(None);
    played
}

struct Stage<'a> {
    plan: &'a Plan,
    keep: &'a [bool],
    world: Arc<World>,
    processes: Vec<Option<Process>>,
    /// How many pauses each machine is in.
    paused: Vec<usize>,
    /// How many crashes each machine is in: the process starts when all are over.
    down: Vec<usize>,
    processes_made: u64,
}

impl<'a> Stage<'a> {
    fn new(plan: &'a Plan, keep: &'a [bool]) -> Self {
        let slots = plan.machines.len();
        let world = World::new(plan.seed, slots, plan.clustered);
        {
            let mut inner = world.inner();
            for (slot, machine) in plan.machines.iter().enumerate() {
                inner.agenda.add(machine.starts, Event::Start { slot });
            }
            for (n, fault) in plan.faults.iter().enumerate().filter(|(n, _)| keep[*n]) {
                inner.agenda.add(fault.from, Event::Fault { n, begins: true });
                inner.agenda.add(fault.until, Event::Fault { n, begins: false });
            }
            inner.agenda.add(plan.quiet, Event::Quiet);
            inner.agenda.add(plan.finish(), Event::Finish);
            inner.agenda.add(plan.finish(), Event::Look);
        }
        Self {
            plan,
            keep,
            world,
            processes: (0..slots).map(|_| None).collect(),
            paused: vec![0; slots],
            down: vec![0; slots],
            processes_made: 0,
        }
    }

    fn play(mut self) -> io::Result<Played> {
        let (end, rest) = (self.plan.end(), self.plan.rest());
        let mut is_over = false;
        while let Some(event) = self.world.next(end) {
            is_over = matches!(event, Event::Look) && self.world.inner().is_over(rest);
            if is_over {
                break;
            }
            self.step(event)?;
        }
        let unfinished = (!is_over).then(|| {
            let inner = self.world.inner();
            format!("{} calls had not ended, held was {:?}, {} µs after the last change", inner.open, inner.held(), inner.idle())
        });
        let at = self.world.now();
        self.world.note(Line::End { at });
        let lines = std::mem::take(&mut self.world.inner().lines);
        let head = Head {
            version: 1,
            store: "sim".to_owned(),
            seed: Some(self.plan.seed.to_string()),
            slack_us: 0,
            lag_us: if self.plan.clustered { LAG } else { 0 },
            notes: vec![format!("{} of {} faults", self.keep.iter().filter(|keep| **keep).count(), self.keep.len())],
        };
        let mut history = History::new(head);
        history.lines = lines;
        Ok(Played { history, unfinished })
    }

    fn step(&mut self, event: Event) -> io::Result<()> {
        let slot = match event {
            Event::Ring { slot, bell } => {
                bell.ring();
                slot
            }
            Event::Arrive(request) => {
                self.world.inner().serve(request);
                return Ok(());
            }
            Event::Follow { slot, key, to } => {
                self.world.inner().open_follow(slot, key, to);
                return Ok(());
            }
            Event::Answer { slot, to, said } => {
                drop(to.send(said));
                slot
            }
            Event::Told { slot, to, told } => {
                drop(to.send(told));
                slot
            }
            Event::Noticed { slot, to, notice } => {
                drop(to.send(notice));
                slot
            }
            Event::Resume { slot } => {
                self.world.inner().resume(slot);
                return Ok(());
            }
            Event::Start { slot } => {
                self.start(slot)?;
                slot
            }
            Event::Fault { n, begins } => return self.fault(n, begins),
            Event::Quiet => {
                let at = self.world.now();
                self.world.note(Line::Quiet { at });
                return Ok(());
            }
            Event::Finish => {
                self.world.inner().finishing = true;
                return Ok(());
            }
            Event::Look => {
                let mut inner = self.world.inner();
                let at = inner.now + 200 * MS;
                inner.agenda.add(at, Event::Look);
                return Ok(());
            }
        };
        self.turn(slot);
        Ok(())
    }

    fn turn(&self, slot: usize) {
        if self.paused[slot] == 0
            && let Some(process) = &self.processes[slot]
        {
            process.run();
        }
    }

    fn start(&mut self, slot: usize) -> io::Result<()> {
        if self.down[slot] > 0 || self.processes[slot].is_some() {
            return Ok(());
        }
        self.processes_made += 1;
        let machine = &self.plan.machines[slot];
        let clock: Arc<dyn Clock> = Arc::new(MachineClock::new(self.world.clone(), slot, machine.drift, machine.origin));
        let lease = machine.habits.first().map_or(0, |habits| u64::try_from(habits.lease.as_micros()).unwrap_or_default());
        let replicas = if self.plan.clustered { 3 } else { 1 };
        let store = Remote::new(self.world.clone(), slot, clock.clone(), self.plan.patience, lease, replicas);
        let process = Process::new(self.plan.seed ^ self.processes_made << 32)?;
        let store: Arc<dyn Store> = Arc::new(store);
        for habits in &machine.habits {
            process.start(actors::live(Actor {
                world: self.world.clone(),
                slot,
                client: 0,
                clock: clock.clone(),
                store: store.clone(),
                habits: Arc::new(habits.clone()),
            }));
        }
        self.processes[slot] = Some(process);
        Ok(())
    }

    fn fault(&mut self, n: usize, begins: bool) -> io::Result<()> {
        let planned = &self.plan.faults[n];
        if begins {
            self.note(n);
        }
        match planned.what {
            What::Crash(slot) if begins => {
                self.down[slot] += 1;
                let noted = self.world.inner().lines.len();
                self.processes[slot] = None;
                // In which order a runtime drops its tasks depends on others in this program.
                self.world.inner().lines[noted..].sort_by_cached_key(|line| format!("{line:?}"));
                self.world.strike(slot);
            }
            What::Crash(slot) => {
                self.down[slot] -= 1;
                self.start(slot)?;
                self.turn(slot);
            }
            What::Pause(slot) => {
                self.paused[slot] = if begins { self.paused[slot] + 1 } else { self.paused[slot] - 1 };
                self.turn(slot);
            }
            What::Cut(slot, cut) => self.cut(slot, cut, begins),
            What::CutStreams(slot) => {
                if begins {
                    self.world.inner().cut_watches(slot);
                } else {
                    self.world.inner().resume(slot);
                }
            }
            What::Outage(cut) => (0..self.processes.len()).for_each(|slot| self.cut(slot, cut, begins)),
            What::Rollback(by) => {
                (0..self.processes.len()).for_each(|slot| self.cut(slot, Cut::Silent, begins));
                if !begins {
                    self.world.inner().reset(Some(planned.from.saturating_sub(by)));
                }
            }
            What::Anew if begins => self.world.inner().reset(None),
            What::WallStep(slot, by) if begins => self.world.move_wall(slot, by),
            What::Anew | What::WallStep(..) => {}
            What::LoseRequests(slot, chance) => {
                self.world.inner().wires[slot].lose_requests = if begins { chance } else { 0.0 };
            }
            What::LoseAnswers(slot, chance) => {
                self.world.inner().wires[slot].lose_answers = if begins { chance } else { 0.0 };
            }
            What::Twice(slot) => self.world.inner().wires[slot].duplicate = if begins { 0.3 } else { 0.0 },
            What::Slow(slot, by) => self.world.inner().wires[slot].slow = if begins { by } else { 0 },
            What::Stale(slot, by) => self.world.inner().wires[slot].stale = if begins { by } else { 0 },
        }
        Ok(())
    }

    fn note(&self, n: usize) {
        let planned = &self.plan.faults[n];
        let until = match planned.what {
            What::Crash(_) | What::Anew | What::WallStep(..) => None,
            _ => Some(planned.until),
        };
        // What strikes a machine strikes the clients that are on it; a crash all that its process has been.
        let crash = matches!(planned.what, What::Crash(_));
        let here = planned.what.slot().map(|slot| self.world.present(slot, crash)).unwrap_or_default();
        let struck: Vec<Option<u64>> = match planned.what.slot() {
            // It is a fault, whoever is there.
            Some(_) if here.is_empty() && !crash => vec![None],
            Some(_) => here.into_iter().map(Some).collect(),
            None => vec![None],
        };
        for client in struck {
            let (kind, note) = (planned.what.kind(), format!("{:?}", planned.what));
            self.world.note(Line::Fault(Fault { from: planned.from, until, kind, client, server: None, note }));
        }
    }

    fn cut(&self, slot: usize, cut: Cut, begins: bool) {
        let mut inner = self.world.inner();
        let cuts = &mut inner.wires[slot].cuts;
        if begins {
            cuts.push(cut);
            inner.cut_streams(slot);
        } else {
            if let Some(at) = cuts.iter().position(|there| *there == cut) {
                cuts.remove(at);
            }
            let at: Micros = inner.now + inner.rng.u64(1_000..60_000);
            inner.agenda.add(at, Event::Resume { slot });
        }
    }
}
