//! A small client of the daemon: calls, subscriptions, notices, and the end of the connection.

mod shared;
mod subscription;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::{
    net::UnixStream,
    sync::{Notify, broadcast, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::shared::{Abandon, Call, Shared, Undo, ping, read, write};
pub use self::subscription::Subscription;
use crate::protocol::{ErrorObject, Event, Hello, HelloResult, Kind, LeaseNotice, VERSION, frame};

/// Notices kept for a receiver that does not come for them.
const MAX_NOTICES: usize = 2_048;
/// Lines that wait to be written before calls wait themselves.
const MAX_OUTGOING: usize = 64;

/// Why there is no connection: one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    message: String,
    source: io::Error,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The daemon's answer is an error.
    #[error("{0}")]
    Refused(ErrorObject),
    /// The connection is closed: everything held through it is lost, and what was asked may have happened.
    #[error("the connection to the daemon is closed")]
    Closed,
    /// The parameters cannot be sent, or the result is not of the type that was expected.
    #[error("{0}")]
    Malformed(#[source] serde_json::Error),
}

impl CallError {
    /// The `code` of the daemon's answer.
    pub const fn code(&self) -> Option<i64> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    /// The `data.kind` of the daemon's answer.
    pub fn kind(&self) -> Option<Kind> {
        self.object().and_then(ErrorObject::kind)
    }

    /// The daemon's answer.
    pub const fn object(&self) -> Option<&ErrorObject> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

/// Something the daemon says without being asked: `lease`, `goaway`, or an `event` that belongs to no
/// [`Subscription`].
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// The method.
    pub method: String,
    /// Its parameters.
    pub params: Json,
}

impl Notification {
    /// Where a lease stands, if that is what this says.
    pub fn lease(&self) -> Option<LeaseNotice> {
        if self.method == "lease" { LeaseNotice::deserialize(&self.params).ok() } else { None }
    }

    /// What happened, if that is what this says.
    pub fn event(&self) -> Option<Event> {
        if self.method == "event" { Event::deserialize(&self.params).ok() } else { None }
    }
}

/// The notifications of one connection.
#[derive(Debug)]
pub struct Notices {
    receiver: broadcast::Receiver<Notification>,
    closed: CancellationToken,
}

impl Notices {
    /// The next notification. `None` when the connection is closed or this receiver fell so far behind that
    /// some are gone: either way, treat everything held as lost.
    ///
    /// # Cancel safety
    /// Safe to drop; no notification is lost.
    pub async fn recv(&mut self) -> Option<Notification> {
        tokio::select! {
            biased;
            notification = self.receiver.recv() => notification.ok(),
            () = self.closed.cancelled() => None,
        }
    }
}

/// A connection to the daemon. Dropping it closes the connection, and the daemon releases all it held.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tenure_sidecar::{Client, protocol::{LockAcquire, LockAcquired, default_socket}};
///
/// let client = Client::connect(default_socket()).await?;
/// let lock = LockAcquire { name: "nightly".into(), wait_ms: Some(1_000), ..LockAcquire::default() };
/// let held: LockAcquired = client.call_as("lock.acquire", lock).await?;
/// println!("holding with fencing token {}", held.fence);
/// # Ok(()) }
/// ```
pub struct Client {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Client {
    /// Connects to the daemon that listens on `path`.
    ///
    /// # Errors
    /// When nothing listens there or this user may not connect.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path).await.map_err(|source| ConnectError::new(path, source))?;
        let (reader, writer) = stream.into_split();
        let (outgoing, lines) = mpsc::channel(MAX_OUTGOING);
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            outgoing,
            afterwards: Mutex::default(),
            filled: Notify::new(),
            notices: broadcast::channel(MAX_NOTICES).0,
            closed: CancellationToken::new(),
        });
        let tasks = vec![tokio::spawn(read(reader, shared.clone())), tokio::spawn(write(writer, lines, shared.clone()))];
        Ok(Self { shared, tasks: Mutex::new(tasks) })
    }

