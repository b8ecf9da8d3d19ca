//! All that the servers and their client say about the group: with Tenure's Rust API where each process opens the
//! store, over the socket where the daemon has it.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use tenure::{Instance, InstanceState, Member, MemberEvent, Session, discovery::Balancer, membership};
use tenure_kv::Store;
use tenure_sidecar::{
    Client, Notices,
    protocol::{Done, LeaseRef, MemberJoin, MemberJoined, MemberUpdate, MemberWatchParams, Written},
};

use crate::stage::{Fault, Way, socket};

/// The group of a run: others may use the same bucket.
fn group(run: &str) -> String {
    format!("service_discovery.{run}")
}

/// A server in its group.
#[derive(Debug)]
pub(super) enum Registration {
    Direct { session: Session, member: Member },
    Socket { client: Client, notices: Notices, lease: String },
}

impl Registration {
    /// Joins the group of `run` as `name`.
    pub(super) async fn join(way: &Way, run: &str, name: &str, lease: Duration, address: String) -> Result<Self, Fault> {
        match way {
            Way::Direct { store } => {
                let session = Session::builder(tenure_kv::open(store).await?).lease(lease).label(name).open().await?;
                let member = session.group(&group(run))?.join(name, Instance::at(address)).await?;
                Ok(Self::Direct { session, member })
            }
            Way::Daemon { socket, .. } => {
                let client = socket::connect(socket, lease).await?;
                let notices = client.notices();
                let params = MemberJoin {
                    group: group(run),
                    id: Some(name.to_owned()),
                    address: Some(address),
                    lease_ms: Some(socket::millis(lease)),
                    label: Some(name.to_owned()),
                    ..MemberJoin::default()
                };
                let joined: MemberJoined = client.call_as("member.join", params).await?;
                Ok(Self::Socket { client, notices, lease: joined.lease })
            }
        }
    }

    /// Tells everybody to send nothing new.
    pub(super) async fn drain(&self) -> Result<(), Fault> {
        match self {
            Self::Direct { member, .. } => drop(member.set_state(InstanceState::Draining).await?),
            Self::Socket { client, lease, .. } => {
                let state = Some(InstanceState::Draining);
                let params = MemberUpdate { lease: lease.clone(), state, ..MemberUpdate::default() };
                client.call_as::<Written>("member.update", params).await?;
            }
        }
        Ok(())
    }

    /// Leaves the group.
    pub(super) async fn leave(self) -> Result<(), Fault> {
        match self {
            Self::Direct { session, member } => {
                member.leave().await?;
                session.close().await?;
            }
            Self::Socket { client, lease, .. } => drop(client.call_as::<Done>("member.leave", LeaseRef { lease }).await?),
        }
        Ok(())
    }

    /// Resolves when this is no longer a member, and says why.
    pub(super) async fn lost(&mut self) -> String {
        match self {
            Self::Direct { member, .. } => member.lost().await.to_string(),
            Self::Socket { notices, lease, .. } => socket::lost(notices, lease).await,
        }
    }
}

/// The group, as its client sees it.
#[derive(Debug)]
pub(super) struct Group {
    name: String,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Direct(Arc<dyn Store>),
    Socket(Client),
}

impl Group {
    /// The group of `run`.
    pub(super) async fn open(way: &Way, run: &str) -> Result<Self, Fault> {
        let source = match way {
            Way::Direct { store } => Source::Direct(tenure_kv::open(store).await?),
            Way::Daemon { socket, .. } => Source::Socket(Client::connect(socket).await?),
        };
        Ok(Self { name: group(run), source })
    }

    /// Who is there, and then who comes, changes and goes.
    pub(super) async fn watch(&self) -> Result<BoxStream<'static, tenure::Result<MemberEvent>>, Fault> {
        Ok(match &self.source {
            Source::Direct(store) => membership::watch(store, &self.name).await?.into_stream().boxed(),
            Source::Socket(client) => {
                let params = MemberWatchParams { group: self.name.clone() };
                client.subscribe("member.watch", params).await?.into_members().boxed()
            }
        })
    }

    /// Chooses a server for each request.
    pub(super) async fn balancer(&self) -> Result<Balancer, Fault> {
        Ok(Balancer::builder().follow_events(&self.name, self.watch().await?).await?)
    }

    /// Who removes those that crash.
    pub(super) const fn remover(&self) -> &'static str {
        match self.source {
            Source::Direct(_) => "a janitor, once its lease was over",
            Source::Socket(_) => "the daemon, which saw its connection end",
        }
    }
}
