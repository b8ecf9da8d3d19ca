//! A group as the daemon sees it.

use std::path::Path;

use super::{Listed, News};
use crate::{
    command::{
        daemon::Daemon,
        exit::Failure,
        keep::Patience,
        live::{End, subscribe},
    },
    protocol::{MemberList, MemberListed, MemberWatchParams},
};

pub(super) async fn list(path: Option<&Path>, group: &str) -> Result<Listed, Failure> {
    let daemon = Daemon::open(path).await?;
    let mut listed = Listed { members: Vec::new(), unreadable: 0 };
    let mut after = None;
    loop {
        let page: MemberListed = daemon.call("member.list", MemberList { group: group.to_owned(), after }).await?;
        listed.members.extend(page.members);
        listed.unreadable = page.unreadable;
        after = page.next;
        if after.is_none() {
            return Ok(listed);
        }
    }
}

/// Tells all; at the next daemon if this one goes.
pub(super) async fn watch<T>(path: Option<&Path>, group: &str, mut tell: impl FnMut(News)) -> Result<T, Failure> {
    let daemon = Daemon::open(path).await?;
    loop {
        let params = MemberWatchParams { group: group.to_owned() };
        match subscribe(&daemon, "member.watch", params, |what| tell(Ok(what))).await? {
            End::Gone(why) => {
                tell(Err(why));
                daemon.reconnect(Patience::Forever).await?;
            }
            End::Ended(why) => tell(Err(why)),
        }
    }
}
