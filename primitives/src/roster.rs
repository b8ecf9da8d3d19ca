//! A group as told by its events; no I/O.

use std::{collections::BTreeMap, sync::Arc};

use tenure_kv::Revision;

use crate::{InstanceState, MemberEvent, MemberRecord};

/// The members of a group, kept up to date by [`MemberEvent`]s.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    members: BTreeMap<String, Arc<MemberRecord>>,
    revision: Revision,
    caught_up: bool,
}

impl Roster {
    pub(crate) fn apply(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Insert(member) | MemberEvent::Update(member) => {
                self.revision = self.revision.max(member.revision);
                self.members.insert(member.id.clone(), Arc::new(member));
            }
            MemberEvent::Remove { id, revision } => {
                self.revision = self.revision.max(revision);
                self.members.remove(&id);
            }
            MemberEvent::CaughtUp { revision } => {
                self.revision = self.revision.max(revision);
                self.caught_up = true;
            }
        }
    }

    /// Whether everybody who was there at the beginning has been told.
    pub(crate) const fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Every change of the group up to here is in.
    pub(crate) const fn revision(&self) -> Revision {
        self.revision
    }

    /// Everybody, by id.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<MemberRecord>> {
        self.members.values()
    }

    /// Who should be given work: those that pass or, if there are none, those that warn; by id.
    pub(crate) fn serving(&self) -> impl Iterator<Item = &Arc<MemberRecord>> {
        let passes = |member: &&Arc<MemberRecord>| member.instance.state == InstanceState::Passing;
        let state =
            if self.members.values().any(|member| passes(&member)) { InstanceState::Passing } else { InstanceState::Warning };
        self.members.values().filter(move |member| member.instance.state == state)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Instance;

    /// A member without much to say.
    pub(crate) fn member(id: &str, revision: u64, instance: Instance) -> MemberRecord {
        let (id, session, revision) = (id.to_owned(), format!("session-of-{id}"), Revision::new(revision));
        MemberRecord { id, revision, session, host: String::new(), pid: 0, label: None, instance }
    }

    #[test]
    fn those_that_warn_serve_only_while_nobody_passes() {
        let mut roster = Roster::default();
        let mut say = |id, revision, state| {
            roster.apply(MemberEvent::Insert(member(id, revision, Instance::new().state(state))));
            roster.serving().map(|member| member.id.clone()).collect::<Vec<_>>()
        };
        assert!(say("a", 1, InstanceState::Critical).is_empty());
        assert_eq!(say("b", 2, InstanceState::Warning), ["b"]);
        assert_eq!(say("c", 3, InstanceState::Passing), ["c"]);
        assert_eq!(say("d", 4, InstanceState::Passing), ["c", "d"]);
        assert_eq!(say("c", 5, InstanceState::Draining), ["d"]);
        assert_eq!(say("d", 6, InstanceState::Maintenance), ["b"]);
    }

    #[test]
    fn the_revision_is_that_of_the_last_change() {
        let mut roster = Roster::default();
        roster.apply(MemberEvent::Insert(member("a", 4, Instance::new())));
        assert!(!roster.is_caught_up());
        roster.apply(MemberEvent::CaughtUp { revision: Revision::new(9) });
        assert!(roster.is_caught_up() && roster.revision() == Revision::new(9));
        roster.apply(MemberEvent::Remove { id: "a".into(), revision: Revision::new(12) });
        assert_eq!((roster.revision(), roster.members().count()), (Revision::new(12), 0));
    }
}
