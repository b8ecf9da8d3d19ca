//! A lock kept by the daemon, for as long as this process keeps its connection.
//!
//! The daemon renews; this side only has to know until when the daemon itself is sure. So it asks, and
//! counts each answer from before the question was sent: a daemon that hangs, or answers late, only makes
//! the known end come sooner. No heartbeat is asked for: a `tenure` that is stopped keeps its lock, since
//! its command may still run.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use serde::Deserialize;
use serde_json::json;
use tenure_kv::{BootClock, Clock, Moment};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Held, Refused, Request, Source, Unreleased,
    waiting::{Person, Seen, interject},
};
use crate::{
    CallError, Client, Notices, Notification,
    command::{
        exit::Failure,
        run::{Hold, UNRENEWED, Validity},
    },
    protocol::{
        Goaway, Kind, LeaseNotice, LeaseRef, LeaseState, LockAcquire, LockAcquired, LockCheck, LockGet, LockView, Owner,
        default_socket,
    },
};

/// How long an answer that needs no waiting may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause before a place in the queue that was lost is asked for again.
const AGAIN: Duration = Duration::from_millis(100);

/// The longest pause before a daemon that is gone is looked for again.
const LONGEST: Duration = Duration::from_secs(1);

/// Locks of one daemon.
#[derive(Debug)]
pub(super) struct SocketSource {
    path: PathBuf,
    /// The latest connection.
    client: watch::Sender<Arc<Client>>,
}

/// Connects to the daemon at `path`, or where it listens by default.
pub(in crate::command) async fn connect(path: Option<&Path>) -> Result<(PathBuf, Client), Failure> {
    let path = path.map_or_else(default_socket, Path::to_owned);
    // A lock taken by another directory's relative path would be told wrongly to the command.
    let path = std::path::absolute(&path).unwrap_or(path);
    match Client::connect(&path).await {
        Ok(client) => Ok((path, client)),
        Err(error) => {
            let io = error.io().kind();
            Err(Failure::failed(match io {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    format!(
                        "no tenured answers at {}: start one with `tenured`, name its --socket, or use --store URL",
                        path.display()
                    )
                }
                _ => error.to_string(),
            }))
        }
    }
}

/// Connects for locks.
pub(super) async fn open(path: Option<&Path>) -> Result<SocketSource, Failure> {
    let (path, client) = connect(path).await?;
    Ok(SocketSource { path, client: watch::Sender::new(Arc::new(client)) })
}

/// What a failed call means for the user.
pub(in crate::command) fn failure(error: &CallError) -> Failure {
    match error.kind() {
        Some(Kind::InvalidParams) => Failure::usage(error.to_string()),
        _ if matches!(error, CallError::Closed) => Failure::failed("tenured closed the connection; see its log, and try again"),
        _ => Failure::failed(format_args!("tenured: {error}")),
    }
}

impl From<Owner> for Person {
    fn from(owner: Owner) -> Self {
        let since = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(owner.since_ms));
        Self { token: owner.fence, label: owner.label, host: owner.host, pid: owner.pid, since }
    }
}

