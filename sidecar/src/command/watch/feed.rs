//! Where states come from: subscriptions to the daemon, and looks at what has none.

use std::{collections::BTreeMap, convert::Infallible};

use tokio::sync::mpsc;

use super::{
    What, keys,
    state::{LOOK, State},
};
use crate::{
    CallError,
    command::{
        daemon::{Daemon, PATIENCE},
        exit::Failure,
        keep::Patience,
        live::{End, follow},
        refusal,
    },
    protocol::{ElectionName, Happening, Kind, KvWatch, LockGet, LockView, MemberView, MemberWatchParams},
};

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
    let mut blind = false;
    loop {
        let answer = tokio::time::timeout(PATIENCE, daemon.client().call_as("lock.get", LockGet { name: name.to_owned() })).await;
        let Ok(answer) = answer else {
            if !std::mem::replace(&mut blind, true) {
                teller.send(Err("tenured does not answer".to_owned())).await;
            }
            continue;
        };
        match answer {
            Ok(LockView { name, holder, waiters }) => {
                blind = false;
                let event = if holder.is_some() { "held" } else { "free" };
                teller.state(State::Lock { name, event, holder, waiters }).await;
            }
            Err(CallError::Closed) => {
                teller.send(Err("tenured went away; waiting for the next one".to_owned())).await;
                daemon.reconnect(Patience::Forever).await?;
            }
            Err(error) if matches!(error.kind(), Some(Kind::Unavailable | Kind::UnknownOutcome | Kind::Limit)) => {
                if !std::mem::replace(&mut blind, true) {
                    teller.send(Err(format!("tenured: {error}"))).await;
                }
            }
            Err(error) => return Err(refusal::failure("lock.get", &error)),
        }
        tokio::time::sleep(LOOK).await;
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
            Happening::Gap {} => teller.send(Err("the store is out of reach".to_owned())).await,
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
