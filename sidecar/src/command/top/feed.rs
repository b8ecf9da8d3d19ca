//! What the daemon says: lists, look by look, and between them what becomes of what is shown.

use std::{convert::Infallible, time::Duration};

use futures::FutureExt;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::streams::{self, Thing};
use crate::{
    command::{daemon::Daemon, exit::Failure, keep::Patience},
    protocol::{ElectionView, GroupView, Happening, LockView, MemberView, Status},
};

/// So many looks at the daemon there are to one at the lists, which take a look at all of the store.
const LOOKS: u32 = 4;

/// Everything there is at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) status: Status,
    pub(super) locks: Vec<LockView>,
    pub(super) elections: Vec<ElectionView>,
    pub(super) groups: Vec<GroupView>,
}

/// What is new.
#[derive(Debug)]
pub(super) enum News {
    All(Box<Snapshot>),
    Status(Box<Status>),
    /// Why there is no look.
    Away(String),
    Heard(Thing, Box<Happening>),
    /// What was heard of it may be over.
    Silence(Thing),
    /// All of a group, where nothing is heard of it.
    Members(String, Vec<MemberView>),
}

/// Tells for ever what there is, and at once what becomes of all that is `shown`.
pub(super) async fn run(
    daemon: &Daemon,
    interval: Duration,
    shown: watch::Receiver<Vec<Thing>>,
    news: mpsc::Sender<News>,
) -> Infallible {
    tokio::select! {
        never = look(daemon, interval, &news) => never,
        never = streams::run(daemon, shown, news.clone()) => never,
    }
}

/// Looks for ever; at the next daemon if this one goes.
async fn look(daemon: &Daemon, interval: Duration, news: &mpsc::Sender<News>) -> Infallible {
    let mut looks = 0;
    loop {
        let told = if looks % LOOKS == 0 {
            all(daemon).await.map(|all| News::All(Box::new(all)))
        } else {
            daemon.call("status", json!({})).await.map(|status| News::Status(Box::new(status)))
        };
        // After one that failed comes one at everything.
        looks = if told.is_ok() { looks.wrapping_add(1) } else { 0 };
        // Nobody listens any more once the command ends.
        let _ = news.send(told.unwrap_or_else(|failure| News::Away(failure.message))).await;
        if looks == 0 && daemon.client().closed().now_or_never().is_some() {
            // It never gives up, and so never fails.
            let _ = daemon.reconnect(Patience::Forever).await;
            continue;
        }
        tokio::time::sleep(interval).await;
    }
}

async fn all(daemon: &Daemon) -> Result<Snapshot, Failure> {
    let status = daemon.call("status", json!({})).await?;
    let locks = daemon.all("lock.list", json!({}), "locks").await?;
    let elections = daemon.all("election.list", json!({}), "elections").await?;
    let groups = daemon.all("member.groups", json!({}), "groups").await?;
    Ok(Snapshot { status, locks, elections, groups })
}
