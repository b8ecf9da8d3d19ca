//! Clients that want the same may be exchanged, and locks that the same clients want: of all states that differ in
//! nothing else one is searched.

use stateright::Representative;

use crate::state::{CLIENTS, Call, Entry, LOCKS, Op, Stage, State, Ticket};

/// Where each client goes.
type Places = [u8; CLIENTS];

const ORDERS: [Places; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

impl Representative for State {
    fn representative(&self) -> Self {
        let may = |places: &&Places| {
            self.clients.iter().zip(*places).all(|(client, to)| client.kind == self.clients[usize::from(*to)].kind)
        };
        let exchanged = self.alike.then(|| self.exchanged());
        let either = std::iter::once(self).chain(&exchanged);
        either.flat_map(|state| ORDERS.iter().filter(may).map(|places| state.moved(places))).min().unwrap_or_else(|| self.clone())
    }
}

impl State {
    /// With the locks in the other order.
    fn exchanged(&self) -> Self {
        let mut exchanged = self.clone();
        exchanged.locks.reverse();
        for client in &mut exchanged.clients {
            client.tasks.reverse();
            for task in &mut client.tasks {
                if let Some(call) = &mut task.call {
                    turn(&mut call.op);
                }
            }
        }
        exchanged.late.iter_mut().for_each(turn);
        exchanged
    }

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

fn turn(op: &mut Op) {
    const LAST: u8 = LOCKS as u8 - 1;
    match op {
        Op::Create { lock, .. } | Op::End { lock, .. } | Op::Forestall { lock, .. } | Op::Data { lock, .. } => {
            *lock = LAST - *lock
        }
        Op::Renew { .. } | Op::Depose { .. } => {}
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{bounds::large, config::Config, protocol::Step};

    fn followers(state: &State, config: &Config) -> BTreeSet<State> {
        let mut steps = Vec::<Step>::new();
        state.steps(config, &mut steps);
        let follow = |step| {
            let mut next = state.clone();
            next.take(config, step);
            next.representative()
        };
        steps.into_iter().map(follow).collect()
    }

    /// Long walks: what can follow is the same, whoever has which place.
    #[test]
    fn what_is_exchanged_goes_on_alike() {
        let mut walked = 0;
        for config in large().into_iter().map(|bounds| bounds.config) {
            let mut random = 1_u64;
            for _ in 0..60 {
                let mut state = State::start(&config);
                loop {
                    let alike = state.alike.then(|| state.exchanged());
                    let moved = ORDERS.iter().filter(|places| {
                        (0..CLIENTS).all(|at| state.clients[at].kind == state.clients[usize::from(places[at])].kind)
                    });
                    let follow = followers(&state, &config);
                    for other in alike.into_iter().chain(moved.map(|places| state.moved(places))) {
                        assert_eq!(other.representative(), state.representative());
                        assert_eq!(followers(&other, &config), follow);
                    }
                    let mut steps = Vec::new();
                    state.steps(&config, &mut steps);
                    if steps.is_empty() {
                        break;
                    }
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let at = usize::try_from(random >> 33).unwrap_or(0) % steps.len();
                    state.take(&config, steps.swap_remove(at));
                    walked += 1;
                }
            }
        }
        assert!(walked > 5_000, "only {walked} steps");
    }
}
