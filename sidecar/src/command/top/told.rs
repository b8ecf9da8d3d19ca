//! What streams have told of what is shown: it goes before what a list says, which may be older. No I/O.

use std::collections::{BTreeMap, HashMap};

use super::{feed::Snapshot, streams::Thing};
use crate::protocol::{ElectionView, Happening, LeaderView, LockStanding, LockView, MemberView};

/// The latest of each.
#[derive(Debug, Default)]
pub(super) struct Told {
    locks: HashMap<String, LockStanding>,
    leaders: HashMap<String, Option<LeaderView>>,
    groups: HashMap<String, Roster>,
}

/// Who is in a group.
#[derive(Debug, Default)]
struct Roster {
    members: BTreeMap<String, MemberView>,
    /// All that were there have been told.
    whole: bool,
    /// From a list, with which no stream goes on.
    listed: bool,
}

impl Told {
    pub(super) fn hear(&mut self, thing: &Thing, what: Happening) {
        match (thing, what) {
            (Thing::Lock(name), Happening::Lock(standing)) => drop(self.locks.insert(name.clone(), standing)),
            (Thing::Election(name), Happening::Leader { leader }) => drop(self.leaders.insert(name.clone(), leader)),
            (Thing::Group(name), what) => {
                let roster = self.groups.entry(name.clone()).or_default();
                if roster.listed {
                    *roster = Roster::default();
                }
                match what {
                    Happening::Join { member } | Happening::Update { member } => {
                        roster.members.insert(member.id.clone(), member);
                    }
                    Happening::Leave { id, .. } => drop(roster.members.remove(&id)),
                    Happening::Sync { .. } => roster.whole = true,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// All of a group, from a list.
    pub(super) fn list(&mut self, group: String, members: Vec<MemberView>) {
        let members = members.into_iter().map(|member| (member.id.clone(), member)).collect();
        self.groups.insert(group, Roster { members, whole: false, listed: true });
    }

    /// What was told of it may be over.
    pub(super) fn forget(&mut self, thing: &Thing) {
        match thing {
            Thing::Lock(name) => drop(self.locks.remove(name)),
            Thing::Election(name) => drop(self.leaders.remove(name)),
            Thing::Group(name) => drop(self.groups.remove(name)),
        }
    }

    /// Who is in a group, as far as that is known.
    pub(super) fn members(&self, group: &str) -> impl Iterator<Item = &MemberView> + use<'_> {
        self.groups.get(group).into_iter().flat_map(|roster| roster.members.values())
    }

    /// Puts what was told in the place of what the lists say. What has ended stays until a list leaves it out.
    pub(super) fn lay_over(&self, snapshot: &mut Snapshot) {
        for (name, standing) in &self.locks {
            let is_there = standing.holder.is_some() || standing.waiting > 0;
            match snapshot.locks.binary_search_by(|lock| lock.name.cmp(name)) {
                Ok(at) => snapshot.locks[at] = lock(name, standing),
                Err(at) if is_there => snapshot.locks.insert(at, lock(name, standing)),
                Err(_) => {}
            }
        }
        for (name, leader) in &self.leaders {
            match snapshot.elections.binary_search_by(|election| election.name.cmp(name)) {
                Ok(at) => snapshot.elections[at].leader.clone_from(leader),
                Err(at) if leader.is_some() => {
                    let election = ElectionView { name: name.clone(), leader: leader.clone(), candidates: 0 };
                    snapshot.elections.insert(at, election);
                }
                Err(_) => {}
            }
        }
        for (name, roster) in self.groups.iter().filter(|(_, roster)| roster.whole) {
            if let Some(group) = snapshot.groups.iter_mut().find(|group| group.name == *name) {
                group.members = roster.members.len();
            }
        }
    }
}

fn lock(name: &str, standing: &LockStanding) -> LockView {
    let LockStanding { holder, waiters, waiting } = standing.clone();
    let more_waiters = waiting.saturating_sub(waiters.len());
    LockView { name: name.to_owned(), holder, waiters, more_waiters }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::model::tests::snapshot, *};

    fn lock_named(name: &str) -> Thing {
        Thing::Lock(name.to_owned())
    }

    fn standing(fence: Option<u64>, waiting: usize) -> Happening {
        let holder =
            fence.map(|fence| json!({"fence": fence, "label": null, "session": "s", "host": "h", "pid": 1, "since_ms": 0}));
        serde_json::from_value(json!({"kind": "lock", "holder": holder, "waiters": [], "waiting": waiting})).unwrap()
    }

    #[test]
    fn what_is_told_goes_before_a_list() {
        let mut told = Told::default();
        told.hear(&lock_named("nightly"), standing(Some(12), 40));
        told.hear(&lock_named("new"), standing(Some(13), 0));
        told.hear(&lock_named("over"), standing(None, 0));
        told.hear(&lock_named("deploy"), standing(None, 0));
        let leader = Thing::Election("db".to_owned());
        told.hear(&leader, Happening::Leader { leader: None });
        let mut shown = snapshot(3);
        told.lay_over(&mut shown);
        let locks = shown.locks.iter().map(|lock| (&*lock.name, lock.holder.as_ref().map(|it| it.fence), lock.waiting()));
        assert_eq!(locks.collect::<Vec<_>>(), [("deploy", None, 0), ("new", Some(13), 0), ("nightly", Some(12), 40)]);
        assert_eq!((shown.elections[0].leader.as_ref(), shown.elections[0].candidates), (None, 2));
        told.forget(&lock_named("nightly"));
        told.forget(&leader);
        let mut shown = snapshot(3);
        told.lay_over(&mut shown);
        assert_eq!(shown.locks[2].holder.as_ref().map(|holder| holder.fence), Some(7));
        assert!(shown.elections[0].leader.is_some());
    }

    #[test]
    fn a_group_is_counted_once_all_of_it_is_told() {
        let member = |id: &str| {
            let member = json!({"id": id, "revision": 1, "value": "", "address": null, "zone": null, "weight": 1, "metadata": {},
                "state": "passing", "session": "s", "host": "h", "pid": 1, "label": null});
            serde_json::from_value::<MemberView>(member).unwrap()
        };
        let (mut told, web) = (Told::default(), Thing::Group("web".to_owned()));
        let counted = |told: &Told| {
            let mut shown = snapshot(3);
            told.lay_over(&mut shown);
            shown.groups[0].members
        };
        for id in ["a", "b", "c"] {
            told.hear(&web, Happening::Join { member: member(id) });
        }
        assert_eq!((told.members("web").count(), counted(&told)), (3, 1));
        told.hear(&web, Happening::Sync { revision: None });
        told.hear(&web, Happening::Leave { id: "b".to_owned(), revision: 5 });
        assert_eq!(counted(&told), 2);
        told.list("web".to_owned(), vec![member("y"), member("z")]);
        assert_eq!(told.members("web").map(|member| &*member.id).collect::<Vec<_>>(), ["y", "z"]);
        told.hear(&web, Happening::Join { member: member("x") });
        assert_eq!(told.members("web").map(|member| &*member.id).collect::<Vec<_>>(), ["x"]);
        told.forget(&web);
        assert_eq!((told.members("web").count(), counted(&told)), (0, 1));
    }
}
