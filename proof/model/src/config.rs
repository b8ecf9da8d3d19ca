//! What is searched: who wants what, how much may go wrong, and which rule is broken on purpose.

use crate::state::{CLIENTS, Faults, LOCKS};

/// What a hold does when its lease runs out and is then renewed late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It is over at the deadline.
    AtDeadline,
    /// It pauses, and goes on when a late renewal is taken.
    WhenProven,
}

/// A rule of the protocol broken on purpose: the properties must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A release names no revision: it ends whoever holds the lock when it lands. (A ticket has a key of its own,
    /// so this is what a lock of one key would do; without the revision the own ticket's end harms nobody.)
    ReleaseWithoutCas,
    /// A session is ended whatever renewal stands there.
    DeposeWithoutCas,
    /// A renewal counts from when its answer came.
    DeadlineFromAfterSend,
    /// The window of silence is not longer than the validity.
    SilenceTooShort,
    /// The window of silence goes on over a renewal that was seen.
    WindowKeptOverRenewal,
    /// Silence found later counts from before the own write was sent, not from after its answer.
    SightFromBeforeSend,
    /// Whoever was right behind a ticket is first once that is gone, however it went.
    MissingReRead,
    /// A read that does not contain the reader's own ticket grants.
    StaleReadGrants,
    /// A renewal is taken over a tombstone.
    RevivedSession,
    /// A renewal that was not answered counts as taken.
    UnansweredRenewalCounts,
    /// A release that was not answered is `Ok`.
    UnansweredReleaseIsOk,
    /// A ticket is created where a tombstone is.
    CreateOverTombstone,
    /// What forestalls a ticket is put over a tombstone too.
    ForestallOverTombstone,
    /// A ticket that was not answered is left alone, and another one sent.
    UnansweredTicketForgotten,
    /// Who gives up waiting leaves the ticket.
    CancelledTicketLeft,
    /// A dead session's ticket is passed over and left there.
    DeadTicketLeft,
    /// A fenced write is taken whatever became of the ticket.
    FenceIgnored,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::ReleaseWithoutCas,
        Self::DeposeWithoutCas,
        Self::DeadlineFromAfterSend,
        Self::SilenceTooShort,
        Self::WindowKeptOverRenewal,
        Self::SightFromBeforeSend,
        Self::MissingReRead,
        Self::StaleReadGrants,
        Self::RevivedSession,
        Self::UnansweredRenewalCounts,
        Self::UnansweredReleaseIsOk,
        Self::CreateOverTombstone,
        Self::ForestallOverTombstone,
        Self::UnansweredTicketForgotten,
        Self::CancelledTicketLeft,
        Self::DeadTicketLeft,
        Self::FenceIgnored,
    ];
}

/// One search.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which client wants which lock.
    pub wants: [[bool; LOCKS]; CLIENTS],
    /// What the holds of each client do at their deadline.
    pub policy: [Policy; CLIENTS],
    /// Tickets that one client may send for one lock.
    pub attempts: u8,
    /// Fenced writes under each hold.
    pub writes: u8,
    /// How much may go wrong in one run.
    pub faults: Faults,
    /// Whether a lease may run out at any time, or only when somebody's window of silence is over.
    pub eager: bool,
    /// Whether silence is also inferred from the revision of one's own ticket.
    pub sightings: bool,
    /// Whether to note what must happen in some run; costs states.
    pub coverage: bool,
    /// Whether every state is also run to its end without further faults.
    pub converge: bool,
    /// The rule that is broken.
    pub mutation: Option<Mutation>,
}

impl Config {
    /// Whether this rule is broken.
    #[must_use]
    pub fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// The same with a rule broken.
    #[must_use]
    pub fn with(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }
}
