//! An election straight in a store, by a session of this process.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::StreamExt;
use tenure::{Candidate, Election, Error, Leadership, Loss, OnLoss, Session};
use tenure_kv::Store;
use tokio::sync::watch;

use super::{Campaign, observe::Sight};
use crate::{
    command::{
        exit::Failure,
        keep::{
            Patience, Person, Refused, Seen, Source, challenger,
            store::{self, Grip, StoreHeld, failure},
        },
    },
    protocol::LeaderView,
};

/// A campaign in one store.
#[derive(Debug)]
pub(super) struct StoreSource<'a> {
    store: Arc<dyn Store>,
    session: Session,
    campaign: &'a Campaign,
}

/// Opens the store and a session in it.
pub(super) async fn open<'a>(url: &str, campaign: &'a Campaign) -> Result<StoreSource<'a>, Failure> {
    let store = store::open(url, "nobody else campaigns").await?;
    let session = store::session(&store, campaign.lease, &campaign.label).await?;
    Ok(StoreSource { store, session, campaign })
}

impl StoreSource<'_> {
    fn election(&self) -> Result<Election, Failure> {
        let election = self.session.election(&self.campaign.name).map_err(failure)?;
        // The command cannot be paused, so that a lease that might still be kept is of no use.
        Ok(election.priority(self.campaign.priority).min_tenure(self.campaign.min_tenure).on_loss(OnLoss::AtDeadline))
    }
}

impl Source for StoreSource<'_> {
    type Held = StoreHeld<Office>;

    async fn acquire(&mut self, patience: Patience) -> Result<StoreHeld<Office>, Refused> {
        loop {
            let (election, value) = (self.election()?, self.campaign.value.clone());
            let attempt = match patience {
                Patience::Once => election.try_campaign(value).await,
                Patience::Until(_) => {
                    let over = tokio::time::sleep(patience.left().unwrap_or_default());
                    election.campaign_until(value, over).await
                }
                Patience::Forever => election.campaign(value).await,
            };
            match attempt {
                Ok(leadership) => return Ok(StoreHeld::new(Office::new(leadership, self.campaign.yields))),
                Err(Error::NotAcquired { holder, .. }) => {
                    let holder = holder.map(|holder| Person::from(*holder));
                    return Err(Refused::Busy(holder.map(|holder| Seen { holder: Some(holder), waiting: 0 })));
                }
                // Stopped or cut off for longer than the lease while waiting: back to the end of the queue.
                Err(Error::Lost { .. }) => {
                    self.session = store::session(&self.store, self.campaign.lease, &self.campaign.label).await?;
                }
                Err(error) => return Err(failure(error).into()),
            }
        }
    }

    fn look(&self) -> impl AsyncFn() -> Option<Seen> + 'static {
        let election = self.election().ok();
        async move || {
            let election = election.as_ref()?;
            let holder = election.leader().await.ok()?.map(|leader| Person {
                token: leader.term.get(),
                label: leader.label,
                host: leader.host,
                pid: leader.pid,
                since: Some(leader.since),
            });
            Some(Seen { holder, waiting: election.candidates().await.ok()?.len() })
        }
    }

    async fn close(self) {
        store::close(&self.session).await;
    }
}

/// An office, and who is to have it next.
pub(super) struct Office {
    leadership: Leadership,
    challenger: watch::Sender<Option<Candidate>>,
    yields: bool,
}

impl Office {
    fn new(leadership: Leadership, yields: bool) -> Self {
        Self { leadership, challenger: watch::Sender::new(None), yields }
    }
}

impl Grip for Office {
    fn session(&self) -> &Session {
        self.leadership.session()
    }

    fn token(&self) -> u64 {
        self.leadership.term().get()
    }

    fn remaining(&self) -> Duration {
        self.leadership.remaining()
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = Loss>>> {
        Box::pin(self.leadership.lost())
    }

    fn asked(&self) -> Pin<Box<dyn Future<Output = String>>> {
        if !self.yields {
            return Box::pin(std::future::pending());
        }
        let (asked, challenger_is) = (self.leadership.asked_to_step_down(), self.challenger.clone());
        Box::pin(async move {
            let candidate = asked.await;
            let who = challenger(candidate.label.as_deref(), &candidate.host, candidate.pid, candidate.priority);
            challenger_is.send_replace(Some(candidate));
            who
        })
    }

    async fn release(self) -> Result<(), Error> {
        let challenger = self.challenger.borrow().clone();
        if let Some(challenger) = challenger
            && self.leadership.transfer(&challenger.id).await.is_ok()
        {
            return Ok(());
        }
        self.leadership.resign().await
    }
}

/// Looks at an election.
#[derive(Debug)]
pub(super) struct Looker {
    session: Session,
    election: Election,
}

impl Looker {
    pub(super) async fn open(url: &str, name: &str) -> Result<Self, Failure> {
        let store = store::open(url, "there is nobody to see").await?;
        let session = store::session(&store, None, "").await?;
        let election = session.election(name).map_err(failure)?;
        Ok(Self { session, election })
    }

    pub(super) async fn leader(&self) -> Result<Option<LeaderView>, Failure> {
        Ok(self.election.leader().await.map_err(failure)?.as_ref().map(LeaderView::from))
    }

    /// Tells every state, until the session is lost.
    pub(super) async fn observe(&self, mut tell: impl FnMut(Sight)) {
        let mut states = self.election.observe();
        while let Some(state) = states.next().await {
            match state {
                Ok(leader) => tell(Sight::Leader(leader.as_ref().map(LeaderView::from))),
                Err(Error::Lost { .. }) => return,
                Err(error) => tell(Sight::Gap(error.to_string())),
            }
        }
    }

    pub(super) async fn close(self) {
        store::close(&self.session).await;
    }
}
