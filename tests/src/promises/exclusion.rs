//! Many at once: never two holders, first come first served, with and without faults.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tenure::{Error, Mutex, Session};
use tenure_kv::{Moment, faults::Partition};
use tokio::{
    sync::{Barrier, watch},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Bed,
    basics::{tickets, until_no_ticket_is_left},
    history::{Hold, must_be_sound},
    line::{Fate, Line, Write},
    support::{Dice, LONG, MS, Must, now, until, within},
};

/// Takes a lock, relies on it for a moment, and gives it back. The hold counts whatever became of the
/// release.
pub(super) async fn hold_once(mutex: &Mutex, dice: &mut Dice) -> Result<(Hold, tenure::Result<()>), Error> {
    let guard = mutex.lock().await?;
    let granted = now();
    let mut hold = Hold {
        lock: mutex.name().to_owned(),
        epoch: guard.session().epoch().to_owned(),
        token: guard.token().get(),
        granted,
        held: granted,
    };
    for _ in 0..dice.below(4) {
        let at = now();
        if !guard.is_held() {
            break;
        }
        hold.held = at;
        if dice.below(2) == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(MS).await;
        }
    }
    Ok((hold, guard.release().await))
}

pub(super) async fn join<T: 'static>(mut tasks: JoinSet<T>) -> Vec<T> {
    let mut all = Vec::with_capacity(tasks.len());
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(value) => all.push(value),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => panic!("a task of the test was cancelled: {error}"),
        }
    }
    all
}

/// Eight sessions with three tasks each want three locks: at most one holds, in the order of tickets.
///
/// # Panics
/// When the promise is broken.
pub async fn of_many_at_most_one_holds(bed: &Bed) {
    let sessions = bed.sessions(8, Duration::from_secs(10)).await;
    let inside: HashMap<String, Arc<AtomicUsize>> = (0..3).map(|n| (format!("lock-{n}"), Arc::default())).collect();
    let mut tasks = JoinSet::new();
    for (seed, session) in sessions.iter().flat_map(|session| [session; 3]).enumerate() {
        let (session, inside) = (session.clone(), inside.clone());
        tasks.spawn(async move {
            let mut dice = Dice::new(seed as u64);
            let mut holds = Vec::new();
            for _ in 0..14 {
                let mutex = session.mutex(&format!("lock-{}", dice.below(3))).must("a lock name");
                let guard = mutex.lock().await.must("the lock");
                let hold = Hold {
                    lock: mutex.name().to_owned(),
                    epoch: session.epoch().to_owned(),
                    token: guard.token().get(),
                    granted: now(),
                    held: now(),
                };
                assert_eq!(inside[mutex.name()].fetch_add(1, Ordering::SeqCst), 0, "somebody else is inside {}", mutex.name());
                if dice.below(3) > 0 {
                    tokio::task::yield_now().await;
                }
                let held = now();
                assert!(guard.is_held(), "lost without a fault: {guard:?}");
                assert_eq!(inside[mutex.name()].fetch_sub(1, Ordering::SeqCst), 1, "somebody came into {}", mutex.name());
                guard.release().await.must("the release");
                holds.push(Hold { held, ..hold });
            }
            holds
        });
    }
    let history: Vec<Hold> = within(LONG, "all have had their turns", join(tasks)).await.into_iter().flatten().collect();
    assert_eq!(history.len(), 8 * 3 * 14);
    must_be_sound(&history);
    until_no_ticket_is_left(sessions[0].store()).await;
}

/// Of many who try at once, one gets the lock, and the others leave nothing behind.
///
/// # Panics
/// When the promise is broken.
pub async fn of_many_who_try_one_wins(bed: &Bed) {
    let sessions = bed.sessions(6, Duration::from_secs(30)).await;
    for round in 0..15 {
        let barrier = Arc::new(Barrier::new(sessions.len()));
        let mut tries = JoinSet::new();
        for session in &sessions {
            let (mutex, barrier) = (session.mutex("try").must("a lock name"), barrier.clone());
            tries.spawn(async move {
                barrier.wait().await;
                mutex.try_lock().await
            });
        }
        let mut won = Vec::new();
        for outcome in within(LONG, "all have tried", join(tries)).await {
            match outcome {
                Ok(guard) => won.push(guard),
                Err(Error::NotAcquired { .. }) => {}
                Err(error) => panic!("round {round}: {error:?}"),
            }
        }
        // Guards are kept until all have tried, so a second one would be beside the first.
        let [guard] = <[_; 1]>::try_from(won).must(format!("round {round}: one wins"));
        let only = [guard.token()];
        until(Duration::from_secs(2), "only the winner's ticket is left", || async {
            (tickets(sessions[0].store()).await.iter().map(|entry| entry.revision).collect::<Vec<_>>() == only).then_some(())
        })
        .await;
        guard.release().await.must("the release");
        // The next round finds the lock free, whichever replica it asks.
        for session in &sessions {
            let mutex = session.mutex("try").must("a lock name");
            until(LONG, "everybody sees that it is free", || async { mutex.queue().await.ok()?.holder.is_none().then_some(()) })
                .await;
        }
    }
}

