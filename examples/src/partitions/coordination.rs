//! All that the workers say about the group and its partitions: with Tenure's Rust API where each opens the store, over
//! the socket where the daemon has it.

mod runner;

use std::time::Duration;

use tenure::{
    Guard, Instance, InstanceState, Member, Session,
    partitions::{PartitionEvent, Partitions},
};

use self::runner::{Hold, Runner};
use super::options::{Options, Sabotage};
use crate::stage::{Fault, Way};

/// How long a partition that should move may still be held.
const GRACE: Duration = Duration::from_secs(10);
/// The same where workers do not let go.
const SHORT: Duration = Duration::from_millis(100);

/// The group of a run: others may use the same bucket.
fn group(run: &str) -> String {
    format!("partitions.{run}")
}

/// A worker's place in the group.
#[derive(Debug)]
pub(super) enum Place {
    Direct { session: Session, member: Member, partitions: Partitions },
    Socket(Runner),
}

/// What happens to the partitions of a worker.
#[derive(Debug)]
pub(super) enum Turn {
    /// It owns this one for as long as it keeps and has the hold.
    Gained { partition: u32, hold: Owned },
    /// Somebody else should have this one, and waits until the hold is let go of.
    Losing { partition: u32 },
}

/// A partition owned. Dropped, it moves on.
#[derive(Debug)]
pub(super) enum Owned {
    Direct(Guard),
    Socket(Hold),
}

impl Place {
    /// Joins the group of `run` as `name`, and begins to own what is assigned.
    pub(super) async fn join(options: &Options, run: &str, name: &str) -> Result<Self, Fault> {
        let grace = if options.sabotage == Some(Sabotage::Keep) { SHORT } else { GRACE };
        match options.setting.way() {
            Way::Direct { store } => {
                let store = tenure_kv::open(&store).await?;
                let session = Session::builder(store).lease(options.lease).label(name).open().await?;
                let member = session.group(&group(run))?.join(name, Instance::new()).await?;
                let partitions = Partitions::builder(&member, options.partitions).grace(grace).start().await?;
                Ok(Self::Direct { session, member, partitions })
            }
            Way::Daemon { socket, .. } => {
                Ok(Self::Socket(Runner::join(&socket, &group(run), name, options.partitions, options.lease, grace).await?))
            }
        }
    }

    /// What happens next; `None` when nothing more will.
    pub(super) async fn next(&mut self) -> Option<Turn> {
        match self {
            Self::Direct { partitions, .. } => Some(match partitions.next().await? {
                PartitionEvent::Gained { partition, guard } => Turn::Gained { partition, hold: Owned::Direct(guard) },
                PartitionEvent::Losing { partition } => Turn::Losing { partition },
            }),
            Self::Socket(runner) => runner.next().await,
        }
    }

    /// Has everything move to others.
    pub(super) async fn drain(&self) -> Result<(), Fault> {
        match self {
            Self::Direct { member, partitions, .. } => {
                member.set_state(InstanceState::Draining).await?;
                partitions.stop();
                Ok(())
            }
            Self::Socket(runner) => runner.drain().await,
        }
    }

    /// Leaves the group.
    pub(super) async fn leave(self) -> Result<(), Fault> {
        match self {
            Self::Direct { session, member, partitions } => {
                drop(partitions);
                member.leave().await?;
                session.close().await?;
                Ok(())
            }
            Self::Socket(runner) => runner.leave().await,
        }
    }
}

impl Owned {
    /// Grows from owner to owner of a partition.
    pub(super) fn token(&self) -> u64 {
        match self {
            Self::Direct(guard) => guard.token().get(),
            Self::Socket(hold) => hold.token(),
        }
    }

    /// Whether nobody else can own the partition at this moment.
    pub(super) fn is_held(&self) -> bool {
        match self {
            Self::Direct(guard) => guard.is_held(),
            Self::Socket(hold) => hold.is_held(),
        }
    }

    /// Lets the partition move on.
    pub(super) async fn release(self) {
        match self {
            // A loss in the last moment was in time.
            Self::Direct(guard) => drop(guard.release().await),
            Self::Socket(hold) => drop(hold),
        }
    }
}