async fn look(client: &Client, name: &str) -> Option<Seen> {
    let view: LockView = client.call_as("lock.get", LockGet { name: name.to_owned() }).await.ok()?;
    Some(Seen { holder: view.holder.map(Person::from), waiting: view.waiters.len() })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What became of one request for a lock.
enum Answer {
    Granted(LockAcquired),
    /// The daemon lost its own session, and with it our place in the queue.
    Requeue,
    /// The daemon is gone, or leaves.
    Gone,
}

impl SocketSource {
    /// Waits for the lock, also at the next daemon if this one goes: who only waits has nothing to lose. Returns
    /// the connection that it was granted on.
    async fn attempt(&mut self, request: &Request) -> Result<(LockAcquired, Arc<Client>, Notices), Refused> {
        loop {
            let client = self.client.borrow().clone();
            let mut notices = client.notices();
            match self.ask(&client, &mut notices, request).await? {
                Answer::Granted(acquired) => return Ok((acquired, client, notices)),
                Answer::Requeue => tokio::time::sleep(AGAIN).await,
                Answer::Gone => {
                    interject(&format!("tenured went away while {} was waited for; waiting for the next one", request.name));
                    self.reconnect(request).await?;
                }
            }
        }
    }

    async fn ask(&self, client: &Client, notices: &mut Notices, request: &Request) -> Result<Answer, Refused> {
        let left = request.patience.left();
        let params = LockAcquire {
            name: request.name.clone(),
            wait_ms: left.map(millis),
            lease_ms: request.lease.map(millis),
            label: Some(request.label.clone()),
        };
        let call = client.call_as("lock.acquire", params);
        let answer = match left {
            // The daemon keeps the time; this is for one that does not answer at all.
            Some(left) => tokio::time::timeout(left + PATIENCE, call).await,
            None => Ok(call.await),
        };
        let error = match answer {
            Ok(Ok(acquired)) => return Ok(Answer::Granted(acquired)),
            Ok(Err(error)) => error,
            Err(_) => return Err(unanswered(&self.path).into()),
        };
        let told = |name| error.object().and_then(|object| object.data.get(name));
        let waits = left != Some(Duration::ZERO);
        match error.kind() {
            Some(Kind::Timeout) => {
                let holder = told("holder").and_then(|holder| Owner::deserialize(holder).ok()).map(Person::from);
                Err(Refused::Busy(holder.map(|holder| Seen { holder: Some(holder), waiting: 0 })))
            }
            Some(Kind::Unavailable) if waits && told("reason").is_some() => Ok(Answer::Requeue),
            Some(Kind::Unavailable) if waits && leaves(notices) => Ok(Answer::Gone),
            None if waits && matches!(error, CallError::Closed) => Ok(Answer::Gone),
            _ => Err(failure(&error).into()),
        }
    }

    /// Connects to whoever listens next, for as long as the request is patient.
    async fn reconnect(&mut self, request: &Request) -> Result<(), Refused> {
        let mut pause = AGAIN;
        loop {
            let left = request.patience.left();
            tokio::time::sleep(left.map_or(pause, |left| pause.min(left))).await;
            pause = (pause * 2).min(LONGEST);
            match connect(Some(&self.path)).await {
                Ok((_, client)) => {
                    self.client.send_replace(Arc::new(client));
                    return Ok(());
                }
                Err(failure) if left == Some(Duration::ZERO) => return Err(failure.into()),
                Err(_) => {}
            }
        }
    }
}

/// Whether the daemon has said that it leaves.
fn leaves(notices: &mut Notices) -> bool {
    std::iter::from_fn(|| notices.recv().now_or_never().flatten()).any(|notice| notice.method == "goaway")
}

/// A daemon that listens and says nothing.
pub(in crate::command) fn unanswered(path: &Path) -> Failure {
    Failure::failed(format_args!("tenured at {} does not answer; look at its log, or restart it", path.display()))
}

impl Source for SocketSource {
    type Held = SocketHeld;

    async fn acquire(&mut self, request: &Request) -> Result<SocketHeld, Refused> {
        let (acquired, client, notices) = self.attempt(request).await?;
        let (known, heard) = watch::channel(Known {
            // Nothing is known until the first answer below: that of `lock.acquire` may have been long in coming.
            until: BootClock.now(),
            latest: None,
            over: None,
        });
        let hold = Arc::new(Shared { client, lease: acquired.lease, length: Duration::from_millis(acquired.lease_ms), known });
        if tokio::time::timeout(PATIENCE, hold.check()).await.is_err() {
            return Err(unanswered(&self.path).into());
        }
        let tending = AbortOnDropHandle::new(tokio::spawn(tend(hold.clone(), notices)));
        Ok(SocketHeld { path: self.path.clone(), fence: acquired.fence, hold, heard, _tending: tending })
    }

    fn look(&self, name: &str) -> impl AsyncFn() -> Option<Seen> + 'static {
        let (client, name) = (self.client.subscribe(), name.to_owned());
        async move || {
            let client = client.borrow().clone();
            look(&client, &name).await
        }
    }

    async fn close(self) {}
}

/// What the daemon has said of a hold.
#[derive(Clone, Debug)]
struct Known {
    /// The daemon is sure until then.
    until: Moment,
    /// The daemon leaves then.
    latest: Option<Moment>,
    /// Why the hold is over.
    over: Option<String>,
}

struct Shared {
    client: Arc<Client>,
    lease: String,
    length: Duration,
    known: watch::Sender<Known>,
}

