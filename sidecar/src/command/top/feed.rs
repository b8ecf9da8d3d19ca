//! What the daemon says, look by look; at the next daemon if this one goes.

use std::{convert::Infallible, time::Duration};

use futures::FutureExt;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::{
    command::{daemon::Daemon, exit::Failure, keep::Patience},
    protocol::{ElectionView, GroupView, LockView, MemberView, Status},
};

/// Everything there is at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) status: Status,
    pub(super) locks: Vec<LockView>,
    pub(super) elections: Vec<ElectionView>,
    pub(super) groups: Vec<GroupView>,
    /// The members of the group that is chosen, as far as one answer has them.
    pub(super) members: Vec<MemberView>,
}

/// A snapshot, or why there is none.
pub(super) type Look = Result<Box<Snapshot>, String>;

/// Looks for ever.
pub(super) async fn run(
    daemon: &Daemon,
    interval: Duration,
    mut group: watch::Receiver<Option<String>>,
    news: mpsc::Sender<Look>,
) -> Infallible {
    loop {
        let chosen = group.borrow_and_update().clone();
        let look = look(daemon, chosen).await.map(Box::new).map_err(|failure| failure.message);
        let failed = look.is_err();
        // Nobody listens any more once the command ends.
        let _ = news.send(look).await;
        if failed && daemon.client().closed().now_or_never().is_some() {
            // It never gives up, and so never fails.
            let _ = daemon.reconnect(Patience::Forever).await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            Ok(()) = group.changed() => {}
        }
    }
}

async fn look(daemon: &Daemon, group: Option<String>) -> Result<Snapshot, Failure> {
    let status = daemon.call("status", json!({})).await?;
    let locks = daemon.all("lock.list", json!({}), "locks").await?;
    let elections = daemon.all("election.list", json!({}), "elections").await?;
    let groups = daemon.all("member.groups", json!({}), "groups").await?;
    let members = match group {
        Some(group) => daemon.all("member.list", json!({ "group": group }), "members").await?,
        None => Vec::new(),
    };
    Ok(Snapshot { status, locks, elections, groups, members })
}
