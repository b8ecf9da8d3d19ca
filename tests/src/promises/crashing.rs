//! Holders that crash, freeze or vanish: the next is granted in time, and never too early.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use futures::future::join_all;
use tenure::{Guard, Loss, Session, data_key};
use tenure_kv::{Op, faults::Partition};
use tokio::{runtime, sync::oneshot};

use super::{
    Bed,
    basics::{take, until_waiting},
    support::{LONG, MS, Must, loss_now, lost, must_have_lost, now, since, within},
};

/// How much later than one lease after the crash the next may be granted.
pub(super) fn slack(lease: Duration) -> Duration {
    if lease < Duration::from_secs(1) { 60 * MS } else { 250 * MS }
}

/// Leases for which fail-over is timed; below a second it is promised for one machine without copies.
fn leases(bed: &Bed) -> &'static [u64] {
    if bed.is_replicated() { &[1_000] } else { &[1_000, 300, 150] }
}

/// Someone who waits for the lock that `old` holds. Whenever it is granted, the old holder must know
/// that it has lost.
pub(super) async fn successor(
    session: Session,
    old: Arc<Guard>,
) -> tokio_util::task::AbortOnDropHandle<(Guard, tenure_kv::Moment)> {
    let mutex = session.mutex(old.name()).must("a lock name");
    let task = tokio::spawn({
        let mutex = mutex.clone();
        async move {
            let guard = mutex.lock().await.must("the next is granted");
            must_have_lost(&old, "when the next was granted");
            (guard, now())
        }
    });
    until_waiting(&mutex, 1).await;
    tokio_util::task::AbortOnDropHandle::new(task)
}

/// A crashed holder delays the next by at most a lease and a little; and never is anybody granted while
/// it may rely on the lock.
///
/// # Panics
/// When the promise is broken.
pub async fn a_crashed_holder_delays_the_next_by_one_lease(bed: &Bed) {
    for lease in leases(bed).iter().map(|ms| Duration::from_millis(*ms)) {
        let tries = join_all((0..4_u32).map(|n| async move {
            // One after the other: what holds up this whole program for a moment must not hold up all of them.
            tokio::time::sleep(n * lease).await;
            let (line, holder) = bed.process(lease).await;
            let guard = Arc::new(take(&holder, &format!("crash-{n}")).await);
            let next = successor(bed.session(lease).await, guard.clone()).await;
            // The worst moment: the last renewal has just arrived.
            within(LONG, "a renewal", line.renewed()).await;
            line.cut(Partition::HoldRequests);
            let crashed = now();
            let told = tokio::spawn(guard.lost());
            let (next, granted) = within(LONG, "the next is granted", next).await.must("the task");
            assert_eq!(told.await.must("the task"), Loss::Deadline);
            assert!(next.token() > guard.token());
            next.release().await.must("the release");
            granted.saturating_since(crashed)
        }));
        let delays = tries.await;
        let best = delays.iter().min().must("a delay");
        assert!(*best <= lease + slack(lease), "{lease:?}: the next was granted after {delays:?}");
    }
}

/// Who comes long after the crash does not wait a whole lease again: its session's own renewals have told
/// it since when the other has been silent.
///
/// # Panics
/// When the promise is broken.
pub async fn who_comes_after_a_crash_waits_for_the_rest_of_the_lease(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let tries = join_all((0..3).map(|n| async move {
        let (line, holder) = bed.process(lease).await;
        let other = bed.session(lease).await;
        let guard = take(&holder, &format!("late-{n}")).await;
        line.cut(Partition::HoldRequests);
        let crashed = now();
        tokio::time::sleep(lease * 9 / 10).await;
        let mutex = other.mutex(guard.name()).must("a lock name");
        let next = within(LONG, "the next is granted", mutex.lock()).await.must("the next is granted");
        must_have_lost(&guard, "when the next was granted");
        let delay = since(crashed);
        next.release().await.must("the release");
        delay
    }));
    let delays = tries.await;
    let best = delays.iter().min().must("a delay");
    // To within the distance of two renewals.
    assert!(*best <= lease * 4 / 3 + slack(lease), "granted {delays:?} after the crash");
}

/// What the frozen process found when it woke.
struct Awake {
    held: bool,
    loss: Option<Loss>,
    committed: tenure::Result<tenure_kv::Revision>,
    released: tenure::Result<()>,
}

/// A process that stands still: one thread with all that belongs to its session.
struct Frozen {
    go_on: mpsc::Sender<()>,
    awake: oneshot::Receiver<Awake>,
    token: tenure_kv::Revision,
    thread: thread::JoinHandle<()>,
}