impl Shared {
    /// Asks once. No answer, or one that says nothing, changes nothing.
    async fn check(&self) {
        let asked = BootClock.now();
        match self.client.call_as::<LockCheck>("lock.check", LeaseRef { lease: self.lease.clone() }).await {
            Ok(check) if check.held => {
                let until = asked + Duration::from_millis(check.remaining_ms);
                self.known.send_modify(|known| known.until = known.until.max(until));
            }
            Err(CallError::Closed) => self.end("tenured closed the connection"),
            Err(CallError::Refused(error)) if matches!(error.kind(), Some(Kind::Lost | Kind::NotHeld)) => {
                self.end(reason(error.data.get("reason").and_then(serde_json::Value::as_str)));
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn end(&self, why: &str) {
        self.known.send_modify(|known| {
            known.over.get_or_insert_with(|| why.to_owned());
        });
    }

    fn heard(&self, notice: &Notification) {
        if notice.method == "goaway"
            && let Ok(goaway) = serde_json::from_value::<Goaway>(notice.params.clone())
        {
            let end = BootClock.now() + Duration::from_millis(goaway.deadline_ms);
            self.known.send_modify(|known| known.latest = Some(known.latest.map_or(end, |latest| latest.min(end))));
        }
        if notice.method == "lease"
            && let Ok(notice) = serde_json::from_value::<LeaseNotice>(notice.params.clone())
            && notice.lease == self.lease
            && notice.state == LeaseState::Lost
        {
            self.end(reason(notice.reason.as_deref()));
        }
    }

    /// When to ask again: often enough to hear of every renewal before the command would be stopped for
    /// the want of one, which is at half the lease or later.
    fn pause(&self) -> Duration {
        let remaining = self.known.borrow().until.saturating_since(BootClock.now());
        (remaining.saturating_sub(self.length / 2) / 2).clamp(self.length / 60, self.length / 6)
    }
}

/// The reasons of the protocol as sentences.
fn reason(word: Option<&str>) -> &str {
    match word {
        Some("renewal_timeout") => UNRENEWED,
        Some("deposed") => "the daemon was silent for longer than the lease, and others were let in",
        Some("expired") => "the store has forgotten the daemon's session",
        Some("store_reset") => "the store was made anew or set back to an earlier state",
        Some("broken") => "an administrator broke this hold",
        Some("closed") => "tenured is shutting down",
        Some(other) => other,
        None => "tenured knows nothing of this hold any more",
    }
}

/// Keeps what is known up to date until the hold is over.
async fn tend(hold: Arc<Shared>, mut notices: Notices) {
    loop {
        let ask = async {
            tokio::time::sleep(hold.pause()).await;
            hold.check().await;
        };
        tokio::pin!(ask);
        loop {
            tokio::select! {
                biased;
                notice = notices.recv() => match notice {
                    Some(notice) => hold.heard(&notice),
                    None => return hold.end("the connection to tenured was cut"),
                },
                () = &mut ask => break,
            }
        }
        if hold.known.borrow().over.is_some() {
            return;
        }
    }
}

/// A lock held by the daemon for this connection.
pub(super) struct SocketHeld {
    path: PathBuf,
    fence: u64,
    hold: Arc<Shared>,
    heard: watch::Receiver<Known>,
    _tending: AbortOnDropHandle<()>,
}

impl Hold for SocketHeld {
    fn lease(&self) -> Duration {
        self.hold.length
    }

    fn validity(&self) -> Validity {
        let known = self.heard.borrow();
        let leaving = known.latest.filter(|latest| *latest < known.until);
        let why = match (&known.over, leaving) {
            (Some(why), _) => why.clone().into(),
            (None, Some(_)) => "tenured is shutting down".into(),
            (None, None) => UNRENEWED.into(),
        };
        Validity { until: leaving.unwrap_or(known.until), over: known.over.is_some(), why }
    }

    async fn changed(&mut self) {
        if self.heard.changed().await.is_err() {
            // The sender lives in `hold`.
            std::future::pending::<()>().await;
        }
    }

    async fn confirm(&mut self, limit: Duration) {
        // Without an answer the end known before stands.
        let _ = tokio::time::timeout(limit, self.hold.check()).await;
    }
}

impl Held for SocketHeld {
    fn token(&self) -> u64 {
        self.fence
    }

    fn lease_id(&self) -> &str {
        &self.hold.lease
    }

    fn socket(&self) -> Option<&Path> {
        Some(&self.path)
    }

    async fn release(self) -> Result<(), Unreleased> {
        if let Some(why) = &self.heard.borrow().over {
            return Err(Unreleased::Lost(why.clone()));
        }
        let call = self.hold.client.call("lock.release", json!({ "lease": self.hold.lease }));
        // After the end of what is known the lock is free anyway, as it is when this connection closes.
        let left = self.validity().until.saturating_since(BootClock.now());
        match tokio::time::timeout(left.min(PATIENCE), call).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(CallError::Refused(error))) if matches!(error.kind(), Some(Kind::Lost | Kind::NotHeld)) => {
                Err(Unreleased::Lost(reason(error.data.get("reason").and_then(serde_json::Value::as_str)).to_owned()))
            }
            Ok(Err(error)) => Err(Unreleased::Unsure(error.to_string())),
            Err(_) => Err(Unreleased::Unsure("tenured does not answer".to_owned())),
        }
    }
}
