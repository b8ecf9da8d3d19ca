//! One client: its lines in, its lines out, its heartbeat, and the moment it is gone.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use futures::{StreamExt, stream::FuturesUnordered};
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::Instant,
};
use tokio_util::{codec::FramedRead, sync::CancellationToken};

use super::{
    Daemon, errors,
    inflight::InFlight,
    leases::{Lease, Leases},
    outbox::{Next, Outbox, Room},
    peer::Peer,
    policy::{Ability, Sight},
    quota::{Quota, Unread},
    requests,
    sessions::millis,
    subscriptions::Subscriptions,
    users::Quotas,
    work::{Work, Worker},
};
use crate::protocol::{
    ConnectionStatus, ErrorObject, Goaway, Kind, Status,
    frame::{self, Line, LineDecoder},
};

/// How long a connection that has ended may take to say what is left to say.
const FAREWELL: Duration = Duration::from_secs(2);
/// Lines are written together up to about this many bytes.
const WRITE_TOGETHER: usize = 64 << 10;
/// So many lines are dealt with before others have their turn, as far as they take no time of their own.
const LINES_AT_ONCE: u32 = 32;
/// How long the rest of a line may take to arrive that stood in the socket when the heartbeat ran out.
const BENEFIT_OF_DOUBT: Duration = Duration::from_millis(50);

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) daemon: Arc<Daemon>,
    pub(super) session: String,
    pub(super) peer: Peer,
    pub(super) outbox: Arc<Outbox>,
    pub(super) inflight: Arc<InFlight>,
    pub(super) leases: Arc<Leases>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) checks: Quota,
    pub(super) unread: Unread,
    work: Work,
    /// In milliseconds; 0 for none.
    heartbeat: AtomicU64,
    waits: Mutex<Arc<Waits>>,
}

/// The waits of a connection that end together, before they turn into leases.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) token: CancellationToken,
    cause: OnceLock<ErrorObject>,
}

impl Waits {
    fn end(&self, cause: ErrorObject) {
        self.cause.get_or_init(|| cause);
        self.token.cancel();
    }

    /// What is answered once they have been ended.
    pub(super) fn error(&self) -> ErrorObject {
        self.cause.get().cloned().unwrap_or_else(errors::leaving)
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client closed its side: it may still read.
    Eof,
    /// A line was too long; the client may still be writing it.
    TooLong,
    /// Nobody reads what is written.
    Gone,
    /// The client's process is dead.
    Died,
    /// The daemon leaves.
    Leaving,
}

impl Connection {
    fn new(daemon: Arc<Daemon>, peer: Peer, quotas: Quotas) -> Arc<Self> {
        let limits = &daemon.limits;
        let outbox = Arc::new(Outbox::new(limits.line_bytes));
        Arc::new(Self {
            session: daemon.next_session(),
            inflight: InFlight::new(limits.requests, daemon.requests.clone(), quotas.requests),
            leases: Leases::new(limits.leases, quotas.leases, daemon.leases.clone(), outbox.clone()),
            subscriptions: Subscriptions::new(
                limits,
                daemon.subscriptions.clone(),
                daemon.metrics.slow_readers.clone(),
                quotas.subscriptions,
                outbox.clone(),
            ),
            outbox,
            peer,
            checks: quotas.checks,
            unread: quotas.unread,
            work: Work::default(),
            heartbeat: AtomicU64::new(0),
            waits: Mutex::default(),
            daemon,
        })
    }

    /// What the peer may see of the names that `ability` is about.
    pub(super) fn sight(&self, ability: Ability, bucket: Option<&str>) -> Sight {
        self.daemon.policies.sight(&self.peer.who, ability, bucket)
    }

    fn waits_slot(&self) -> MutexGuard<'_, Arc<Waits>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The waits that a new one belongs to.
    pub(super) fn waits(&self) -> Arc<Waits> {
        self.waits_slot().clone()
    }

    fn end_waits(&self, cause: ErrorObject) {
        std::mem::take(&mut *self.waits_slot()).end(cause);
    }

    pub(super) fn set_heartbeat(&self, heartbeat: Option<Duration>) {
        self.heartbeat.store(heartbeat.map_or(0, millis), Ordering::Relaxed);
    }

