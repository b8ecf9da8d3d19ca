//! One inbox for every answer of several messages: no subscription to make and end for each request.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::{Client, Message, Subscriber};
use futures::StreamExt;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

/// The inbox and the task that sorts what comes in. An answer ends with a message that has a status.
#[derive(Debug)]
pub(super) struct Replies {
    prefix: String,
    next: AtomicU64,
    waiting: Arc<Waiting>,
    _sorter: AbortOnDropHandle<()>,
}

type Slots = HashMap<u64, (Vec<Message>, oneshot::Sender<Vec<Message>>)>;

#[derive(Debug, Default)]
struct Waiting(Mutex<Slots>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one answer. Dropping it gives the answer up.
#[derive(Debug)]
pub(super) struct Answer {
    /// Where the request asks to be answered.
    pub(super) subject: String,
    id: u64,
    waiting: Arc<Waiting>,
    done: oneshot::Receiver<Vec<Message>>,
}

impl Replies {
    pub(super) async fn open(client: &Client) -> Result<Self, async_nats::SubscribeError> {
        let prefix = format!("{}.", client.new_inbox());
        let messages = client.subscribe(format!("{prefix}*")).await?;
        let waiting = Arc::new(Waiting::default());
        let sorter = tokio::spawn(sort(messages, prefix.len(), waiting.clone()));
        Ok(Self { prefix, next: AtomicU64::new(0), waiting, _sorter: AbortOnDropHandle::new(sorter) })
    }

    pub(super) fn expect(&self) -> Answer {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, done) = oneshot::channel();
        self.waiting.lock().insert(id, (Vec::new(), sender));
        Answer { subject: format!("{}{id}", self.prefix), id, waiting: self.waiting.clone(), done }
    }
}

impl Answer {
    /// All messages of the answer, the one with the status last. `None` when the client is closed.
    pub(super) async fn whole(&mut self) -> Option<Vec<Message>> {
        (&mut self.done).await.ok()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

async fn sort(mut messages: Subscriber, prefix: usize, waiting: Arc<Waiting>) {
    while let Some(message) = messages.next().await {
        let Some(id) = message.subject.get(prefix..).and_then(|id| id.parse().ok()) else { continue };
        let last = message.status.is_some();
        let mut slots = waiting.lock();
        // An answer nobody waits for any more has no slot.
        let Some((collected, _)) = slots.get_mut(&id) else { continue };
        collected.push(message);
        if last && let Some((collected, done)) = slots.remove(&id) {
            drop(slots);
            // The one who asked may have just gone.
            let _ = done.send(collected);
        }
    }
    waiting.lock().clear();
}
