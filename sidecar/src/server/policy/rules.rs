//! The rules, and what they say: pure.

use std::fmt;

/// What methods are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Lock,
    Election,
    Member,
    Kv,
    Admin,
}

/// What is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Only looked at.
    Observe,
    /// Taken or changed.
    Use,
    /// Of members: the daemon connects to where it is told to.
    Check,
}

/// What a method needs, and what a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Ability {
    pub(super) family: Family,
    pub(super) part: Part,
}

impl Ability {
    pub(super) const ADMIN: Self = Self { family: Family::Admin, part: Part::Use };
    pub(in crate::server) const SEE_LOCKS: Self = Self { family: Family::Lock, part: Part::Observe };
    pub(super) const USE_LOCKS: Self = Self { family: Family::Lock, part: Part::Use };
    pub(super) const USE_ELECTIONS: Self = Self { family: Family::Election, part: Part::Use };
    pub(in crate::server) const SEE_ELECTIONS: Self = Self { family: Family::Election, part: Part::Observe };
    pub(in crate::server) const SEE_GROUPS: Self = Self { family: Family::Member, part: Part::Observe };
    /// Not part of using a group: what is behind the daemon may be more than its clients can reach.
    pub(super) const CHECK_MEMBERS: Self = Self { family: Family::Member, part: Part::Check };
    pub(in crate::server) const SEE_KEYS: Self = Self { family: Family::Kv, part: Part::Observe };
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.family, self.part) {
            (Family::Lock, Part::Observe) => "lock.observe",
            (Family::Member, Part::Check) => "member.check",
            (Family::Lock, _) => "lock.use",
            (Family::Election, Part::Observe) => "election.observe",
            (Family::Election, _) => "election.use",
            (Family::Member, Part::Observe) => "member.observe",
            (Family::Member, Part::Use) => "member.use",
            (Family::Kv, Part::Observe) => "kv.observe",
            (Family::Kv, _) => "kv.use",
            (Family::Admin, _) => "admin",
        })
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(in crate::server) struct Who {
    pub(in crate::server) uid: u32,
    /// The primary one, and those beside it that are known.
    pub(in crate::server) gids: Vec<u32>,
    /// Whether all groups are known.
    pub(in crate::server) all_gids: bool,
}

/// For whom a rule is, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    Anyone,
    These(Vec<u32>),
}

/// Which names a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) exact: Vec<String>,
    pub(super) prefixes: Vec<String>,
}

/// In which buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Buckets {
    /// The coordination bucket.
    Own,
    Any,
    These(Vec<String>),
}

/// One rule. It applies where everything that it says is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    /// It is for whoever asks over HTTP, and for nobody else.
    pub(super) http: bool,
    pub(super) users: Option<Whom>,
    pub(super) groups: Option<Whom>,
    pub(super) abilities: Vec<Ability>,
    /// Absent for all names.
    pub(super) names: Option<Names>,
    pub(super) buckets: Buckets,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'a> {
    pub(super) ability: Ability,
    pub(super) bucket: Option<&'a str>,
    pub(super) name: &'a str,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// By a rule that denies.
    Denied,
    /// No rule allows it.
    NoRule,
}

/// All rules. Their order means nothing: what one denies is denied, what none denies and one allows is allowed, and
/// everything else is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::server) struct Policy {
    pub(super) rules: Vec<Rule>,
}

impl Policy {
    pub(super) fn judge(&self, who: &Who, object: Object<'_>) -> Verdict {
        let applies = |allow| self.rules.iter().any(|rule| rule.allow == allow && rule.applies(who, object));
        if applies(false) {
            Verdict::Denied
        } else if applies(true) {
            Verdict::Allowed
        } else {
            Verdict::NoRule
        }
    }

    /// The same for whoever asks over HTTP. What no rule denies to everybody is allowed there, until rules are about HTTP.
    pub(super) fn judge_http(&self, object: Object<'_>) -> Verdict {
        let about = |allow| self.rules.iter().filter(move |rule| rule.allow == allow && rule.covers(object));
        if about(false).any(|rule| rule.http || rule.is_for_everybody()) {
            Verdict::Denied
        } else if about(true).any(|rule| rule.http) || !self.rules.iter().any(|rule| rule.http) {
            Verdict::Allowed
        } else {
            Verdict::NoRule
        }
    }

    /// Whether a rule allows it for some name.
    pub(super) fn allows_some(&self, who: &Who, ability: Ability, bucket: Option<&str>) -> bool {
        self.rules.iter().any(|rule| rule.allow && rule.is_for(who) && rule.is_about(ability, bucket))
    }
}

impl Rule {
    fn applies(&self, who: &Who, object: Object<'_>) -> bool {
        self.is_for(who) && self.covers(object)
    }

    fn covers(&self, object: Object<'_>) -> bool {
        self.is_about(object.ability, object.bucket)
            && self.names.as_ref().is_none_or(|names| {
                names.exact.iter().any(|name| name == object.name)
                    || names.prefixes.iter().any(|prefix| object.name.starts_with(prefix.as_str()))
            })
    }

    fn is_for_everybody(&self) -> bool {
        let everybody = |whom: &Option<Whom>| matches!(whom, None | Some(Whom::Anyone));
        !self.http && everybody(&self.users) && everybody(&self.groups)
    }

    fn is_for(&self, who: &Who) -> bool {
        if self.http {
            return false;
        }
        let user = match &self.users {
            None | Some(Whom::Anyone) => true,
            Some(Whom::These(uids)) => uids.contains(&who.uid),
        };
        let group = match &self.groups {
            None | Some(Whom::Anyone) => true,
            // Whoever may be in a group that is denied something is denied it.
            Some(Whom::These(gids)) => gids.iter().any(|gid| who.gids.contains(gid)) || (!self.allow && !who.all_gids),
        };
        user && group
    }

    fn is_about(&self, ability: Ability, bucket: Option<&str>) -> bool {
        let bucket = match (&self.buckets, bucket) {
            (Buckets::Any, _) | (Buckets::Own, None) => true,
            (Buckets::These(names), Some(bucket)) => names.iter().any(|name| name == bucket),
            (Buckets::Own, Some(_)) | (Buckets::These(_), None) => false,
        };
        bucket && self.abilities.contains(&ability)
    }
}