impl Frozen {
    /// Returns when the process holds `lock` and then stands still.
    async fn holding(bed: &Bed, lock: &'static str, lease: Duration) -> Self {
        let bed = bed.clone();
        let (go_on, stopped) = mpsc::channel();
        let (tell, awake) = oneshot::channel();
        let (holds, held) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().must("a runtime");
            runtime.block_on(async move {
                let session = bed.session(lease).await;
                let guard = take(&session, lock).await;
                holds.send(guard.token()).must("the test listens");
                // Blocks the thread: no timer, no task and no connection of this process goes on.
                stopped.recv().must("the test lets it go on");
                let (held, loss) = (guard.is_held(), loss_now(&guard));
                let committed = guard.commit(Op::put(data_key("frozen").must("a key"), "stale").into()).await;
                let released = guard.release().await;
                tell.send(Awake { held, loss, committed, released }).ok().must("the test listens");
            });
        });
        let token = within(LONG, "the process holds the lock", held).await.must("the process");
        Self { go_on, awake, token, thread }
    }

    async fn wake(self) -> Awake {
        self.go_on.send(()).must("the process is there");
        let awake = within(LONG, "the process goes on", self.awake).await.must("the process");
        tokio::task::spawn_blocking(move || self.thread.join()).await.must("the task").ok().must("the thread ends well");
        awake
    }
}

/// A process that stood still for longer than its lease knows at its first look that it has lost, before
/// any of its tasks ran; its writes are refused and its release says so.
///
/// # Panics
/// When the promise is broken.
pub async fn a_paused_holder_knows_at_its_first_look(bed: &Bed) {
    for (lock, waits) in [("paused", true), ("alone", false)] {
        let lease = 300 * MS;
        let frozen = Frozen::holding(bed, lock, lease).await;
        let begun = now();
        let next = if waits {
            let session = bed.session(lease).await;
            let mutex = session.mutex(lock).must("a lock name");
            let next = within(LONG, "the next is granted", mutex.lock()).await.must("the next is granted");
            assert!(next.token() > frozen.token);
            Some(next)
        } else {
            tokio::time::sleep(lease.saturating_sub(since(begun))).await;
            None
        };
        let awake = frozen.wake().await;
        assert!(!awake.held, "{lock}: held after the pause");
        assert_eq!(awake.loss, Some(Loss::Deadline), "{lock}: lost() at the first look");
        lost(awake.committed, format!("{lock}: the write after the pause"));
        lost(awake.released, format!("{lock}: the release after the pause"));
        if let Some(next) = next {
            assert!(next.is_held());
            next.commit(Op::put(data_key("frozen").must("a key"), "fresh").into()).await.must("the next writes");
            next.release().await.must("the next gives back");
        }
    }
}

/// A process that stood still for less than its lease has lost nothing.
///
/// # Panics
/// When the promise is broken.
pub async fn a_short_pause_loses_nothing(bed: &Bed) {
    let lease = Duration::from_secs(2);
    let frozen = Frozen::holding(bed, "short", lease).await;
    let session = bed.session(lease).await;
    let mutex = session.mutex("short").must("a lock name");
    let waiting = tokio::spawn(async move { mutex.lock().await });
    tokio::time::sleep(lease / 3).await;
    let awake = frozen.wake().await;
    assert!(awake.held && awake.loss.is_none(), "lost in a pause of a third of the lease: {:?}", awake.loss);
    awake.committed.must("the write after the pause");
    awake.released.must("the release after the pause");
    within(LONG, "the next is granted", waiting).await.must("the task").must("the lock").release().await.must("the release");
}

/// A process that died with all its tasks delays the next by at most a lease and a little; what is left
/// of its guard knows by the clock alone.
///
/// # Panics
/// When the promise is broken.
pub async fn a_dead_process_delays_the_next_by_one_lease(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let tries = join_all((0..3).map(|n| async move {
        let own = bed.clone();
        let (tell, guard) = oneshot::channel();
        let (die, death) = mpsc::channel::<()>();
        let (gone, dead) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().must("a runtime");
            runtime.block_on(async {
                let session = own.session(lease).await;
                tell.send(take(&session, &format!("dead-{n}")).await).must("the test listens");
                while death.try_recv().is_err() {
                    tokio::time::sleep(5 * MS).await;
                }
            });
            runtime.shutdown_background();
            gone.send(now()).must("the test listens");
        });
        let guard: Arc<Guard> = Arc::new(within(LONG, "the process holds the lock", guard).await.must("the process"));
        let next = successor(bed.session(lease).await, guard.clone()).await;
        die.send(()).must("the process is there");
        let died = within(LONG, "the process dies", dead).await.must("the process");
        let (next, granted) = within(LONG, "the next is granted", next).await.must("the task");
        lost(Arc::into_inner(guard).must("the only guard").release().await, "a release by the dead");
        next.release().await.must("the release");
        thread.join().ok().must("the thread ends well");
        granted.saturating_since(died)
    }));
    let delays = tries.await;
    let best = delays.iter().min().must("a delay");
    assert!(*best <= lease + slack(lease), "the next was granted after {delays:?}");
}