    /// Calls `method` and waits for its answer. Calls on one client run concurrently.
    ///
    /// # Errors
    /// [`CallError::Refused`] with the daemon's error, [`CallError::Closed`] when the connection ended first.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request; a lease that was granted at the same moment is released.
    pub async fn call(&self, method: &str, params: impl Serialize) -> Result<Json, CallError> {
        self.ask(method, params, |answer| Call::Waiting { answer, undo: Undo::of(method) }).await
    }

    /// Subscribes with `method`, such as `lock.observe`, `election.observe` or `member.watch`: its events come here, and not among
    /// the notices.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// Dropping the future cancels the subscription.
    pub async fn subscribe(&self, method: &str, params: impl Serialize) -> Result<Subscription, CallError> {
        let (handle, events) = self.ask(method, params, |answer| Call::Subscribing { answer }).await?;
        Ok(Subscription { handle, events, resume: None, shared: self.shared.clone() })
    }

    async fn ask<T>(
        &self,
        method: &str,
        params: impl Serialize,
        call: impl FnOnce(oneshot::Sender<Result<T, ErrorObject>>) -> Call,
    ) -> Result<T, CallError> {
        let (id, answer) = {
            let mut pending = self.shared.pending();
            if pending.closed {
                return Err(CallError::Closed);
            }
            pending.last += 1;
            let id = pending.last;
            let (sender, answer) = oneshot::channel();
            pending.calls.insert(id, call(sender));
            (id, answer)
        };
        let mut abandon = Abandon { shared: &self.shared, id, sent: false };
        let line = frame::request(Some(&id.into()), method, params).map_err(CallError::Malformed)?;
        self.shared.outgoing.send(line).await.map_err(|_| CallError::Closed)?;
        abandon.sent = true;
        match answer.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(CallError::Refused(error)),
            Err(_) => Err(CallError::Closed),
        }
    }

    /// Calls `method` and reads its result as `T`.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`CallError::Malformed`] when the result is no `T`.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn call_as<T: serde::de::DeserializeOwned>(&self, method: &str, params: impl Serialize) -> Result<T, CallError> {
        let result = self.call(method, params).await?;
        T::deserialize(result).map_err(CallError::Malformed)
    }

    /// Says hello, asks the daemon to let everything go once this process has been silent for `heartbeat`,
    /// and sends a ping three times as often from then on.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// Safe to drop; the daemon may have begun to count.
    pub async fn keep_alive(&self, heartbeat: Duration) -> Result<HelloResult, CallError> {
        let heartbeat_ms = Some(u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX));
        let client = Some(concat!("tenure-sidecar/", env!("CARGO_PKG_VERSION")).to_owned());
        let welcome = self.call_as("hello", Hello { protocol: vec![VERSION], client, heartbeat_ms }).await?;
        let pinger = tokio::spawn(ping(heartbeat / 3, self.shared.clone()));
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(pinger);
        Ok(welcome)
    }

    /// The notifications from now on. Take it before acquiring, so that none is missed.
    pub fn notices(&self) -> Notices {
        Notices { receiver: self.shared.notices.subscribe(), closed: self.shared.closed.clone() }
    }

    /// Resolves when the connection has ended, and with it everything held through it.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.closed.clone().cancelled_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        self.shared.close();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("closed", &self.shared.closed.is_cancelled()).finish_non_exhaustive()
    }
}

impl ConnectError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = PathBuf::from(path);
        let message = match source.kind() {
            io::ErrorKind::NotFound => format!("there is no socket {}; start tenured, or name its socket", path.display()),
            io::ErrorKind::ConnectionRefused => format!("nobody listens on {}; start tenured", path.display()),
            io::ErrorKind::PermissionDenied => {
                format!(
                    "this user may not use {}; join the group of the socket, or start tenured with --socket-group",
                    path.display()
                )
            }
            _ => format!("cannot connect to {}: {source}", path.display()),
        };
        Self { message, source }
    }

    /// What the system said.
    pub const fn io(&self) -> &io::Error {
        &self.source
    }
}
