//! All that the workers say to the store.

use std::{future::Future, sync::Arc, time::Duration};

use tenure::{Error, Leadership, Session, data_key};
use tenure_kv::{Key, Op, Revision, StoreExt, Ttl};

use super::options::Options;
use crate::stage::Fault;

/// How long the store keeps the last round of a run.
const KEPT: Duration = Duration::from_secs(3_600);

/// A worker's place in the election.
#[derive(Clone, Debug)]
pub(super) struct Candidacy {
    session: Session,
    election: String,
    name: String,
    last: Key,
}

/// An office, and the last round that was claimed.
#[derive(Debug)]
pub(super) struct Office {
    leadership: Arc<Leadership>,
    session: Session,
    last: Key,
    claimed: Option<(u64, Revision)>,
}

impl Candidacy {
    /// Opens a session for the election of `run`.
    pub(super) async fn open(options: &Options, run: &str, name: &str) -> Result<Self, Fault> {
        let store = tenure_kv::open(&options.store).await?;
        let session = Session::builder(store).lease(options.lease).label(name).open().await?;
        let election = format!("singleton_job.{run}");
        Ok(Self { last: data_key(&format!("{election}.last"))?, session, election, name: name.to_owned() })
    }

    /// Campaigns, does `work` while elected, and again, until it succeeds.
    pub(super) async fn lead<W: Future<Output = Result<(), Fault>>>(&self, work: impl Fn(Office) -> W) -> Result<(), Fault> {
        let election = self.session.election(&self.election)?;
        let office = |leadership| Office { leadership, session: self.session.clone(), last: self.last.clone(), claimed: None };
        Ok(election.run_while_leader(self.name.clone(), |leadership| work(office(leadership))).await?)
    }

    /// Gives everything up.
    pub(super) async fn close(&self) -> Result<(), Fault> {
        Ok(self.session.close().await?)
    }
}

impl Office {
    /// Grows from leader to leader.
    pub(super) fn term(&self) -> u64 {
        self.leadership.term().get()
    }

    /// The last round that anybody claimed.
    pub(super) async fn last(&mut self) -> Result<Option<u64>, Fault> {
        self.claimed = match self.session.store().get(&self.last).await? {
            Some((value, revision)) => Some((std::str::from_utf8(&value)?.parse()?, revision)),
            None => None,
        };
        Ok(self.claimed.map(|(round, _)| round))
    }

    /// Claims `round`, the one after the last. False when somebody else has; the store itself refuses the claim of
    /// who leads no longer.
    pub(super) async fn claim(&mut self, round: u64) -> Result<bool, Fault> {
        let put = Op::put(self.last.clone(), round.to_string()).ttl(Ttl::at_least(KEPT));
        let put = match self.claimed {
            Some((_, revision)) => put.if_at(revision),
            None => put.if_absent(),
        };
        match self.leadership.commit(put.into()).await {
            Ok(revision) => {
                self.claimed = Some((round, revision));
                Ok(true)
            }
            Err(Error::Conflict { .. }) => Ok(false),
            // An unanswered claim is given up: better a round that does not run than one that runs twice.
            Err(error) => Err(error.into()),
        }
    }
}
