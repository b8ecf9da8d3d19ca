//! One renewal for everything a session holds, and nothing is lost while there is no fault.

use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use tenure::{Guard, Session, data_key};
use tenure_kv::StoreExt;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Bed,
    basics::take,
    exclusion::{hold_once, join},
    history::must_be_sound,
    line::Write,
    support::{Dice, LONG, MS, Must, now, since, within},
};

/// How often a machine may stand still while it is to show that nothing is lost.
const TRIES: usize = 30;

async fn take_many(session: &Session, name: &str, count: usize) -> Vec<Guard> {
    let names = (0..count).map(|n| format!("{name}.{n}"));
    stream::iter(names).map(|name| async move { take(session, &name).await }).buffered(32).collect().await
}

/// A thousand locks are renewed with as many messages as one.
///
/// # Panics
/// When the promise is broken.
pub async fn renewals_do_not_grow_with_locks(bed: &Bed) {
    let lease = 1_500 * MS;
    let (few_line, few) = bed.process(lease).await;
    let (many_line, many) = bed.process(lease).await;
    let one = take_many(&few, "few", 1).await;
    let thousand = within(LONG, "a thousand locks", take_many(&many, "many", 1_000)).await;
    // A session that is new looks once more after its holds.
    let settled = async { tokio::join!(few_line.after(2, Write::Beat), many_line.after(2, Write::Beat)) };
    within(LONG, "two renewals", settled).await;
    few_line.take_asked();
    many_line.take_asked();
    tokio::time::sleep(lease * 2).await;
    let (few_asked, many_asked) = (few_line.take_asked(), many_line.take_asked());
    let (few_beats, many_beats) = (few_asked.beats, many_asked.beats);
    assert!(few_beats.abs_diff(many_beats) <= 1, "{few_beats} renewals for one lock, {many_beats} for a thousand");
    assert!((5..=8).contains(&many_beats), "{many_beats} renewals in two leases");
    assert_eq!((few_asked.besides_beats, many_asked.besides_beats), (0, 0), "{few_asked:?} {many_asked:?}");
    assert!(one.iter().chain(&thousand).all(Guard::is_held));
    within(LONG, "the close", many.close()).await.must("the close");
    assert!(!thousand.iter().any(Guard::is_held));
}

/// Somebody beside the test, on the same processors, who does next to nothing: to see when the machine or the store
/// stands still.
struct Metronome {
    stop: CancellationToken,
    task: JoinHandle<Duration>,
}

impl Metronome {
    async fn start(bed: &Bed) -> Self {
        let (store, stop) = (bed.store().await, CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let key = data_key("metronome").must("a key");
            let (mut last, mut longest) = (now(), Duration::ZERO);
            while !stopped.is_cancelled() {
                tokio::time::sleep(5 * MS).await;
                store.put(&key, "tick").await.must("a write");
                longest = longest.max(since(last));
                last = now();
            }
            longest
        });
        Self { stop, task }
    }

    /// The longest time from one tick to the next.
    async fn stop(self) -> Duration {
        self.stop.cancel();
        self.task.await.must("the metronome")
    }
}

/// With no fault nobody loses a lease, not the shortest one, while others keep the processors busy.
///
/// A machine that stands still for a third of the lease is a fault: such a try does not count.
///
/// # Panics
/// When the promise is broken.
pub async fn without_a_fault_nothing_is_lost(bed: &Bed) {
    let lease = tenure::MIN_LEASE;
    let mut stalls = Vec::new();
    for _ in 0..TRIES {
        let metronome = Metronome::start(bed).await;
        let outcome = hold_many(bed, lease).await;
        let stall = metronome.stop().await;
        match outcome {
            Ok(()) => return,
            Err(what) => assert!(stall > lease / 3, "{what}, and nothing stood still for longer than {stall:?}"),
        }
        stalls.push(stall);
    }
    panic!("the machine is too busy for this test: it stood still for {stalls:?}");
}

/// Holds fifty locks for ten leases, while others are taken and given back. Says what was lost.
async fn hold_many(bed: &Bed, lease: Duration) -> Result<(), String> {
    let session = bed.session(lease).await;
    let name = format!("kept-{}", session.id());
    let guards = take_many(&session, &name, 50).await;
    let busy = bed.sessions(2, lease).await;
    let begun = now();
    let mut work = JoinSet::new();
    for (n, session) in busy.iter().cycle().take(6).enumerate() {
        let mutex = session.mutex("busy").must("a lock name");
        work.spawn(async move {
            let mut dice = Dice::new(n as u64);
            let mut holds = Vec::new();
            while since(begun) < lease * 10 {
                let (hold, released) = hold_once(&mutex, &mut dice).await.map_err(|error| error.to_string())?;
                released.map_err(|error| error.to_string())?;
                holds.push(hold);
            }
            Ok::<_, String>(holds)
        });
    }
    while since(begun) < lease * 10 {
        if let Some(lost) = guards.iter().find(|guard| !guard.is_held()) {
            return Err(format!("{lost:?} was lost without a fault: {:?}", lost.lost().now_or_never()));
        }
        tokio::time::sleep(MS).await;
    }
    let mut history = Vec::new();
    for holds in within(LONG, "the others end", join(work)).await {
        history.extend(holds?);
    }
    must_be_sound(&history);
    for guard in guards {
        guard.release().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
