//! What each method needs: one table, for every method there is.

use super::rules::{Ability, Family, Part};

/// The parameter that says what a method is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Name,
    Group,
    Key,
}

/// What a method needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: it is about the connection, or about what it holds already.
    Free,
    /// Leave for the name in that parameter.
    One(Ability, Named),
    /// Leave for some name. What is not to be seen is left out of the answer.
    Many(Ability),
}

/// What `method` needs, or `None` where there is no such method.
pub(super) fn access(method: &str) -> Option<Access> {
    let one = |family, part, named| Access::One(Ability { family, part }, named);
    Some(match method {
        "hello" | "ping" | "status" | "rpc.discover" | "cancel" | "subscription.cancel" => Access::Free,
        // A lease was granted by the rules of its time, and is its holder's until it ends.
        "lock.release" | "lock.check" | "election.proclaim" | "election.resign" | "election.transfer" | "member.update"
        | "member.beat" | "member.leave" => Access::Free,
        "lock.acquire" => one(Family::Lock, Part::Use, Named::Name),
        "lock.get" | "lock.observe" => one(Family::Lock, Part::Observe, Named::Name),
        "lock.list" => Access::Many(Ability::SEE_LOCKS),
        "lock.break" => Access::One(Ability::ADMIN, Named::Name),
        "election.list" => Access::Many(Ability::SEE_ELECTIONS),
        "election.campaign" => one(Family::Election, Part::Use, Named::Name),
        "election.leader" | "election.candidates" | "election.observe" => one(Family::Election, Part::Observe, Named::Name),
        "member.join" => one(Family::Member, Part::Use, Named::Group),
        "member.groups" => Access::Many(Ability::SEE_GROUPS),
        "member.list" | "member.watch" => one(Family::Member, Part::Observe, Named::Group),
        "kv.get" | "kv.history" => one(Family::Kv, Part::Observe, Named::Key),
        "kv.put" | "kv.create" | "kv.update" | "kv.delete" | "kv.purge" => one(Family::Kv, Part::Use, Named::Key),
        "kv.keys" | "kv.watch" => Access::Many(Ability::SEE_KEYS),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::METHODS;

    #[test]
    fn every_method_needs_something_or_is_free() {
        for method in METHODS {
            assert!(access(method).is_some(), "{method} stands in no line of the table");
        }
        assert_eq!(access("lock.steal"), None);
    }

    #[test]
    fn a_method_needs_what_its_family_is_called() {
        for method in METHODS {
            let (Some(Access::One(ability, _)) | Some(Access::Many(ability))) = access(method) else { continue };
            let family = method.split('.').next().unwrap();
            assert!(*method == "lock.break" || ability.to_string().starts_with(&format!("{family}.")), "{method}: {ability}");
        }
    }
}
