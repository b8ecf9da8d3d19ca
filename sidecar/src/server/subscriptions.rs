//! The subscriptions of one connection: each a source of events that is read no faster than its client reads.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    connection::Connection,
    operation::Operation,
    outbox::{Outbox, Room},
    quota::{Quota, Taken},
};
use crate::protocol::{Done, ErrorObject, Event, Happening, Id, Kind, Limits, Subscribed, frame};

/// How many subscriptions of one connection have events in its outbox at the same time.
const TURNS: usize = 16;
/// Events are written together up to about this many bytes.
const TOGETHER: usize = 64 << 10;
/// Why a subscription ends whose client does not read.
const SLOW_READER: &str = "slow_reader";
/// Why a subscription ends with an event that is longer than a line.
const TOO_LONG: &str = "line_bytes";
/// Why a subscription ends with the daemon.
const LEAVING: &str = "leaving";

/// Where the events of a subscription come from. It keeps what was not taken yet in bounded space, by telling the
/// latest state instead of every one, or by ending.
#[async_trait]
pub(super) trait Source: Send + 'static {
    /// The next event, or why none will follow.
    ///
    /// # Cancel safety
    /// Safe to drop: nothing is taken and forgotten.
    async fn next(&mut self) -> Result<Happening, String>;

    /// Resolves when it cannot bear any longer that the client is waited for. A source that does not merge takes in
    /// what comes meanwhile, in bounded space.
    ///
    /// # Cancel safety
    /// As [`next`](Self::next).
    async fn overrun(&mut self) {
        std::future::pending().await
    }

    /// Before which revision everything has been told that this source will not tell, where its events have revisions
    /// and another subscription can go on from one.
    fn start(&self) -> Option<u64> {
        None
    }
}

/// Why a subscription ends.
enum End {
    /// Its source has ended.
    Over(String),
    /// Its client does not read.
    Slow,
}

/// The subscriptions of one connection.
#[derive(Debug)]
pub(super) struct Subscriptions {
    table: Mutex<Table>,
    limit: usize,
    stall: Duration,
    turns: Arc<Semaphore>,
    slow_readers: Arc<AtomicU64>,
    outbox: Arc<Outbox>,
    /// Those of the same user.
    user: Quota,
    /// The subscriptions of all connections.
    total: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    running: HashMap<u64, Running>,
    /// The connection has ended: what is still being begun would never end.
    closed: bool,
}

/// One that has not ended, counted until it is dropped.
#[derive(Debug)]
struct Running {
    over: CancellationToken,
    total: Arc<AtomicUsize>,
    _taken: Taken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.over.cancel();
        self.total.fetch_sub(1, Ordering::Relaxed);
    }
}

fn handle(number: u64) -> String {
    format!("w_{number}")
}

impl Subscriptions {
    pub(super) fn new(
        limits: &Limits,
        total: Arc<AtomicUsize>,
        slow_readers: Arc<AtomicU64>,
        user: Quota,
        outbox: Arc<Outbox>,
    ) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            limit: limits.subscriptions,
            stall: Duration::from_millis(limits.stall_ms),
            turns: Arc::new(Semaphore::new(TURNS)),
            slow_readers,
            outbox,
            user,
            total,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.table().running.len()
    }

    /// A subscription to `source`, which is not read yet.
    pub(super) fn add<S: Source>(self: &Arc<Self>, source: S) -> Result<Subscription<S>, ErrorObject> {
        let mut table = self.table();
        if table.closed {
            return Err(ErrorObject::new(Kind::Cancelled, "the connection was closed before the subscription began"));
        }
        if table.running.len() >= self.limit {
            let said = format!("this connection has {} subscriptions; cancel one, or use another connection", self.limit);
            return Err(ErrorObject::limit("subscriptions", said));
        }
        let taken = self.user.take()?;
        table.last += 1;
        let number = table.last;
        let over = CancellationToken::new();
        self.total.fetch_add(1, Ordering::Relaxed);
        table.running.insert(number, Running { over: over.clone(), total: self.total.clone(), _taken: taken });
        Ok(Subscription { home: self.clone(), number, over, resume: source.start(), source })
    }

    /// Ends a subscription: nothing of it is told after the answer to this.
    pub(super) fn cancel(&self, text: &str) -> Result<Done, ErrorObject> {
        let number = text.strip_prefix("w_").and_then(|digits| digits.parse().ok()).filter(|number| handle(*number) == text);
        let Some(number) = number.filter(|number| self.table().running.remove(number).is_some()) else {
            let text: String = text.chars().take(64).collect();
            return Err(ErrorObject::new(Kind::NotFound, format!("this connection has no subscription {text:?}")));
        };
        self.outbox.drop_events(number);
        Ok(Done {})
    }

    /// Ends all for good, and tells so where the daemon is leaving.
    pub(super) fn close(&self, leaving: bool) {
        let running = {
            let mut table = self.table();
            table.closed = true;
            std::mem::take(&mut table.running)
        };
        if leaving {
            running.keys().for_each(|number| self.say_last(*number, Happening::End { reason: LEAVING.to_owned() }, None));
        }
    }

    /// Says what a client that does not read is told all the same.
    fn say_last(&self, number: u64, what: Happening, resume_revision: Option<u64>) {
        if let Some(line) = self.line(number, what, resume_revision) {
            self.outbox.end(line);
        }
    }

    fn line(&self, number: u64, what: Happening, resume_revision: Option<u64>) -> Option<bytes::Bytes> {
        self.outbox.event(Event { subscription: Some(handle(number)), lease: None, resume_revision, what })
    }
}

