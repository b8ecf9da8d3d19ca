//! All that the workers say about the election: with Tenure's Rust API where each opens the store, over the socket
//! where the daemon has it.

use std::{future::Future, sync::Arc, time::Duration};

use tenure::{Error, Leadership, Session, data_key};
use tenure_kv::{Key, Op, Revision, StoreExt, Ttl};
use tenure_sidecar::{
    Client,
    protocol::{Done, ElectionCampaign, ElectionCampaigned, Kind, KvEntry, KvGet, KvPut, LeaseRef, Written},
};

use super::options::Options;
use crate::stage::{Fault, Way, socket};

/// How long the store keeps the last round of a run.
const KEPT: Duration = Duration::from_secs(3_600);
/// How long a worker waits that has lost the office, or could not do its work in it.
const PAUSE: Duration = Duration::from_millis(100);

/// A worker's place in the election.
#[derive(Debug)]
pub(super) struct Candidacy {
    election: String,
    name: String,
    lease: Duration,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Direct(Session),
    Socket(Arc<Client>),
}

/// An office won.
#[derive(Debug)]
pub(super) enum Office {
    /// With the last round that was claimed.
    Direct {
        leadership: Arc<Leadership>,
        session: Session,
        last: Key,
        claimed: Option<(u64, Revision)>,
    },
    Socket {
        client: Arc<Client>,
        lease: String,
        term: u64,
        last: String,
    },
}

impl Candidacy {
    /// Gets ready for the election of `run`.
    pub(super) async fn open(options: &Options, run: &str, name: &str) -> Result<Self, Fault> {
        let lease = options.lease;
        let link = match options.setting.way() {
            Way::Direct { store } => {
                let store = tenure_kv::open(&store).await?;
                Link::Direct(Session::builder(store).lease(lease).label(name).open().await?)
            }
            Way::Daemon { socket, .. } => Link::Socket(Arc::new(socket::connect(&socket, lease).await?)),
        };
        Ok(Self { election: format!("singleton_job.{run}"), name: name.to_owned(), lease, link })
    }

    /// Campaigns, does `work` while elected, and again, until it succeeds.
    pub(super) async fn lead<W: Future<Output = Result<(), Fault>>>(&self, work: impl Fn(Office) -> W) -> Result<(), Fault> {
        let last = format!("{}.last", self.election);
        match &self.link {
            Link::Direct(session) => {
                let last = data_key(&last)?;
                let office = |leadership| {
                    let (session, last) = (session.clone(), last.clone());
                    work(Office::Direct { leadership, session, last, claimed: None })
                };
                Ok(session.election(&self.election)?.run_while_leader(self.name.clone(), office).await?)
            }
            Link::Socket(client) => loop {
                let mut notices = client.notices();
                let campaign = ElectionCampaign {
                    name: self.election.clone(),
                    value: Some(self.name.clone()),
                    lease_ms: Some(socket::millis(self.lease)),
                    label: Some(self.name.clone()),
                    ..ElectionCampaign::default()
                };
                let ElectionCampaigned { lease, fence: term, .. } = client.call_as("election.campaign", campaign).await?;
                let office = Office::Socket { client: client.clone(), lease: lease.clone(), term, last: last.clone() };
                let outcome = tokio::select! {
                    biased;
                    why = socket::lost(&mut notices, &lease) => Err(why.into()),
                    outcome = work(office) => outcome,
                };
                // Whatever comes of it, the office is given up, at the latest with the connection.
                let _ = client.call_as::<Done>("election.resign", LeaseRef { lease }).await;
                let Err::<(), Fault>(_) = outcome else { return Ok(()) };
                tokio::time::sleep(PAUSE).await;
            },
        }
    }

    /// Gives everything up.
    pub(super) async fn close(self) -> Result<(), Fault> {
        match self.link {
            Link::Direct(session) => session.close().await?,
            // With the connection goes what was held through it.
            Link::Socket(client) => drop(client),
        }
        Ok(())
    }
}

impl Office {
    /// Grows from leader to leader.
    pub(super) fn term(&self) -> u64 {
        match self {
            Self::Direct { leadership, .. } => leadership.term().get(),
            Self::Socket { term, .. } => *term,
        }
    }

    /// The last round that anybody claimed.
    pub(super) async fn last(&mut self) -> Result<Option<u64>, Fault> {
        match self {
            Self::Direct { session, last, claimed, .. } => {
                *claimed = match session.store().get(last).await? {
                    Some((value, revision)) => Some((std::str::from_utf8(&value)?.parse()?, revision)),
                    None => None,
                };
                Ok(claimed.map(|(round, _)| round))
            }
            Self::Socket { client, last, .. } => {
                let params = KvGet { key: last.clone(), ..KvGet::default() };
                let entry = client.call_as::<KvEntry>("kv.get", params).await?.entry;
                Ok(entry.and_then(|entry| entry.value).map(|round| round.parse()).transpose()?)
            }
        }
    }

    /// Claims `round`, the one after the last. False when this is no longer the leader: the store itself refuses the
    /// claim.
    pub(super) async fn claim(&mut self, round: u64) -> Result<bool, Fault> {
        match self {
            Self::Direct { leadership, last, claimed, .. } => {
                let put = Op::put(last.clone(), round.to_string()).ttl(Ttl::at_least(KEPT));
                // What was read may have been old; then this is refused, too.
                let put = match claimed {
                    Some((_, revision)) => put.if_at(*revision),
                    None => put.if_absent(),
                };
                match leadership.commit(put.into()).await {
                    Ok(revision) => {
                        *claimed = Some((round, revision));
                        Ok(true)
                    }
                    Err(Error::Conflict { .. }) => Ok(false),
                    // An unanswered claim is given up: better a round that does not run than one that runs twice.
                    Err(error) => Err(error.into()),
                }
            }
            Self::Socket { client, lease, last, .. } => {
                // The daemon alone has the store, so what it read when this office was won was the last.
                let params = KvPut {
                    key: last.clone(),
                    value: Some(round.to_string()),
                    ttl_ms: Some(socket::millis(KEPT)),
                    fence_lease: Some(lease.clone()),
                    ..KvPut::default()
                };
                match client.call_as::<Written>("kv.put", params).await {
                    Ok(_) => Ok(true),
                    Err(error) if matches!(error.kind(), Some(Kind::Lost | Kind::NotHeld | Kind::Conflict)) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}
