//! What becomes of a state when nothing goes wrong any more: everybody who lives must get through.

use crate::{
    config::Config,
    protocol::{Found, Step, Wire},
    state::{CLIENTS, LOCKS, Stage, State},
};

/// More rounds than any run needs.
const ROUNDS: usize = 32;
/// More steps than one client can take about one lock before it has to wait.
const STEPS: usize = 16;

impl State {
    /// Whether every client that has neither crashed nor lost its session gets every lock that it wants, once
    /// what is on its way has arrived (`landing`) or is lost, reads are fresh, and those who live renew in time.
    #[must_use]
    pub fn converges(&self, config: &Config, landing: bool) -> bool {
        let mut state = self.clone();
        while let Some(op) = state.late.pop() {
            if landing {
                state.apply(config, op);
            }
        }
        (0..ROUNDS).any(|_| {
            let before = state.clone();
            for client in 0..CLIENTS {
                state.go_on(config, u8::try_from(client).unwrap_or(0));
            }
            state == before
        }) && state.clients.iter().all(|client| {
            client.session.lost || client.tasks.iter().all(|task| matches!(task.stage, Stage::Idle | Stage::Done(_)))
        })
    }

    fn go_on(&mut self, config: &Config, client: u8) {
        if self.clients[usize::from(client)].session.lost {
            return;
        }
        if self.clients[usize::from(client)].is_at_it() {
            self.renew(config, client);
        }
        for lock in 0..u8::try_from(LOCKS).unwrap_or(0) {
            if self.clients[usize::from(client)].session.lost {
                return;
            }
            for _ in 0..STEPS {
                let Some(step) = self.next(config, client, lock) else { break };
                self.take(config, step);
            }
        }
    }

    /// Renews until the lease is valid or known to be lost.
    fn renew(&mut self, config: &Config, client: u8) {
        for _ in 0..4 {
            let session = &self.clients[usize::from(client)].session;
            if session.lost || session.call.is_none() && session.is_valid() {
                return;
            }
            let latest = session.latest();
            let step = match session.call {
                Some(call) if call.answer.is_none() => Step::Arrive(Wire::Session(client)),
                Some(_) => Step::Answer(client),
                None if session.unanswered != 0 && session.dead => Step::ReadBack(client, None),
                None if session.unanswered & (1 << latest) != 0 && latest > session.acked => Step::ReadBack(client, Some(latest)),
                None => Step::Renew(client),
            };
            self.take(config, step);
        }
    }

    /// The next step of one who has fresh reads and whose requests are answered; none while it has to wait.
    fn next(&self, config: &Config, client: u8, lock: u8) -> Option<Step> {
        let (task, log) = (self.task(client, lock), &self.locks[usize::from(lock)]);
        if task.call.is_some() {
            let wire = Wire::Task(client, lock);
            return Some(Step::Arrive(wire));
        }
        match task.stage {
            Stage::Idle if config.wants[usize::from(client)][usize::from(lock)] => Some(Step::Start(client, lock)),
            Stage::Queued => {
                let found: Found = self.found(log.log.len(), client, lock);
                Some(Step::Search(client, lock, found))
            }
            Stage::Behind { ticket, seen, .. } => {
                if let Some(held) = log.end(ticket) {
                    return Some(Step::SeeEnd(client, lock, held));
                }
                let target = &self.clients[usize::from(ticket.client)];
                let latest = target.session.latest();
                if target.session.dead {
                    Some(Step::Look(client, lock, None))
                } else if seen.is_none_or(|seen| seen < latest) {
                    Some(Step::Look(client, lock, Some(latest)))
                } else if target.session.lost {
                    Some(Step::Silent(client, lock))
                } else {
                    None
                }
            }
            Stage::First if self.clients[usize::from(client)].session.is_valid() => Some(Step::Grant(client, lock)),
            Stage::Held { .. } => Some(Step::Release(client, lock)),
            _ => None,
        }
    }
}
