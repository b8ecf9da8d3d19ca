//! All that the workers say to the store.

use std::time::Duration;

use tenure::{
    Instance, InstanceState, Member, Session,
    partitions::{PartitionEvent, Partitions},
};

use super::options::{Options, Sabotage};
use crate::stage::Fault;

/// The group of a run: others may use the same bucket.
pub(super) fn group(run: &str) -> String {
    format!("partitions.{run}")
}

/// A worker's place in the group.
#[derive(Debug)]
pub(super) struct Place {
    session: Session,
    member: Member,
    partitions: Partitions,
}

impl Place {
    /// Joins the group of `run` as `name`, and begins to own what is assigned.
    pub(super) async fn join(options: &Options, run: &str, name: &str) -> Result<Self, Fault> {
        let store = tenure_kv::open(&options.store).await?;
        let session = Session::builder(store).lease(options.lease).label(name).open().await?;
        let member = session.group(&group(run))?.join(name, Instance::new()).await?;
        let mut builder = Partitions::builder(&member, options.partitions);
        if options.sabotage == Some(Sabotage::Keep) {
            builder = builder.grace(Duration::from_millis(100));
        }
        Ok(Self { partitions: builder.start().await?, session, member })
    }

    /// The next event; `None` when nothing more will come.
    pub(super) async fn next(&mut self) -> Option<PartitionEvent> {
        self.partitions.next().await
    }

    /// Has everything move to others.
    pub(super) async fn drain(&self) -> Result<(), Fault> {
        self.member.set_state(InstanceState::Draining).await?;
        self.partitions.stop();
        Ok(())
    }

    /// Leaves the group.
    pub(super) async fn leave(self) -> Result<(), Fault> {
        self.member.leave().await?;
        self.session.close().await?;
        Ok(())
    }
}
