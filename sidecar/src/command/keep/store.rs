//! What is held straight in a store, by a session of this process.

use std::{borrow::Cow, cell::Cell, path::Path, pin::Pin, sync::Arc, time::Duration};

use tenure::{Error, Guard, Loss, Session};
use tenure_kv::{BootClock, Clock, Moment, Store};

use super::{Held, Unreleased};
use crate::command::{
    exit::Failure,
    run::{Hold, UNRENEWED, Validity},
    say::{say, span},
};

/// How long the end of a session may take; past that its lease frees what it held.
const FAREWELL: Duration = Duration::from_secs(2);

/// Refuses what no store takes as the name of `what`.
pub(in crate::command) fn check_name(what: &str, name: &str) -> Result<(), Failure> {
    if name.len() > tenure::MAX_NAME {
        return Err(Failure::usage(format!("the {what} has {} bytes; the limit is {}", name.len(), tenure::MAX_NAME)));
    }
    // The rules are those of keys; the message should speak of what was written.
    tenure_kv::Key::new(name).map_err(|error| Failure::usage(error.to_string().replacen("key", what, 1)))?;
    Ok(())
}

/// Refuses what no session takes as its lease.
pub(in crate::command) fn check_lease(lease: Option<Duration>) -> Result<(), Failure> {
    let Some(lease) = lease.filter(|lease| !(tenure::MIN_LEASE..=tenure::MAX_LEASE).contains(lease)) else { return Ok(()) };
    let (least, most) = (span(tenure::MIN_LEASE), span(tenure::MAX_LEASE));
    Err(Failure::usage(format!("a lease of {} is not possible; choose {least} to {most}", span(lease))))
}

/// Opens a store. `alone` says what a store that nobody else can use means.
pub(in crate::command) async fn open(url: &str, alone: &str) -> Result<Arc<dyn Store>, Failure> {
    // What is wrong with the URL is the user's to mend; what is found where it leads is not.
    tenure_kv::check_url(url).map_err(|error| Failure::usage(error.to_string()))?;
    let store = tenure_kv::open(url).await.map_err(Failure::failed)?;
    if !store.info().shared && url.starts_with("memory:") {
        say(&format!("warning: memory: is seen by this process alone, so {alone}; use a daemon, or another store"));
    }
    Ok(store)
}

/// Opens a session.
pub(in crate::command) async fn session(
    store: &Arc<dyn Store>,
    lease: Option<Duration>,
    label: &str,
) -> Result<Session, Failure> {
    let mut builder = Session::builder(store.clone());
    if !label.is_empty() {
        builder = builder.label(label);
    }
    if let Some(lease) = lease {
        builder = builder.lease(lease);
    }
    builder.open().await.map_err(failure)
}

/// Ends a session; what cannot be ended in time ends with the lease.
pub(in crate::command) async fn close(session: &Session) {
    let _ = tokio::time::timeout(FAREWELL, session.close()).await;
}

pub(in crate::command) fn failure(error: Error) -> Failure {
    match error {
        Error::Invalid { message } => Failure::usage(message),
        other => Failure::failed(other),
    }
}

/// What a session of this process holds.
pub(in crate::command) trait Grip {
    fn session(&self) -> &Session;
    /// Its fencing token.
    fn token(&self) -> u64;
    /// How long it is held if no renewal succeeds from now on.
    fn remaining(&self) -> Duration;
    fn lost(&self) -> Pin<Box<dyn Future<Output = Loss>>>;
    /// Resolves with who asks for it.
    fn asked(&self) -> Pin<Box<dyn Future<Output = String>>> {
        Box::pin(std::future::pending())
    }
    async fn release(self) -> Result<(), Error>;
}

impl Grip for Guard {
    fn session(&self) -> &Session {
        self.session()
    }

    fn token(&self) -> u64 {
        self.token().get()
    }

    fn remaining(&self) -> Duration {
        self.remaining()
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = Loss>>> {
        Box::pin(self.lost())
    }

    async fn release(self) -> Result<(), Error> {
        self.release().await
    }
}

/// The same as a hold that a command can run under.
pub(in crate::command) struct StoreHeld<G> {
    grip: G,
    session: String,
    lost: Pin<Box<dyn Future<Output = Loss>>>,
    over: Option<Loss>,
    asked: Pin<Box<dyn Future<Output = String>>>,
    wanted: Option<String>,
    /// The end as last heard: a hold that is over has none of its own.
    until: Cell<Moment>,
}

impl<G: Grip> StoreHeld<G> {
    pub(in crate::command) fn new(grip: G) -> Self {
        Self {
            session: grip.session().id().to_owned(),
            lost: grip.lost(),
            over: None,
            asked: grip.asked(),
            wanted: None,
            until: Cell::new(BootClock.now() + grip.remaining()),
            grip,
        }
    }

    pub(in crate::command) const fn grip(&self) -> &G {
        &self.grip
    }
}

impl<G: Grip> Hold for StoreHeld<G> {
    fn lease(&self) -> Duration {
        self.grip.session().lease()
    }

    fn validity(&self) -> Validity {
        let now = BootClock.now();
        let remaining = self.grip.remaining();
        if !remaining.is_zero() {
            self.until.set(now + remaining);
        }
        let why: Cow<'static, str> = self.over.map_or(UNRENEWED.into(), |loss| loss.to_string().into());
        let over = self.over.is_some() || remaining.is_zero();
        Validity { until: self.until.get(), over, why, wanted: self.wanted.clone() }
    }

    async fn changed(&mut self) {
        if self.over.is_some() {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            biased;
            loss = &mut self.lost => self.over = Some(loss),
            who = &mut self.asked, if self.wanted.is_none() => self.wanted = Some(who),
        }
    }

    async fn confirm(&mut self, limit: Duration) {
        // The session's own task renews as soon as it runs again; what it learns shows in the grip.
        let end = BootClock.now() + limit;
        while !self.grip.remaining().is_zero() && self.grip.remaining() <= self.lease() / 2 && BootClock.now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl<G: Grip> Held for StoreHeld<G> {
    fn token(&self) -> u64 {
        self.grip.token()
    }

    fn lease_id(&self) -> &str {
        &self.session
    }

    fn socket(&self) -> Option<&Path> {
        None
    }

    async fn release(self) -> Result<(), Unreleased> {
        match self.grip.release().await {
            Ok(()) => Ok(()),
            Err(Error::Lost { message, .. }) => Err(Unreleased::Lost(message)),
            Err(error) => Err(Unreleased::Unsure(error.to_string())),
        }
    }
}
