//! What one moment of a run consists of: the store, the wires, and what each client believes.

use arrayvec::ArrayVec;

/// How many clients there are, one session each.
pub const CLIENTS: usize = 3;
/// How many locks there are.
pub const LOCKS: usize = 2;
/// Writes that the queue of one lock can hold.
pub(crate) const LOG: usize = 14;
/// Messages that can be on their way without anybody waiting for the answer.
pub(crate) const LATE: usize = 12;

/// A ticket of one client in the queue of one lock. No two attempts share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Whose.
    pub client: u8,
    /// Which attempt of theirs.
    pub attempt: u8,
}

/// One write to the queue of a lock, in the order of revisions. Its place is its revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// The ticket was created.
    Ticket(Ticket),
    /// A tombstone on the ticket; `held` is the note that it had been granted.
    End {
        /// Which.
        ticket: Ticket,
        /// Whether its owner wrote that it had been granted.
        held: bool,
    },
}

/// One lock as the store has it, and what really was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lock {
    /// Every write to the queue.
    pub log: ArrayVec<Entry, LOG>,
    /// Ghost: one more than the highest token that was ever granted, 0 before the first grant.
    pub granted: u8,
}

impl Lock {
    /// The token of a ticket: where it was created.
    #[must_use]
    pub fn token(&self, ticket: Ticket) -> Option<u8> {
        let at = self.log.iter().rposition(|entry| *entry == Entry::Ticket(ticket))?;
        u8::try_from(at).ok()
    }

    /// What the first `prefix` writes say of a ticket: the last of them that concerns it.
    #[must_use]
    pub fn last(&self, ticket: Ticket, prefix: usize) -> Option<Entry> {
        let concerns = |entry: &&Entry| matches!(entry, Entry::Ticket(t) | Entry::End { ticket: t, .. } if *t == ticket);
        self.log.iter().take(prefix).rfind(concerns).copied()
    }

    /// Whether the ticket is there, by everything that was written.
    #[must_use]
    pub fn is_live(&self, ticket: Ticket) -> bool {
        matches!(self.last(ticket, self.log.len()), Some(Entry::Ticket(_)))
    }

    /// The tombstone's note, if there is a tombstone.
    #[must_use]
    pub fn end(&self, ticket: Ticket) -> Option<bool> {
        match self.last(ticket, self.log.len()) {
            Some(Entry::End { held, .. }) => Some(held),
            _ => None,
        }
    }

    /// The live tickets in the first `prefix` writes, in the order of their tokens.
    pub fn live(&self, prefix: usize) -> impl Iterator<Item = Ticket> + '_ {
        self.log.iter().take(prefix).enumerate().filter_map(move |(at, entry)| match entry {
            Entry::Ticket(ticket)
                if !self
                    .log
                    .iter()
                    .take(prefix)
                    .skip(at + 1)
                    .any(|later| matches!(later, Entry::Ticket(t) | Entry::End { ticket: t, .. } if t == ticket)) =>
            {
                Some(*ticket)
            }
            _ => None,
        })
    }
}

/// A request that asks for a change. Each is a compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Renews a session that is at `expect`.
    Renew {
        /// Whose.
        client: u8,
        /// Which renewal.
        beat: u8,
        /// The renewal that must stand there.
        expect: u8,
    },
    /// A tombstone on a session that is at `expect`.
    Depose {
        /// Whose.
        client: u8,
        /// The renewal that must stand there.
        expect: u8,
    },
    /// Creates a ticket where there is not even a tombstone.
    Create {
        /// In which queue.
        lock: u8,
        /// Which.
        ticket: Ticket,
    },
    /// A tombstone on a ticket that is there.
    End {
        /// In which queue.
        lock: u8,
        /// Which.
        ticket: Ticket,
        /// Whether it had been granted.
        held: bool,
        /// Who asks.
        by: u8,
    },
    /// A tombstone where no ticket is.
    Forestall {
        /// In which queue.
        lock: u8,
        /// Which.
        ticket: Ticket,
    },
    /// A write of the application, fenced by a ticket.
    Data {
        /// Which lock protects it.
        lock: u8,
        /// Under which ticket.
        ticket: Ticket,
    },
}

/// A request that its sender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// What it asks for.
    pub op: Op,
    /// `None` while it is on its way there; then whether it was applied, on its way back.
    pub answer: Option<bool>,
}

impl Call {
    /// A request on its way there.
    #[must_use]
    pub const fn new(op: Op) -> Option<Self> {
        Some(Self { op, answer: None })
    }
}

