//! All that the candidates say to the store: with Tenure's Rust API where each opens it, over the socket where the
//! daemon has it.

use std::time::Duration;

use tenure::{Error, Leadership, Session, data_key};
use tenure_kv::{Op, Ttl};
use tenure_sidecar::{
    Client,
    protocol::{ElectionCampaign, ElectionCampaigned, Kind, KvPut, Written},
};

use super::options::{Options, Sabotage};
use crate::stage::{Fault, Way, socket};

/// How long the store keeps what a run leaves in it.
const KEPT: Duration = Duration::from_secs(3_600);

/// A candidate's place in the election.
#[derive(Debug)]
pub(super) struct Candidacy {
    election: String,
    name: String,
    lease: Duration,
    fenced: bool,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Direct(Session),
    Socket(Client),
}

/// An office won.
#[derive(Debug)]
pub(super) enum Office {
    Direct(Leadership),
    Socket { lease: String, term: u64 },
}

impl Office {
    /// Grows from leader to leader.
    pub(super) fn term(&self) -> u64 {
        match self {
            Self::Direct(leadership) => leadership.term().get(),
            Self::Socket { term, .. } => *term,
        }
    }
}

/// What became of a write.
#[derive(Debug)]
pub(super) enum Put {
    /// It stands at this revision.
    Stored(u64),
    /// This is no longer the leader; why.
    Refused(String),
    /// The store was out of reach, and it may have been stored.
    Unknown,
}

impl Candidacy {
    /// Gets ready for the election of `run`.
    pub(super) async fn open(options: &Options, run: &str, name: &str) -> Result<Self, Fault> {
        let link = match options.setting.way() {
            Way::Direct { store } => {
                let store = tenure_kv::open(&store).await?;
                Link::Direct(Session::builder(store).lease(options.lease).label(name).open().await?)
            }
            Way::Daemon { socket, .. } => Link::Socket(socket::connect(&socket, options.lease).await?),
        };
        let fenced = options.sabotage != Some(Sabotage::NoFence);
        let election = format!("leader_failover.{run}");
        Ok(Self { election, name: name.to_owned(), lease: options.lease, fenced, link })
    }

    /// Campaigns until elected.
    pub(super) async fn campaign(&mut self) -> Result<Office, Fault> {
        match &mut self.link {
            Link::Direct(session) => loop {
                match session.election(&self.election)?.campaign(self.name.clone()).await {
                    Ok(leadership) => return Ok(Office::Direct(leadership)),
                    // It was stopped for longer than the lease, and others have seen to its session.
                    Err(Error::Lost { .. }) => {
                        let builder = Session::builder(session.store().clone()).lease(self.lease);
                        *session = builder.label(&self.name).open().await?;
                    }
                    Err(error) => return Err(error.into()),
                }
            },
            Link::Socket(client) => loop {
                let campaign = ElectionCampaign {
                    name: self.election.clone(),
                    value: Some(self.name.clone()),
                    lease_ms: Some(socket::millis(self.lease)),
                    label: Some(self.name.clone()),
                    ..ElectionCampaign::default()
                };
                match client.call_as("election.campaign", campaign).await {
                    Ok(ElectionCampaigned { lease, fence: term, .. }) => return Ok(Office::Socket { lease, term }),
                    // It was stopped for longer than it may be silent.
                    Err(error) if error.kind() == Some(Kind::Lost) => {}
                    Err(error) => return Err(error.into()),
                }
            },
        }
    }

    /// Writes as the leader that `office` says this is, without asking anybody whether it still is.
    pub(super) async fn write(&self, office: &Office, value: String) -> Result<Put, Fault> {
        let key = format!("{}.leader", self.election);
        match (&self.link, office) {
            (Link::Direct(session), Office::Direct(leadership)) => {
                let put = Op::put(data_key(&key)?, value).ttl(Ttl::at_least(KEPT));
                let written = if self.fenced {
                    leadership.commit(put.into()).await
                } else {
                    session.store().commit(put.into()).await.map_err(Error::from)
                };
                match written {
                    Ok(revision) => Ok(Put::Stored(revision.get())),
                    Err(error @ (Error::Lost { .. } | Error::Conflict { .. })) => Ok(Put::Refused(error.to_string())),
                    Err(Error::Unavailable { .. } | Error::Unknown { .. }) => Ok(Put::Unknown),
                    Err(error) => Err(error.into()),
                }
            }
            (Link::Socket(client), Office::Socket { lease, .. }) => {
                let params = KvPut {
                    key,
                    value: Some(value),
                    ttl_ms: Some(socket::millis(KEPT)),
                    fence_lease: self.fenced.then(|| lease.clone()),
                    ..KvPut::default()
                };
                match client.call_as::<Written>("kv.put", params).await {
                    Ok(Written { revision }) => Ok(Put::Stored(revision)),
                    Err(error) => match error.kind() {
                        Some(Kind::Lost | Kind::NotHeld | Kind::Conflict) => Ok(Put::Refused(error.to_string())),
                        Some(Kind::Unavailable | Kind::UnknownOutcome) => Ok(Put::Unknown),
                        _ => Err(error.into()),
                    },
                }
            }
            _ => Err("an office of another kind".into()),
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