/// A subscription that has yet to begin.
pub(super) struct Subscription<S> {
    home: Arc<Subscriptions>,
    number: u64,
    over: CancellationToken,
    /// Before which revision everything has been told, where another subscription could go on from there.
    resume: Option<u64>,
    source: S,
}

impl<S: Source> Subscription<S> {
    /// Answers with the handle, and tells events after that.
    pub(super) fn begin(self, connection: &Connection, id: &Id, room: Room, operation: Option<Operation>) {
        let subscribed = Subscribed { subscription: handle(self.number) };
        let encoded = connection.outbox.encode(id, subscribed);
        if let Some(operation) = operation {
            operation.end(encoded.as_ref().map(drop));
        }
        match encoded {
            Ok(line) => {
                connection.outbox.answer(room, line);
                connection.spawn(self.run());
            }
            Err(error) => {
                self.home.table().running.remove(&self.number);
                connection.outbox.answer(room, frame::failure(Some(id), &error));
            }
        }
    }

    async fn run(mut self) {
        let over = self.over.clone();
        let Some(end) = over.run_until_cancelled(self.tell()).await else { return };
        let home = self.home;
        // Not where it was cancelled meanwhile.
        if home.table().running.remove(&self.number).is_none() {
            return;
        }
        let reason = match end {
            End::Over(reason) => reason,
            End::Slow => {
                home.slow_readers.fetch_add(1, Ordering::Relaxed);
                if let Some(resume) = self.resume {
                    home.say_last(self.number, Happening::Gap {}, reached(resume));
                }
                SLOW_READER.to_owned()
            }
        };
        home.say_last(self.number, Happening::End { reason }, None);
    }

    /// The line of `what`, unless it is too long for one.
    fn line(&mut self, what: Happening) -> Option<bytes::Bytes> {
        let mut gap = None;
        if let Some(resume) = &mut self.resume {
            match &what {
                Happening::Put { revision, .. }
                | Happening::Delete { revision, .. }
                | Happening::Purge { revision, .. }
                | Happening::Expire { revision, .. }
                | Happening::Sync { revision: Some(revision) } => *resume = (*resume).max(revision.saturating_add(1)),
                Happening::Gap {} => gap = reached(*resume),
                _ => {}
            }
        }
        self.home.line(self.number, what, gap)
    }

    /// Tells what happens, until there is a reason to end.
    async fn tell(&mut self) -> End {
        loop {
            let mut next = self.source.next().await;
            let turn = tokio::select! {
                biased;
                turn = tokio::time::timeout(self.home.stall, self.home.turns.clone().acquire_owned()) => match turn {
                    Ok(Ok(turn)) => turn,
                    Ok(Err(_)) | Err(_) => return End::Slow,
                },
                () = self.source.overrun() => return End::Slow,
            };
            let mut lines = BytesMut::new();
            let end = loop {
                let what = match next {
                    Ok(what) => what,
                    Err(reason) => break Some(End::Over(reason)),
                };
                let later = if lines.len() < TOGETHER { self.source.next().now_or_never() } else { None };
                let merged = matches!(
                    (&what, &later),
                    (Happening::Leader { .. }, Some(Ok(Happening::Leader { .. })))
                        | (Happening::Lock(_), Some(Ok(Happening::Lock(_))))
                );
                if !merged {
                    match self.line(what) {
                        Some(line) => lines.extend_from_slice(&line),
                        None => break Some(End::Over(TOO_LONG.to_owned())),
                    }
                }
                match later {
                    Some(later) => next = later,
                    None => break None,
                }
            };
            if !lines.is_empty() {
                self.home.outbox.events(self.number, lines.freeze(), turn, &self.over);
            }
            if let Some(end) = end {
                return end;
            }
        }
    }
}

/// What there is to go on from: nothing where nothing has been told.
fn reached(resume: u64) -> Option<u64> {
    Some(resume).filter(|resume| *resume > 0)
}
