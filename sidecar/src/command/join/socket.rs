//! A member through the daemon.

use std::{path::Path, time::Duration};

use super::{Beater, Joining, Request};
use crate::{
    command::{
        daemon::{Daemon, millis},
        exit::Failure,
        keep::{Held, LeasedHeld, Patience, Refused, Seen, Source, Ways},
    },
    protocol::MemberJoin,
};

const WAYS: Ways = Ways { release: "member.leave", yields: false };

/// A group of one daemon.
#[derive(Debug)]
pub(super) struct SocketSource<'a> {
    daemon: Daemon,
    request: &'a Request,
}

/// Connects for the group.
pub(super) async fn open<'a>(path: Option<&Path>, request: &'a Request) -> Result<SocketSource<'a>, Failure> {
    Ok(SocketSource { daemon: Daemon::open(path).await?, request })
}

impl Source for SocketSource<'_> {
    type Held = LeasedHeld;

    async fn acquire(&mut self, patience: Patience) -> Result<LeasedHeld, Refused> {
        let Request { group, id, address, zone, weight, metadata, value, checks, looks, lease, label } = self.request;
        let params = |_: Option<Duration>| {
            serde_json::json!(MemberJoin {
                group: group.clone(),
                id: Some(id.clone()),
                value: value.clone(),
                lease_ms: lease.map(millis),
                address: address.clone(),
                zone: zone.clone(),
                weight: *weight,
                metadata: Some(metadata.clone()).filter(|metadata| !metadata.is_empty()),
                checks: checks.iter().map(|spec| looks.wire(spec)).collect(),
                label: Some(label.clone()).filter(|label| !label.is_empty()),
                ..MemberJoin::default()
            })
        };
        let granted = self.daemon.ask("member.join", params, patience, group).await?;
        Ok(LeasedHeld::new(&self.daemon, WAYS, granted).await?)
    }

    fn look(&self) -> impl AsyncFn() -> Option<Seen> + 'static {
        async || None
    }

    async fn close(self) {}
}

impl Joining for LeasedHeld {
    fn beater(&self) -> Beater {
        Beater::Lease(self.client(), self.lease_id().to_owned())
    }
}
