//! Taking a lock in every way there is, writing under it, and giving it up in every way there is.

use std::time::Duration;

use tenure::{Error, Guard, Mutex, data_key, locks};
use tenure_check::history::{Done, Failure, Hold, Mode, Op, Outcome, Sight};
use tenure_kv::Op as Change;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{outcome, roles::Scene};
use crate::clock::now;

/// From one look at the guard to the next.
const LOOK: Duration = Duration::from_millis(7);

pub(super) async fn play(scene: Scene, name: String, mut rng: fastrand::Rng) {
    let Ok(mutex) = scene.session.mutex(&name) else { return };
    while !scene.over.is_cancelled() {
        if let Some(guard) = acquire(&scene, &mutex, &mut rng).await {
            hold(&scene, &guard, &mut rng).await;
            give_up(&scene, guard, &mut rng).await;
        }
        scene.pause(&mut rng, 1..120).await;
    }
}

async fn acquire(scene: &Scene, mutex: &Mutex, rng: &mut fastrand::Rng) -> Option<Guard> {
    let (mode, limit) = match rng.u8(0..10) {
        0..6 => (Mode::Wait, None),
        6..8 => (Mode::Try, None),
        _ => (Mode::Timeout, Some(rng.u64(5..2_000))),
    };
    let lock = mutex.name().to_owned();
    let id = scene.tape.call(Op::Acquire { session: scene.id(), lock, mode, limit_ms: limit });
    let taking = async {
        match mode {
            Mode::Wait => mutex.lock().await,
            Mode::Try => mutex.try_lock().await,
            Mode::Timeout => mutex.lock_timeout(Duration::from_millis(limit.unwrap_or_default())).await,
        }
    };
    // Now and then somebody turns away in the middle.
    let turns_away = rng.u8(0..8) == 0;
    let patience = Duration::from_millis(rng.u64(1..400));
    let taken = tokio::select! {
        taken = taking => taken,
        () = sleep(patience), if turns_away => {
            scene.tape.dropped(id);
            return None;
        }
        () = scene.leaves() => {
            scene.tape.dropped(id);
            return None;
        }
    };
    match taken {
        Ok(guard) => {
            scene.tape.done(id, outcome::at(guard.token()));
            Some(guard)
        }
        Err(error) => {
            let outcome = match error {
                Error::NotAcquired { ref message, .. } if mode == Mode::Try => {
                    Outcome::Failed { kind: Failure::Conflict, why: message.clone() }
                }
                _ => outcome::of(&error),
            };
            scene.tape.returned(id, outcome);
            None
        }
    }
}

/// Looks at the guard again and again, and writes under it.
async fn hold(scene: &Scene, guard: &Guard, rng: &mut fastrand::Rng) {
    let longest = u64::try_from(scene.lease.as_millis()).unwrap_or(u64::MAX);
    let span = match rng.u8(0..12) {
        0 => rng.u64(longest / 2..longest * 2),
        1.. if scene.held_long => rng.u64(100..1_000),
        1..3 => 0,
        _ => rng.u64(1..60),
    };
    let until = Instant::now() + Duration::from_millis(span);
    let lost = guard.lost();
    tokio::pin!(lost);
    loop {
        look(scene, guard);
        if rng.u8(0..3) == 0 {
            write(scene, guard).await;
            look(scene, guard);
        }
        let begun = now();
        tokio::select! {
            biased;
            loss = &mut lost => {
                let hold = Hold::Lock { lock: guard.name().to_owned(), token: guard.token().get() };
                scene.tape.seen(begun, Sight::Lost { hold, loss: loss.as_str().to_owned() });
                // Those who go on nevertheless must be refused.
                if rng.bool() {
                    write(scene, guard).await;
                }
                look(scene, guard);
                return;
            }
            () = sleep_until(until.min(Instant::now() + LOOK)) => {}
        }
        if Instant::now() >= until || scene.over.is_cancelled() {
            return;
        }
    }
}

fn look(scene: &Scene, guard: &Guard) {
    let from = now();
    let yes = guard.is_held();
    scene.tape.seen(from, Sight::Held { lock: guard.name().to_owned(), token: guard.token().get(), yes });
}

async fn write(scene: &Scene, guard: &Guard) {
    let (key, nonce) = (format!("{}-state", guard.name()), scene.tape.nonce());
    let Ok(place) = data_key(&key) else { return };
    let under = Hold::Lock { lock: guard.name().to_owned(), token: guard.token().get() };
    let id = scene.tape.call(Op::FencedPut { session: scene.id(), under, key, nonce: nonce.clone() });
    match timeout(scene.patience, guard.commit(Change::put(place, nonce).into())).await {
        Ok(Ok(revision)) => scene.tape.done(id, outcome::at(revision)),
        Ok(Err(error)) => scene.tape.returned(id, outcome::of(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn give_up(scene: &Scene, guard: Guard, rng: &mut fastrand::Rng) {
    let release = Op::Release { session: scene.id(), lock: guard.name().to_owned(), token: guard.token().get() };
    let id = scene.tape.call(release.clone());
    let patience = match rng.u8(0..10) {
        0 => {
            drop(guard);
            return scene.tape.dropped(id);
        }
        // Turning away from a release does not stop it.
        1 => Duration::from_micros(rng.u64(0..2_000)),
        _ => scene.patience,
    };
    match timeout(patience, guard.release()).await {
        Ok(Ok(())) => scene.tape.done(id, Done::default()),
        Ok(Err(error)) => {
            scene.tape.returned(id, outcome::of(&error));
            // The guard has been dropped with that, and the session goes on trying.
            scene.tape.dropped(scene.tape.call(release));
        }
        Err(_) => scene.tape.dropped(id),
    }
}

/// An administrator who breaks a hold now and then.
pub(super) async fn break_some(scene: Scene, locks: usize, mut rng: fastrand::Rng) {
    loop {
        scene.pause(&mut rng, 1_500..8_000).await;
        if scene.over.is_cancelled() {
            return;
        }
        let lock = format!("l{}", rng.usize(0..locks));
        let store = scene.session.store();
        let Some(Ok(queue)) = scene.unless_over(locks::inspect(&**store, &lock)).await else { continue };
        let Some(holder) = queue.holder else { continue };
        let id = scene.tape.call(Op::Break { lock: lock.clone(), token: holder.token.get() });
        match timeout(scene.patience, locks::break_hold(&**store, &lock, holder.token)).await {
            Ok(Ok(())) => scene.tape.done(id, Done::default()),
            Ok(Err(error)) => scene.tape.returned(id, outcome::of(&error)),
            Err(_) => scene.tape.dropped(id),
        }
    }
}
