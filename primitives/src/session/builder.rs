//! How a session is opened.

use std::{
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use tenure_kv::{BootClock, Clock, Store};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Floors, Inner, MAX_LEASE, MIN_LEASE, Owner, Renewals, Session, SessionState, Traces, broken, bucket::Known, locked,
    patient::Patient, renewal, stuck::Stuck, timing, traces, validity::Validity, witness::Witness,
};
use crate::{
    Error, Loss, Result, ids, layout,
    mutex::Lines,
    record::{SessionRecord, TicketRecord},
};

/// How a [`Session`] is opened.
#[derive(Debug)]
#[must_use]
pub struct SessionBuilder {
    store: Arc<dyn Store>,
    lease: Option<Duration>,
    label: Option<String>,
    host: Option<String>,
    pid: Option<u32>,
    clock: Arc<dyn Clock>,
    renewals: Arc<Renewals>,
}

impl SessionBuilder {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, lease: None, label: None, host: None, pid: None, clock: Arc::new(BootClock), renewals: Arc::default() }
    }

    /// The length of the lease, [`MIN_LEASE`] to [`MAX_LEASE`]; rounded down to whole milliseconds.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// What to show to people as the owner of what this session holds.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The machine to show as the owner's; this one's name otherwise.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// The process to show as the owner; this one otherwise.
    pub const fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// The clock that leases are measured with; the kernel's boot-time clock otherwise.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where the session's renewals are counted, which several sessions may share.
    pub fn renewals(mut self, renewals: Arc<Renewals>) -> Self {
        self.renewals = renewals;
        self
    }

    /// Opens the session. Needs a Tokio runtime, where its tasks will run.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a lease outside the limits, outside a runtime, or when the bucket is
    /// somebody else's; [`Error::Unavailable`] and [`Error::Unknown`] when the store does not answer.
    ///
    /// # Cancel safety
    /// Safe to drop: a session key that was written is forgotten by the store after its TTL.
    pub async fn open(self) -> Result<Session> {
        match self.attempt().await {
            // The bucket went back, as the first write has shown: once more, in a new epoch. Or nobody knows what became
            // of it: once more, under a new id, and the store forgets the other.
            Err(Error::Lost { loss: Loss::StoreReset, .. } | Error::Unknown { .. }) => self.attempt().await,
            outcome => outcome,
        }
    }

    async fn attempt(&self) -> Result<Session> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(Error::invalid("a session needs a Tokio runtime: open it inside one"));
        };
        let default = if self.store.info().replicas > 1 { Duration::from_secs(15) } else { Duration::from_secs(5) };
        let lease = self.lease.unwrap_or(default);
        if !(MIN_LEASE..=MAX_LEASE).contains(&lease) {
            return Err(Error::invalid(format!("a lease of {lease:?} is outside the limits; use 150 ms to 24 h")));
        }
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let lease = Duration::from_millis(lease_ms);
        let witness = Witness::of(&self.store);
        // Before the epoch is read.
        let outages = self.store.outages();
        let epoch = witness.establish(&self.store, &*self.clock, lease).await?;
        let id = ids::fresh();
        let owner = TicketRecord {
            host: self.host.clone().unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned()),
            pid: self.pid.unwrap_or_else(std::process::id),
            label: self.label.clone(),
        };
        let record = SessionRecord { lease_ms, beat: 0, host: owner.host.clone(), pid: owner.pid, label: owner.label.clone() };
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            key: layout::session_key(&id)?,
            validity: Validity::until(self.clock.now()),
            known: Known::default(),
            outages,
            states: watch::Sender::new(SessionState::Held),
            sightings: StdMutex::default(),
            tickets: AtomicU64::new(1),
            holds: StdMutex::default(),
            floors: Floors::default(),
            traces: Traces::default(),
            outlived: watch::Sender::new(self.store.outages()),
            renewals: self.renewals.clone(),
            hurry: Notify::new(),
            lines: Lines::default(),
            seats: StdMutex::default(),
            stuck: Stuck::default(),
            candidate: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            store: self.store.clone(),
            patient: Arc::new(Patient::new(self.store.clone(), self.clock.clone(), timing::patience(lease))),
            clock: self.clock.clone(),
            id,
            lease,
            owner,
            epoch,
            witness,
            runtime,
        });
        let outages = inner.store.outages();
        let (revision, sent) = renewal::announce(&inner, &record).await?;
        inner.validity.renewed(&*inner.clock, sent + timing::validity(lease));
        locked(&inner.sightings).saw(outages, revision, inner.clock.now());
        inner.spawn(renewal::Renewal::new(inner.clone(), record, revision, sent).run());
        inner.spawn(broken::listen(inner.clone()));
        inner.spawn(traces::look_after_outages(inner.clone(), inner.outlived()));
        Ok(Session { inner, _owner: Arc::new(Owner(stop)) })
    }
}
