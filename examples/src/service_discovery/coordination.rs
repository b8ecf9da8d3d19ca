//! All that the servers say to the store.

use std::time::Duration;

use tenure::{Instance, InstanceState, Member, Session};

use crate::stage::Fault;

/// The group of a run: others may use the same bucket.
pub(super) fn group(run: &str) -> String {
    format!("service_discovery.{run}")
}

/// A server in its group.
#[derive(Debug)]
pub(super) struct Registration {
    session: Session,
    member: Member,
}

impl Registration {
    /// Joins the group of `run` as `name`.
    pub(super) async fn join(store: &str, run: &str, name: &str, lease: Duration, address: String) -> Result<Self, Fault> {
        let session = Session::builder(tenure_kv::open(store).await?).lease(lease).label(name).open().await?;
        let member = session.group(&group(run))?.join(name, Instance::at(address)).await?;
        Ok(Self { session, member })
    }

    /// Tells everybody to send nothing new.
    pub(super) async fn drain(&self) -> Result<(), Fault> {
        self.member.set_state(InstanceState::Draining).await?;
        Ok(())
    }

    /// Leaves the group.
    pub(super) async fn leave(self) -> Result<(), Fault> {
        self.member.leave().await?;
        self.session.close().await?;
        Ok(())
    }

    /// Resolves when this is no longer a member, and says why.
    pub(super) async fn lost(&self) -> String {
        self.member.lost().await.to_string()
    }
}
