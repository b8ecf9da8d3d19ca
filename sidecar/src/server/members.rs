//! The methods `member.*`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tenure::{
    Check, Instance, JoinOptions, MemberEvent, MemberRecord, MemberWatch,
    membership::{self, MAX_CHECKS},
};
use tenure_kv::Store;
use tokio_util::sync::CancellationToken;

use super::{
    Daemon,
    asking::{Asking, Terms},
    connection::Connection,
    errors,
    held::{self, Held},
    leases::handle,
    pages,
    policy::Ability,
    quota::Taken,
    sessions::{Sessions, millis},
    subscriptions::{Source, Subscription},
};
use crate::protocol::{
    Done, ErrorObject, GroupView, Groups, Happening, Kind, LeaseRef, MemberCheck, MemberGroups, MemberJoin, MemberJoined,
    MemberList, MemberListed, MemberUpdate, MemberView, Written, value,
};

/// What messages call the fields of a member, and the parameters they came in.
const FIELDS: [(&str, &str); 8] = [
    ("group name", "group"),
    ("id", "id"),
    ("address", "address"),
    ("zone", "zone"),
    ("metadata", "metadata"),
    ("weight", "weight"),
    ("value", "value"),
    ("check", "checks"),
];

/// A checked `member.join`.
pub(super) struct Join {
    group: String,
    id: String,
    options: JoinOptions,
    checks: Vec<Taken>,
    asking: Asking,
}

impl Join {
    /// Checks what needs no store.
    pub(super) fn new(connection: &Connection, params: MemberJoin, cancel: CancellationToken) -> Result<Self, ErrorObject> {
        errors::check_name("group", &params.group)?;
        // One try: the store either answers or is out of reach.
        let terms =
            Terms { kind: held::Kind::Member, wait_ms: Some(0), lease_ms: params.lease_ms, label: params.label.as_deref() };
        let asking = Asking::new(connection, &terms, cancel)?;
        let mut instance = Instance::new();
        instance.address = params.address;
        instance.zone = params.zone;
        instance.weight = params.weight.unwrap_or(instance.weight);
        instance.metadata = params.metadata.unwrap_or_default();
        instance.state = params.state.unwrap_or_default();
        instance.value = value::decode_any(params.value, params.value_b64)?.unwrap_or_default();
        let mut options =
            JoinOptions::new(instance).owner(connection.daemon.host.clone(), connection.peer.pid.unwrap_or_default());
        if params.checks.len() > MAX_CHECKS {
            let said = format!("member.join: checks: {}; one member may have at most {MAX_CHECKS}", params.checks.len());
            return Err(errors::param("checks", said));
        }
        let mut checks = Vec::new();
        for check in params.checks {
            options = options.check(check_of(&check, Duration::from_millis(connection.daemon.limits.min_check_interval_ms))?);
            checks.push(connection.checks.take()?);
        }
        if let Some(limit) = params.leave_when_critical_ms {
            options = options.leave_when_critical_for(Duration::from_millis(limit));
        }
        if let Some(label) = params.label.filter(|label| !label.is_empty()) {
            options = options.label(label);
        }
        let id = params.id.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        Ok(Self { group: params.group, id, options, checks, asking })
    }

    /// Joins, or gives up in good order.
    pub(super) async fn run(self, connection: Arc<Connection>) -> Result<(MemberJoined, Option<u64>), ErrorObject> {
        let session = self.asking.session(&connection).await?;
        let group = session.session().group(&self.group).map_err(|error| errors::naming(&error, &FIELDS))?;
        let tried = self.asking.once(group.join(&self.id, self.options)).await?;
        if let Err(error @ tenure::Error::Invalid { .. }) = &tried {
            return Err(errors::naming(error, &FIELDS));
        }
        let tried = tried.map(|member| {
            let joined = member.revision();
            Held::Member(member, joined, self.checks)
        });
        let granted = self.asking.granted(&connection, tried, session).await?;
        let joined = MemberJoined {
            lease: handle(granted.lease.number),
            id: self.id,
            revision: granted.lease.fence,
            remaining_ms: granted.remaining_ms,
            lease_ms: granted.lease_ms,
        };
        Ok((joined, Some(granted.lease.number)))
    }
}

