//! A small client of the daemon: calls, notices, and the end of the connection.

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value as Json, json};
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, broadcast, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::{codec::FramedRead, sync::CancellationToken};

use crate::protocol::{
    ErrorObject, Hello, HelloResult, Id, Kind, VERSION,
    frame::{self, Incoming, Line, LineDecoder},
};

/// The longest line a client takes from a daemon. Daemons keep below their own limit, which may be set higher.
const MAX_LINE: usize = 64 << 20;
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

/// Something the daemon says without being asked: `lease` or `goaway`.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// The method.
    pub method: String,
    /// Its parameters.
    pub params: Json,
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

struct Shared {
    pending: Mutex<Pending>,
    outgoing: mpsc::Sender<Bytes>,
    /// Lines that no caller waits to send: at most two for each call that was dropped.
    afterwards: Mutex<Vec<Bytes>>,
    filled: Notify,
    notices: broadcast::Sender<Notification>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Pending {
    last: u64,
    calls: HashMap<u64, Call>,
    closed: bool,
}

enum Call {
    Waiting(oneshot::Sender<Result<Json, ErrorObject>>),
    /// Nobody waits any more; a lease that comes all the same goes back.
    Dropped,
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
        let (id, answer) = {
            let mut pending = self.shared.pending();
            if pending.closed {
                return Err(CallError::Closed);
            }
            pending.last += 1;
            let id = pending.last;
            let (sender, answer) = oneshot::channel();
            pending.calls.insert(id, Call::Waiting(sender));
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

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut pending = self.pending();
        pending.closed = true;
        pending.calls.clear();
        drop(pending);
        self.closed.cancel();
    }

    fn answered(&self, id: u64, answer: Result<Json, ErrorObject>) {
        let call = self.pending().calls.remove(&id);
        let unclaimed = match call {
            Some(Call::Waiting(sender)) => sender.send(answer).err(),
            Some(Call::Dropped) => Some(answer),
            None => None,
        };
        if let Some(Ok(result)) = unclaimed
            && let Some(lease) = result.get("lease").and_then(Json::as_str)
        {
            self.give_back(lease);
        }
    }

    fn give_back(&self, lease: &str) {
        let id = {
            let mut pending = self.pending();
            pending.last += 1;
            let id = pending.last;
            pending.calls.insert(id, Call::Dropped);
            id
        };
        self.send_afterwards(frame::request(Some(&id.into()), "lock.release", json!({ "lease": lease })));
    }

    /// Sends a line from where nothing can be waited for. On a closed connection there is nothing to say.
    fn send_afterwards(&self, line: serde_json::Result<Bytes>) {
        if let Ok(line) = line {
            self.afterwards.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            self.filled.notify_one();
        }
    }
}

/// Cancels a call whose future is dropped before its answer came.
struct Abandon<'a> {
    shared: &'a Shared,
    id: u64,
    sent: bool,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let mut pending = self.shared.pending();
        if !self.sent {
            pending.calls.remove(&self.id);
        } else if let Some(call) = pending.calls.get_mut(&self.id) {
            *call = Call::Dropped;
            drop(pending);
            self.shared.send_afterwards(frame::request(None, "cancel", json!({ "id": self.id })));
        }
    }
}

async fn read(reader: OwnedReadHalf, shared: Arc<Shared>) {
    let mut lines = FramedRead::new(reader, LineDecoder::new(MAX_LINE));
    while let Some(Ok(Line::Whole(line))) = lines.next().await {
        let Ok(message) = serde_json::from_slice::<Incoming>(&line) else { break };
        if let Some(method) = message.method {
            // Nobody listening is the caller's choice.
            let _ = shared.notices.send(Notification { method, params: message.params });
        } else if let Some(Id::Number(id)) = message.id
            && let Some(id) = id.as_u64()
        {
            shared.answered(id, message.error.map_or(Ok(message.result), Err));
        }
    }
    shared.close();
}

async fn write(mut writer: OwnedWriteHalf, mut lines: mpsc::Receiver<Bytes>, shared: Arc<Shared>) {
    loop {
        let line = tokio::select! {
            () = shared.closed.cancelled() => return,
            () = shared.filled.notified() => {
                std::mem::take(&mut *shared.afterwards.lock().unwrap_or_else(PoisonError::into_inner)).concat().into()
            }
            line = lines.recv() => match line {
                Some(line) => line,
                None => return,
            },
        };
        // The reader has yet to read what the daemon said before it closed, and then closes this side.
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}

async fn ping(every: Duration, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while let Ok(line) = frame::request(None, "ping", json!({})) {
        tokio::select! {
            () = shared.closed.cancelled() => return,
            _ = ticks.tick() => if shared.outgoing.send(line).await.is_err() { return },
        }
    }
}
