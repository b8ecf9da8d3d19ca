//! What clients do: every step that can be taken in a state, and the state after it.

use crate::{
    config::{Config, Mutation},
    state::{CLIENTS, Call, Client, LOCKS, Op, Outcome, Stage, State, Task, Ticket},
};

/// One step. `client` and `lock` are places in the arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The client wants the lock and sends its ticket.
    Start(u8, u8),
    /// The request of this wire arrives.
    Arrive(Wire),
    /// It arrives, and a copy of it stays on its way.
    ArriveTwice(Wire),
    /// The answer to a renewal comes back. (All other answers come at once: what a client does then it may do later.)
    Answer(u8),
    /// It is given up on: lost, or late, or its answer is lost.
    TimeOut(Wire),
    /// A request that nobody waits for arrives.
    Land(u8),
    /// The oldest renewal of the client that has not run out does so, by the client's clock.
    Pass(u8),
    /// The client sends a renewal.
    Renew(u8),
    /// It reads its session's key, and finds the tombstone or this renewal.
    ReadBack(u8, Option<u8>),
    /// It reads the queue up to a revision at which this ticket is right before its own.
    Search(u8, u8, Found),
    /// It hears or reads that the ticket before its own is gone; with `true` it takes the note for the whole truth.
    SeeEnd(u8, u8, bool),
    /// It reads or hears of the session behind that ticket, and finds the tombstone or this renewal.
    Look(u8, u8, Option<u8>),
    /// Its window of silence is over, and it sends the tombstone.
    Silent(u8, u8),
    /// Its session can vouch, so the lock is granted.
    Grant(u8, u8),
    /// It sends a fenced write.
    Write(u8, u8),
    /// It gives the lock back.
    Release(u8, u8),
    /// It gives up waiting.
    Cancel(u8, u8),
    /// It does nothing any more.
    Crash(u8),
}

/// Whose request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// A session's renewal.
    Session(u8),
    /// What a client asks for about one lock.
    Task(u8, u8),
}

/// Moments in the life of a ticket that tell of other sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// It is sent.
    Sent,
    /// The store takes it.
    Written,
    /// Its owner has the answer.
    Answered,
}

/// What a read of the queue shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This ticket is right before one's own.
    Before(Ticket),
    /// Nothing is before one's own.
    First,
    /// One's own is gone.
    Gone,
}

impl Client {
    /// Whether it wants anything at this moment.
    pub(crate) fn is_at_it(&self) -> bool {
        !self.tasks.iter().all(|task| matches!(task.stage, Stage::Idle | Stage::Done(_)))
    }

    /// Whether it will never want anything again.
    pub(crate) fn is_through(&self, wants: &[bool; LOCKS]) -> bool {
        self.tasks.iter().zip(wants).all(|(task, wants)| !wants || matches!(task.stage, Stage::Done(_)))
    }
}

impl State {
    /// The start: everybody has a session, nobody has a ticket.
    #[must_use]
    pub fn start(config: &Config) -> Self {
        let alike = config.wants.iter().all(|wants| wants.iter().all(|want| *want == wants[0]));
        let mut state = Self { left: config.faults, alike, ..Self::default() };
        for (at, client) in state.clients.iter_mut().enumerate() {
            client.session.sent = 1;
            client.session.acked = 1;
            client.session.stored = 1 << 1;
            let same = |other: usize| config.wants[other] == config.wants[at] && config.policy[other] == config.policy[at];
            client.kind = (0..CLIENTS).find(|other| same(*other)).and_then(|kind| u8::try_from(kind).ok()).unwrap_or(0);
        }
        state
    }

    pub(crate) fn task(&self, client: u8, lock: u8) -> &Task {
        &self.clients[usize::from(client)].tasks[usize::from(lock)]
    }

    pub(crate) fn task_mut(&mut self, client: u8, lock: u8) -> &mut Task {
        &mut self.clients[usize::from(client)].tasks[usize::from(lock)]
    }

    pub(crate) fn own(&self, client: u8, lock: u8) -> Ticket {
        Ticket { client, attempt: self.task(client, lock).attempt }
    }

    /// Whether the client relies on the lock at this moment.
    #[must_use]
    pub fn holds(&self, client: u8, lock: u8) -> bool {
        let holder = &self.clients[usize::from(client)];
        self.task(client, lock).stage == (Stage::Held { over: false }) && holder.session.is_valid() && !holder.crashed
    }