/// Whether the daemon connects to somewhere for a check.
pub(super) fn connects(check: &str) -> bool {
    !check.starts_with("heartbeat:")
}

fn check_of(params: &MemberCheck, least: Duration) -> Result<Check, ErrorObject> {
    let mut check: Check = params.check.parse().map_err(|error| errors::naming(&error, &FIELDS))?;
    if least > Check::INTERVAL && connects(&params.check) {
        check = check.interval(least);
    }
    if let Some(interval) = params.interval_ms {
        if connects(&params.check) && interval < millis(least) {
            let said = format!(
                "member.join: checks: this daemon checks no more often than every {least:?}; use interval_ms from {} on",
                millis(least)
            );
            return Err(errors::param("checks", said));
        }
        if !connects(&params.check) {
            let said = "member.join: checks: the interval of a heartbeat stands in its name; leave interval_ms out";
            return Err(errors::param("checks", said));
        }
        check = check.interval(Duration::from_millis(interval));
    }
    if let Some(timeout) = params.timeout_ms {
        check = check.timeout(Duration::from_millis(timeout));
    }
    if let Some(rise) = params.rise {
        check = check.rise(rise);
    }
    if let Some(fall) = params.fall {
        check = check.fall(fall);
    }
    if let Some(state) = params.initially {
        check = check.initially(state);
    }
    Ok(check)
}

/// `member.update`.
pub(super) async fn update(connection: Arc<Connection>, params: MemberUpdate) -> Result<Written, ErrorObject> {
    let lease = connection.leases.find(&params.lease).held_as(held::Kind::Member, &params.lease)?;
    let value = value::decode_any(params.value, params.value_b64)?;
    let change = move |instance: &mut Instance| {
        if let Some(value) = value {
            instance.value = value;
        }
        if let Some(address) = params.address {
            instance.address = address;
        }
        if let Some(zone) = params.zone {
            instance.zone = zone;
        }
        if let Some(weight) = params.weight {
            instance.weight = weight;
        }
        if let Some(metadata) = params.metadata {
            instance.metadata = metadata;
        }
        if let Some(state) = params.state {
            instance.state = state;
        }
    };
    let revision = lease
        .using(|held| async move {
            let Held::Member(member, ..) = &*held else {
                return Err(ErrorObject::new(Kind::NotHeld, "the lease was given up before this"));
            };
            let member = member.clone();
            drop(held);
            member.update(change).await.map_err(|error| errors::naming(&error, &FIELDS))
        })
        .await?;
    Ok(Written { revision: revision.get() })
}

/// `member.beat`.
pub(super) fn beat(connection: &Connection, LeaseRef { lease: handle }: &LeaseRef) -> Result<Done, ErrorObject> {
    let lease = connection.leases.find(handle).held_as(held::Kind::Member, handle)?;
    // Taken by nobody but a leave, which takes the handle first.
    if let Ok(held) = lease.held.try_read()
        && let Some(Held::Member(member, ..)) = &*held
    {
        member.beat();
    }
    Ok(Done {})
}

/// `member.groups`.
pub(super) async fn groups(connection: Arc<Connection>, params: MemberGroups) -> Result<Groups, ErrorObject> {
    let MemberGroups { prefix, limit, after } = params;
    let (limit, room) = (pages::limit("member.groups", limit)?, pages::room(connection.daemon.limits.line_bytes));
    let groups = membership::groups(&*connection.daemon.store, prefix.as_deref().unwrap_or_default()).await;
    let sight = connection.sight(Ability::SEE_GROUPS, None);
    let groups = groups.map_err(|error| errors::of(&error))?.into_iter();
    let seen = groups.filter(|(name, _)| pages::is_after(name, after.as_deref()) && sight.sees(name));
    let groups = seen.map(|(name, members)| GroupView { name, members });
    let (groups, next) = pages::page(groups, |group| group.name.clone(), limit, room);
    Ok(Groups { groups, next })
}

