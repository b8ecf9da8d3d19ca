//! Locks over the socket.

use std::time::Duration;

use serde_json::json;
use tenure_check::history::{Done, Failure, Hold, Mode, Op, Outcome, Sight};
use tenure_sidecar::{
    CallError, Notices,
    protocol::{Kind, LeaseState, LockAcquire, LockAcquired, LockCheck, Written},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Scene, outcome};
use crate::clock::now;

/// From one look at the hold to the next.
const LOOK: Duration = Duration::from_millis(15);

/// A hold of this connection.
struct Held {
    lock: String,
    lease: String,
    token: u64,
}

pub(super) async fn play(scene: Scene, lock: String, mut rng: fastrand::Rng) {
    while !scene.over.is_cancelled() {
        // Before the hold, so that no notice of it is missed.
        let mut notices = scene.client.notices();
        if let Some(held) = acquire(&scene, &lock, &mut rng).await {
            hold(&scene, &held, &mut notices, &mut rng).await;
            release(&scene, &held, &mut rng).await;
        }
        scene.pause(&mut rng, 1..120).await;
    }
}

async fn acquire(scene: &Scene, lock: &str, rng: &mut fastrand::Rng) -> Option<Held> {
    let (mode, wait_ms) = match rng.u8(0..10) {
        0..6 => (Mode::Wait, None),
        6..8 => (Mode::Try, Some(0)),
        _ => (Mode::Timeout, Some(rng.u64(5..2_000))),
    };
    let limit_ms = wait_ms.filter(|_| mode == Mode::Timeout);
    let id = scene.tape.call(Op::Acquire { session: String::new(), lock: lock.to_owned(), mode, limit_ms });
    let params = LockAcquire { name: lock.to_owned(), wait_ms, ..LockAcquire::default() };
    let turns_away = rng.u8(0..8) == 0;
    let patience = Duration::from_millis(rng.u64(1..400));
    let taken = tokio::select! {
        taken = scene.client.call_as::<LockAcquired>("lock.acquire", params) => taken,
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
        Ok(LockAcquired { lease, fence, .. }) => {
            scene.tape.done(id, outcome::at(fence));
            Some(Held { lock: lock.to_owned(), lease, token: fence })
        }
        Err(error) => {
            let outcome = match error.kind() {
                Some(Kind::Timeout) if mode == Mode::Try => Outcome::Failed { kind: Failure::Conflict, why: error.to_string() },
                _ => outcome::of(&error),
            };
            scene.tape.returned(id, outcome);
            None
        }
    }
}

async fn hold(scene: &Scene, held: &Held, notices: &mut Notices, rng: &mut fastrand::Rng) {
    let longest = u64::try_from(scene.lease.as_millis()).unwrap_or(u64::MAX);
    let span = if rng.u8(0..12) == 0 { rng.u64(longest / 2..longest * 2) } else { rng.u64(0..60) };
    let until = Instant::now() + Duration::from_millis(span);
    loop {
        look(scene, held).await;
        if rng.u8(0..3) == 0 {
            write(scene, held).await;
        }
        let begun = now();
        tokio::select! {
            biased;
            reason = lost(notices, &held.lease) => {
                let hold = Hold::Lock { lock: held.lock.clone(), token: held.token };
                scene.tape.seen(begun, Sight::Lost { hold, loss: reason });
                if rng.bool() {
                    write(scene, held).await;
                }
                return look(scene, held).await;
            }
            () = sleep_until(until.min(Instant::now() + LOOK)) => {}
        }
        if Instant::now() >= until || scene.over.is_cancelled() {
            return;
        }
    }
}

/// Why the hold is lost; never when it is not, or when nobody will tell any more.
pub(super) async fn lost(notices: &mut Notices, lease: &str) -> String {
    while let Some(notice) = notices.recv().await {
        if let Some(notice) = notice.lease().filter(|notice| notice.lease == lease && notice.state == LeaseState::Lost) {
            return notice.reason.unwrap_or_default();
        }
    }
    std::future::pending().await
}

/// What the daemon says of a hold; `None` when it says nothing.
pub(super) async fn check(scene: &Scene, lease: &str) -> Option<bool> {
    let checked = timeout(scene.patience, scene.client.call_as::<LockCheck>("lock.check", json!({ "lease": lease }))).await;
    match checked {
        Ok(Ok(LockCheck { held, .. })) => Some(held),
        Ok(Err(CallError::Refused(_))) => Some(false),
        _ => None,
    }
}

async fn look(scene: &Scene, held: &Held) {
    let from = now();
    if let Some(yes) = check(scene, &held.lease).await {
        scene.tape.seen(from, Sight::Held { lock: held.lock.clone(), token: held.token, yes });
    }
}

async fn write(scene: &Scene, held: &Held) {
    let under = Hold::Lock { lock: held.lock.clone(), token: held.token };
    fenced(scene, under, format!("{}-state", held.lock), &held.lease).await;
}

/// Writes under the hold `lease`.
pub(super) async fn fenced(scene: &Scene, under: Hold, key: String, lease: &str) {
    let nonce = scene.tape.nonce();
    let params = json!({ "key": key, "value": nonce, "fence_lease": lease });
    let id = scene.tape.call(Op::FencedPut { session: String::new(), under, key, nonce });
    match timeout(scene.patience, scene.client.call_as::<Written>("kv.put", params)).await {
        Ok(Ok(written)) => scene.tape.done(id, outcome::at(written.revision)),
        Ok(Err(error)) => scene.tape.returned(id, outcome::of(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn release(scene: &Scene, held: &Held, rng: &mut fastrand::Rng) {
    let release = Op::Release { session: String::new(), lock: held.lock.clone(), token: held.token };
    let (id, begun) = (scene.tape.call(release), now());
    // Turning away from a release does not stop it.
    let patience = if rng.u8(0..10) == 0 { Duration::from_micros(rng.u64(0..2_000)) } else { scene.patience };
    match timeout(patience, scene.client.call("lock.release", json!({ "lease": held.lease }))).await {
        Ok(Ok(_)) => scene.tape.done(id, Done::default()),
        Ok(Err(error)) => {
            scene.tape.returned(id, outcome::of_release(&error));
            if error.kind() == Some(Kind::Lost) {
                let reason = error.object().and_then(|error| error.data.get("reason")).and_then(|reason| reason.as_str());
                let hold = Hold::Lock { lock: held.lock.clone(), token: held.token };
                scene.tape.seen(begun, Sight::Lost { hold, loss: reason.unwrap_or_default().to_owned() });
            }
        }
        Err(_) => scene.tape.dropped(id),
    }
}