/// A session: what its holder knows, and what the store has.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    /// The latest renewal whose answer the holder has. The lease counts from its sending.
    pub acked: u8,
    /// The latest renewal that was sent.
    pub sent: u8,
    /// The latest renewal whose validity is over: every one up to it has run out.
    pub passed: u8,
    /// Renewals that may have been applied, as bits.
    pub unanswered: u32,
    /// The renewal on its way.
    pub call: Option<Call>,
    /// The holder knows that it is lost.
    pub lost: bool,
    /// Every renewal that the store took, as bits; the highest is the one that stands there.
    pub stored: u32,
    /// There is a tombstone.
    pub dead: bool,
}

impl Session {
    /// The renewal that stands in the store, or stood there last.
    #[must_use]
    pub fn latest(&self) -> u8 {
        u8::try_from(self.stored.ilog2()).unwrap_or(0)
    }

    /// Whether the holder may rely on its lease, by its own clock.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.acked > self.passed && !self.lost
    }
}

/// From when a silence of each session counts that is found later: see [`Task::sight`].
pub type Sight = [(u8, u8); CLIENTS];

/// What one client does about one lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// How far it has come.
    pub stage: Stage,
    /// Which attempt this is.
    pub attempt: u8,
    /// The request on its way.
    pub call: Option<Call>,
    /// An earlier try of the same release was not answered.
    pub unanswered: bool,
    /// Writes that may still be sent under this hold.
    pub writes: u8,
    /// When the own ticket was answered: for each session the renewal that stood there when the ticket was
    /// written, and the latest renewal sent by the time of the answer.
    pub sight: Option<Sight>,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Does not want the lock, or not yet.
    #[default]
    Idle,
    /// Has sent its ticket.
    Creating,
    /// Was not answered, and finds out by putting a tombstone in the ticket's place.
    Settling,
    /// Has a ticket and does not know what is before it.
    Queued,
    /// Waits for the end of the ticket right before its own.
    Behind {
        /// That ticket.
        ticket: Ticket,
        /// The latest renewal of its session that was seen.
        seen: Option<u8>,
        /// The latest renewal that had been sent when the silence began to count.
        since: u8,
    },
    /// Has asked for the tombstone on the session behind that ticket.
    Deposing(Ticket),
    /// Has asked for the tombstone on that ticket, whose session is dead.
    Ending(Ticket),
    /// Nothing is before its own ticket.
    First,
    /// Has the lock; `over` once the lease has run out since.
    Held {
        /// The lease has run out since it was granted.
        over: bool,
    },
    /// Gives the lock back.
    Releasing,
    /// Has given up waiting; `known` where its ticket is known to have been written.
    Withdrawing {
        /// Whether the ticket is known to have been written.
        known: bool,
    },
    /// Is through.
    Done(Outcome),
}

/// What a caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The release is done.
    Released,
    /// The lock or the session was lost.
    Lost,
    /// The wait was given up, and the ticket is gone.
    Withdrawn,
}

/// One process with its session.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// Clients of one kind want the same and may be exchanged.
    pub kind: u8,
    /// It does nothing any more.
    pub crashed: bool,
    /// Its session.
    pub session: Session,
    /// What it does about each lock.
    pub tasks: [Task; LOCKS],
}

/// How much may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Faults {
    /// Clients that crash.
    pub crashes: u8,
    /// Requests that are given up on. They were lost on their way, or land late, or the answer was lost.
    pub timeouts: u8,
    /// Requests that arrive twice.
    pub copies: u8,
    /// Waits that are given up.
    pub cancels: u8,
    /// Renewals that are sent, by all sessions together.
    pub renewals: u8,
}

/// Ghosts: what no client can see, and must never have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Broken {
    /// A grant while an earlier ticket was there, or while the own one was gone.
    pub early_grant: bool,
    /// A grant with a lower token than an earlier one.
    pub token_back: bool,
    /// A write under an old token was taken after a later grant.
    pub stale_write: bool,
    /// A valid hold was ended by somebody else.
    pub freed: bool,
    /// A release was `Ok` and the ticket was there, or ended by others.
    pub false_ok: bool,
    /// A session was renewed after its death.
    pub revived: bool,
}

/// Ghosts: what must happen in some run, or nothing was tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// A session of a client that had not crashed was deposed.
    pub deposed_alive: bool,
    /// What came too late was refused, or would have been.
    pub refused: bool,
    /// A late renewal restored a session whose lease had run out.
    pub restored: bool,
}

/// One moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// The clients.
    pub clients: [Client; CLIENTS],
    /// The locks.
    pub locks: [Lock; LOCKS],
    /// Whoever wants one of them wants both: they may be exchanged.
    pub alike: bool,
    /// What may arrive at any time, or never, in no order.
    pub late: ArrayVec<Op, LATE>,
    /// How much may still go wrong.
    pub left: Faults,
    /// What must never have happened.
    pub broken: Broken,
    /// What must happen in some run.
    pub seen: Seen,
}
