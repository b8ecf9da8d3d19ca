//! What becomes of a ticket: how its owner waits, is granted, gives back and turns away.

use crate::{
    config::{Config, Mutation},
    protocol::Sighting,
    state::{Call, Op, Outcome, Sight, Stage, State, Ticket},
};

impl State {
    /// Notes what the own ticket tells about the sessions of others.
    pub(crate) fn sight(&mut self, config: &Config, client: u8, lock: u8, sighting: Sighting) {
        let early = config.has(Mutation::SightFromBeforeSend);
        if !config.sightings {
            return;
        }
        let mut sight: Sight = self.task(client, lock).sight.unwrap_or_default();
        for (at, (stood, sent)) in (0_u8..).zip(sight.iter_mut()).filter(|(at, _)| *at != client) {
            match sighting {
                Sighting::Sent if early => *sent = self.armed(config, at),
                Sighting::Written => *stood = self.clients[usize::from(at)].session.latest(),
                Sighting::Answered if !early => *sent = self.armed(config, at),
                _ => {}
            }
        }
        self.task_mut(client, lock).sight = Some(sight);
    }

    pub(crate) fn queue_up(&mut self, config: &Config, client: u8, lock: u8) {
        self.sight(config, client, lock, Sighting::Sent);
        let ticket = self.own(client, lock);
        let task = self.task_mut(client, lock);
        task.stage = Stage::Creating;
        task.call = Call::new(Op::Create { lock, ticket });
    }

    pub(crate) fn look(&mut self, config: &Config, client: u8, lock: u8, found: Option<u8>) {
        let Stage::Behind { ticket, seen, since } = self.task(client, lock).stage else { return };
        let Some(beat) = found else {
            self.end_dead(config, client, lock, ticket);
            return;
        };
        let sight = self.task(client, lock).sight.filter(|_| seen.is_none()).map(|sight| sight[usize::from(ticket.client)]);
        let since = match sight {
            // It has been silent since our own ticket, which has the higher revision, was answered.
            Some((stood, sent)) if beat <= stood => sent,
            _ if seen.is_some() && config.has(Mutation::WindowKeptOverRenewal) => since,
            _ => self.armed(config, ticket.client),
        };
        self.task_mut(client, lock).stage = Stage::Behind { ticket, seen: Some(beat), since };
    }

    fn end_dead(&mut self, config: &Config, client: u8, lock: u8, ticket: Ticket) {
        let task = self.task_mut(client, lock);
        if config.has(Mutation::DeadTicketLeft) {
            task.stage = Stage::Queued;
            return;
        }
        task.stage = Stage::Ending(ticket);
        task.call = Call::new(Op::End { lock, ticket, held: false, by: client });
    }

    pub(crate) fn grant(&mut self, config: &Config, client: u8, lock: u8) {
        let own = self.own(client, lock);
        let queue = &mut self.locks[usize::from(lock)];
        let token = queue.token(own).unwrap_or(0);
        self.broken.early_grant |= queue.live(queue.log.len()).next() != Some(own);
        self.broken.token_back |= token < queue.granted;
        queue.granted = queue.granted.max(token + 1);
        let task = self.task_mut(client, lock);
        task.stage = Stage::Held { over: false };
        task.writes = config.writes;
    }

