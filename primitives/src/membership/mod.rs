//! Who is there: groups of members that live by their sessions.
//!
//! A member's record is written when it joins and when it changes, never by heartbeats: those go to the
//! session's key, which nobody who follows the group reads. So a group in which nothing changes costs its
//! watchers nothing. What a crashed member leaves behind is removed once its session is proven dead.

mod check;
mod instance;
mod keeper;
mod member;
mod names;
mod options;
mod record;
mod strays;
mod watching;

use std::{collections::BTreeMap, sync::Arc};

use tenure_kv::{Key, Revision, Store, StoreExt};
use tokio::sync::{oneshot, watch};

#[cfg(feature = "fuzzing")]
pub(crate) use self::record::fuzzing;
pub use self::{
    check::Check,
    instance::{Instance, InstanceState, MAX_ADDRESS, MAX_LABEL, MAX_MEMBER_VALUE, MAX_METADATA, MAX_WEIGHT, MAX_ZONE},
    member::Member,
    names::MAX_ID,
    options::{JoinOptions, MAX_CHECKS},
    record::MemberRecord,
    watching::{MemberEvent, MemberWatch},
};
use self::{
    keeper::Keeper,
    member::{Done, Seat, Wish},
    names::{GroupName, parse_member},
    record::{Author, Written},
};
pub(crate) use self::{keeper::farewell, names::every_member, record::owner_of, strays::end_stray};
use crate::{Error, Loss, Result, Session, ids, session::Inner};

/// A group that members join, seen from one session. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tenure::{Instance, Session};
///
/// let store = tenure_kv::open("memory:").await?;
/// let session = Session::open(store).await?;
/// let web = session.group("web")?;
/// let member = web.join("w1", Instance::at("10.0.0.7:8080")).await?;
/// assert_eq!(web.members().await?.list[0].id, "w1");
/// member.update(|instance| instance.weight = 3).await?;
/// member.leave().await?;
/// session.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    session: Session,
    name: GroupName,
    /// Has the session see to it that dead members are removed.
    keep_clean: fn(&Session),
}

/// The members of a group at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// The members, by id.
    pub list: Vec<MemberRecord>,
    /// Every change of the group up to this revision is in the list. One exception: a group of more than 1,024 is read
    /// in pieces, and who leaves meanwhile may be listed still.
    pub revision: Revision,
    /// Records that were passed over because something else wrote them.
    pub unreadable: usize,
}

/// The members of the group `name`. Needs no session.
///
/// Those whose sessions have just died are among them until a janitor has proven it.
///
/// # Errors
/// [`Error::Invalid`] for a wrong name; [`Error::Unavailable`] when the store is out of reach.
///
/// # Cancel safety
/// Safe to drop.
pub async fn members(store: &dyn Store, name: &str) -> Result<Members> {
    read(store, &GroupName::new(name)?).await
}

/// How many members each group has whose name begins with `prefix` (any text, perhaps empty), by name, as of one look.
/// Needs no session.
///
/// # Errors
/// [`Error::Unavailable`] when the store is out of reach.
///
/// # Cancel safety
/// Safe to drop.
pub async fn groups(store: &dyn Store, prefix: &str) -> Result<BTreeMap<String, usize>> {
    let mut groups = BTreeMap::new();
    for entry in store.list(&every_member()?).await? {
        if let Some((group, _)) = parse_member(&entry.key).filter(|(group, _)| group.starts_with(prefix))
            && MemberRecord::read(&entry).is_some()
        {
            *groups.entry(group.to_owned()).or_default() += 1;
        }
    }
    Ok(groups)
}

/// Follows the group `name`: everybody who is there, then every change. Needs no session.
///
/// All who follow a group on one store handle share one watch.
///
/// # Errors
/// [`Error::Invalid`] for a wrong name and outside a Tokio runtime; [`Error::Unavailable`] when the store is
/// out of reach.
///
/// # Cancel safety
/// Safe to drop.
pub async fn watch(store: &Arc<dyn Store>, name: &str) -> Result<MemberWatch> {
    MemberWatch::open(store, GroupName::new(name)?.members()?).await
}

async fn read(store: &dyn Store, name: &GroupName) -> Result<Members> {
    let range = name.members()?;
    let mut members = Members { list: Vec::new(), revision: Revision::ZERO, unreadable: 0 };
    let mut from = Revision::ZERO;
    loop {
        let page = store.scan(&range, from, 1_024).await?;
        for entry in &page.entries {
            match MemberRecord::read(entry) {
                Some(record) => members.list.push(record),
                None => {
                    tracing::warn!(key = %entry.key, "this member's record cannot be read; it is passed over");
                    members.unreadable += 1;
                }
            }
        }
        members.revision = members.revision.max(page.through);
        if page.complete {
            break;
        }
        from = page.through.next();
    }
    // Pages follow revisions, so of a member that changed in between the later record comes later.
    members.list.sort_by(|a, b| a.id.cmp(&b.id).then(b.revision.cmp(&a.revision)));
    members.list.dedup_by(|later, kept| later.id == kept.id);
    Ok(members)
}

