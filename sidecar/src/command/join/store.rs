//! A member straight in a store, by a session of this process.

use std::{pin::Pin, sync::Arc, time::Duration};

use tenure::{Error, Instance, JoinOptions, Loss, Member, Session};
use tenure_kv::Store;

use super::{Beater, Joining, Request};
use crate::command::{
    exit::Failure,
    keep::{
        Patience, Refused, Seen, Source,
        store::{self, Grip, StoreHeld, failure},
    },
};

/// How long leaving may take; past that the lease's end does it.
const FAREWELL: Duration = Duration::from_secs(2);

/// A group in one store.
#[derive(Debug)]
pub(super) struct StoreSource<'a> {
    store: Arc<dyn Store>,
    session: Session,
    request: &'a Request,
}

/// Opens the store and a session in it.
pub(super) async fn open<'a>(url: &str, request: &'a Request) -> Result<StoreSource<'a>, Failure> {
    let store = store::open(url, "nobody sees the member").await?;
    let session = store::session(&store, request.lease, &request.label).await?;
    Ok(StoreSource { store, session, request })
}

impl StoreSource<'_> {
    fn options(&self) -> Result<JoinOptions, Failure> {
        let Request { address, zone, weight, metadata, value, .. } = self.request;
        let mut instance = Instance::new().value(value.clone().unwrap_or_default());
        instance.address = address.clone();
        instance.zone = zone.clone();
        instance.weight = weight.unwrap_or(instance.weight);
        instance.metadata = metadata.clone();
        let mut options = JoinOptions::new(instance);
        for spec in &self.request.checks {
            options = options.check(self.request.looks.check(spec).map_err(failure)?);
        }
        Ok(options)
    }
}

impl Source for StoreSource<'_> {
    type Held = StoreHeld<Member>;

    async fn acquire(&mut self, _: Patience) -> Result<StoreHeld<Member>, Refused> {
        let mut fresh = false;
        loop {
            let group = self.session.group(&self.request.group).map_err(failure)?;
            match group.join(&self.request.id, self.options()?).await {
                Ok(member) => return Ok(StoreHeld::new(member)),
                Err(Error::Conflict { message, .. }) => return Err(Refused::Taken(message)),
                // Over since the last membership, or meanwhile.
                Err(Error::Lost { .. }) if !fresh => {
                    self.session = store::session(&self.store, self.request.lease, &self.request.label).await?;
                    fresh = true;
                }
                Err(error) => return Err(failure(error).into()),
            }
        }
    }

    fn look(&self) -> impl AsyncFn() -> Option<Seen> + 'static {
        async || None
    }

    async fn close(self) {
        store::close(&self.session).await;
    }
}

impl Joining for StoreHeld<Member> {
    fn beater(&self) -> Beater {
        Beater::Member(self.grip().clone())
    }
}

impl Grip for Member {
    fn session(&self) -> &Session {
        self.session()
    }

    fn token(&self) -> u64 {
        self.revision().get()
    }

    fn remaining(&self) -> Duration {
        if self.loss().is_some() { Duration::ZERO } else { self.session().remaining() }
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = Loss>>> {
        Box::pin(self.lost())
    }

    async fn release(self) -> Result<(), Error> {
        let left = tokio::time::timeout(FAREWELL, self.leave()).await;
        // The leaving goes on, and may have been applied.
        let unanswered = || Error::Unknown { message: "the store does not answer".to_owned(), source: None };
        left.unwrap_or_else(|_| Err(unanswered()))
    }
}