    pub(crate) fn task_answered(&mut self, config: &Config, client: u8, lock: u8, taken: bool) {
        let own = self.own(client, lock);
        match self.task(client, lock).stage {
            // Nothing of ours is there that could refuse the first and only try.
            Stage::Creating => {
                self.sight(config, client, lock, Sighting::Answered);
                self.task_mut(client, lock).stage = if taken { Stage::Queued } else { Stage::Done(Outcome::Lost) };
            }
            // Whoever was refused reads until it sees why: what is there does not change back.
            Stage::Settling if taken || !self.locks[usize::from(lock)].is_live(own) => self.next_ticket(config, client, lock),
            Stage::Settling => {
                self.sight(config, client, lock, Sighting::Answered);
                self.task_mut(client, lock).stage = Stage::Queued;
            }
            Stage::Deposing(ticket) if taken => self.end_dead(config, client, lock, ticket),
            Stage::Deposing(ticket) => {
                self.task_mut(client, lock).stage = Stage::Behind { ticket, seen: None, since: 0 };
            }
            Stage::Ending(_) => self.task_mut(client, lock).stage = Stage::Queued,
            Stage::Releasing => self.release_answered(client, lock, taken),
            Stage::Withdrawing { known: false } if !taken && self.locks[usize::from(lock)].is_live(own) => {
                let task = self.task_mut(client, lock);
                task.stage = Stage::Withdrawing { known: true };
                task.call = Call::new(Op::End { lock, ticket: own, held: false, by: client });
            }
            Stage::Withdrawing { .. } => self.task_mut(client, lock).stage = Stage::Done(Outcome::Withdrawn),
            _ => {}
        }
    }

    fn release_answered(&mut self, client: u8, lock: u8, taken: bool) {
        let queue = &self.locks[usize::from(lock)];
        let end = queue.end(self.own(client, lock));
        if taken || end == Some(true) {
            self.broken.false_ok |= end.is_none();
            self.task_mut(client, lock).stage = Stage::Done(Outcome::Released);
        } else {
            // A tombstone without the note is somebody else's, who had proof of our session's death.
            self.task_mut(client, lock).stage = Stage::Done(Outcome::Lost);
        }
    }

    fn next_ticket(&mut self, config: &Config, client: u8, lock: u8) {
        let task = self.task_mut(client, lock);
        if task.attempt + 1 < config.attempts {
            task.attempt += 1;
            task.sight = None;
            self.queue_up(config, client, lock);
        } else {
            task.stage = Stage::Done(Outcome::Withdrawn);
        }
    }

    pub(crate) fn task_unanswered(&mut self, config: &Config, client: u8, lock: u8) {
        let own = self.own(client, lock);
        let task = self.task_mut(client, lock);
        match task.stage {
            Stage::Creating if config.has(Mutation::UnansweredTicketForgotten) => self.next_ticket(config, client, lock),
            Stage::Creating | Stage::Settling => {
                task.stage = Stage::Settling;
                task.call = Call::new(Op::Forestall { lock, ticket: own });
            }
            // Cut off: the silence so far proves nothing.
            Stage::Deposing(ticket) => task.stage = Stage::Behind { ticket, seen: None, since: 0 },
            Stage::Ending(_) => task.stage = Stage::Queued,
            Stage::Releasing if config.has(Mutation::UnansweredReleaseIsOk) => {
                task.stage = Stage::Done(Outcome::Released);
                self.broken.false_ok |= self.locks[usize::from(lock)].is_live(own);
            }
            Stage::Releasing => {
                task.unanswered = true;
                task.call = Call::new(Op::End { lock, ticket: own, held: true, by: client });
            }
            Stage::Withdrawing { known } => task.call = Call::new(ending(lock, own, known, client)),
            _ => {}
        }
    }

    pub(crate) fn cancel(&mut self, config: &Config, client: u8, lock: u8) {
        let own = self.own(client, lock);
        let task = self.task_mut(client, lock);
        let call = task.call.take().filter(|call| call.answer.is_none());
        let known = !matches!(task.stage, Stage::Creating | Stage::Settling);
        if config.has(Mutation::CancelledTicketLeft) {
            task.stage = Stage::Done(Outcome::Withdrawn);
        } else {
            task.stage = Stage::Withdrawing { known };
            task.call = Call::new(ending(lock, own, known, client));
        }
        self.late.extend(call.map(|call| call.op));
    }
}

/// What ends the ticket of who has given up waiting.
const fn ending(lock: u8, ticket: Ticket, known: bool, by: u8) -> Op {
    if known { Op::End { lock, ticket, held: false, by } } else { Op::Forestall { lock, ticket } }
}
