//! An election held through the daemon.

use std::{path::Path, time::Duration};

use super::{Campaign, observe::Sight};
use crate::{
    Client,
    command::{
        daemon::{Daemon, millis},
        exit::Failure,
        keep::{LeasedHeld, Patience, Person, Refused, Seen, Source, Ways},
        live::{End, subscribe},
    },
    protocol::{
        ElectionCampaign, ElectionCandidateList, ElectionCandidates, ElectionLeader, ElectionName, Happening, LeaderView,
    },
};

/// A campaign through one daemon.
#[derive(Debug)]
pub(super) struct SocketSource<'a> {
    daemon: Daemon,
    campaign: &'a Campaign,
}

/// Connects for the campaign.
pub(super) async fn open<'a>(path: Option<&Path>, campaign: &'a Campaign) -> Result<SocketSource<'a>, Failure> {
    Ok(SocketSource { daemon: Daemon::open(path).await?, campaign })
}

impl From<LeaderView> for Person {
    fn from(leader: LeaderView) -> Self {
        let since = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(leader.since_ms));
        Self { token: leader.fence, label: leader.label, host: leader.host, pid: leader.pid, since }
    }
}

async fn look(client: &Client, name: &str) -> Option<Seen> {
    let told: ElectionLeader = client.call_as("election.leader", ElectionName { name: name.to_owned() }).await.ok()?;
    let mut waiting = 0;
    let mut asked = ElectionCandidateList { name: name.to_owned(), ..ElectionCandidateList::default() };
    loop {
        let page: ElectionCandidates = client.call_as("election.candidates", &asked).await.ok()?;
        waiting += page.candidates.len();
        asked.after = page.next;
        if asked.after.is_none() {
            return Some(Seen { holder: told.leader.map(Person::from), waiting });
        }
    }
}

impl Source for SocketSource<'_> {
    type Held = LeasedHeld;

    async fn acquire(&mut self, patience: Patience) -> Result<LeasedHeld, Refused> {
        let ways = Ways { release: "election.resign", yields: self.campaign.yields };
        let Campaign { name, value, priority, min_tenure, lease, label, .. } = self.campaign;
        let params = |left: Option<Duration>| {
            serde_json::json!(ElectionCampaign {
                name: name.clone(),
                value: Some(value.clone()).filter(|value| !value.is_empty()),
                value_b64: None,
                wait_ms: left.map(millis),
                lease_ms: lease.map(millis),
                label: Some(label.clone()).filter(|label| !label.is_empty()),
                priority: Some(*priority).filter(|priority| *priority != 0),
                min_tenure_ms: Some(millis(*min_tenure)).filter(|time| *time > 0),
            })
        };
        let granted = self.daemon.ask("election.campaign", params, patience, name).await?;
        Ok(LeasedHeld::new(&self.daemon, ways, granted).await?)
    }

    fn look(&self) -> impl AsyncFn() -> Option<Seen> + 'static {
        let (clients, name) = (self.daemon.clients(), self.campaign.name.clone());
        async move || {
            let client = clients.borrow().clone();
            look(&client, &name).await
        }
    }

    async fn close(self) {}
}

/// Looks at an election.
#[derive(Debug)]
pub(super) struct Looker {
    daemon: Daemon,
    name: String,
}

impl Looker {
    pub(super) async fn open(path: Option<&Path>, name: &str) -> Result<Self, Failure> {
        Ok(Self { daemon: Daemon::open(path).await?, name: name.to_owned() })
    }

    pub(super) async fn leader(&self) -> Result<Option<LeaderView>, Failure> {
        let told: ElectionLeader = self.daemon.call("election.leader", ElectionName { name: self.name.clone() }).await?;
        Ok(told.leader)
    }

    /// Tells every state; at the next daemon if this one goes.
    pub(super) async fn observe(&self, mut tell: impl FnMut(Sight)) -> Result<(), Failure> {
        loop {
            let params = ElectionName { name: self.name.clone() };
            let end = subscribe(&self.daemon, "election.observe", params, |what| match what {
                Happening::Leader { leader } => tell(Sight::Leader(leader)),
                Happening::Gap {} => tell(Sight::Gap("the store is out of reach".to_owned())),
                _ => {}
            })
            .await?;
            match end {
                End::Gone(why) => {
                    tell(Sight::Gap(why));
                    self.daemon.reconnect(Patience::Forever).await?;
                }
                End::Ended(why) => tell(Sight::Gap(why)),
            }
        }
    }
}
