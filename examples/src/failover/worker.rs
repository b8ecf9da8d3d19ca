//! A worker: take the lock, read, work, append, release; over and over until it is killed.

use std::{io::Write as _, time::Duration};

use tenure_sidecar::{
    CallError, Client,
    protocol::{Done, Kind, KvPut, LeaseRef, LockAcquire, LockAcquired, LockCheck, Written},
};

use super::{
    Fault,
    options::{Options, Place},
    record::{Guard, Nanos, News, Record, Report, now},
    shared_file::{Refusal, Sabotage, SharedFile},
};

/// How long one read-modify-write takes.
const WORK: Duration = Duration::from_millis(8);
/// How long a worker keeps the lock before it lets the next one in.
const TURN: Duration = Duration::from_millis(120);
/// How long a worker waits when the store is out of reach.
const RETRY: Duration = Duration::from_millis(100);
/// How long the store keeps what a run leaves in it.
const KEPT: Duration = Duration::from_secs(3_600);

/// Competes for the lock until killed.
pub(super) async fn run(options: &Options) -> Result<(), Fault> {
    let place = Place::of(options)?;
    let file = SharedFile::open(&place.shared_file(), options.sabotage)?;
    let client = Client::connect(place.socket()).await?;
    client.keep_alive(options.heartbeat()).await?;
    let mut worker = Worker {
        client,
        file,
        place,
        pid: std::process::id(),
        lease: options.lease,
        heartbeat: nanos(options.heartbeat()),
        ignore_the_lock: options.sabotage == Some(Sabotage::NoLock),
    };
    loop {
        if let Err(fault) = worker.turn().await {
            report(News::Failed { message: fault.to_string() })?;
            return Err(fault);
        }
    }
}

/// Tells the director. One pipe for all processes and one write per report keep reports whole, and in the
/// order in which things happened.
pub(super) fn report(news: News) -> Result<(), Fault> {
    let mut line = serde_json::to_vec(&Report { pid: std::process::id(), at: now(), news })?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()?;
    Ok(())
}

struct Worker {
    client: Client,
    file: SharedFile,
    place: Place,
    pid: u32,
    lease: Duration,
    heartbeat: Nanos,
    ignore_the_lock: bool,
}

/// A lock held, as this process sees it.
struct Hold {
    lease: String,
    token: u64,
    /// Until when the daemon cannot have given the lock to anybody else: it waits for our heartbeat from when
    /// it last heard of us, which is after we last spoke, and renews with the store for longer than it told us.
    valid_until: Nanos,
}

impl Hold {
    fn is_valid(&self) -> bool {
        now() < self.valid_until
    }
}

/// What became of a write to the store.
enum Put {
    Stored,
    /// The store was out of reach.
    Skipped,
    Refused(String),
}

impl Worker {
    async fn turn(&mut self) -> Result<(), Fault> {
        let Some(mut hold) = self.acquire().await? else { return Ok(()) };
        report(News::Granted { token: hold.token, held: hold.is_valid() })?;
        if let Err(refusal) = self.file.enter(hold.token, self.pid, now()) {
            refused_by_file(hold.token, refusal)?;
            return self.store_anyway(&hold, 0).await;
        }
        report(News::Entered { token: hold.token })?;
        let end_of_turn = now() + nanos(TURN);
        let mut seq = 0;
        let total = loop {
            seq += 1;
            if let Some(loss) = self.check(&mut hold).await? {
                return self.write_anyway(&hold, seq, loss).await;
            }
            let begin = now();
            let total = self.file.total()? + 1;
            tokio::time::sleep(WORK).await;
            let record = Record { token: hold.token, seq, total, pid: self.pid, begin, end: now() };
            let held = hold.is_valid();
            if let Err(refusal) = self.file.append(&record) {
                refused_by_file(hold.token, refusal)?;
                return self.store_anyway(&hold, total).await;
            }
            report(News::Appended { record, held })?;
            if now() >= end_of_turn {
                break total;
            }
        };
        if let Put::Refused(loss) = self.store(&hold, total).await? {
            return self.write_anyway(&hold, seq + 1, loss).await;
        }
        report(News::Releasing { token: hold.token, held: hold.is_valid() })?;
        if let Some(loss) = self.release(&hold).await? {
            return self.write_anyway(&hold, seq + 1, loss).await;
        }
        report(News::Released { token: hold.token })
    }

