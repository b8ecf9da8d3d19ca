//! Elections over the socket.

use std::time::Duration;

use serde_json::json;
use tenure_check::history::{Done, Hold, Op, Sight};
use tenure_sidecar::{
    Notices,
    protocol::{ElectionCampaign, ElectionCampaigned, ElectionCandidates, ElectionName, ElectionTransferred, Happening},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Scene,
    locks::{check, fenced, lost},
    outcome,
};
use crate::clock::now;

const LOOK: Duration = Duration::from_millis(20);

struct Office {
    election: String,
    lease: String,
    term: u64,
}

impl Office {
    fn hold(&self) -> Hold {
        Hold::Election { election: self.election.clone(), term: self.term }
    }
}

pub(super) async fn play(scene: Scene, election: String, mut rng: fastrand::Rng) {
    while !scene.over.is_cancelled() {
        let mut notices = scene.client.notices();
        if let Some(office) = campaign(&scene, &election, &mut rng).await {
            lead(&scene, &office, &mut notices, &mut rng).await;
            leave(&scene, &office, &mut rng).await;
        }
        scene.pause(&mut rng, 10..400).await;
    }
}

async fn campaign(scene: &Scene, election: &str, rng: &mut fastrand::Rng) -> Option<Office> {
    let id = scene.tape.call(Op::Campaign { session: String::new(), election: election.to_owned() });
    let way = rng.u8(0..10);
    let patience = rng.u64(10..3_000);
    let params = ElectionCampaign {
        name: election.to_owned(),
        value: Some(format!("client {}", scene.tape.client())),
        wait_ms: match way {
            0..2 => Some(0),
            2..4 => Some(patience),
            _ => None,
        },
        priority: Some(i32::from(rng.u8(0..3))),
        ..ElectionCampaign::default()
    };
    let won = tokio::select! {
        won = scene.client.call_as::<ElectionCampaigned>("election.campaign", params) => won,
        () = sleep(Duration::from_millis(patience)), if way == 9 => {
            scene.tape.dropped(id);
            return None;
        }
        () = scene.leaves() => {
            scene.tape.dropped(id);
            return None;
        }
    };
    match won {
        Ok(ElectionCampaigned { lease, fence, .. }) => {
            scene.tape.done(id, outcome::at(fence));
            Some(Office { election: election.to_owned(), lease, term: fence })
        }
        Err(error) => {
            scene.tape.returned(id, outcome::of(&error));
            None
        }
    }
}

async fn lead(scene: &Scene, office: &Office, notices: &mut Notices, rng: &mut fastrand::Rng) {
    let until = Instant::now() + Duration::from_millis(rng.u64(1..400));
    loop {
        look(scene, office).await;
        match rng.u8(0..12) {
            0..2 => proclaim(scene, office).await,
            2 => fenced(scene, office.hold(), format!("{}-state", office.election), &office.lease).await,
            _ => {}
        }
        let begun = now();
        tokio::select! {
            biased;
            reason = lost(notices, &office.lease) => {
                scene.tape.seen(begun, Sight::Lost { hold: office.hold(), loss: reason });
                return look(scene, office).await;
            }
            () = sleep_until(until.min(Instant::now() + LOOK)) => {}
        }
        if Instant::now() >= until || scene.over.is_cancelled() {
            return;
        }
    }
}

async fn look(scene: &Scene, office: &Office) {
    let from = now();
    if let Some(yes) = check(scene, &office.lease).await {
        scene.tape.seen(from, Sight::Leading { election: office.election.clone(), term: office.term, yes });
    }
}

async fn proclaim(scene: &Scene, office: &Office) {
    let (election, term, nonce) = (office.election.clone(), office.term, scene.tape.nonce());
    let params = json!({ "lease": office.lease, "value": nonce });
    let id = scene.tape.call(Op::Proclaim { session: String::new(), election, term, nonce });
    match timeout(scene.patience, scene.client.call_as::<tenure_sidecar::protocol::Written>("election.proclaim", params)).await {
        Ok(Ok(written)) => scene.tape.done(id, outcome::at(written.revision)),
        Ok(Err(error)) => scene.tape.returned(id, outcome::open(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn leave(scene: &Scene, office: &Office, rng: &mut fastrand::Rng) {
    if rng.u8(0..10) < 3 && hand_over(scene, office, rng).await {
        return;
    }
    let id = scene.tape.call(Op::Resign { session: String::new(), election: office.election.clone(), term: office.term });
    match timeout(scene.patience, scene.client.call("election.resign", json!({ "lease": office.lease }))).await {
        Ok(Ok(_)) => scene.tape.done(id, Done::default()),
        Ok(Err(error)) => scene.tape.returned(id, outcome::of_release(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

/// Whether the office is over by that.
async fn hand_over(scene: &Scene, office: &Office, rng: &mut fastrand::Rng) -> bool {
    let asked = ElectionName { name: office.election.clone() };
    let listed = timeout(scene.patience, scene.client.call_as::<ElectionCandidates>("election.candidates", asked)).await;
    let Ok(Ok(listed)) = listed else { return false };
    let Some(next) = rng.choice(listed.candidates) else { return false };
    let id = scene.tape.call(Op::Transfer {
        session: String::new(),
        election: office.election.clone(),
        term: office.term,
        to: Some(next.session),
    });
    let params = json!({ "lease": office.lease, "candidate": next.id });
    match timeout(scene.patience, scene.client.call_as::<ElectionTransferred>("election.transfer", params)).await {
        Ok(Ok(transferred)) => {
            scene.tape.done(id, outcome::at(transferred.fence));
            return true;
        }
        Ok(Err(error)) => scene.tape.returned(id, outcome::open(&error)),
        Err(_) => scene.tape.dropped(id),
    }
    false
}

/// Observes an election, one subscription after another.
pub(super) async fn observe(scene: Scene, election: String, mut rng: fastrand::Rng) {
    while !scene.over.is_cancelled() {
        // What is told may have been on its way since then: the daemon, the socket and we may all have stood still.
        let from = now();
        let asked = ElectionName { name: election.clone() };
        let Some(subscribed) = scene.over.run_until_cancelled(scene.client.subscribe("election.observe", asked)).await else {
            return;
        };
        if let Ok(mut states) = subscribed {
            let observer = scene.tape.unique();
            while let Some(Some(happening)) = scene.over.run_until_cancelled(states.recv()).await {
                let (term, unknown) = match happening {
                    Happening::Leader { leader } => (leader.map(|leader| leader.fence), false),
                    Happening::Gap {} => (None, true),
                    Happening::End { .. } => break,
                    _ => continue,
                };
                scene.tape.seen(from, Sight::Leader { observer, election: election.clone(), term, unknown });
            }
            // Not when everybody ends: until then it must have told everything.
            if !scene.stop.is_cancelled() {
                scene.tape.seen(from, Sight::Leader { observer, election: election.clone(), term: None, unknown: true });
            }
        }
        scene.pause(&mut rng, 50..500).await;
    }
}
