//! The store: whether it takes a request, and what has changed then.

use crate::{
    config::{Config, Mutation},
    protocol::Sighting,
    state::{Entry, Op, State},
};

impl State {
    /// Applies a request that has arrived. False when it is refused.
    pub(crate) fn apply(&mut self, config: &Config, op: Op) -> bool {
        if !self.takes(config, op) {
            return false;
        }
        match op {
            Op::Renew { client, beat, .. } => {
                let session = &mut self.clients[usize::from(client)].session;
                self.broken.revived |= session.dead;
                session.dead = false;
                session.stored |= 1 << beat;
            }
            Op::Depose { client, .. } => {
                let target = &mut self.clients[usize::from(client)];
                target.session.dead = true;
                self.seen.deposed_alive |= config.coverage && !target.crashed;
            }
            Op::Create { lock, ticket } => {
                self.locks[usize::from(lock)].log.push(Entry::Ticket(ticket));
                self.sight(config, ticket.client, lock, Sighting::Written);
            }
            Op::End { lock, ticket, held, .. } => {
                let ticket = if held && config.has(Mutation::ReleaseWithoutCas) {
                    let log = &self.locks[usize::from(lock)];
                    let Some(first) = log.live(log.log.len()).next() else { return true };
                    first
                } else {
                    ticket
                };
                // Whoever gives it back does not hold it any more.
                let holder = self.task(ticket.client, lock);
                self.broken.freed |= holder.attempt == ticket.attempt && self.holds(ticket.client, lock);
                self.locks[usize::from(lock)].log.push(Entry::End { ticket, held });
            }
            Op::Forestall { lock, ticket } => {
                let lock = &mut self.locks[usize::from(lock)];
                lock.log.push(Entry::End { ticket, held: false });
            }
            Op::Data { lock, ticket } => {
                let lock = &self.locks[usize::from(lock)];
                self.broken.stale_write |= lock.token(ticket).is_none_or(|token| token + 1 < lock.granted);
            }
        }
        true
    }

    /// Whether the precondition holds.
    fn takes(&self, config: &Config, op: Op) -> bool {
        match op {
            Op::Renew { client, expect, .. } => {
                let session = &self.clients[usize::from(client)].session;
                session.latest() == expect && (!session.dead || config.has(Mutation::RevivedSession))
            }
            Op::Depose { client, expect } => {
                let session = &self.clients[usize::from(client)].session;
                !session.dead && (session.latest() == expect || config.has(Mutation::DeposeWithoutCas))
            }
            // Not even a tombstone may be there, for either.
            Op::Create { lock, ticket } | Op::Forestall { lock, ticket } => {
                let lock = &self.locks[usize::from(lock)];
                match (lock.last(ticket, lock.log.len()), op) {
                    (None, _) => true,
                    (Some(Entry::Ticket(_)), _) => false,
                    (Some(Entry::End { .. }), Op::Create { .. }) => config.has(Mutation::CreateOverTombstone),
                    (Some(Entry::End { .. }), _) => config.has(Mutation::ForestallOverTombstone),
                }
            }
            Op::End { lock, ticket, held, .. } => {
                held && config.has(Mutation::ReleaseWithoutCas) || self.locks[usize::from(lock)].is_live(ticket)
            }
            Op::Data { lock, ticket } => self.locks[usize::from(lock)].is_live(ticket) || config.has(Mutation::FenceIgnored),
        }
    }

    /// Whether a request would be refused now and at any later time, or would change nothing.
    pub(crate) fn is_moot(&self, config: &Config, op: Op) -> bool {
        if config.mutation.is_some() {
            return false;
        }
        match op {
            Op::Renew { client, expect, .. } | Op::Depose { client, expect } => {
                let session = &self.clients[usize::from(client)].session;
                session.dead || session.latest() != expect
            }
            Op::Create { lock, ticket } | Op::Forestall { lock, ticket } => {
                let lock = &self.locks[usize::from(lock)];
                lock.last(ticket, lock.log.len()).is_some()
            }
            Op::End { lock, ticket, .. } | Op::Data { lock, ticket } => self.locks[usize::from(lock)].end(ticket).is_some(),
        }
    }
}
