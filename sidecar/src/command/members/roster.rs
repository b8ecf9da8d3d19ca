//! Who has been told to be there: what makes one account of several watches. No I/O.

use std::collections::{HashMap, HashSet};

use crate::protocol::Happening;

/// One state of a member. The session tells apart what two stores have at the same revision.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sighting {
    revision: u64,
    session: String,
}

/// Who has been told to be there, and as of when.
#[derive(Debug, Default)]
pub(super) struct Roster {
    known: HashMap<String, Sighting>,
    /// Begun anew: of these it is not known yet whether they are still there.
    doubtful: HashSet<String>,
}

impl Roster {
    /// From here on everybody who is there is told again.
    pub(super) fn begin_anew(&mut self) {
        self.doubtful = self.known.keys().cloned().collect();
    }

    /// What of `what` is news.
    pub(super) fn take(&mut self, what: Happening) -> Vec<Happening> {
        match what {
            Happening::Join { member } | Happening::Update { member } => {
                let again = self.doubtful.remove(&member.id);
                let seen = || Sighting { revision: member.revision, session: member.session.clone() };
                match self.known.insert(member.id.clone(), seen()) {
                    None => vec![Happening::Join { member }],
                    Some(before) if again && before == seen() => Vec::new(),
                    Some(_) => vec![Happening::Update { member }],
                }
            }
            Happening::Leave { id, revision } => {
                self.doubtful.remove(&id);
                self.known.remove(&id).map(|_| Happening::Leave { id, revision }).into_iter().collect()
            }
            Happening::Sync { revision } => {
                let mut gone: Vec<String> = self.doubtful.drain().collect();
                gone.sort_unstable();
                let known = &mut self.known;
                let left = gone.into_iter().map(|id| {
                    let last = known.remove(&id).unwrap_or_default();
                    Happening::Leave { id, revision: revision.unwrap_or(last.revision) }
                });
                left.chain([Happening::Sync { revision }]).collect()
            }
            what => vec![what],
        }
    }
}

#[cfg(test)]
mod tests {
    use tenure::InstanceState;

    use super::*;
    use crate::protocol::MemberView;

    fn member(id: &str, revision: u64) -> MemberView {
        MemberView {
            id: id.to_owned(),
            revision,
            value: None,
            value_b64: None,
            address: None,
            zone: None,
            weight: 1,
            metadata: Default::default(),
            state: InstanceState::Passing,
            session: "s".to_owned(),
            host: "h".to_owned(),
            pid: 1,
            label: None,
        }
    }

    fn told(roster: &mut Roster, happenings: impl IntoIterator<Item = Happening>) -> Vec<String> {
        let told = happenings.into_iter().flat_map(|what| roster.take(what));
        told.map(|what| match what {
            Happening::Join { member } => format!("+{}", member.id),
            Happening::Update { member } => format!("~{}", member.id),
            Happening::Leave { id, .. } => format!("-{id}"),
            other => format!("{other:?}").split_whitespace().next().unwrap_or_default().to_owned(),
        })
        .collect()
    }

    fn join(id: &str, revision: u64) -> Happening {
        Happening::Join { member: member(id, revision) }
    }

    #[test]
    fn a_second_watch_tells_only_what_changed_since_the_first() {
        let mut roster = Roster::default();
        let sync = || Happening::Sync { revision: Some(9) };
        assert_eq!(told(&mut roster, [join("a", 1), join("b", 2), join("c", 3), sync()]), ["+a", "+b", "+c", "Sync"]);
        roster.begin_anew();
        assert_eq!(told(&mut roster, [join("a", 1), join("b", 5), join("d", 6), sync()]), ["~b", "+d", "-c", "Sync"]);
        roster.begin_anew();
        let mut other = member("a", 1);
        other.session = "another".to_owned();
        assert_eq!(told(&mut roster, [Happening::Join { member: other }, join("b", 5), join("d", 6), sync()]), ["~a", "Sync"]);
        let leave = |id: &str| Happening::Leave { id: id.to_owned(), revision: 10 };
        assert_eq!(told(&mut roster, [leave("a"), leave("a"), leave("c")]), ["-a"]);
        assert_eq!(told(&mut roster, [join("a", 11), Happening::Update { member: member("a", 12) }]), ["+a", "~a"]);
    }
}
