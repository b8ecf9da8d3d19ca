//! Campaigning, proclaiming, writing under the office, and leaving it in every way there is.

use std::time::Duration;

use tenure::{Election, Error, Leadership, data_key};
use tenure_check::history::{Done, Hold, Op, Sight};
use tenure_kv::Op as Change;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{outcome, roles::Scene};
use crate::clock::now;

/// From one look at the leadership to the next.
const LOOK: Duration = Duration::from_millis(9);

pub(super) async fn play(scene: Scene, name: String, mut rng: fastrand::Rng) {
    let Ok(election) = scene.session.election(&name) else { return };
    while !scene.over.is_cancelled() {
        if let Some(leadership) = campaign(&scene, &election, &mut rng).await {
            lead(&scene, &leadership, &mut rng).await;
            leave(&scene, &election, leadership, &mut rng).await;
        }
        scene.pause(&mut rng, 10..400).await;
    }
}

async fn campaign(scene: &Scene, election: &Election, rng: &mut fastrand::Rng) -> Option<Leadership> {
    let id = scene.tape.call(Op::Campaign { session: scene.id(), election: election.name().to_owned() });
    // Not proclaimed by a write of its own, so it is nobody's nonce.
    let value = format!("client {}", scene.tape.client());
    let election = election.clone().priority(i32::from(rng.u8(0..3)));
    let way = rng.u8(0..10);
    let patience = Duration::from_millis(rng.u64(10..3_000));
    let standing = async {
        match way {
            0..2 => election.try_campaign(value).await,
            2..4 => election.campaign_until(value, sleep(patience)).await,
            _ => election.campaign(value).await,
        }
    };
    let won = tokio::select! {
        won = standing => won,
        () = sleep(patience), if way == 9 => {
            scene.tape.dropped(id);
            return None;
        }
        () = scene.leaves() => {
            scene.tape.dropped(id);
            return None;
        }
    };
    match won {
        Ok(leadership) => {
            scene.tape.done(id, outcome::at(leadership.term()));
            Some(leadership)
        }
        Err(error) => {
            scene.tape.returned(id, outcome::of(&error));
            None
        }
    }
}

async fn lead(scene: &Scene, leadership: &Leadership, rng: &mut fastrand::Rng) {
    let longest = u64::try_from(scene.lease.as_millis()).unwrap_or(u64::MAX);
    let span = match rng.u8(0..8) {
        0 => rng.u64(longest / 2..longest * 2),
        1.. if scene.held_long => rng.u64(100..1_000),
        _ => rng.u64(1..300),
    };
    let until = Instant::now() + Duration::from_millis(span);
    let (lost, asked) = (leadership.lost(), leadership.asked_to_step_down());
    tokio::pin!(lost, asked);
    let yields = rng.bool();
    loop {
        look(scene, leadership);
        match rng.u8(0..12) {
            0..2 => proclaim(scene, leadership).await,
            2 => write(scene, leadership).await,
            _ => {}
        }
        look(scene, leadership);
        let begun = now();
        tokio::select! {
            biased;
            loss = &mut lost => {
                let hold = hold_of(leadership);
                scene.tape.seen(begun, Sight::Lost { hold, loss: loss.as_str().to_owned() });
                // Those who go on nevertheless must be refused.
                if rng.bool() {
                    write(scene, leadership).await;
                }
                look(scene, leadership);
                return;
            }
            _ = &mut asked, if yields => return,
            () = sleep_until(until.min(Instant::now() + LOOK)) => {}
        }
        if Instant::now() >= until || scene.over.is_cancelled() {
            return;
        }
    }
}

fn hold_of(leadership: &Leadership) -> Hold {
    Hold::Election { election: leadership.name().to_owned(), term: leadership.term().get() }
}

fn look(scene: &Scene, leadership: &Leadership) {
    let from = now();
    let yes = leadership.is_leader();
    scene.tape.seen(from, Sight::Leading { election: leadership.name().to_owned(), term: leadership.term().get(), yes });
}

async fn proclaim(scene: &Scene, leadership: &Leadership) {
    let (election, term, nonce) = (leadership.name().to_owned(), leadership.term().get(), scene.tape.nonce());
    let id = scene.tape.call(Op::Proclaim { session: scene.id(), election, term, nonce: nonce.clone() });
    match timeout(scene.patience, leadership.proclaim(nonce)).await {
        Ok(Ok(revision)) => scene.tape.done(id, outcome::at(revision)),
        Ok(Err(error)) => scene.tape.returned(id, outcome::open(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn write(scene: &Scene, leadership: &Leadership) {
    let (key, nonce) = (format!("{}-state", leadership.name()), scene.tape.nonce());
    let Ok(place) = data_key(&key) else { return };
    let id = scene.tape.call(Op::FencedPut { session: scene.id(), under: hold_of(leadership), key, nonce: nonce.clone() });
    match timeout(scene.patience, leadership.commit(Change::put(place, nonce).into())).await {
        Ok(Ok(revision)) => scene.tape.done(id, outcome::at(revision)),
        Ok(Err(error)) => scene.tape.returned(id, outcome::of(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn leave(scene: &Scene, election: &Election, leadership: Leadership, rng: &mut fastrand::Rng) {
    let (name, term) = (leadership.name().to_owned(), leadership.term().get());
    let way = rng.u8(0..10);
    if way < 3 && hand_over(scene, election, &leadership, rng).await {
        return;
    }
    let resign = Op::Resign { session: scene.id(), election: name, term };
    let id = scene.tape.call(resign.clone());
    if way == 9 {
        drop(leadership);
        return scene.tape.dropped(id);
    }
    match timeout(scene.patience, leadership.resign()).await {
        Ok(Ok(())) => scene.tape.done(id, Done::default()),
        Ok(Err(error)) => {
            scene.tape.returned(id, outcome::of(&error));
            // The leadership has been dropped with that, and the session goes on trying.
            scene.tape.dropped(scene.tape.call(resign));
        }
        Err(_) => scene.tape.dropped(id),
    }
}

/// Whether the office is over by that.
async fn hand_over(scene: &Scene, election: &Election, leadership: &Leadership, rng: &mut fastrand::Rng) -> bool {
    let Some(Ok(Ok(candidates))) = scene.unless_over(timeout(Duration::from_secs(2), election.candidates())).await else {
        return false;
    };
    let Some(next) = rng.choice(candidates) else { return false };
    let id = scene.tape.call(Op::Transfer {
        session: scene.id(),
        election: leadership.name().to_owned(),
        term: leadership.term().get(),
        to: Some(next.session.clone()),
    });
    match timeout(scene.patience, leadership.transfer(&next.id)).await {
        Ok(Ok(term)) => {
            scene.tape.done(id, outcome::at(term));
            return true;
        }
        Ok(Err(error)) => {
            scene.tape.returned(id, outcome::open(&error));
            if matches!(error, Error::Conflict { .. } | Error::Invalid { .. }) {
                look(scene, leadership);
            }
        }
        Err(_) => scene.tape.dropped(id),
    }
    false
}
