//! Every step that can be taken in a state.

use crate::{
    config::{Config, Mutation},
    protocol::{Found, Step, Wire},
    state::{CLIENTS, Call, Entry, LOCKS, Op, Stage, State, Task},
};

impl State {
    /// Every step that can be taken.
    pub fn steps(&self, config: &Config, steps: &mut Vec<Step>) {
        if let Some((client, lock)) = self.searching() {
            self.searches(config, client, lock, steps);
            return;
        }
        for at in 0..self.late.len() {
            steps.push(Step::Land(u8::try_from(at).unwrap_or(u8::MAX)));
        }
        for client in 0..u8::try_from(CLIENTS).unwrap_or(0) {
            let process = &self.clients[usize::from(client)];
            if config.eager
                && process.session.passed < self.armed(config, client)
                && (process.is_at_it() || self.is_waited_for(client))
            {
                steps.push(Step::Pass(client));
            }
            if process.crashed {
                continue;
            }
            if self.left.crashes > 0 && process.is_at_it() {
                steps.push(Step::Crash(client));
            }
            if process.session.lost {
                continue;
            }
            if process.is_at_it() {
                self.session_steps(config, client, steps);
            }
            for lock in 0..u8::try_from(LOCKS).unwrap_or(0) {
                self.task_steps(config, client, lock, steps);
            }
        }
    }

    /// Whether the silence of this client's session counts for somebody and is not over.
    fn is_waited_for(&self, client: u8) -> bool {
        self.clients.iter().flat_map(|other| &other.tasks).any(
            |task| matches!(task.stage, Stage::Behind { ticket, seen: Some(_), since } if ticket.client == client && since > 0),
        )
    }

    /// Whether anybody looks at this client's session, may still end it, or is about to take a sight of it.
    fn is_watched(&self, config: &Config, client: u8) -> bool {
        let watches = |task: &Task| match task.stage {
            Stage::Behind { ticket, .. } | Stage::Deposing(ticket) => ticket.client == client,
            Stage::Creating | Stage::Settling => config.sightings,
            _ => false,
        };
        self.clients.iter().flat_map(|other| &other.tasks).any(watches)
            || self.late.iter().any(|op| matches!(op, Op::Depose { client: target, .. } if *target == client))
    }

    fn wire_steps(&self, call: Call, wire: Wire, steps: &mut Vec<Step>) {
        if let (Some(_), Wire::Session(client)) = (call.answer, wire) {
            steps.push(Step::Answer(client));
        } else {
            steps.push(Step::Arrive(wire));
            if self.left.copies > 0 {
                steps.push(Step::ArriveTwice(wire));
            }
        }
        if self.left.timeouts > 0 {
            steps.push(Step::TimeOut(wire));
        }
    }

    fn session_steps(&self, config: &Config, client: u8, steps: &mut Vec<Step>) {
        let session = &self.clients[usize::from(client)].session;
        if let Some(call) = session.call {
            self.wire_steps(call, Wire::Session(client), steps);
            return;
        }
        let watched = config.eager || !session.is_valid() || self.is_watched(config, client);
        if self.left.renewals > 0 && watched {
            steps.push(Step::Renew(client));
        }
        if session.unanswered != 0 {
            let bits = (0..32).filter(|beat| session.stored & session.unanswered & (1 << beat) != 0 && *beat > session.acked);
            steps.extend(bits.map(|beat| Step::ReadBack(client, Some(beat))));
            if session.dead {
                steps.push(Step::ReadBack(client, None));
            }
        }
    }

    fn task_steps(&self, config: &Config, client: u8, lock: u8, steps: &mut Vec<Step>) {
        let task = self.task(client, lock);
        if let Some(call) = task.call {
            self.wire_steps(call, Wire::Task(client, lock), steps);
        }
        let waits = !matches!(
            task.stage,
            Stage::Idle | Stage::Held { .. } | Stage::Releasing | Stage::Withdrawing { .. } | Stage::Done(_)
        );
        if waits && self.left.cancels > 0 {
            steps.push(Step::Cancel(client, lock));
        }
        match task.stage {
            Stage::Idle if config.wants[usize::from(client)][usize::from(lock)] => steps.push(Step::Start(client, lock)),
            Stage::Behind { ticket, seen, since } => {
                if let Some(held) = self.locks[usize::from(lock)].end(ticket) {
                    // What was told by a read and what by a notice is not told apart: either may happen.
                    if held || config.has(Mutation::MissingReRead) {
                        steps.push(Step::SeeEnd(client, lock, true));
                    }
                    if !config.has(Mutation::MissingReRead) {
                        steps.push(Step::SeeEnd(client, lock, false));
                    }
                }
                if ticket.client == client {
                    return;
                }
                let behind = &self.clients[usize::from(ticket.client)].session;
                let newer = |beat: &u8| behind.stored & (1 << beat) != 0 && seen.is_none_or(|seen| *beat > seen);
                steps.extend((0..32).filter(newer).map(|beat| Step::Look(client, lock, Some(beat))));
                if behind.dead {
                    steps.push(Step::Look(client, lock, None));
                }
                // Where time is not eager it passes now.
                if seen.is_some() && (behind.passed >= since || !config.eager || config.has(Mutation::SilenceTooShort)) {
                    steps.push(Step::Silent(client, lock));
                }
            }
            Stage::First if self.clients[usize::from(client)].session.is_valid() => steps.push(Step::Grant(client, lock)),
            Stage::Held { .. } => {
                steps.push(Step::Release(client, lock));
                if task.writes > 0 {
                    steps.push(Step::Write(client, lock));
                }
            }
            _ => {}
        }
    }

    /// Who is to read the queue. It does so at once: as long as the ticket that it finds is there a later read finds
    /// the same, and when that is gone it reads again.
    fn searching(&self) -> Option<(u8, u8)> {
        (0_u8..).zip(&self.clients).find_map(|(client, process)| {
            let lock = (0_u8..).zip(&process.tasks).find(|(_, task)| task.stage == Stage::Queued)?.0;
            Some((client, lock))
        })
    }

    /// Every answer that a read of the queue can give: it may show any earlier state.
    fn searches(&self, config: &Config, client: u8, lock: u8, steps: &mut Vec<Step>) {
        let log = &self.locks[usize::from(lock)];
        let Some(own) = log.token(self.own(client, lock)) else { return };
        for prefix in 0..=log.log.len() {
            let found = match self.found(log.log.len().min(prefix), client, lock) {
                // It does not reach the own ticket: read again.
                _ if prefix <= usize::from(own) && !config.has(Mutation::StaleReadGrants) => continue,
                found => found,
            };
            let step = Step::Search(client, lock, found);
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
    }

    /// What a read up to `prefix` shows to the owner of a ticket.
    pub(crate) fn found(&self, prefix: usize, client: u8, lock: u8) -> Found {
        let (log, own) = (&self.locks[usize::from(lock)], self.own(client, lock));
        if matches!(log.last(own, prefix), Some(Entry::End { .. })) {
            return Found::Gone;
        }
        match log.live(prefix).take_while(|ticket| *ticket != own).last() {
            Some(before) => Found::Before(before),
            None => Found::First,
        }
    }
}
