//! The methods `election.*`.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use serde::Serialize;
use tenure::{Candidate, Election, Leader};
use tenure_kv::Revision;
use tokio_util::sync::CancellationToken;

use super::{
    asking::{Asking, Terms},
    connection::Connection,
    errors,
    held::{self, Held},
    leases::handle,
    observers::{Observers, States},
    pages,
    policy::Ability,
    sessions::{SessionUse, millis},
    subscriptions::Subscription,
};
use crate::protocol::{
    CandidateView, ElectionCampaign, ElectionCampaigned, ElectionCandidateList, ElectionCandidates, ElectionLeader, ElectionList,
    ElectionName, ElectionProclaim, ElectionTransfer, ElectionTransferred, ElectionView, Elections, ErrorObject, Happening, Kind,
    LeaderView, Written, value,
};

/// What elections are called that sessions run in among themselves.
const OWN: &str = "tenure/";

/// The parameter that holds a value.
const fn named(value_b64: Option<&String>) -> &'static str {
    if value_b64.is_some() { "value_b64" } else { "value" }
}

/// A checked `election.campaign`.
pub(super) struct Campaign {
    params: ElectionCampaign,
    value: Bytes,
    /// The parameter that the value came in.
    value_in: &'static str,
    asking: Asking,
}

impl Campaign {
    /// Checks what needs no store.
    pub(super) fn new(
        connection: &Connection,
        mut params: ElectionCampaign,
        cancel: CancellationToken,
    ) -> Result<Self, ErrorObject> {
        errors::check_name("name", &params.name)?;
        if params.name.starts_with(OWN) {
            // Who led there and did nothing would leave dead members in every group.
            let said = format!("election.campaign: name: what begins with {OWN} is Tenure's own; use another name");
            return Err(errors::param("name", said));
        }
        let value_in = named(params.value_b64.as_ref());
        let value = value::decode_any(params.value.take(), params.value_b64.take())?.unwrap_or_default();
        let ElectionCampaign { wait_ms, lease_ms, .. } = params;
        let terms = Terms { kind: held::Kind::Leadership, wait_ms, lease_ms, label: params.label.as_deref() };
        Ok(Self { asking: Asking::new(connection, &terms, cancel)?, params, value, value_in })
    }

    /// Campaigns, or gives up in good order, as `lock.acquire` does.
    pub(super) async fn run(self, connection: Arc<Connection>) -> Result<(ElectionCampaigned, Option<u64>), ErrorObject> {
        let session = self.asking.session(&connection).await?;
        let election = self.election(&connection, &session)?;
        let tried = if self.asking.is_try() {
            self.asking.once(election.try_campaign(self.value)).await?
        } else {
            election.campaign_until(self.value, self.asking.given_up()).await
        };
        if let Err(error @ tenure::Error::Invalid { .. }) = &tried {
            return Err(errors::of(error).with("param", self.value_in));
        }
        let candidate = tried.as_ref().map(|leadership| leadership.candidate().to_owned()).unwrap_or_default();
        let granted = self.asking.granted(&connection, tried.map(Held::Leadership), session).await?;
        let campaigned = ElectionCampaigned {
            lease: handle(granted.lease.number),
            fence: granted.lease.fence,
            candidate,
            waited_ms: granted.waited_ms,
            remaining_ms: granted.remaining_ms,
            lease_ms: granted.lease_ms,
        };
        Ok((campaigned, Some(granted.lease.number)))
    }

    fn election(&self, connection: &Connection, session: &SessionUse) -> Result<Election, ErrorObject> {
        let election = of(session, &self.params.name)?
            .with_owner(connection.daemon.host.clone(), connection.peer.pid.unwrap_or_default())
            .priority(self.params.priority.unwrap_or_default())
            .min_tenure(Duration::from_millis(self.params.min_tenure_ms.unwrap_or_default()));
        Ok(match &self.params.label {
            Some(label) => election.label(label.clone()),
            None => election,
        })
    }
}

fn of(session: &SessionUse, name: &str) -> Result<Election, ErrorObject> {
    session.session().election(name).map_err(|error| errors::naming(&error, &[("election name", "name")]))
}

/// `election.proclaim`.
pub(super) async fn proclaim(connection: Arc<Connection>, params: ElectionProclaim) -> Result<Written, ErrorObject> {
    let value_in = named(params.value_b64.as_ref());
    let value = value::decode(params.value, params.value_b64)?;
    let lease = connection.leases.find(&params.lease).held_as(held::Kind::Leadership, &params.lease)?;
    let revision = lease
        .using(|held| async move {
            let Held::Leadership(leadership) = &*held else { return Err(gone()) };
            leadership.proclaim(value).await.map_err(|error| errors::naming(&error, &[("value", value_in)]))
        })
        .await?;
    Ok(Written { revision: revision.get() })
}

/// `election.transfer`.
pub(super) async fn transfer(connection: Arc<Connection>, params: ElectionTransfer) -> Result<ElectionTransferred, ErrorObject> {
    let lease = connection.leases.find(&params.lease).held_as(held::Kind::Leadership, &params.lease)?;
    let candidate = params.candidate;
    let term = lease
        .using(|held| async move {
            let Held::Leadership(leadership) = &*held else { return Err(gone()) };
            leadership.transfer(&candidate).await.map_err(|error| match &error {
                tenure::Error::Invalid { .. } => errors::of(&error).with("param", "candidate"),
                error => errors::of(error),
            })
        })
        .await?;
    connection.leases.hand_over(lease.number);
    Ok(ElectionTransferred { fence: term.get() })
}

