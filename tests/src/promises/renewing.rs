//! One renewal for everything a session holds, and nothing is lost while there is no fault.

use futures::{StreamExt, stream};
use tenure::{Guard, Session};

use super::{
    Bed,
    basics::take,
    exclusion::hold_once,
    history::must_be_sound,
    line::Write,
    support::{Dice, LONG, MS, Must, loss_now, now, within},
};

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

/// With no fault nobody loses a lease, not the shortest one, while others keep the processors busy.
///
/// # Panics
/// When the promise is broken.
pub async fn without_a_fault_nothing_is_lost(bed: &Bed) {
    let lease = tenure::MIN_LEASE;
    let session = bed.session(lease).await;
    let guards = take_many(&session, "kept", 50).await;
    let busy = bed.sessions(2, lease).await;
    let begun = now();
    let mut work = Vec::new();
    for (n, session) in busy.iter().cycle().take(6).enumerate() {
        let mutex = session.mutex("busy").must("a lock name");
        work.push(tokio::spawn(async move {
            let mut dice = Dice::new(n as u64);
            let mut holds = Vec::new();
            while now().saturating_since(begun) < lease * 10 {
                let (hold, released) = hold_once(&mutex, &mut dice).await.must("the lock");
                released.must("the release");
                holds.push(hold);
            }
            holds
        }));
    }
    while now().saturating_since(begun) < lease * 10 {
        for guard in &guards {
            assert!(guard.is_held() && loss_now(guard).is_none(), "lost without a fault: {guard:?}");
        }
        tokio::time::sleep(MS).await;
    }
    let mut history = Vec::new();
    for task in work {
        history.extend(within(LONG, "the others end", task).await.must("the task"));
    }
    must_be_sound(&history);
    for guard in guards {
        guard.release().await.must("the release");
    }
}
