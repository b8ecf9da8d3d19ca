//! What a client's handles and its tasks share: calls that wait, events on their way, and the two halves of the
//! connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::{
    io::AsyncWriteExt,
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::{Notify, broadcast, mpsc, oneshot},
};
use tokio_util::{codec::FramedRead, sync::CancellationToken};

use super::Notification;
use crate::protocol::{
    ErrorObject, Event, Happening, Id, Kind,
    frame::{self, Incoming, Line, LineDecoder},
};

/// The longest line a client takes from a daemon. Daemons keep below their own limit, which may be set higher.
const MAX_LINE: usize = 64 << 20;
/// Events kept for a subscription that does not come for them.
const MAX_EVENTS: usize = 16_384;

pub(super) struct Shared {
    pub(super) pending: Mutex<Pending>,
    pub(super) outgoing: mpsc::Sender<Bytes>,
    /// Lines that no caller waits to send: at most two for each call that was dropped, one for each subscription.
    pub(super) afterwards: Mutex<Vec<Bytes>>,
    pub(super) filled: Notify,
    pub(super) notices: broadcast::Sender<Notification>,
    pub(super) closed: CancellationToken,
}

#[derive(Default)]
pub(super) struct Pending {
    pub(super) last: u64,
    pub(super) calls: HashMap<u64, Call>,
    /// Where the events of each subscription go; nowhere once nobody wants them.
    pub(super) subscriptions: HashMap<String, Option<mpsc::Sender<Event>>>,
    pub(super) closed: bool,
}

pub(super) enum Call {
    Waiting {
        answer: oneshot::Sender<Result<Json, ErrorObject>>,
        undo: Undo,
    },
    Subscribing {
        answer: oneshot::Sender<Result<(String, mpsc::Receiver<Event>), ErrorObject>>,
    },
    /// Nobody waits any more; what comes all the same goes back.
    Dropped(Undo),
    /// The end of a subscription, after which nothing of it comes.
    Unsubscribing(String),
}

/// What to do with a result that nobody takes.
#[derive(Clone, Copy)]
pub(super) enum Undo {
    /// The lease in it is given up with this method.
    Release(&'static str),
    /// The subscription in it is cancelled.
    Unsubscribe,
}

impl Undo {
    pub(super) fn of(method: &str) -> Self {
        match method {
            "election.campaign" => Self::Release("election.resign"),
            "member.join" => Self::Release("member.leave"),
            "lock.observe" | "election.observe" | "member.watch" | "kv.watch" => Self::Unsubscribe,
            _ => Self::Release("lock.release"),
        }
    }
}

impl Call {
    const fn undo(&self) -> Undo {
        match self {
            Self::Waiting { undo, .. } | Self::Dropped(undo) => *undo,
            Self::Subscribing { .. } | Self::Unsubscribing(_) => Undo::Unsubscribe,
        }
    }
}

impl Shared {
    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        let mut pending = self.pending();
        pending.closed = true;
        pending.calls.clear();
        pending.subscriptions.clear();
        drop(pending);
        self.closed.cancel();
    }

    fn answered(&self, id: u64, answer: Result<Json, ErrorObject>) {
        let Some(call) = self.pending().calls.remove(&id) else { return };
        let undo = call.undo();
        let unclaimed = match call {
            Call::Waiting { answer: sender, .. } => sender.send(answer).err(),
            Call::Subscribing { answer: sender } => {
                let handle = answer.as_ref().ok().and_then(|result| result.get("subscription")).and_then(Json::as_str);
                let Some(handle) = handle.map(str::to_owned) else {
                    let error = answer.err().unwrap_or_else(|| {
                        ErrorObject::new(Kind::InvalidRequest, "this method does not subscribe to anything; use call")
                    });
                    let _ = sender.send(Err(error));
                    return;
                };
                // Before the next line is read, which may be an event.
                let (events, receiver) = mpsc::channel(MAX_EVENTS);
                self.pending().subscriptions.insert(handle.clone(), Some(events));
                sender.send(Ok((handle, receiver))).err().map(|_| answer)
            }
            Call::Dropped(_) => Some(answer),
            Call::Unsubscribing(handle) => {
                self.pending().subscriptions.remove(&handle);
                None
            }
        };
        let Some(Ok(result)) = unclaimed else { return };
        let of = |name| result.get(name).and_then(Json::as_str);
        match undo {
            Undo::Release(method) => {
                if let Some(lease) = of("lease") {
                    self.call_afterwards(Call::Dropped(undo), method, json!({ "lease": lease }));
                }
            }
            Undo::Unsubscribe => {
                if let Some(handle) = of("subscription") {
                    self.pending().subscriptions.insert(handle.to_owned(), None);
                    self.cancel_subscription(handle);
                }
            }
        }
    }