    /// The latest renewal whose validity has begun to count.
    pub(crate) fn armed(&self, config: &Config, client: u8) -> u8 {
        let session = &self.clients[usize::from(client)].session;
        if config.has(Mutation::DeadlineFromAfterSend) { session.acked } else { session.sent }
    }

    /// Takes a step.
    pub fn take(&mut self, config: &Config, step: Step) {
        match step {
            Step::Start(client, lock) => self.queue_up(config, client, lock),
            Step::Arrive(wire) | Step::ArriveTwice(wire) => {
                let Some(op) = self.wire(wire).as_ref().map(|call| call.op) else { return };
                if matches!(step, Step::ArriveTwice(_)) {
                    self.left.copies -= 1;
                    self.late.push(op);
                }
                let taken = self.apply(config, op);
                match wire {
                    Wire::Session(_) => {
                        if let Some(call) = self.wire(wire) {
                            call.answer = Some(taken);
                        }
                    }
                    Wire::Task(client, lock) => {
                        *self.wire(wire) = None;
                        self.task_answered(config, client, lock, taken);
                    }
                }
            }
            Step::Answer(client) => {
                let Some(Call { op, answer: Some(taken) }) = self.wire(Wire::Session(client)).take() else { return };
                self.renewal_answered(config, client, op, taken);
            }
            Step::TimeOut(wire) => {
                self.left.timeouts -= 1;
                let Some(call) = self.wire(wire).take() else { return };
                if call.answer.is_none() {
                    self.late.push(call.op);
                }
                match wire {
                    Wire::Session(client) => self.renewal_unanswered(config, client, call.op),
                    Wire::Task(client, lock) => self.task_unanswered(config, client, lock),
                }
            }
            Step::Land(at) => {
                let op = self.late.remove(usize::from(at));
                self.apply(config, op);
            }
            Step::Pass(client) => self.pass(config, client),
            Step::Renew(client) => {
                let session = &mut self.clients[usize::from(client)].session;
                session.sent += 1;
                self.left.renewals = self.left.renewals.saturating_sub(1);
                session.call = Call::new(Op::Renew { client, beat: session.sent, expect: session.acked });
            }
            Step::ReadBack(client, Some(beat)) => self.renewed(config, client, beat),
            Step::ReadBack(client, None) => self.lose(client),
            Step::Search(client, lock, found) => {
                let task = self.task_mut(client, lock);
                task.stage = match found {
                    Found::First => Stage::First,
                    Found::Gone => Stage::Done(Outcome::Lost),
                    Found::Before(ticket) => Stage::Behind { ticket, seen: None, since: 0 },
                };
            }
            Step::SeeEnd(client, lock, first) => {
                self.task_mut(client, lock).stage = if first { Stage::First } else { Stage::Queued };
            }
            Step::Look(client, lock, found) => self.look(config, client, lock, found),
            Step::Silent(client, lock) => {
                let Stage::Behind { ticket, seen: Some(expect), since } = self.task(client, lock).stage else { return };
                while !config.has(Mutation::SilenceTooShort) && self.clients[usize::from(ticket.client)].session.passed < since {
                    self.pass(config, ticket.client);
                }
                let task = self.task_mut(client, lock);
                task.stage = Stage::Deposing(ticket);
                task.call = Call::new(Op::Depose { client: ticket.client, expect });
            }
            Step::Grant(client, lock) => self.grant(config, client, lock),
            Step::Write(client, lock) => {
                let ticket = self.own(client, lock);
                self.task_mut(client, lock).writes -= 1;
                self.late.push(Op::Data { lock, ticket });
            }
            Step::Release(client, lock) => {
                let op = Op::End { lock, ticket: self.own(client, lock), held: true, by: client };
                let task = self.task_mut(client, lock);
                task.stage = Stage::Releasing;
                task.call = Call::new(op);
            }
            Step::Cancel(client, lock) => {
                self.left.cancels -= 1;
                self.cancel(config, client, lock);
            }
            Step::Crash(client) => {
                self.left.crashes -= 1;
                self.crash(client);
            }
        }
        self.tidy(config);
    }

    fn wire(&mut self, wire: Wire) -> &mut Option<Call> {
        match wire {
            Wire::Session(client) => &mut self.clients[usize::from(client)].session.call,
            Wire::Task(client, lock) => &mut self.task_mut(client, lock).call,
        }
    }
}
