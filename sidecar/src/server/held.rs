//! What a lease stands for: a lock, a leadership or a membership.

use std::{fmt, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tenure::{Candidate, Error, Guard, Leadership, Loss, Member};
use tenure_kv::{Batch, Revision};

use super::{errors, quota::Taken};
use crate::protocol::ErrorObject;

/// The kinds of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lock,
    Leadership,
    Member,
}

impl Kind {
    /// Every kind.
    pub(super) const ALL: [Self; 3] = [Self::Lock, Self::Leadership, Self::Member];

    /// The word for programs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Leadership => "leadership",
            Self::Member => "member",
        }
    }

    /// The method that asks for it.
    pub(super) const fn ask(self) -> &'static str {
        match self {
            Self::Lock => "lock.acquire",
            Self::Leadership => "election.campaign",
            Self::Member => "member.join",
        }
    }

    /// The method that gives it up.
    pub(super) const fn release(self) -> &'static str {
        match self {
            Self::Lock => "lock.release",
            Self::Leadership => "election.resign",
            Self::Member => "member.leave",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "a lock",
            Self::Leadership => "a leadership",
            Self::Member => "a membership",
        })
    }
}

/// Something held in the store.
#[derive(Debug)]
pub(super) enum Held {
    Lock(Guard),
    Leadership(Leadership),
    /// A member, where its record was first written, and what its checks count for.
    Member(Member, Revision, #[expect(dead_code, reason = "given back when it is dropped")] Vec<Taken>),
}

impl Held {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Lock(_) => Kind::Lock,
            Self::Leadership(_) => Kind::Leadership,
            Self::Member(..) => Kind::Member,
        }
    }

    /// The lock, the election or the group.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Lock(guard) => guard.name(),
            Self::Leadership(leadership) => leadership.name(),
            Self::Member(member, ..) => member.group(),
        }
    }

    /// Tells it from all others in its epoch.
    pub(super) fn fence(&self) -> Revision {
        match self {
            Self::Lock(guard) => guard.token(),
            Self::Leadership(leadership) => leadership.term(),
            Self::Member(_, joined, _) => *joined,
        }
    }

    /// How long it is valid if no renewal succeeds from now on.
    pub(super) fn remaining(&self) -> Duration {
        match self {
            Self::Lock(guard) => guard.remaining(),
            Self::Leadership(leadership) => leadership.remaining(),
            Self::Member(member, ..) if member.loss().is_some() => Duration::ZERO,
            Self::Member(member, ..) => member.session().remaining(),
        }
    }

    pub(super) fn is_valid(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// Resolves when it is lost.
    pub(super) fn lost(&self) -> BoxFuture<'static, Loss> {
        match self {
            Self::Lock(guard) => guard.lost().boxed(),
            Self::Leadership(leadership) => leadership.lost().boxed(),
            Self::Member(member, ..) => member.lost().boxed(),
        }
    }

    /// Resolves when somebody asks a leader to step down.
    pub(super) fn asked_to_step_down(&self) -> BoxFuture<'static, Candidate> {
        match self {
            Self::Leadership(leadership) => leadership.asked_to_step_down().boxed(),
            Self::Lock(_) | Self::Member(..) => futures::future::pending().boxed(),
        }
    }

    /// Writes `batch` only while this is held.
    pub(super) async fn commit(&self, batch: Batch) -> Result<Revision, ErrorObject> {
        let written = match self {
            Self::Lock(guard) => guard.commit(batch).await,
            Self::Leadership(leadership) => leadership.commit(batch).await,
            Self::Member(..) => {
                let said = "fence_lease: a membership fences nothing; name the lease of a lock or of a leadership";
                return Err(errors::param("fence_lease", said));
            }
        };
        written.map_err(|error| errors::of(&error))
    }

    /// Lets go.
    ///
    /// # Cancel safety
    /// Dropped, the session goes on with it.
    pub(super) async fn release(self) -> Result<(), Error> {
        match self {
            Self::Lock(guard) => guard.release().await,
            Self::Leadership(leadership) => leadership.resign().await,
            Self::Member(member, ..) => member.leave().await,
        }
    }
}

/// Gives up what is held. Where it is still there after an error, the next call goes on with the same.
pub(super) async fn give_up(held: &mut Option<Held>) -> Result<(), Error> {
    match held {
        Some(Held::Lock(guard)) => return guard.give_up().await,
        Some(Held::Member(member, ..)) => return member.leave().await,
        Some(Held::Leadership(_)) | None => {}
    }
    match held.take() {
        Some(held) => held.release().await,
        None => Ok(()),
    }
}
