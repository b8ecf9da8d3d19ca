//! The state behind one lock, with its listeners and its timer: what `memory:` and `file:` have in common.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream::BoxStream};
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::task::AbortOnDropHandle;

use super::{
    state::{State, Write},
    watch::{Hub, Listener, Queue, Wakers},
};
use crate::{
    Clock, Entry, Event, Key, KeyRange, Moment, Notice, Page, Result, Revision, Since,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How long the timer task waits before it asks again for what could not be dealt with.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) state: State,
    hub: Hub,
    timer: Planned,
}

/// What the timer task is about.
#[derive(Debug, Default, Clone, Copy)]
enum Planned {
    /// There is no task.
    #[default]
    Absent,
    /// It waits to be told.
    Idle,
    /// It sleeps until then.
    Until(Moment),
}

impl Inner {
    /// Tells listeners of writes that were just installed.
    pub(super) fn tell(&self, writes: &[Write], woken: &mut Wakers) {
        for write in writes {
            self.hub.tell(&write.entry, woken);
        }
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    timer: Notify,
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>, state: State) -> Arc<Self> {
        let inner = Inner { state, ..Inner::default() };
        Arc::new(Self { clock, inner: Mutex::new(inner), timer: Notify::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) fn entry(&self, key: &Key) -> Option<Entry> {
        let now = self.now();
        self.lock().state.entry(now, key).cloned()
    }

    pub(super) fn entries(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        let now = self.now();
        let inner = self.lock();
        keys.iter().map(|key| inner.state.entry(now, key).cloned()).collect()
    }

    pub(super) fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Page {
        let now = self.now();
        self.lock().state.scan(now, range, from, limit)
    }

    pub(super) fn watch(self: &Arc<Self>, range: KeyRange, since: Since) -> BoxStream<'static, Result<Event>> {
        self.listen(range, since).boxed()
    }

    pub(super) fn follow(self: &Arc<Self>, key: &Key) -> BoxStream<'static, Notice> {
        self.listen(KeyRange::One(key.clone()), Since::Now).into_notices().boxed()
    }

    fn listen(self: &Arc<Self>, range: KeyRange, since: Since) -> Listener {
        let now = self.now();
        let mut inner = self.lock();
        let snapshot = match since {
            Since::Current | Since::History => inner.state.snapshot(now, &range, Revision::ZERO),
            Since::After(revision) => inner.state.snapshot(now, &range, revision),
            Since::Now => Vec::new(),
        };
        let revision = inner.state.revision();
        let queue = inner.hub.join(range, snapshot, revision);
        drop(inner);
        Listener::new(self.clone(), queue)
    }

    pub(super) fn leave(&self, queue: &Arc<Queue>) {
        self.lock().hub.leave(queue);
    }

    /// Ends every stream.
    pub(super) fn close(&self) {
        let mut woken = Wakers::default();
        self.lock().hub.close(&mut woken);
        woken.wake();
    }

    /// Whether no timer task runs.
    pub(super) fn lacks_timer(&self) -> bool {
        matches!(self.lock().timer, Planned::Absent)
    }

    /// Wakes the timer task if `inner` now has a deadline before the one it sleeps for, and tells whether
    /// a task is missing.
    pub(super) fn plan(&self, inner: &mut Inner) -> bool {
        let Some(next) = inner.state.next_deadline() else { return false };
        match inner.timer {
            Planned::Absent => return true,
            Planned::Until(at) if at <= next => {}
            Planned::Idle | Planned::Until(_) => {
                inner.timer = Planned::Until(next);
                self.timer.notify_one();
            }
        }
        false
    }
}

/// The task that notices when TTLs run out. It exists once there is a TTL to wait for, sleeps until the
/// next one is due, and ends with the store.
#[derive(Debug, Default)]
pub(super) struct Timer {
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Timer {
    /// Starts the task in the caller's runtime, if it has one; else what ran out stays hidden and is
    /// collected by later commits.
    ///
    /// `due` is called whenever something is due and returns whether that was dealt with; if not, the
    /// task waits for [`Shared::plan`] or a second before it asks again.
    pub(super) fn start(&self, shared: &Arc<Shared>, due: impl Fn(&Shared) -> bool + Send + 'static) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut inner = shared.lock();
            if !matches!(inner.timer, Planned::Absent) {
                return;
            }
            inner.timer = Planned::Idle;
        }
        let running = Running(shared.clone());
        *task = Some(AbortOnDropHandle::new(runtime.spawn(async move { run(&running.0, due).await })));
    }
}

/// Takes note when the task ends, be it with its runtime, so that another can be started.
#[derive(Debug)]
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().timer = Planned::Absent;
    }
}

async fn run(shared: &Arc<Shared>, due: impl Fn(&Shared) -> bool) {
    loop {
        let now = shared.now();
        let next = {
            let mut inner = shared.lock();
            let next = inner.state.next_deadline();
            // While something is due, the next call of `plan` is to be heard.
            inner.timer = next.filter(|at| *at > now).map_or(Planned::Idle, Planned::Until);
            next
        };
        match next {
            None => shared.timer.notified().await,
            Some(at) if at > now => {
                tokio::select! {
                    () = shared.clock.sleep_until(at) => {}
                    () = shared.timer.notified() => {}
                }
            }
            Some(_) if due(shared) => tokio::task::yield_now().await,
            Some(_) => {
                tokio::select! {
                    () = shared.clock.sleep_until(now + RETRY) => {}
                    () = shared.timer.notified() => {}
                }
            }
        }
    }
}

/// The wall clock, for people to read.
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}
