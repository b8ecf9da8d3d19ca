//! Tasks that take locks, write under them, and let them go in every way there is.

use std::time::Duration;

use tenure::{Guard, Mutex, Session, locks};
use tenure_check::history::{Hold, Mode, Op, Outcome, Sight};

use super::{Actor, at, fenced::Desk};

const LOCKS: [&str; 2] = ["a", "b"];

pub(super) async fn work(actor: Actor, session: Session, n: usize) {
    let mut rng = actor.rng(10 + n as u64);
    let lease = session.lease();
    while !actor.world.is_finishing() {
        actor.pause(&mut rng, lease).await;
        let lock = LOCKS[usize::from(n.is_multiple_of(2) && rng.bool())];
        let Ok(mutex) = session.mutex(lock) else { return };
        if let Some(guard) = acquire(&actor, &session, &mutex, lock, &mut rng).await {
            hold(&actor, &session, lock, &guard, &mut rng).await;
            give_up(&actor, &session, lock, guard, &mut rng).await;
        }
    }
}

async fn acquire(actor: &Actor, session: &Session, mutex: &Mutex, lock: &str, rng: &mut fastrand::Rng) -> Option<Guard> {
    let op = |mode, limit: Option<Duration>| Op::Acquire {
        session: session.id().to_owned(),
        lock: lock.to_owned(),
        mode,
        limit_ms: limit.and_then(|limit| u64::try_from(limit.as_millis()).ok()),
    };
    let limit = Duration::from_millis(rng.u64(1..2_000));
    let token = |guard: &Guard| at(guard.token());
    match rng.u8(..10) {
        0 => actor.run(op(Mode::Try, None), mutex.try_lock(), token).await.ok(),
        1 | 2 => actor.run(op(Mode::Timeout, Some(limit)), mutex.lock_timeout(limit), token).await.ok(),
        3 => {
            // The caller loses interest: whatever the future was about must be undone.
            let id = actor.call(op(Mode::Wait, None));
            let locked = tokio::select! {
                biased;
                locked = mutex.lock() => Some(locked),
                () = actor.sleep(limit) => None,
            };
            match locked {
                Some(locked) => {
                    id.returned(locked.as_ref().map_or_else(super::failure, |guard| Outcome::Ok(token(guard))));
                    locked.ok()
                }
                None => {
                    let (kind, why) = (tenure_check::history::Failure::Timeout, "dropped".to_owned());
                    id.returned(Outcome::Failed { kind, why });
                    None
                }
            }
        }
        _ => actor.run(op(Mode::Wait, None), mutex.lock(), token).await.ok(),
    }
}

async fn hold(actor: &Actor, session: &Session, lock: &str, guard: &Guard, rng: &mut fastrand::Rng) {
    let lease = session.lease();
    let token = guard.token().get();
    let under = Hold::Lock { lock: lock.to_owned(), token };
    let mut desk = Desk::new(actor.clone(), session.id().to_owned(), under, format!("under.{lock}"));
    let steps = rng.u32(1..12);
    for step in 0..steps {
        let yes = guard.is_held();
        actor.saw(Sight::Held { lock: lock.to_owned(), token, yes });
        if rng.u8(..) < 100 {
            write(actor, guard, &mut desk, rng).await;
        }
        // Mostly short, now and then for much longer than the lease.
        let most = if rng.u8(..) < 20 { lease * 2 } else { lease / 6 };
        let lost = tokio::select! {
            biased;
            loss = guard.lost() => Some(loss),
            () = actor.pause(rng, most) => None,
        };
        if let Some(loss) = lost {
            let hold = Hold::Lock { lock: lock.to_owned(), token };
            actor.saw(Sight::Lost { hold, loss: loss.as_str().to_owned() });
            // A holder that does not listen: the store must refuse it.
            write(actor, guard, &mut desk, rng).await;
            return;
        }
        if actor.world.is_finishing() && step > 1 {
            return;
        }
    }
}

async fn write(actor: &Actor, guard: &Guard, desk: &mut Desk, rng: &mut fastrand::Rng) {
    let yes = guard.is_held();
    actor.saw(Sight::Held { lock: guard.name().to_owned(), token: guard.token().get(), yes });
    desk.write(rng, async |batch| guard.commit(batch).await).await;
}

/// An administrator who breaks a hold now and then.
pub(super) async fn break_some(actor: Actor, lease: Duration) {
    let mut rng = actor.rng(120);
    while !actor.world.is_finishing() {
        actor.pause(&mut rng, lease * 8).await;
        let lock = LOCKS[rng.usize(..LOCKS.len())];
        let Ok(queue) = locks::inspect(&*actor.store, lock).await else { continue };
        let Some(holder) = queue.holder else { continue };
        let op = Op::Break { lock: lock.to_owned(), token: holder.token.get() };
        drop(actor.run(op, locks::break_hold(&*actor.store, lock, holder.token), |()| Default::default()).await);
    }
}

async fn give_up(actor: &Actor, session: &Session, lock: &str, guard: Guard, rng: &mut fastrand::Rng) {
    let op = Op::Release { session: session.id().to_owned(), lock: lock.to_owned(), token: guard.token().get() };
    let id = actor.call(op);
    if rng.u8(..8) == 0 {
        drop(guard);
        id.returned(Outcome::Unknown { why: "dropped".to_owned() });
        return;
    }
    let released = guard.release().await;
    id.returned(match &released {
        Ok(()) => Outcome::Ok(Default::default()),
        Err(error @ tenure::Error::Lost { .. }) => super::failure(error),
        // The session goes on with it.
        Err(error) => Outcome::Unknown { why: error.to_string() },
    });
}
