//! What a member should do about each partition: pure.

use super::assign::{Assignment, assign};
use crate::roster::Roster;

/// What one member goes by.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Who should own what, once the group has been seen.
    pub(super) assignment: Option<Assignment>,
    /// Whether this member is in the group by its own session.
    pub(super) present: bool,
    /// Everything is to be let go.
    pub(super) stopping: bool,
}

/// What to do about one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is ours.
    Own,
    /// It is nobody's: whoever has it keeps it.
    Keep,
    /// It is somebody else's.
    LetGo,
}

impl Plan {
    /// What this member, called `me`, should do about `partition`.
    pub(super) fn wish(&self, me: &str, partition: u32) -> Wish {
        let Some(assignment) = self.assignment.as_ref().filter(|_| !self.stopping) else {
            return if self.stopping { Wish::LetGo } else { Wish::Keep };
        };
        match assignment.owner(partition) {
            Some(owner) if **owner == *me && self.present => Wish::Own,
            // Also if our name is another process's now.
            Some(_) => Wish::LetGo,
            None => Wish::Keep,
        }
    }

    /// The plan once the group is `roster`.
    pub(super) fn after(&self, roster: &Roster, partitions: u32, me: &str, session: &str) -> Self {
        let serving = roster.serving().map(|member| (member.id.as_str(), member.instance.weight));
        let assignment = assign(partitions, roster.revision(), serving);
        let present = roster.members().any(|member| member.id == me && member.session == session);
        Self { assignment: Some(assignment), present, stopping: self.stopping }
    }
}

#[cfg(test)]
mod tests {
    use tenure_kv::Revision;

    use super::*;
    use crate::{Instance, InstanceState, MemberEvent, roster::tests::member};

    fn plan(members: &[(&str, InstanceState)]) -> Plan {
        let mut roster = Roster::default();
        for (id, state) in members {
            roster.apply(MemberEvent::Insert(member(id, 1, Instance::new().state(*state))));
        }
        roster.apply(MemberEvent::CaughtUp { revision: Revision::new(7) });
        Plan::default().after(&roster, 32, "a", "session-of-a")
    }

    fn wishes(plan: &Plan) -> Vec<Wish> {
        (0..32).map(|partition| plan.wish("a", partition)).collect()
    }

    #[test]
    fn before_the_group_is_seen_nothing_changes() {
        assert_eq!(wishes(&Plan::default()), [Wish::Keep; 32]);
    }

    #[test]
    fn what_is_assigned_is_owned_and_the_rest_let_go() {
        use InstanceState::{Draining, Passing};
        assert_eq!(wishes(&plan(&[("a", Passing)])), [Wish::Own; 32]);
        let both = wishes(&plan(&[("a", Passing), ("b", Passing)]));
        assert!(both.contains(&Wish::Own) && both.contains(&Wish::LetGo) && !both.contains(&Wish::Keep));
        assert_eq!(wishes(&plan(&[("a", Draining), ("b", Passing)])), [Wish::LetGo; 32]);
        assert_eq!(plan(&[("a", Passing)]).assignment.unwrap().revision(), Revision::new(7));
    }

    #[test]
    fn who_does_not_pass_owns_nothing_new_and_keeps_what_nobody_else_can_take() {
        use InstanceState::{Critical, Draining, Maintenance, Warning};
        for state in [Critical, Draining, Maintenance] {
            assert_eq!(wishes(&plan(&[("a", state), ("b", state)])), [Wish::Keep; 32]);
            assert_eq!(wishes(&plan(&[("a", state), ("b", Warning)])), [Wish::LetGo; 32]);
        }
    }

    #[test]
    fn a_namesake_of_another_session_takes_all() {
        let mut roster = Roster::default();
        let namesake = crate::MemberRecord { session: "another".into(), ..member("a", 1, Instance::new()) };
        roster.apply(MemberEvent::Insert(namesake));
        let plan = Plan::default().after(&roster, 32, "a", "session-of-a");
        assert_eq!(wishes(&plan), [Wish::LetGo; 32]);
    }

    #[test]
    fn who_stops_lets_go_of_everything() {
        let plan = Plan { stopping: true, ..plan(&[("a", InstanceState::Passing)]) };
        assert_eq!(wishes(&plan), [Wish::LetGo; 32]);
        assert_eq!(wishes(&Plan { stopping: true, ..Plan::default() }), [Wish::LetGo; 32]);
    }
}