    /// The lock, or `None` to try again.
    async fn acquire(&self) -> Result<Option<Hold>, Fault> {
        if self.ignore_the_lock {
            return Ok(Some(Hold { lease: String::new(), token: now() / 1_000, valid_until: now() + self.heartbeat }));
        }
        let lease_ms = Some(millis(self.lease));
        let params = LockAcquire { name: self.place.lock(), lease_ms, label: Some("worker".into()), wait_ms: None };
        match self.client.call_as::<LockAcquired>("lock.acquire", params).await {
            Ok(LockAcquired { lease, fence, .. }) => {
                // The grant may be old by now; whether it is still valid is asked now.
                let mut hold = Hold { lease, token: fence, valid_until: 0 };
                if let Some(loss) = self.check(&mut hold).await? {
                    report(News::Lost { token: fence, reason: loss })?;
                    return Ok(None);
                }
                Ok(Some(hold))
            }
            // Silent for too long while it waited, or the store was out of reach: queue up again.
            Err(error) if passes(&error) || error.kind() == Some(Kind::Lost) => {
                tokio::time::sleep(RETRY).await;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the lock is surely ours; `Some` says why it is not and will not be.
    async fn check(&self, hold: &mut Hold) -> Result<Option<String>, Fault> {
        if self.ignore_the_lock {
            hold.valid_until = now() + self.heartbeat;
            return Ok(None);
        }
        loop {
            let asked = now();
            match self.client.call_as::<LockCheck>("lock.check", LeaseRef { lease: hold.lease.clone() }).await {
                Ok(LockCheck { held: true, remaining_ms, .. }) => {
                    hold.valid_until = asked + self.heartbeat.min(remaining_ms * 1_000_000);
                    return Ok(None);
                }
                Ok(_) => tokio::time::sleep(RETRY).await,
                Err(error) => return lost(error).map(Some),
            }
        }
    }

    /// Puts the total into the store, fenced by the lock.
    async fn store(&self, hold: &Hold, total: u64) -> Result<Put, Fault> {
        if self.ignore_the_lock {
            return Ok(Put::Skipped);
        }
        let params = KvPut {
            key: self.place.key(),
            value: Some(format!("{} {total}", hold.token)),
            ttl_ms: Some(millis(KEPT)),
            fence_lease: Some(hold.lease.clone()),
            ..KvPut::default()
        };
        match self.client.call_as::<Written>("kv.put", params).await {
            Ok(_) => {
                report(News::Stored { token: hold.token, total })?;
                Ok(Put::Stored)
            }
            Err(error) if passes(&error) => Ok(Put::Skipped),
            Err(error) => {
                let reason = lost(error)?;
                report(News::Refused { token: hold.token, by: Guard::Store, reason: reason.clone() })?;
                Ok(Put::Refused(reason))
            }
        }
    }

    /// Lets the lock go; `Some` says that it was lost before.
    async fn release(&self, hold: &Hold) -> Result<Option<String>, Fault> {
        if self.ignore_the_lock {
            return Ok(None);
        }
        loop {
            match self.client.call_as::<Done>("lock.release", LeaseRef { lease: hold.lease.clone() }).await {
                Ok(Done {}) => return Ok(None),
                Err(error) if passes(&error) => tokio::time::sleep(RETRY).await,
                Err(error) => return lost(error).map(Some),
            }
        }
    }

    /// Appends after the lock was lost, as a process does that has not noticed yet.
    async fn write_anyway(&mut self, hold: &Hold, seq: u64, loss: String) -> Result<(), Fault> {
        report(News::Lost { token: hold.token, reason: loss })?;
        let begin = now();
        let total = self.file.total()? + 1;
        let record = Record { token: hold.token, seq, total, pid: self.pid, begin, end: now() };
        match self.file.append(&record) {
            Ok(()) => report(News::Appended { record, held: hold.is_valid() })?,
            Err(refusal) => refused_by_file(hold.token, refusal)?,
        }
        self.store_anyway(hold, total).await
    }

    /// Puts the total after the lock was lost.
    async fn store_anyway(&self, hold: &Hold, total: u64) -> Result<(), Fault> {
        if self.ignore_the_lock {
            return Ok(());
        }
        loop {
            match self.store(hold, total).await? {
                Put::Stored => return report(News::Passed { token: hold.token }),
                Put::Refused(_) => return Ok(()),
                Put::Skipped => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

fn refused_by_file(token: u64, refusal: Refusal) -> Result<(), Fault> {
    match refusal {
        Refusal::Stale { highest } => {
            report(News::Refused { token, by: Guard::File, reason: format!("it has seen token {highest}") })
        }
        Refusal::Io(error) => Err(error.into()),
    }
}

/// Whether the store was out of reach for a while, so that another try may do.
fn passes(error: &CallError) -> bool {
    matches!(error.kind(), Some(Kind::Unavailable | Kind::UnknownOutcome))
}

/// Why the lock is lost; other errors end the worker.
fn lost(error: CallError) -> Result<String, Fault> {
    match error.kind() {
        Some(kind @ (Kind::Lost | Kind::NotHeld | Kind::Conflict)) => Ok(kind.to_string()),
        _ => Err(error.into()),
    }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