impl Group {
    pub(crate) fn new(session: &Session, name: &str, keep_clean: fn(&Session)) -> Result<Self> {
        Ok(Self { session: session.clone(), name: GroupName::new(name)?, keep_clean })
    }

    /// The group's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Joins as `id`: one token of letters, digits, `-`, `/`, `_`, `=`. The id of a member whose session is
    /// dead is taken over.
    ///
    /// # Errors
    /// [`Error::Conflict`] that says who has the id when somebody has it; [`Error::Invalid`] that names the
    /// field that is wrong; [`Error::Lost`] when the session is lost; [`Error::Unavailable`] or
    /// [`Error::Unknown`] when the store does not answer. In each case nothing is left behind.
    ///
    /// # Cancel safety
    /// Safe to drop: the session withdraws what was written.
    pub async fn join(&self, id: &str, options: impl Into<JoinOptions> + Send) -> Result<Member> {
        let options = options.into();
        options.validate()?;
        let key = self.name.member(id)?;
        let inner = self.session.inner();
        if let Some(loss) = inner.validity.lost() {
            return Err(Error::lost(loss));
        }
        inner.room().await?;
        let seat = self.seat(&key, id, &options);
        if !inner.take_seat(&key, &seat.author.nonce) {
            return Err(self.taken_here(id, key).await);
        }
        (self.keep_clean)(&self.session);
        // Dropped with this future, the handle has the session withdraw the member.
        let member = Member::new(self.session.clone(), seat.clone());
        let (answer, joined) = oneshot::channel();
        inner.spawn(Keeper::new(inner.clone(), seat.clone(), options.critical_for).run(answer));
        match joined.await {
            Ok(outcome) => outcome.map(drop)?,
            Err(_) => return Err(Error::lost(inner.validity.lost().unwrap_or(Loss::Closed))),
        }
        for (index, check) in options.checks.into_iter().enumerate() {
            spawn_check(inner, &seat, index, check);
        }
        Ok(member)
    }

    /// Another member of this very session has the id. Who that is, is a courtesy: one session may stand for many.
    async fn taken_here(&self, id: &str, key: Key) -> Error {
        let entry = self.session.store().entry(&key).await.ok().flatten();
        let owner = entry.as_ref().and_then(Written::read).filter(|written| written.session == self.session.id());
        let owner = owner.map_or_else(|| "this session itself".to_owned(), |written| written.owner());
        let message = format!("the id {id} in the group {} is taken by {owner}", self.name());
        Error::Conflict { message, key: Some(key), revision: entry.map(|entry| entry.revision) }
    }

    fn seat(&self, key: &Key, id: &str, options: &JoinOptions) -> Arc<Seat> {
        let owner = &self.session.inner().owner;
        let (host, pid) = options.owner.clone().unwrap_or_else(|| (owner.host.clone(), owner.pid));
        let wish = Wish {
            instance: options.instance.clone(),
            verdicts: options.checks.iter().map(|check| check.initial).collect(),
            version: 0,
            leave: None,
        };
        Arc::new(Seat {
            key: key.clone(),
            group: self.name().to_owned(),
            id: id.to_owned(),
            author: Author {
                session: self.session.id().to_owned(),
                nonce: ids::fresh(),
                host,
                pid,
                label: options.label.clone().or_else(|| owner.label.clone()),
            },
            wish: watch::Sender::new(wish),
            done: watch::Sender::new(Done::default()),
            beats: watch::Sender::new(()),
        })
    }

    /// Has this session see to it that what dead members left behind is removed, as one that has joined does: for
    /// whoever follows groups where nobody else may be left to do so.
    ///
    /// It becomes a candidate for janitor, of all groups, as long as the session lives; needs a Tokio runtime.
    pub fn tend(&self) {
        (self.keep_clean)(&self.session);
    }

    /// The members now; as [`members`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn members(&self) -> Result<Members> {
        read(&**self.session.store(), &self.name).await
    }

    /// Everybody who is there, then every change; as [`watch()`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store is out of reach.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn watch(&self) -> Result<MemberWatch> {
        MemberWatch::open(self.session.store(), self.name.members()?).await
    }
}

/// Runs a check until its member is over.
fn spawn_check(inner: &Arc<Inner>, seat: &Arc<Seat>, index: usize, check: Check) {
    let (clock, seat, lost) = (inner.clock.clone(), seat.clone(), inner.lost());
    let (beats, mut done) = (seat.beats.subscribe(), seat.done.subscribe());
    inner.spawn(async move {
        let tell = |state| {
            seat.wish.send_modify(|wish| {
                if let Some(verdict) = wish.verdicts.get_mut(index) {
                    *verdict = state;
                }
            });
        };
        tokio::select! {
            _ = lost => {}
            _ = done.wait_for(|done| done.ended.is_some()) => {}
            () = check::run(check, clock, beats, tell) => {}
        }
    });
}
