//! Who may do what: the rules of the policy file, read again on HUP.

mod access;
mod file;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use nix::unistd::{Group, User};
use serde::Deserialize;

pub(super) use self::rules::{Ability, Who};
use self::{
    access::{Access, Named, access},
    file::Directory,
    rules::{Object, Policy, Verdict},
};
use super::{members, toml_file::TomlFile};
use crate::protocol::{ErrorObject, Kind, METHODS, PolicyStatus, frame::Request};

/// The rules in force.
#[derive(Debug)]
pub(super) struct Policies {
    /// Absent where everybody may everything but administer.
    path: Option<PathBuf>,
    /// The user who runs the daemon.
    own: u32,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    policy: Arc<Policy>,
    /// Why what the file says now is not in force.
    problem: Option<String>,
}

/// What a method is about, whatever else its parameters say.
#[derive(Debug, Deserialize)]
struct About {
    name: Option<String>,
    group: Option<String>,
    key: Option<String>,
    bucket: Option<String>,
    /// Of a write that is fenced by a hold of whichever connection.
    lock: Option<String>,
    election: Option<String>,
    /// Of a member.
    #[serde(default)]
    checks: Vec<Checked>,
}

/// A check of a member.
#[derive(Debug, Deserialize)]
struct Checked {
    check: String,
}

/// Sees what one peer may see, by the rules of the moment it was made.
#[derive(Clone, Debug)]
pub(super) struct Sight(Option<Seer>);

#[derive(Clone, Debug)]
struct Seer {
    policy: Arc<Policy>,
    who: Who,
    ability: Ability,
    bucket: Option<String>,
}

impl Sight {
    /// Whether the peer may know of this name.
    pub(super) fn sees(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|seer| {
            let object = Object { ability: seer.ability, bucket: seer.bucket.as_deref(), name };
            seer.policy.judge(&seer.who, object) == Verdict::Allowed
        })
    }
}

impl Policies {
    /// The rules in `path`, if there is one. Looks users and groups up, which may take time.
    ///
    /// # Errors
    /// When the file is not right, with its line.
    pub(super) fn load(path: Option<&Path>, own: u32) -> Result<Self, String> {
        let policy = path.map(load).transpose()?.unwrap_or_default();
        let current = Current { policy: Arc::new(policy), problem: None };
        Ok(Self { path: path.map(Path::to_owned), own, current: RwLock::new(current) })
    }

