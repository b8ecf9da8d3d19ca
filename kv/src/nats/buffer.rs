//! What a watch has heard and nobody has read yet: bounded in events and bytes.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{Entry, Error, Event, Result, State};

const MOST_EVENTS: usize = 1_024;
const MOST_BYTES: usize = 8 << 20;

/// One writer, one reader.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    inner: Mutex<Inner>,
    filled: Notify,
    drained: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Event>,
    bytes: usize,
    end: Option<Error>,
    ended: bool,
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event if there is room. A single event larger than the bound still fits an empty buffer.
    pub(super) fn push(&self, event: Event) -> Result<(), Event> {
        let mut inner = self.lock();
        let size = size(&event);
        if !inner.events.is_empty() && (inner.events.len() >= MOST_EVENTS || inner.bytes + size > MOST_BYTES) {
            return Err(event);
        }
        inner.bytes += size;
        inner.events.push_back(event);
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// Resolves when half of the room is free.
    pub(super) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let inner = self.lock();
                if inner.events.len() <= MOST_EVENTS / 2 && inner.bytes <= MOST_BYTES / 2 {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Nothing more will come; `error` is told last.
    pub(super) fn end(&self, error: Error) {
        let mut inner = self.lock();
        inner.end = Some(error);
        inner.ended = true;
        drop(inner);
        self.filled.notify_one();
    }

    /// The next event, in order; `None` after the error that ended it.
    pub(super) async fn pop(&self) -> Option<Result<Event>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut inner = self.lock();
                if let Some(event) = inner.events.pop_front() {
                    inner.bytes -= size(&event);
                    drop(inner);
                    self.drained.notify_one();
                    return Some(Ok(event));
                }
                if inner.ended {
                    return inner.end.take().map(Err);
                }
            }
            filled.await;
        }
    }
}

fn size(event: &Event) -> usize {
    match event {
        Event::Entry(Entry { key, state: State::Live(value) | State::Deleted(value), .. }) => key.as_str().len() + value.len(),
        Event::Entry(Entry { key, .. }) => key.as_str().len(),
        Event::CaughtUp | Event::Gap => 0,
    }
}
