//! Where states come from: subscriptions to the daemon.

use std::{collections::BTreeMap, convert::Infallible};

use tokio::sync::mpsc;

use super::{What, keys, state::State};
use crate::{
    command::{
        daemon::Daemon,
        exit::Failure,
        keep::Patience,
        live::{End, follow},
    },
    protocol::{ElectionName, Happening, KvWatch, LockGet, LockStanding, MemberView, MemberWatchParams},
};

const OUT_OF_REACH: &str = "the store is out of reach";

/// A state, or why what was told last may be over.
pub(super) type News = Result<State, String>;

/// Tells states where they are waited for: one that came before and is not taken yet holds the next one up.
#[derive(Debug)]
pub(super) struct Teller {
    news: mpsc::Sender<News>,
    /// What was told last of what has one state.
    last: Option<State>,
    /// The first state is taken note of only.
    quiet: bool,
}

impl Teller {
    pub(super) const fn new(news: mpsc::Sender<News>, quiet: bool) -> Self {
        Self { news, last: None, quiet }
    }

    /// Tells the state of what has one, unless it is the one that was told last.
    async fn state(&mut self, state: State) {
        if self.last.as_ref() == Some(&state) {
            return;
        }
        self.last = Some(state.clone());
        if !std::mem::take(&mut self.quiet) {
            self.send(Ok(state)).await;
        }
    }

    async fn send(&self, news: News) {
        // Nobody listens any more once the command ends.
        let _ = self.news.send(news).await;
    }
}

/// Follows one thing for ever.
pub(super) async fn run(daemon: &Daemon, what: What, name: String, teller: Teller) -> Result<Infallible, Failure> {
    match what {
        What::Lock => lock(daemon, &name, teller).await,
        What::Leader => leader(daemon, &name, teller).await,
        What::Members => members(daemon, &name, teller).await,
        What::Kv => of_keys(daemon, KvWatch { key: Some(name), ..KvWatch::default() }, teller).await,
    }
}

async fn lock(daemon: &Daemon, name: &str, mut teller: Teller) -> Result<Infallible, Failure> {
    loop {
        let params = LockGet { name: name.to_owned() };
        let end = follow(daemon, "lock.observe", params, async |what| match what {
            Happening::Lock(LockStanding { holder, waiters, waiting }) => {
                let event = if holder.is_some() { "held" } else { "free" };
                teller.state(State::Lock { name: name.to_owned(), event, holder, waiters, waiting }).await;
            }
            Happening::Gap {} => teller.send(Err(OUT_OF_REACH.to_owned())).await,
            _ => {}
        })
        .await?;
        again(daemon, end, &teller).await?;
    }
}

async fn leader(daemon: &Daemon, name: &str, mut teller: Teller) -> Result<Infallible, Failure> {
    loop {
        let params = ElectionName { name: name.to_owned() };
        let end = follow(daemon, "election.observe", params, async |what| match what {
            Happening::Leader { leader } => {
                let event = if leader.is_some() { "led" } else { "vacant" };
                teller.state(State::Leader { name: name.to_owned(), event, leader }).await;
            }
            Happening::Gap {} => teller.send(Err(OUT_OF_REACH.to_owned())).await,
            _ => {}
        })
        .await?;
        again(daemon, end, &teller).await?;
    }
}

async fn members(daemon: &Daemon, group: &str, mut teller: Teller) -> Result<Infallible, Failure> {
    loop {
        let mut there = BTreeMap::<String, MemberView>::new();
        let mut synced = false;
        let params = MemberWatchParams { group: group.to_owned() };
        let end = follow(daemon, "member.watch", params, async |what| {
            match what {
                Happening::Join { member } | Happening::Update { member } => {
                    there.insert(member.id.clone(), member);
                }
                Happening::Leave { id, .. } => {
                    there.remove(&id);
                }
                Happening::Sync { .. } => synced = true,
                _ => return,
            }
            if synced {
                let members = there.values().cloned().collect();
                teller.state(State::Members { name: group.to_owned(), event: "members", members }).await;
            }
        })
        .await?;
        again(daemon, end, &teller).await?;
    }
}

/// Follows keys for ever.
pub(super) async fn of_keys(daemon: &Daemon, asked: KvWatch, teller: Teller) -> Result<Infallible, Failure> {
    let asked = KvWatch { updates_only: Some(teller.quiet), ..asked };
    keys::watch(daemon, asked, async |news| {
        let (event, key, revision, value, value_b64) = match news {
            Ok(Happening::Put { key, revision, value, value_b64 }) => ("put", key, revision, value, value_b64),
            Ok(Happening::Delete { key, revision }) => ("delete", key, revision, None, None),
            Ok(Happening::Purge { key, revision }) => ("purge", key, revision, None, None),
            Ok(Happening::Expire { key, revision }) => ("expire", key, revision, None, None),
            Ok(_) => return,
            Err(why) => return teller.send(Err(why)).await,
        };
        teller.send(Ok(State::Kv { event, key, revision, value, value_b64 })).await;
    })
    .await
}

async fn again(daemon: &Daemon, end: End, teller: &Teller) -> Result<(), Failure> {
    match end {
        End::Gone(why) => {
            teller.send(Err(why)).await;
            daemon.reconnect(Patience::Forever).await
        }
        End::Ended(why) => {
            teller.send(Err(why)).await;
            Ok(())
        }
    }
}
