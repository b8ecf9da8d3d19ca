//! Waiting for a lock: in order, at no cost, and without harm when the waiter goes away.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use tenure::Guard;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    basics::{take, tickets, until_no_ticket_is_left, until_waiting},
    exclusion::{hold_once, join},
    history::must_be_sound,
    line::{Asked, Line},
    support::{Dice, LONG, MS, Must, now, until, within},
};

const LEASE: Duration = Duration::from_secs(10);

/// Whoever came first is served first, whichever session it belongs to; who left is passed over.
///
/// # Panics
/// When the promise is broken.
pub async fn waiters_are_served_in_order(bed: &Bed) {
    let sessions = bed.sessions(3, LEASE).await;
    let guard = take(&sessions[0], "order").await;
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = Vec::new();
    for n in 0..9 {
        let mutex = sessions[n % 3].mutex("order").must("a lock name");
        let served = served.clone();
        waiting.push(tokio::spawn({
            let mutex = mutex.clone();
            async move {
                let guard = mutex.lock().await.must("the lock");
                served.send((n, guard.token())).must("the test listens");
                guard.release().await.must("the release");
            }
        }));
        until_waiting(&mutex, n + 1).await;
    }
    let left = [1, 4, 5];
    for n in left {
        waiting[n].abort();
    }
    until_waiting(&sessions[0].mutex("order").must("a lock name"), 6).await;
    guard.release().await.must("the release");
    drop(served);
    let mut seen = Vec::new();
    while let Some(next) = within(LONG, "the next is served", order.recv()).await {
        seen.push(next);
    }
    assert_eq!(seen.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 2, 3, 6, 7, 8]);
    assert!(seen.is_sorted_by_key(|(_, token)| *token), "{seen:?}");
    until_no_ticket_is_left(sessions[0].store()).await;
}

/// A queue that fits no single read is served in order as well.
///
/// # Panics
/// When the promise is broken.
pub async fn a_long_queue_is_served_in_order(bed: &Bed) {
    let sessions = bed.sessions(3, LEASE).await;
    let guard = take(&sessions[0], "long").await;
    let mut tasks = JoinSet::new();
    for n in 0..180 {
        let mutex = sessions[n % 3].mutex("long").must("a lock name");
        tasks.spawn(async move { hold_once(&mutex, &mut Dice::new(n as u64)).await.must("the lock").0 });
    }
    until(LONG, "all wait", || async { (tickets(sessions[0].store()).await.len() == 181).then_some(()) }).await;
    guard.release().await.must("the release");
    let history = within(LONG, "all are served", join(tasks)).await;
    assert_eq!(history.len(), 180);
    must_be_sound(&history);
    until_no_ticket_is_left(sessions[0].store()).await;
}

/// Waiters that go away at any time block nobody and leave nothing behind.
///
/// # Panics
/// When the promise is broken.
pub async fn waiters_that_leave_block_nobody(bed: &Bed) {
    let sessions = bed.sessions(4, LEASE).await;
    let mut dice = Dice::new(5);
    for round in 0..6 {
        let guard = take(&sessions[round % 4], "fickle").await;
        let mut tasks = JoinSet::new();
        for n in 0..16 {
            let mutex = sessions[n % 4].mutex("fickle").must("a lock name");
            let patience = Duration::from_micros(dice.below(20_000));
            // A dropped future, an aborted task, and one that is granted and dropped unused.
            match n % 3 {
                0 => drop(tasks.spawn(async move { drop(tokio::time::timeout(patience, mutex.lock()).await) })),
                1 => {
                    let task = tokio::spawn(async move { drop(mutex.lock().await) });
                    tasks.spawn(async move {
                        tokio::time::sleep(patience).await;
                        task.abort();
                    });
                }
                _ => drop(tasks.spawn(async move { drop(mutex.lock_timeout(patience).await) })),
            }
        }
        tokio::time::sleep(Duration::from_micros(dice.below(20_000))).await;
        guard.release().await.must("the release");
        join(tasks).await;
        let mutex = sessions[(round + 1) % 4].mutex("fickle").must("a lock name");
        let next = within(Duration::from_secs(1), "the lock is free again", mutex.lock()).await.must("the lock");
        next.release().await.must("the release");
        until_no_ticket_is_left(sessions[0].store()).await;
    }
}

/// A waiter asks the store for next to nothing while it waits: one look each lease.
///
/// # Panics
/// When the promise is broken.
pub async fn waiting_costs_nothing(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let holder = bed.session(lease).await;
    let (line, session) = bed.process(lease).await;
    let guard = take(&holder, "idle").await;
    let mutex = session.mutex("idle").must("a lock name");
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        let mutex = mutex.clone();
        waiting.spawn(async move { mutex.lock().await });
    }
    until_waiting(&mutex, 20).await;
    // Each may be about to settle down; nothing may come after that but the looks and the renewals.
    settled(&line).await;
    line.take_asked();
    let begun = now();
    tokio::time::sleep(lease * 2).await;
    let asked = line.take_asked();
    let leases = (now().saturating_since(begun).as_secs_f64() / lease.as_secs_f64()).ceil();
    assert_eq!(asked.besides_beats, asked.reads, "{asked:?}");
    assert!(asked.reads as f64 <= 20.0 * leases, "{} reads by 20 waiters in {leases} leases", asked.reads);
    assert!(asked.beats as f64 <= 3.0 * leases + 1.0, "{asked:?}");
    waiting.abort_all();
    drop(guard);
}

/// Waits until nothing but renewals has passed the line for a while.
async fn settled(line: &Line) {
    until(LONG, "the waiters settle down", || async {
        line.take_asked();
        tokio::time::sleep(100 * MS).await;
        (line.take_asked().besides_beats == 0).then_some(())
    })
    .await;
}

/// A release wakes one waiter, for at most four requests.
///
/// # Panics
/// When the promise is broken.
pub async fn a_release_wakes_one_waiter(bed: &Bed) {
    // So long that nothing is looked at for the time's sake.
    let lease = Duration::from_secs(90);
    let holder = bed.session(lease).await;
    let mut guard = take(&holder, "wake").await;
    let (mut lines, mut sessions) = (Vec::new(), Vec::new());
    let mut waiting = FuturesUnordered::new();
    for n in 0..10 {
        let (line, session) = bed.process(lease).await;
        let mutex = session.mutex("wake").must("a lock name");
        lines.push(line);
        // Kept, or its end would be a request too.
        sessions.push(session);
        waiting.push(AbortOnDropHandle::new(tokio::spawn(async move { mutex.lock().await.must("the lock") })));
        until_waiting(&holder.mutex("wake").must("a lock name"), n + 1).await;
    }
    for line in &lines {
        settled(line).await;
    }
    for served in 0..4 {
        for line in &lines {
            line.take_asked();
        }
        guard.release().await.must("the release");
        guard = within(LONG, "the next is granted", waiting.next()).await.must("a waiter").must("the task");
        // What was not woken by this moment is given the time to show that it was.
        tokio::time::sleep(100 * MS).await;
        let asked: Vec<Asked> = lines.iter().map(Line::take_asked).collect();
        for (n, asked) in asked.iter().enumerate() {
            // The release itself goes over the line of the waiter served before.
            let most = if n == served { 4 } else { u64::from(n + 1 == served) };
            assert!(asked.besides_beats <= most, "waiter {n} asked for {asked:?} when {served} was served");
        }
    }
    let _: Guard = guard;
}
