//! An instance chosen for one request.

use std::{fmt, sync::Arc};

use super::{balancer::Shared, table::Slot};
use crate::MemberRecord;

/// An instance chosen for one request; it counts as busy with it until this is dropped.
///
/// Say how the request went: [`Picked::failed`] sets the instance aside for a while, [`Picked::succeeded`]
/// brings it back. Dropping says neither.
#[must_use = "the instance counts as busy until this is dropped"]
pub struct Picked {
    slot: Slot,
    generation: u64,
    shared: Arc<Shared>,
}

impl Picked {
    pub(super) fn new(slot: Slot, shared: Arc<Shared>) -> Self {
        slot.track.began();
        Self { generation: slot.track.faults().generation(), slot, shared }
    }

    /// The member that was chosen.
    pub fn member(&self) -> &Arc<MemberRecord> {
        &self.slot.member
    }

    /// Its address; empty when it has none.
    pub fn address(&self) -> &str {
        self.slot.member.instance.address.as_deref().unwrap_or_default()
    }

    /// How many requests are under way at this instance from this balancer and its clones, this one counted.
    pub fn in_flight(&self) -> usize {
        self.slot.track.in_flight()
    }

    /// The request failed in a way that another instance might not: the instance is set aside, for longer from
    /// error to error. Of requests that were under way together only the first failure counts.
    pub fn failed(self) {
        self.slot.track.failed(self.generation, self.shared.clock.now(), self.shared.cooling);
    }

    /// The request succeeded: the instance is as good as any. A request that began before the last failure
    /// proves nothing and changes nothing.
    pub fn succeeded(self) {
        self.slot.track.succeeded(self.generation);
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.slot.track.ended();
    }
}

impl fmt::Debug for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picked").field("id", &self.slot.member.id).finish_non_exhaustive()
    }
}
