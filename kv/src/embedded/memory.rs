//! The store in this process's memory.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{
    shared::{Inner, Shared, Timer, wall_clock},
    state::State,
    watch::Wakers,
};
use crate::{
    Batch, Beside, BootClock, Clock, Entry, Event, Info, Key, KeyRange, Moment, Notice, Page, Result, Revision, Since, Store,
};

/// The most keys collected at once, so that a mass expiry does not hold others up.
const COLLECT: usize = 256;

/// A store in this process's memory. Clones share it; it is gone with the last of them, and so end its
/// watches.
///
/// TTLs need a Tokio runtime to be told to watchers on time; what ran out is not readable in any case.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    info: Info,
    shared: Arc<Shared>,
    timer: Timer,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(BootClock))
    }

    /// An empty store whose TTLs run by `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let info = Info { url: "memory:".to_owned(), shared: false, replicas: 1 };
        Self(Arc::new(Handle { info, shared: Shared::new(clock, State::default()), timer: Timer::default() }))
    }

    fn apply(&self, batch: Batch) -> Result<Revision> {
        batch.validate()?;
        let shared = &self.0.shared;
        let (now, created) = (shared.now(), wall_clock());
        let mut woken = Wakers::default();
        let mut inner = shared.lock();
        collect(&mut inner, now, created, &mut woken);
        let applied = inner.state.apply(now, created, batch);
        if let Ok(writes) = &applied {
            inner.tell(writes, &mut woken);
        }
        let revision = inner.state.revision();
        let timer_missing = shared.plan(&mut inner);
        drop(inner);
        woken.wake();
        if timer_missing {
            self.0.timer.start(shared, |shared| {
                let mut woken = Wakers::default();
                collect(&mut shared.lock(), shared.now(), wall_clock(), &mut woken);
                woken.wake();
                true
            });
        }
        applied.map(|_| revision)
    }
}

/// Forgets some of what ran out, and tells listeners.
fn collect(inner: &mut Inner, now: Moment, created: SystemTime, woken: &mut Wakers) {
    let due = inner.state.due(now, COLLECT);
    let writes = inner.state.expire(now, created, due.expired);
    inner.tell(&writes, woken);
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[async_trait]
impl Store for Memory {
    fn info(&self) -> &Info {
        &self.0.info
    }

    async fn bucket(&self, name: &str) -> Result<Beside> {
        crate::check_bucket(name).map(|()| Beside::Range)
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.0.shared.entry(key))
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.apply(batch)
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        Ok(self.0.shared.watch(range, since))
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        Ok(self.0.shared.entries(keys))
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        Ok(self.0.shared.scan(range, from, limit))
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        Ok(self.0.shared.follow(key))
    }
}