fn gone() -> ErrorObject {
    ErrorObject::new(Kind::NotHeld, "the lease was given up before this")
}

/// `election.leader`.
pub(super) async fn leader(
    connection: Arc<Connection>,
    ElectionName { name }: ElectionName,
) -> Result<ElectionLeader, ErrorObject> {
    errors::check_name("name", &name)?;
    let session = connection.daemon.sessions.soon().await?;
    let election = of(&session, &name)?;
    // What was read is as old as the question at most.
    let asked = Instant::now();
    let leader = election.leader().await.map_err(|error| errors::of(&error))?;
    Ok(ElectionLeader { leader: leader.as_ref().map(LeaderView::from), age_ms: millis(asked.elapsed()) })
}

/// `election.candidates`.
pub(super) async fn candidates(
    connection: Arc<Connection>,
    params: ElectionCandidateList,
) -> Result<ElectionCandidates, ErrorObject> {
    let ElectionCandidateList { name, limit, after } = params;
    errors::check_name("name", &name)?;
    let (limit, room) = (pages::limit("election.candidates", limit)?, pages::room(connection.daemon.limits.line_bytes));
    let after = after.as_deref().map(place).transpose()?;
    let session = connection.daemon.sessions.soon().await?;
    let listed = of(&session, &name)?.candidates().await.map_err(|error| errors::of(&error))?.into_iter();
    let rest = listed.filter(|candidate| after.is_none_or(|after| candidate.revision > after));
    let rest = rest.map(|listed| Listed { view: candidate(&listed), revision: listed.revision });
    let (page, next) = pages::page(rest, |listed| listed.revision.get().to_string(), limit, room);
    Ok(ElectionCandidates { candidates: page.into_iter().map(|listed| listed.view).collect(), next })
}

/// A candidate, and its place in the line: one that is gone when the next page is asked for still tells where that begins.
#[derive(Serialize)]
#[serde(transparent)]
struct Listed {
    view: CandidateView,
    #[serde(skip)]
    revision: Revision,
}

/// Where a page begins.
fn place(after: &str) -> Result<Revision, ErrorObject> {
    let said = "election.candidates: after: this is not the `next` of an answer; leave it out to begin with the first";
    after.parse().map(Revision::new).map_err(|_| errors::param("after", said))
}

/// `election.list`.
pub(super) async fn list(connection: Arc<Connection>, params: ElectionList) -> Result<Elections, ErrorObject> {
    let ElectionList { prefix, limit, after } = params;
    let (limit, room) = (pages::limit("election.list", limit)?, pages::room(connection.daemon.limits.line_bytes));
    let standings = tenure::standings(&*connection.daemon.store, prefix.as_deref().unwrap_or_default());
    let sight = connection.sight(Ability::SEE_ELECTIONS, None);
    let standings = standings.await.map_err(|error| errors::of(&error))?.into_iter();
    let seen = standings.filter(|standing| pages::is_after(&standing.name, after.as_deref()) && sight.sees(&standing.name));
    let elections = seen.map(|standing| ElectionView {
        name: standing.name,
        leader: standing.leader.as_ref().map(|leader| LeaderView { value: None, value_b64: None, ..LeaderView::from(leader) }),
        candidates: standing.candidates,
    });
    let (elections, next) = pages::page(elections, |election| election.name.clone(), limit, room);
    Ok(Elections { elections, next })
}

/// `election.observe`.
pub(super) fn observe(connection: &Connection, name: &str) -> Result<Subscription<Leaders>, ErrorObject> {
    errors::check_name("name", name)?;
    connection.subscriptions.add(follow(&connection.daemon.observers, name))
}

/// Who leads, as events.
pub(super) type Leaders = States<Option<Leader>>;

/// Who leads the election `name`, which must be a good name.
pub(super) fn follow(observers: &Observers<Option<Leader>>, name: &str) -> Leaders {
    States::follow(observers, name)
}

impl From<&Option<Leader>> for Happening {
    fn from(leader: &Option<Leader>) -> Self {
        Self::Leader { leader: leader.as_ref().map(LeaderView::from) }
    }
}

impl From<&Leader> for LeaderView {
    fn from(leader: &Leader) -> Self {
        let (value, value_b64) = value::encode(&leader.value);
        Self {
            value,
            value_b64,
            fence: leader.term.get(),
            revision: leader.revision.get(),
            session: leader.session.clone(),
            candidate: leader.candidate.clone(),
            label: leader.label.clone(),
            host: leader.host.clone(),
            pid: leader.pid,
            priority: leader.priority,
            since_ms: unix_ms(leader.since),
        }
    }
}

/// A candidate as the wire shows it.
pub(super) fn candidate(candidate: &Candidate) -> CandidateView {
    let (value, value_b64) = value::encode(&candidate.value);
    CandidateView {
        id: candidate.id.clone(),
        value,
        value_b64,
        session: candidate.session.clone(),
        label: candidate.label.clone(),
        host: candidate.host.clone(),
        pid: candidate.pid,
        priority: candidate.priority,
        since_ms: unix_ms(candidate.since),
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    millis(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
