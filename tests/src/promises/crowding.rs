//! Many of one process who wait for one lock share one look at its queue: in order, at little cost, and
//! whatever happens to that look.

use std::{sync::Arc, time::Duration};

use tenure::Session;
use tenure_kv::faults::Partition;
use tokio::task::JoinSet;

use super::{
    Bed,
    basics::{take, tickets, until_no_ticket_is_left, until_waiting},
    crashing::slack,
    exclusion::{hold_once, join},
    history::{Hold, must_be_sound},
    line::Write,
    support::{Dice, LONG, MS, Must, now, since, until, within},
};

const LEASE: Duration = Duration::from_secs(10);
const LOCK: &str = "crowd";

/// `count` tasks of `session` that want the lock once. Returns when they stand in the queue.
async fn queue_up(tasks: &mut JoinSet<Hold>, session: &Session, count: usize) {
    let before = tickets(session.store()).await.len();
    for n in 0..count {
        let mutex = session.mutex(LOCK).must("a lock name");
        tasks.spawn(async move { hold_once(&mutex, &mut Dice::new(n as u64)).await.must("the lock").0 });
    }
    let all = before + count;
    until(LONG, "all stand in the queue", || async { (tickets(session.store()).await.len() == all).then_some(()) }).await;
}

/// A turn costs a crowd its release and hardly a read, and turns come in the order of tickets.
///
/// # Panics
/// When the promise is broken.
pub async fn a_crowd_is_served_in_order_for_one_request_each(bed: &Bed) {
    let holder = bed.session(Duration::from_secs(90)).await;
    let guard = take(&holder, LOCK).await;
    let (mut lines, mut tasks) = (Vec::new(), JoinSet::new());
    for _ in 0..2 {
        lines.push(bed.process(Duration::from_secs(90)).await);
    }
    for _ in 0..4 {
        for (_, session) in &lines {
            queue_up(&mut tasks, session, 20).await;
        }
    }
    for (line, _) in &lines {
        line.take_asked();
    }
    guard.release().await.must("the release");
    let history = within(LONG, "all are served", join(tasks)).await;
    assert_eq!(history.len(), 160);
    must_be_sound(&history);
    let asked: u64 = lines.iter().map(|(line, _)| line.take_asked().besides_beats).sum();
    // A release each. The first few of each process came before there was a crowd; and a holder that stays
    // long for the machine's sake is looked at.
    assert!(asked <= 2 * 160 + 64, "{asked} requests for 160 turns");
    until_no_ticket_is_left(holder.store()).await;
}

/// A crowd behind a dead process, and with its tickets among its own, waits one lease for it and no more.
///
/// # Panics
/// When the promise is broken.
pub async fn a_crowd_outlives_the_dead_before_it(bed: &Bed) {
    let lease = Duration::from_secs(1);
    let mut delays = Vec::new();
    for _ in 0..3 {
        let (line, victim) = bed.process(lease).await;
        let heir = bed.session(lease).await;
        let guard = Arc::new(take(&victim, LOCK).await);
        let (mut dying, mut tasks) = (JoinSet::new(), JoinSet::new());
        queue_up(&mut tasks, &heir, 12).await;
        queue_up(&mut dying, &victim, 24).await;
        queue_up(&mut tasks, &heir, 12).await;
        within(LONG, "a renewal", line.after(1, Write::Beat)).await;
        line.cut(Partition::HoldRequests);
        let crashed = now();
        let first = within(LONG, "the first is granted", tasks.join_next()).await.must("a task").must("the task");
        assert!(!guard.is_held(), "the dead holder still says that it holds");
        delays.push(first.granted.saturating_since(crashed));
        // The dead in the middle have been silent for as long: they cost no lease of their own.
        let begun = now();
        let mut history = within(LONG, "all are served", join(tasks)).await;
        assert!(since(begun) < lease, "the dead in the middle of the queue held it up for {:?}", since(begun));
        history.push(first);
        assert_eq!(history.len(), 24);
        must_be_sound(&history);
        dying.abort_all();
        line.mend();
        drop(guard);
        victim.close().await.must("the victim closes");
        until_no_ticket_is_left(heir.store()).await;
    }
    let best = delays.iter().min().must("a delay");
    assert!(*best <= lease + slack(lease), "the first was granted after {delays:?}");
}

/// A crowd whose view of the queue is interrupted again and again is served in order all the same.
///
/// # Panics
/// When the promise is broken.
pub async fn a_crowd_survives_interruptions(bed: &Bed) {
    let (line, session) = bed.process(LEASE).await;
    let other = bed.session(LEASE).await;
    let guard = take(&other, LOCK).await;
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        queue_up(&mut tasks, &session, 15).await;
        queue_up(&mut tasks, &other, 5).await;
    }
    guard.release().await.must("the release");
    let mut history = Vec::new();
    let mut round = 0;
    while let Some(hold) = within(LONG, "the next is served", tasks.join_next()).await {
        history.push(hold.must("the task"));
        round += 1;
        match round % 12 {
            0 => drop(line.faults.cut("lock")),
            4 => drop(line.faults.pause("lock")),
            6 => line.faults.resume("lock"),
            // Ended for good, and to be opened anew.
            9 => drop(line.faults.end_watches("lock")),
            _ => {}
        }
        if round % 12 == 4 {
            // The turn of the others passes meanwhile, or nothing moves until the pause is over.
            tokio::time::sleep(5 * MS).await;
            line.faults.resume("lock");
        }
    }
    assert_eq!(history.len(), 60);
    must_be_sound(&history);
    until_no_ticket_is_left(session.store()).await;
}

/// Of a crowd that turns away nobody is left in the queue, and who comes after it is served.
///
/// # Panics
/// When the promise is broken.
pub async fn a_crowd_that_leaves_blocks_nobody(bed: &Bed) {
    let sessions = bed.sessions(2, LEASE).await;
    for _ in 0..4 {
        let guard = take(&sessions[0], LOCK).await;
        let mut leaving = JoinSet::new();
        queue_up(&mut leaving, &sessions[1], 30).await;
        let mutex = sessions[0].mutex(LOCK).must("a lock name");
        let last = tokio::spawn({
            let mutex = mutex.clone();
            async move { mutex.lock().await.must("the lock").release().await.must("the release") }
        });
        until_waiting(&mutex, 31).await;
        // Some are dropped as they wait, some as their turn has come.
        guard.release().await.must("the release");
        leaving.abort_all();
        within(LONG, "who came last is served", last).await.must("the task");
        while leaving.join_next().await.is_some() {}
        until_no_ticket_is_left(sessions[0].store()).await;
    }
}
