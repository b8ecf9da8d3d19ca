//! A lock kept by the daemon, for as long as this process keeps its connection.

use std::{path::Path, time::Duration};

use super::Request;
use crate::{
    Client,
    command::{
        daemon::{Daemon, millis},
        exit::Failure,
        keep::{LeasedHeld, Patience, Person, Refused, Seen, Source, Ways},
    },
    protocol::{LockAcquire, LockGet, LockView},
};

const WAYS: Ways = Ways { release: "lock.release", yields: false };

/// A lock of one daemon.
#[derive(Debug)]
pub(super) struct SocketSource<'a> {
    daemon: Daemon,
    request: &'a Request,
}

/// Connects for the lock.
pub(super) async fn open<'a>(path: Option<&Path>, request: &'a Request) -> Result<SocketSource<'a>, Failure> {
    Ok(SocketSource { daemon: Daemon::open(path).await?, request })
}

async fn look(client: &Client, name: &str) -> Option<Seen> {
    let view: LockView = client.call_as("lock.get", LockGet { name: name.to_owned() }).await.ok()?;
    let waiting = view.waiting();
    Some(Seen { holder: view.holder.map(Person::from), waiting })
}

impl Source for SocketSource<'_> {
    type Held = LeasedHeld;

    async fn acquire(&mut self, patience: Patience) -> Result<LeasedHeld, Refused> {
        let Request { name, lease, label } = self.request;
        let params = |left: Option<Duration>| {
            serde_json::json!(LockAcquire {
                name: name.clone(),
                wait_ms: left.map(millis),
                lease_ms: lease.map(millis),
                label: Some(label.clone()),
            })
        };
        let granted = self.daemon.ask("lock.acquire", params, patience, name).await?;
        Ok(LeasedHeld::new(&self.daemon, WAYS, granted).await?)
    }

    fn look(&self) -> impl AsyncFn() -> Option<Seen> + 'static {
        let (clients, name) = (self.daemon.clients(), self.request.name.clone());
        async move || {
            let client = clients.borrow().clone();
            look(&client, &name).await
        }
    }

    async fn close(self) {}
}
