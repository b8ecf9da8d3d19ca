//! A lock kept straight in a store, by a session of this process.

use std::{cell::Cell, path::Path, pin::Pin, sync::Arc, time::Duration};

use tenure::{Error, Guard, Loss, Session};
use tenure_kv::{BootClock, Clock, Moment, Store};

use super::{
    Held, Patience, Refused, Request, Source, Unreleased,
    waiting::{Person, Seen},
};
use crate::command::{
    exit::Failure,
    run::{Hold, UNRENEWED, Validity},
    say::{say, span},
};

/// How long the end of a session may take; past that its lease frees what it held.
const FAREWELL: Duration = Duration::from_secs(2);

/// Refuses what no store takes as the name of a lock.
pub(super) fn check_name(name: &str) -> Result<(), Failure> {
    if name.len() > tenure::MAX_NAME {
        return Err(Failure::usage(format!("the lock name has {} bytes; the limit is {}", name.len(), tenure::MAX_NAME)));
    }
    // The rules are those of keys; the message should speak of what was written.
    tenure_kv::Key::new(name).map_err(|error| Failure::usage(error.to_string().replace("key", "lock name")))?;
    Ok(())
}

/// Refuses what no session takes as its lease.
pub(super) fn check_lease(lease: Duration) -> Result<(), Failure> {
    if (tenure::MIN_LEASE..=tenure::MAX_LEASE).contains(&lease) {
        return Ok(());
    }
    let (least, most) = (span(tenure::MIN_LEASE), span(tenure::MAX_LEASE));
    Err(Failure::usage(format!("a lease of {} is not possible; choose {least} to {most}", span(lease))))
}

/// Locks in one store.
#[derive(Debug)]
pub(super) struct StoreSource {
    store: Arc<dyn Store>,
    session: Session,
}

/// Opens the store and a session in it.
pub(super) async fn open(url: &str, request: &Request) -> Result<StoreSource, Failure> {
    // What is wrong with the URL is the user's to mend; what is found where it leads is not.
    tenure_kv::check_url(url).map_err(|error| Failure::usage(error.to_string()))?;
    let store = tenure_kv::open(url).await.map_err(Failure::failed)?;
    if !store.info().shared && url.starts_with("memory:") {
        say("warning: memory: is seen by this process alone, so the lock excludes nobody; use a daemon, or another store");
    }
    let session = session(&store, request).await.map_err(failure)?;
    Ok(StoreSource { store, session })
}

async fn session(store: &Arc<dyn Store>, request: &Request) -> Result<Session, Error> {
    let builder = Session::builder(store.clone()).label(request.label.clone());
    match request.lease {
        Some(lease) => builder.lease(lease).open().await,
        None => builder.open().await,
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Invalid { message } => Failure::usage(message),
        other => Failure::failed(other),
    }
}

impl From<tenure::Holder> for Person {
    fn from(holder: tenure::Holder) -> Self {
        let token = holder.token.get();
        Self { token, label: holder.label, host: holder.host, pid: holder.pid, since: Some(holder.since) }
    }
}

impl Source for StoreSource {
    type Held = StoreHeld;

    async fn acquire(&mut self, request: &Request) -> Result<StoreHeld, Refused> {
        loop {
            let mutex = self.session.mutex(&request.name).map_err(failure)?;
            let attempt = match request.patience {
                Patience::Once => mutex.try_lock().await,
                Patience::Until(_) => mutex.lock_timeout(request.patience.left().unwrap_or_default()).await,
                Patience::Forever => mutex.lock().await,
            };
            match attempt {
                Ok(guard) => return Ok(StoreHeld::new(guard)),
                Err(Error::NotAcquired { holder, .. }) => {
                    let holder = holder.map(|holder| Person::from(*holder));
                    return Err(Refused::Busy(holder.map(|holder| Seen { holder: Some(holder), waiting: 0 })));
                }
                // Stopped or cut off for longer than the lease while waiting: back to the end of the queue.
                Err(Error::Lost { .. }) => self.session = session(&self.store, request).await.map_err(failure)?,
                Err(error) => return Err(failure(error).into()),
            }
        }
    }

    fn look(&self, name: &str) -> impl AsyncFn() -> Option<Seen> + 'static {
        let (store, name) = (self.store.clone(), name.to_owned());
        async move || {
            let queue = tenure::locks::inspect(&*store, &name).await.ok()?;
            Some(Seen { holder: queue.holder.map(Person::from), waiting: queue.waiters.len() })
        }
    }

    async fn close(self) {
        // What cannot be ended in time ends with the lease.
        let _ = tokio::time::timeout(FAREWELL, self.session.close()).await;
    }
}

/// A lock held by a session of this process.
pub(super) struct StoreHeld {
    guard: Guard,
    session: String,
    lost: Pin<Box<dyn Future<Output = Loss>>>,
    over: Option<Loss>,
    /// The end as last heard: a hold that is over has none of its own.
    until: Cell<Moment>,
}

impl StoreHeld {
    fn new(guard: Guard) -> Self {
        let lost = Box::pin(guard.lost());
        let session = guard.session().id().to_owned();
        Self { session, lost, over: None, until: Cell::new(BootClock.now() + guard.remaining()), guard }
    }
}

impl Hold for StoreHeld {
    fn lease(&self) -> Duration {
        self.guard.session().lease()
    }

    fn validity(&self) -> Validity {
        let now = BootClock.now();
        let remaining = self.guard.remaining();
        if !remaining.is_zero() {
            self.until.set(now + remaining);
        }
        let why = self.over.map_or(UNRENEWED.into(), |loss| loss.to_string().into());
        Validity { until: self.until.get(), over: self.over.is_some() || remaining.is_zero(), why }
    }

    async fn changed(&mut self) {
        if self.over.is_some() {
            std::future::pending::<()>().await;
        }
        self.over = Some((&mut self.lost).await);
    }

    async fn confirm(&mut self, limit: Duration) {
        // The session's own task renews as soon as it runs again; what it learns shows in the guard.
        let end = BootClock.now() + limit;
        while self.guard.is_held() && self.guard.remaining() <= self.lease() / 2 && BootClock.now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Held for StoreHeld {
    fn token(&self) -> u64 {
        self.guard.token().get()
    }

    fn lease_id(&self) -> &str {
        &self.session
    }

    fn socket(&self) -> Option<&Path> {
        None
    }

    async fn release(self) -> Result<(), Unreleased> {
        match self.guard.release().await {
            Ok(()) => Ok(()),
            Err(Error::Lost { message, .. }) => Err(Unreleased::Lost(message)),
            Err(error) => Err(Unreleased::Unsure(error.to_string())),
        }
    }
}
