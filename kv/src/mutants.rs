//! Deliberate defects, to show that the checks find them. There are none without the feature `mutants`, and with it none
//! is on until a test switches it on for its own thread.

/// A deliberate defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mutant {
    /// A release ends whatever is at the ticket's key, without a precondition, and the next ticket in line too.
    ReleaseWithoutCas,
    /// A renewal counts from when its answer came.
    DeadlineFromAnswer,
    /// Leases are measured with the wall clock.
    WallClock,
    /// A write that was not answered is taken for done.
    UnknownIsSuccess,
    /// Fences are expectations on a wildcard, which a cluster does not check exactly.
    WildcardFence,
    /// The TTL of a session's key is its lease, and a key that is not there proves a death.
    TtlDecides,
    /// The bucket has delete markers.
    Markers,
    /// A read of the queue that does not show one's own ticket is believed.
    MissingReread,
    /// A session that was deposed writes its key again.
    RevivedSession,
    /// The janitor removes records without a precondition, and of sessions that were merely silent.
    JanitorWithoutPrecondition,
    /// A view does not look at what it missed.
    DroppedGap,
    /// Tickets are granted in the order of their names.
    ReorderedQueue,
    /// A leader's fence is left out of its writes.
    MissingFence,
    /// A waiter that leaves forgets its ticket.
    ForgottenTicket,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::ReleaseWithoutCas,
        Self::DeadlineFromAnswer,
        Self::WallClock,
        Self::UnknownIsSuccess,
        Self::WildcardFence,
        Self::TtlDecides,
        Self::Markers,
        Self::MissingReread,
        Self::RevivedSession,
        Self::JanitorWithoutPrecondition,
        Self::DroppedGap,
        Self::ReorderedQueue,
        Self::MissingFence,
        Self::ForgottenTicket,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Switches `mutant` on in this thread, and every other one off.
#[cfg(feature = "mutants")]
pub fn switch(mutant: Option<Mutant>) {
    ON.set(mutant);
}

/// Whether the code should be wrong in this way.
#[inline]
#[must_use]
pub fn is_on(mutant: Mutant) -> bool {
    #[cfg(feature = "mutants")]
    return ON.get() == Some(mutant);
    #[cfg(not(feature = "mutants"))]
    {
        let _ = mutant;
        false
    }
}
