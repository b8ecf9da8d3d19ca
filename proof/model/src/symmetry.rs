//! Clients that want the same may be exchanged: of all states that differ in nothing else one is searched.

use stateright::Representative;

use crate::state::{CLIENTS, Call, Entry, Op, Stage, State, Ticket};

/// Where each client goes.
type Places = [u8; CLIENTS];

const ORDERS: [Places; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

impl Representative for State {
    fn representative(&self) -> Self {
        let may = |places: &&Places| {
            self.clients.iter().zip(*places).all(|(client, to)| client.kind == self.clients[usize::from(*to)].kind)
        };
        ORDERS.iter().filter(may).map(|places| self.moved(places)).min().unwrap_or_else(|| self.clone())
    }
}

impl State {
    fn moved(&self, places: &Places) -> Self {
        let mut moved = self.clone();
        for (client, to) in self.clients.iter().zip(places) {
            moved.clients[usize::from(*to)] = client.clone();
        }
        for client in &mut moved.clients {
            call(places, &mut client.session.call);
            for task in &mut client.tasks {
                call(places, &mut task.call);
                match &mut task.stage {
                    Stage::Behind { ticket, .. } | Stage::Deposing(ticket) | Stage::Ending(ticket) => {
                        *ticket = to(places, *ticket)
                    }
                    _ => {}
                }
                if let Some(sight) = &mut task.sight {
                    let before = *sight;
                    for (seen, place) in before.iter().zip(places) {
                        sight[usize::from(*place)] = *seen;
                    }
                }
            }
        }
        for entry in moved.locks.iter_mut().flat_map(|lock| lock.log.iter_mut()) {
            match entry {
                Entry::Ticket(ticket) | Entry::End { ticket, .. } => *ticket = to(places, *ticket),
            }
        }
        for late in &mut moved.late {
            *late = op(places, *late);
        }
        moved.late.sort_unstable();
        moved
    }
}

fn to(places: &Places, ticket: Ticket) -> Ticket {
    Ticket { client: places[usize::from(ticket.client)], ..ticket }
}

fn call(places: &Places, call: &mut Option<Call>) {
    if let Some(call) = call {
        call.op = op(places, call.op);
    }
}

fn op(places: &Places, op: Op) -> Op {
    let at = |client: u8| places[usize::from(client)];
    match op {
        Op::Renew { client, beat, expect } => Op::Renew { client: at(client), beat, expect },
        Op::Depose { client, expect } => Op::Depose { client: at(client), expect },
        Op::Create { lock, ticket } => Op::Create { lock, ticket: to(places, ticket) },
        Op::End { lock, ticket, held, by } => Op::End { lock, ticket: to(places, ticket), held, by: at(by) },
        Op::Forestall { lock, ticket } => Op::Forestall { lock, ticket: to(places, ticket) },
        Op::Data { lock, ticket } => Op::Data { lock, ticket: to(places, ticket) },
    }
}