/// A process that wants locks again and again, comes what may, until it was granted one after the moment
/// that `over` tells.
pub(super) async fn persist(
    line: Line,
    lease: Duration,
    locks: u64,
    seed: u64,
    over: watch::Receiver<Option<Moment>>,
) -> Vec<Hold> {
    let mut dice = Dice::new(seed);
    let mut holds = Vec::<Hold>::new();
    let mut session: Option<Session> = None;
    loop {
        if let (Some(over), Some(last)) = (*over.borrow(), holds.last())
            && last.granted > over
        {
            break;
        }
        let alive = match session.take() {
            Some(session) => session,
            None => match Session::builder(line.store.clone()).lease(lease).open().await {
                Ok(session) => session,
                Err(Error::Unavailable { .. } | Error::Unknown { .. }) => {
                    tokio::time::sleep(10 * MS).await;
                    continue;
                }
                Err(error) => panic!("a session must open or be told to come again, but: {error:?}"),
            },
        };
        let mutex = alive.mutex(&format!("lock-{}", dice.below(locks))).must("a lock name");
        match hold_once(&mutex, &mut dice).await {
            Ok((hold, released)) => {
                holds.push(hold);
                if matches!(released, Ok(()) | Err(Error::Unavailable { .. } | Error::Unknown { .. })) {
                    session = Some(alive);
                }
            }
            Err(Error::Lost { .. }) => {}
            Err(Error::Unavailable { .. } | Error::Unknown { .. }) => {
                tokio::time::sleep(10 * MS).await;
                session = Some(alive);
            }
            Err(error) => panic!("a lock must be granted, lost or out of reach, but: {error:?}"),
        }
    }
    if let Some(session) = session {
        session.close().await.must("the close");
    }
    holds
}

/// Makes trouble on a line until it is aborted.
async fn trouble(line: Line, mut dice: Dice, lease: Duration) {
    loop {
        let write = Write::ALL[dice.below(4) as usize];
        let times = 1 + dice.below(2);
        match dice.below(9) {
            0 => line.fate(write, times, Fate::Refused),
            1 => line.fate(write, times, Fate::Vanishes),
            2 | 3 => line.fate(write, times, Fate::Unanswered(Duration::from_millis(dice.below(30)))),
            4 => line.fate(write, times, Fate::Late),
            5 => {
                line.land().await;
            }
            kind => {
                let partitions = [Partition::HoldRequests, Partition::HoldAnswers, Partition::Refuse];
                line.cut(partitions[(kind - 6) as usize]);
                let most = u64::try_from(lease.as_millis()).unwrap_or(1_000) * 3 / 2;
                tokio::time::sleep(Duration::from_millis(dice.below(most))).await;
                line.mend();
            }
        }
        tokio::time::sleep(Duration::from_millis(5 + dice.below(25))).await;
    }
}

/// Lines that are cut, writes that are lost, answers that are lost, writes that land late: never two
/// holders, and all goes on within a lease and 10 s after the last fault, with nothing left behind.
///
/// # Panics
/// When the promise is broken.
pub async fn a_storm_of_faults_breaks_nothing(bed: &Bed) {
    let lease = 400 * MS;
    let seed = u64::from(std::process::id()) ^ now().since_origin().as_nanos() as u64;
    println!("seed {seed}");
    let (over, watched) = watch::channel(None);
    let mut lines = Vec::new();
    let mut workers = JoinSet::new();
    let mut troubles = Vec::new();
    for n in 0..6 {
        let line = bed.line().await;
        line.give_up_after(lease);
        lines.push(line.clone());
        workers.spawn(persist(line.clone(), lease, 2, seed ^ n, watched.clone()));
        troubles.push(AbortOnDropHandle::new(tokio::spawn(trouble(line, Dice::new(seed ^ (n + 100)), lease))));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for trouble in troubles {
        trouble.abort();
        // Aborted as asked, or it would have been the test's own fault.
        assert!(trouble.await.is_err_and(|error| error.is_cancelled()));
    }
    for line in &lines {
        line.mend();
        line.land().await;
    }
    over.send_replace(Some(now()));
    let limit = lease + Duration::from_secs(10);
    let history = within(limit, "everybody is granted a lock after the faults", join(workers)).await;
    let history: Vec<Hold> = history.into_iter().flatten().collect();
    must_be_sound(&history);
    assert!(history.len() > 6, "hardly anything was granted in the storm: {}", history.len());
}
