//! A group straight from a store. Needs no session.

use std::time::Duration;

use tenure::membership;

use super::{Listed, News};
use crate::{
    command::{exit::Failure, keep::store},
    protocol::{Happening, MemberView},
};

/// The pause before a watch that ended is begun anew.
const AGAIN: Duration = Duration::from_millis(500);

const ALONE: &str = "there is nobody to see";

pub(super) async fn list(url: &str, group: &str) -> Result<Listed, Failure> {
    let store = store::open(url, ALONE).await?;
    let members = membership::members(&*store, group).await.map_err(store::failure)?;
    Ok(Listed { members: members.list.iter().map(MemberView::from).collect(), unreadable: members.unreadable })
}

/// Tells all; a watch that ends is begun anew.
pub(super) async fn watch<T>(url: &str, group: &str, mut tell: impl FnMut(News)) -> Result<T, Failure> {
    let store = store::open(url, ALONE).await?;
    let mut watch = membership::watch(&store, group).await.map_err(store::failure)?;
    loop {
        let error = loop {
            match watch.next().await {
                Ok(event) => tell(Ok(Happening::from(event))),
                Err(error) => break error,
            }
        };
        tell(Err(error.to_string()));
        watch = loop {
            tokio::time::sleep(AGAIN).await;
            if let Ok(watch) = membership::watch(&store, group).await {
                break watch;
            }
        };
    }
}
