//! Groups over the socket.

use serde_json::json;
use tenure_check::history::{Done, Found, MemberKind, Op, Outcome, Sight};
use tenure_sidecar::protocol::{Happening, Kind, MemberJoin, MemberJoined, MemberListed, MemberWatchParams, Written};
use tokio::time::timeout;

use super::{Scene, outcome};
use crate::clock::now;

/// A membership of this connection.
struct Seat {
    group: String,
    member: String,
    lease: String,
}

pub(super) async fn play(scene: Scene, group: String, ids: usize, mut rng: fastrand::Rng) {
    while !scene.over.is_cancelled() {
        let member = format!("m{}", rng.usize(0..ids));
        if let Some(seat) = join(&scene, &group, member).await {
            for _ in 0..rng.u8(0..12) {
                scene.pause(&mut rng, 1..150).await;
                if scene.over.is_cancelled() {
                    break;
                }
                match rng.u8(0..3) {
                    0 => look(&scene, &group).await,
                    _ => update(&scene, &seat).await,
                }
            }
            leave(&scene, &seat).await;
        }
        scene.pause(&mut rng, 10..300).await;
    }
}

async fn join(scene: &Scene, group: &str, member: String) -> Option<Seat> {
    let nonce = scene.tape.nonce();
    let (group, session) = (group.to_owned(), String::new());
    let id = scene.tape.call(Op::Join { session, group: group.clone(), member: member.clone(), nonce: nonce.clone() });
    let params = MemberJoin { group: group.clone(), id: Some(member.clone()), value: Some(nonce), ..MemberJoin::default() };
    let joined = tokio::select! {
        joined = scene.client.call_as::<MemberJoined>("member.join", params) => Some(joined),
        () = scene.leaves() => None,
    };
    match joined {
        Some(Ok(joined)) => {
            scene.tape.done(id, outcome::at(joined.revision));
            return Some(Seat { group, member, lease: joined.lease });
        }
        Some(Err(error)) if matches!(error.kind(), Some(Kind::Conflict | Kind::InvalidParams)) => {
            scene.tape.returned(id, outcome::of(&error));
        }
        refused => {
            // Nothing is left behind, but it may have been there for a moment until the daemon withdrew it.
            match refused {
                // A daemon that leaves says so of a join under way, too, when it has taken back what that wrote.
                Some(Err(error)) if error.kind() == Some(Kind::Unavailable) => {
                    scene.tape.returned(id, Outcome::Unknown { why: error.to_string() });
                }
                Some(Err(error)) => scene.tape.returned(id, outcome::open(&error)),
                None | Some(Ok(_)) => scene.tape.dropped(id),
            }
            let (group, member, session) = (group.clone(), member.clone(), String::new());
            scene.tape.dropped(scene.tape.call(Op::Leave { session, group, member }));
        }
    }
    None
}

async fn update(scene: &Scene, seat: &Seat) {
    let nonce = scene.tape.nonce();
    let params = json!({ "lease": seat.lease, "value": nonce });
    let (group, member, session) = (seat.group.clone(), seat.member.clone(), String::new());
    let id = scene.tape.call(Op::Update { session, group, member, nonce });
    match timeout(scene.patience, scene.client.call_as::<Written>("member.update", params)).await {
        Ok(Ok(written)) => scene.tape.done(id, outcome::at(written.revision)),
        Ok(Err(error)) => scene.tape.returned(id, outcome::open(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn leave(scene: &Scene, seat: &Seat) {
    let (group, member, session) = (seat.group.clone(), seat.member.clone(), String::new());
    let id = scene.tape.call(Op::Leave { session, group, member });
    match timeout(scene.patience, scene.client.call("member.leave", json!({ "lease": seat.lease }))).await {
        Ok(Ok(_)) => scene.tape.done(id, Done::default()),
        Ok(Err(error)) => scene.tape.returned(id, Outcome::Unknown { why: error.to_string() }),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn look(scene: &Scene, group: &str) {
    let id = scene.tape.call(Op::Members { group: group.to_owned() });
    match timeout(scene.patience, scene.client.call_as::<MemberListed>("member.list", json!({ "group": group }))).await {
        Ok(Ok(listed)) => {
            let found =
                listed.members.into_iter().map(|member| Found { key: member.id, revision: member.revision, nonce: member.value });
            let done = Done { revision: Some(listed.revision), found: found.collect(), ..Done::default() };
            scene.tape.done(id, done);
        }
        Ok(Err(error)) => scene.tape.returned(id, outcome::of(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

/// Follows a group, one subscription after another.
pub(super) async fn watch(scene: Scene, group: String, mut rng: fastrand::Rng) {
    while !scene.over.is_cancelled() {
        // What is told may have been on its way since then.
        let from = now();
        let params = MemberWatchParams { group: group.clone() };
        let Some(subscribed) = scene.over.run_until_cancelled(scene.client.subscribe("member.watch", params)).await else {
            return;
        };
        if let Ok(mut events) = subscribed {
            let watch = scene.tape.unique();
            while let Some(Some(happening)) = scene.over.run_until_cancelled(events.recv()).await {
                let (member, revision, kind) = match happening {
                    Happening::Join { member } => (member.id, member.revision, MemberKind::Insert),
                    Happening::Update { member } => (member.id, member.revision, MemberKind::Update),
                    Happening::Leave { id, revision } => (id, revision, MemberKind::Remove),
                    Happening::Sync { revision } => (String::new(), revision.unwrap_or_default(), MemberKind::CaughtUp),
                    Happening::Gap {} => (String::new(), 0, MemberKind::Gap),
                    Happening::End { .. } => (String::new(), 0, MemberKind::End),
                    _ => continue,
                };
                scene.tape.seen(from, Sight::Member { watch, group: group.clone(), member, revision, kind });
                if kind == MemberKind::End {
                    break;
                }
            }
            // Not when everybody ends: until then it must have told everything.
            if !scene.stop.is_cancelled() {
                let (member, kind) = (String::new(), MemberKind::End);
                scene.tape.seen(from, Sight::Member { watch, group: group.clone(), member, revision: 0, kind });
            }
        }
        scene.pause(&mut rng, 50..500).await;
    }
}
