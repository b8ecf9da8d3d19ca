//! Who is there: groups of members that live by their sessions.
//!
//! A member's record is written when it joins and when it changes, never by heartbeats: those go to the
//! session's key, which nobody who follows the group reads. So a group in which nothing changes costs its
//! watchers nothing.

mod instance;
mod names;
mod record;

use tenure_kv::Revision;

pub use self::{
    instance::{Instance, InstanceState, MAX_ADDRESS, MAX_MEMBER_VALUE, MAX_METADATA, MAX_WEIGHT, MAX_ZONE},
    names::MAX_ID,
    record::MemberRecord,
};

/// The members of a group at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// The members, by id.
    pub list: Vec<MemberRecord>,
    /// Every change of the group up to this revision is in the list.
    pub revision: Revision,
    /// Records that were passed over because something else wrote them.
    pub unreadable: usize,
}

/// A change of a group. Level-triggered: changes in quick succession may be told as one, the last is
/// always told, and revisions never go back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberEvent {
    /// Somebody is there who was not.
    Insert(MemberRecord),
    /// Somebody has changed, or another session has taken over the id.
    Update(MemberRecord),
    /// Somebody is gone.
    Remove {
        /// Who.
        id: String,
        /// Where in the store's order.
        revision: Revision,
    },
    /// Everybody who was there when the watch began has been told.
    CaughtUp {
        /// Every change of the group up to this revision has been told.
        revision: Revision,
    },
}
