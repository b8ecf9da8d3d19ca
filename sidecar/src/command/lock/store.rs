//! A lock kept straight in a store, by a session of this process.

use std::sync::Arc;

use tenure::{Error, Guard, Session};
use tenure_kv::Store;

use super::Request;
use crate::command::{
    exit::Failure,
    keep::{
        Patience, Person, Refused, Seen, Source,
        store::{self, StoreHeld, failure},
    },
};

/// A lock in one store.
#[derive(Debug)]
pub(super) struct StoreSource<'a> {
    store: Arc<dyn Store>,
    session: Session,
    request: &'a Request,
}

/// Opens the store and a session in it.
pub(super) async fn open<'a>(url: &str, request: &'a Request) -> Result<StoreSource<'a>, Failure> {
    let store = store::open(url, "the lock excludes nobody").await?;
    let session = store::session(&store, request.lease, &request.label).await?;
    Ok(StoreSource { store, session, request })
}

impl Source for StoreSource<'_> {
    type Held = StoreHeld<Guard>;

    async fn acquire(&mut self, patience: Patience) -> Result<StoreHeld<Guard>, Refused> {
        loop {
            let mutex = self.session.mutex(&self.request.name).map_err(failure)?;
            let attempt = match patience {
                Patience::Once => mutex.try_lock().await,
                Patience::Until(_) => mutex.lock_timeout(patience.left().unwrap_or_default()).await,
                Patience::Forever => mutex.lock().await,
            };
            match attempt {
                Ok(guard) => return Ok(StoreHeld::new(guard)),
                Err(Error::NotAcquired { holder, .. }) => {
                    let holder = holder.map(|holder| Person::from(*holder));
                    return Err(Refused::Busy(holder.map(|holder| Seen { holder: Some(holder), waiting: 0 })));
                }
                // Stopped or cut off for longer than the lease while waiting: back to the end of the queue.
                Err(Error::Lost { .. }) => {
                    self.session = store::session(&self.store, self.request.lease, &self.request.label).await?;
                }
                Err(error) => return Err(failure(error).into()),
            }
        }
    }

    fn look(&self) -> impl AsyncFn() -> Option<Seen> + 'static {
        let (store, name) = (self.store.clone(), self.request.name.clone());
        async move || {
            let queue = tenure::locks::inspect(&*store, &name).await.ok()?;
            Some(Seen { holder: queue.holder.map(Person::from), waiting: queue.waiters.len() })
        }
    }

    async fn close(self) {
        store::close(&self.session).await;
    }
}