    /// Takes an event of a subscription, unless it belongs to none that is known here.
    fn event(&self, params: &Json) -> bool {
        let Some(handle) = params.get("subscription").and_then(Json::as_str) else { return false };
        let mut pending = self.pending();
        let Some(events) = pending.subscriptions.get_mut(handle) else { return false };
        // What a later daemon may add is passed over.
        let Ok(event) = Event::deserialize(params) else { return true };
        let last = matches!(event.what, Happening::End { .. });
        let lagging = events.as_ref().is_some_and(|events| events.try_send(event).is_err());
        if last {
            pending.subscriptions.remove(handle);
        } else if lagging {
            drop(pending);
            self.unsubscribe(handle);
        }
        true
    }

    /// Wants no more events of a subscription.
    pub(super) fn unsubscribe(&self, handle: &str) {
        let known = match self.pending().subscriptions.get_mut(handle) {
            Some(events) => events.take().is_some(),
            None => false,
        };
        if known {
            self.cancel_subscription(handle);
        }
    }

    fn cancel_subscription(&self, handle: &str) {
        let call = Call::Unsubscribing(handle.to_owned());
        self.call_afterwards(call, "subscription.cancel", json!({ "subscription": handle }));
    }

    /// Calls from where nothing can be waited for.
    fn call_afterwards(&self, call: Call, method: &str, params: Json) {
        let id = {
            let mut pending = self.pending();
            if pending.closed {
                return;
            }
            pending.last += 1;
            let id = pending.last;
            pending.calls.insert(id, call);
            id
        };
        self.send_afterwards(frame::request(Some(&id.into()), method, params));
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
pub(super) struct Abandon<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: u64,
    pub(super) sent: bool,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let mut pending = self.shared.pending();
        if !self.sent {
            pending.calls.remove(&self.id);
        } else if let Some(call) = pending.calls.get_mut(&self.id) {
            *call = Call::Dropped(call.undo());
            drop(pending);
            self.shared.send_afterwards(frame::request(None, "cancel", json!({ "id": self.id })));
        }
    }
}

pub(super) async fn read(reader: OwnedReadHalf, shared: Arc<Shared>) {
    let mut lines = FramedRead::new(reader, LineDecoder::new(MAX_LINE));
    while let Some(Ok(Line::Whole(line))) = lines.next().await {
        let Ok(message) = serde_json::from_slice::<Incoming>(&line) else { break };
        if let Some(method) = message.method {
            if method != "event" || !shared.event(&message.params) {
                // Nobody listening is the caller's choice.
                let _ = shared.notices.send(Notification { method, params: message.params });
            }
        } else if let Some(Id::Number(id)) = message.id
            && let Some(id) = id.as_u64()
        {
            shared.answered(id, message.error.map_or(Ok(message.result), Err));
        }
    }
    shared.close();
}

pub(super) async fn write(mut writer: OwnedWriteHalf, mut lines: mpsc::Receiver<Bytes>, shared: Arc<Shared>) {
    loop {
        let line = tokio::select! {
            () = shared.closed.cancelled() => return,
            () = shared.filled.notified() => {
                let afterwards = std::mem::take(&mut *shared.afterwards.lock().unwrap_or_else(PoisonError::into_inner));
                // A call may still be in the channel when it is cancelled, and must not come after that.
                let mut together: Vec<Bytes> = (0..lines.len()).map_while(|_| lines.try_recv().ok()).collect();
                together.extend(afterwards);
                together.concat().into()
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

pub(super) async fn ping(every: Duration, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while let Ok(line) = frame::request(None, "ping", json!({})) {
        tokio::select! {
            () = shared.closed.cancelled() => return,
            _ = ticks.tick() => if shared.outgoing.send(line).await.is_err() { return },
        }
    }
}