/// `member.list`.
pub(super) async fn list(
    connection: Arc<Connection>,
    MemberList { group, after }: MemberList,
) -> Result<MemberListed, ErrorObject> {
    errors::check_name("group", &group)?;
    let members = membership::members(&*connection.daemon.store, &group).await;
    let members = members.map_err(|error| errors::naming(&error, &FIELDS))?;
    tend(&connection.daemon.sessions, &group).await;
    let rest = members.list.iter().filter(|record| pages::is_after(&record.id, after.as_deref()));
    let room = pages::room(connection.daemon.limits.line_bytes);
    let (list, next) = pages::page(rest.map(MemberView::from), |member| member.id.clone(), usize::MAX, room);
    Ok(MemberListed { members: list, revision: members.revision.get(), unreadable: members.unreadable, next })
}

/// `member.watch`.
pub(super) fn watch(connection: &Connection, group: &str) -> Result<Subscription<Group>, ErrorObject> {
    errors::check_name("group", group)?;
    connection.subscriptions.add(follow(&connection.daemon, group))
}

/// Who is in the group `name`, which must be a good name.
pub(super) fn follow(daemon: &Daemon, name: &str) -> Group {
    Group { store: daemon.store.clone(), sessions: daemon.sessions.clone(), name: name.to_owned(), watch: None }
}

/// Has this daemon remove what dead members left behind, such as those of a daemon that crashed.
async fn tend(sessions: &Sessions, group: &str) {
    let tended = sessions.soon().await.map(|session| session.session().group(group).map(|group| group.tend()));
    if let Err(error) = tended {
        tracing::debug!(group, %error, "the group is not tended");
    }
}

/// A group, as events.
pub(super) struct Group {
    store: Arc<dyn Store>,
    sessions: Arc<Sessions>,
    name: String,
    watch: Option<MemberWatch>,
}

#[async_trait]
impl Source for Group {
    async fn next(&mut self) -> Result<Happening, String> {
        // All who watch a group through this handle of the store share one watch there.
        let reason = |error| errors::of(&error).kind().unwrap_or(Kind::Unavailable).as_str().to_owned();
        if self.watch.is_none() {
            let watch = membership::watch(&self.store, &self.name).await.map_err(reason)?;
            tend(&self.sessions, &self.name).await;
            self.watch = Some(watch);
        }
        let Some(watch) = &mut self.watch else { return Err(Kind::Internal.as_str().to_owned()) };
        watch.next().await.map(Happening::from).map_err(reason)
    }
}

impl From<MemberEvent> for Happening {
    fn from(event: MemberEvent) -> Self {
        match event {
            MemberEvent::Insert(record) => Self::Join { member: MemberView::from(&record) },
            MemberEvent::Update(record) => Self::Update { member: MemberView::from(&record) },
            MemberEvent::Remove { id, revision } => Self::Leave { id, revision: revision.get() },
            MemberEvent::CaughtUp { revision } => Self::Sync { revision: Some(revision.get()) },
            _ => Self::Gap {},
        }
    }
}

impl From<&MemberRecord> for MemberView {
    fn from(record: &MemberRecord) -> Self {
        let instance = &record.instance;
        let (value, value_b64) = value::encode(&instance.value);
        Self {
            id: record.id.clone(),
            revision: record.revision.get(),
            value,
            value_b64,
            address: instance.address.clone(),
            zone: instance.zone.clone(),
            weight: instance.weight,
            metadata: instance.metadata.clone(),
            state: instance.state,
            session: record.session.clone(),
            host: record.host.clone(),
            pid: record.pid,
            label: record.label.clone(),
        }
    }
}
