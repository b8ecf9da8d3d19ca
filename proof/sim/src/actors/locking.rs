//! Tasks that take locks, write under them, and let them go in every way there is.

use std::time::Duration;

use tenure::{Guard, Mutex, Session, data_key};
use tenure_check::history::{Hold, Mode, Op, Outcome, Sight};
use tenure_kv::Op as Write;

use super::{Actor, at};

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
    let steps = rng.u32(1..12);
    for step in 0..steps {
        let yes = guard.is_held();
        actor.saw(Sight::Held { lock: lock.to_owned(), token, yes });
        if rng.u8(..) < 100 {
            write(actor, session, lock, guard).await;
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
            write(actor, session, lock, guard).await;
            return;
        }
        if actor.world.is_finishing() && step > 1 {
            return;
        }
    }
}

async fn write(actor: &Actor, session: &Session, lock: &str, guard: &Guard) {
    let key = format!("under.{lock}");
    let nonce = actor.nonce();
    let under = Hold::Lock { lock: lock.to_owned(), token: guard.token().get() };
    let op = Op::FencedPut { session: session.id().to_owned(), under, key: key.clone(), nonce: nonce.clone() };
    let Ok(key) = data_key(&key) else { return };
    let yes = guard.is_held();
    actor.saw(Sight::Held { lock: lock.to_owned(), token: guard.token().get(), yes });
    drop(actor.run(op, guard.commit(Write::put(key, nonce).into()), |revision| at(*revision)).await);
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