    /// Reads the file again. One that is not right changes nothing. Blocks.
    pub(super) fn reload(&self) {
        let Some(path) = &self.path else {
            tracing::info!("asked to read the policy again, and there is none");
            return;
        };
        let loaded = load(path);
        // Nothing that runs under this lock can panic half-way through a change.
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(policy) => {
                tracing::info!(policy = %path.display(), rules = policy.rules.len(), "policy read again");
                *current = Current { policy: Arc::new(policy), problem: None };
            }
            Err(problem) => {
                tracing::error!(rules = current.policy.rules.len(), "the rules from before stay in force: {problem}");
                current.problem = Some(problem);
            }
        }
    }

    /// Whether groups matter.
    pub(super) const fn is_set(&self) -> bool {
        self.path.is_some()
    }

    fn current(&self) -> Arc<Policy> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).policy.clone()
    }

    /// How many rules there are.
    pub(super) fn rules(&self) -> usize {
        self.current().rules.len()
    }

    /// What `status` says to user `peer`.
    pub(super) fn status(&self, peer: u32) -> Option<PolicyStatus> {
        let path = self.path.as_ref()?;
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let problem = current.problem.as_ref().map(|problem| {
            // It may name others.
            if self.runs_this(peer) { problem.clone() } else { "the file is not right; the daemon's log says why".to_owned() }
        });
        Some(PolicyStatus { path: path.display().to_string(), rules: current.policy.rules.len(), problem })
    }

    const fn runs_this(&self, uid: u32) -> bool {
        uid == self.own || uid == 0
    }

    /// Refuses a request that `who` may not make.
    ///
    /// # Errors
    /// [`Kind::Denied`], or [`Kind::InvalidParams`] where it cannot be told what the request is about.
    pub(super) fn judge(&self, who: &Who, request: &Request<'_>) -> Result<(), ErrorObject> {
        let (ability, named) = match access(&request.method) {
            Some(Access::Free) => return Ok(()),
            // What there is no method for is refused as that.
            None if self.path.is_none() || !METHODS.contains(&&*request.method) => return Ok(()),
            // A method that stands in no line of the table.
            None => return Err(self.denied(who, Ability::ADMIN, None, false)),
            Some(Access::One(Ability::ADMIN, _)) if self.runs_this(who.uid) => return Ok(()),
            Some(Access::One(Ability::ADMIN, named)) => (Ability::ADMIN, Some(named)),
            Some(_) if self.path.is_none() => return Ok(()),
            Some(Access::One(ability, named)) => (ability, Some(named)),
            Some(Access::Many(ability)) => (ability, None),
        };
        let about: About = request.params()?;
        let policy = self.current();
        let bucket = about.bucket.as_deref();
        let Some(named) = named.or(about.key.is_some().then_some(Named::Key)) else {
            return if policy.allows_some(who, ability, bucket) { Ok(()) } else { Err(self.denied(who, ability, None, false)) };
        };
        let name = match named {
            Named::Name => about.name,
            Named::Group => about.group,
            Named::Key => about.key,
        };
        // The method itself refuses that it is missing.
        let Some(name) = name else { return Ok(()) };
        let judge = |ability, bucket, named, name: &str| match policy.judge(who, Object { ability, bucket, name }) {
            Verdict::Allowed => Ok(()),
            verdict => Err(self.denied(who, ability, Some((named, name)), verdict == Verdict::Denied)),
        };
        judge(ability, bucket, named, &name)?;
        if about.checks.iter().any(|checked| members::connects(&checked.check)) {
            judge(Ability::CHECK_MEMBERS, None, named, &name)?;
        }
        // It acts for the holder, and its answer tells whether there is one.
        let fences = [(about.lock, Ability::USE_LOCKS), (about.election, Ability::USE_ELECTIONS)];
        fences
            .into_iter()
            .filter_map(|(name, ability)| Some((name?, ability)))
            .try_for_each(|(name, ability)| judge(ability, None, Named::Name, &name))
    }

    /// Whether whoever asks over HTTP may see `name`.
    pub(super) fn shows_over_http(&self, ability: Ability, name: &str) -> bool {
        let object = Object { ability, bucket: None, name };
        self.path.is_none() || self.current().judge_http(object) == Verdict::Allowed
    }

    /// What `who` may see of the names that `ability` is about.
    pub(super) fn sight(&self, who: &Who, ability: Ability, bucket: Option<&str>) -> Sight {
        let seer = || Seer { policy: self.current(), who: who.clone(), ability, bucket: bucket.map(str::to_owned) };
        Sight(self.path.is_some().then(seer))
    }

    fn denied(&self, who: &Who, ability: Ability, about: Option<(Named, &str)>, by_rule: bool) -> ErrorObject {
        let uid = who.uid;
        let what = match about {
            Some((_, name)) => format!("{ability} of {:?}", name.chars().take(64).collect::<String>()),
            None => format!("{ability} of any name"),
        };
        let said = match (ability, by_rule) {
            (Ability::ADMIN, false) if self.path.is_none() => {
                format!("user {uid} may not break locks; user {}, who runs the daemon, and root may", self.own)
            }
            (_, true) => format!("user {uid} may not: a [[deny]] rule of the daemon's policy is about {what}"),
            (_, false) => {
                format!(
                    "user {uid} may not: the daemon's policy has no [[allow]] rule for this user with {what}; its administrator can add one"
                )
            }
        };
        ErrorObject::new(Kind::Denied, said).with("needs", ability.to_string())
    }
}

fn load(path: &Path) -> Result<Policy, String> {
    let file = TomlFile::read(path).map_err(|error| TomlFile::unreadable(path, &error))?;
    let user = |name: &str| match User::from_name(name) {
        Ok(user) => Ok(user.map(|user| user.uid.as_raw())),
        Err(error) => Err(format!("cannot look up the user {name:?}: {error}")),
    };
    let group = |name: &str| match Group::from_name(name) {
        Ok(group) => Ok(group.map(|group| group.gid.as_raw())),
        Err(error) => Err(format!("cannot look up the group {name:?}: {error}")),
    };
    file::parse(&file, &Directory { user: &user, group: &group })
}

/// Whether a policy file is right, for `tenured config check`.
///
/// # Errors
/// What is wrong, with its line.
pub(super) fn check(path: &Path) -> Result<usize, String> {
    load(path).map(|policy| policy.rules.len())
}

/// How many rules a text has, for [`crate::fuzzing`], on a machine whose users and groups all have the number 7.
#[cfg(feature = "fuzzing")]
pub(crate) fn of_text(text: &str) -> Result<usize, String> {
    let known = |name: &str| Ok(Some(7).filter(|_| !name.starts_with('x')));
    let file = TomlFile { path: "policy.toml".into(), text: text.to_owned() };
    file::parse(&file, &Directory { user: &known, group: &known }).map(|policy| policy.rules.len())
}