    fn heartbeat(&self) -> Option<Duration> {
        Some(self.heartbeat.load(Ordering::Relaxed)).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    pub(super) fn status(&self) -> Status {
        let connection = ConnectionStatus {
            session: self.session.clone(),
            pid: self.peer.pid,
            uid: self.peer.uid,
            leases: self.leases.len(),
            subscriptions: self.subscriptions.len(),
            requests: self.inflight.len(),
            heartbeat_ms: self.heartbeat().map(millis),
        };
        self.daemon.status(connection)
    }

    /// Lets everything go and says so: the client has not been heard of for its heartbeat.
    fn go_silent(&self) {
        self.end_waits(errors::silent());
        let leases = self.leases.lose_all(errors::CLIENT_SILENT);
        if !leases.is_empty() {
            tracing::info!(
                session = self.session,
                pid = self.peer.pid,
                leases = leases.len(),
                "client silent: everything released"
            );
        }
        self.spawn(abandon(leases));
    }

    /// Runs `task` within this connection's own, which waits for it at its end.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.work.add(task);
    }
}

async fn abandon(leases: Vec<Arc<Lease>>) {
    let mut all: FuturesUnordered<_> = leases.iter().map(|lease| lease.abandon()).collect();
    while all.next().await.is_some() {}
}

/// Serves one client until it or the daemon goes, then releases all it held.
pub(super) async fn serve(daemon: Arc<Daemon>, stream: UnixStream, peer: Peer, quotas: Quotas) {
    let connection = Connection::new(daemon.clone(), peer, quotas);
    tracing::debug!(session = connection.session, pid = connection.peer.pid, uid = connection.peer.uid, "connected");
    let (reader, writer) = stream.into_split();
    let mut lines = FramedRead::new(reader, LineDecoder::new(daemon.limits.line_bytes));
    let mut worker = Worker::new(&connection.work);
    let mut writing = pin!(write(&connection, writer));
    let end = {
        let mut reading = pin!(read(&connection, &mut lines));
        let mut working = pin!(worker.run());
        let mut told = false;
        loop {
            tokio::select! {
                // What is read is done and what is done is written in one go.
                biased;
                end = &mut reading => break end,
                () = &mut working => {}
                _ = &mut writing => break End::Gone,
                () = connection.peer.died() => break End::Died,
                // The one comes before the other, and both may be news here at the same time.
                () = daemon.draining.cancelled(), if !told => {
                    told = true;
                    connection.outbox.goaway(Goaway { deadline_ms: millis(daemon.grace) });
                    connection.end_waits(errors::leaving());
                }
                () = daemon.closing.cancelled(), if told => break End::Leaving,
            }
        }
    };
    tracing::debug!(session = connection.session, ?end, leases = connection.leases.len(), "disconnected");
    let leases = if end == End::Leaving {
        connection.end_waits(errors::leaving());
        connection.leases.lose_all(tenure::Loss::Closed.as_str())
    } else {
        connection.end_waits(ErrorObject::new(Kind::Cancelled, "the connection was closed while the request waited"));
        connection.leases.take_all()
    };
    connection.leases.closed.cancel();
    connection.subscriptions.close(end == End::Leaving);
    connection.outbox.no_more_room();
    let working = async {
        worker.finish().await;
        connection.outbox.close();
        // What is left to say may want something undone.
        worker.run().await;
    };
    let say = async {
        if !matches!(end, End::Gone | End::Died)
            && let Ok(Ok(writer)) = tokio::time::timeout(FAREWELL, &mut writing).await
        {
            linger(end, writer, lines.get_mut()).await;
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(abandon(leases), say) } => {}
        () = working => {}
    }
    worker.finish().await;
}

/// Reads lines until there are no more.
async fn read(connection: &Arc<Connection>, lines: &mut FramedRead<OwnedReadHalf, LineDecoder>) -> End {
    let mut heard = Instant::now();
    let mut silent = false;
    let mut at_once = 0;
    loop {
        at_once += 1;
        if at_once == LINES_AT_ONCE {
            at_once = 0;
            tokio::task::yield_now().await;
        }
        let mut doubted = false;
        let room = loop {
            tokio::select! {
                biased;
                room = connection.outbox.room() => break room,
                () = silence(connection, heard), if !silent => {
                    // It may be the daemon that had no time to write.
                    if doubted {
                        // It reads no answers either.
                        silent = true;
                        connection.go_silent();
                    } else {
                        doubted = true;
                        heard = in_doubt(connection, heard);
                    }
                }
            }
        };
        let Some(room) = room else { return End::Leaving };
        let line = loop {
            tokio::select! {
                biased;
                line = lines.next() => break line,
                () = silence(connection, heard), if !silent => {
                    // The daemon itself may have been stopped while the client went on writing.
                    if is_readable(lines.get_ref()) {
                        heard = in_doubt(connection, heard);
                    } else {
                        silent = true;
                        connection.go_silent();
                    }
                }
            }
        };
        heard = Instant::now();
        silent = false;
        if let Some(busy) = &connection.daemon.busy {
            busy.asked(heard.into_std());
        }
        match line {
            Some(Ok(Line::Whole(line))) => requests::line(connection, &line, room),
            Some(Ok(Line::TooLong)) => {
                refuse_long(connection, room);
                return End::TooLong;
            }
            Some(Err(error)) => {
                tracing::debug!(session = connection.session, %error, "the connection cannot be read");
                return End::Gone;
            }
            None => return End::Eof,
        }
    }
}

/// When a client that is silent would have been heard last, if it were so in a moment.
fn in_doubt(connection: &Connection, heard: Instant) -> Instant {
    let heartbeat = connection.heartbeat().unwrap_or_default();
    (Instant::now() + BENEFIT_OF_DOUBT).checked_sub(heartbeat).unwrap_or(heard)
}

fn refuse_long(connection: &Connection, room: Room) {
    let limit = connection.daemon.limits.line_bytes;
    let said = format!("a line has at most {limit} bytes; this connection ends here");
    let error = ErrorObject::new(Kind::InvalidRequest, said).with("limit", "line_bytes");
    connection.daemon.metrics.unreadable(&error);
    connection.outbox.answer(room, frame::failure(None, &error));
}

/// Resolves when nothing has been heard since `heard` for the heartbeat, if there is one.
async fn silence(connection: &Connection, heard: Instant) {
    match connection.heartbeat() {
        Some(heartbeat) => tokio::time::sleep_until(heard + heartbeat).await,
        None => std::future::pending().await,
    }
}

fn is_readable(reader: &OwnedReadHalf) -> bool {
    let mut byte = [0; 1];
    recv(reader.as_ref(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok()
}

/// Writes what the outbox has to say until it is closed and empty.
async fn write(connection: &Arc<Connection>, mut writer: OwnedWriteHalf) -> std::io::Result<OwnedWriteHalf> {
    let mut together = BytesMut::new();
    while let Some(next) = connection.outbox.next().await {
        let mut next = Some(next);
        while let Some(Next::Line(line)) = next.take_if(|next| matches!(next, Next::Line(_))) {
            together.extend_from_slice(&line);
            if together.len() >= WRITE_TOGETHER {
                break;
            }
            next = connection.outbox.try_next();
        }
        if let Some(Next::Undo { slot, lease }) = next {
            let lease = connection.leases.take_back(lease);
            let outbox = connection.outbox.clone();
            connection.spawn(async move {
                abandon(lease.into_iter().collect()).await;
                outbox.finish(slot, bytes::Bytes::new(), None);
            });
        }
        if !together.is_empty() {
            writer.write_all(&together).await?;
            together.clear();
        }
        if together.capacity() > 4 * WRITE_TOGETHER {
            together = BytesMut::new();
        }
    }
    Ok(writer)
}

/// Lets a client read its last answer though it was still writing: closing at once would throw it away.
async fn linger(end: End, mut writer: OwnedWriteHalf, reader: &mut OwnedReadHalf) {
    if writer.shutdown().await.is_err() || end != End::TooLong {
        return;
    }
    let mut rest = vec![0; 16 << 10];
    let drained = async { while reader.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    // A client that goes on for ever has had its time to read.
    let _ = tokio::time::timeout(FAREWELL, drained).await;
}
