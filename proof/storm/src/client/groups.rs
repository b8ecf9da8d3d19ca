//! Being a member: joining under ids that others want, too, changing, leaving, and looking who is there.

use tenure::{Error, Group, Instance, Member};
use tenure_check::history::{Done, Found, Op};
use tokio::time::timeout;

use super::{outcome, roles::Scene};

pub(super) async fn play(scene: Scene, name: String, ids: usize, mut rng: fastrand::Rng) {
    let Ok(group) = scene.session.group(&name) else { return };
    while !scene.over.is_cancelled() {
        let id = format!("m{}", rng.usize(0..ids));
        if let Some(member) = join(&scene, &group, &id).await {
            for _ in 0..rng.u8(0..12) {
                scene.pause(&mut rng, 1..150).await;
                if scene.over.is_cancelled() {
                    break;
                }
                match rng.u8(0..3) {
                    0 => look(&scene, &group).await,
                    _ => update(&scene, &member).await,
                }
                if member.loss().is_some() {
                    break;
                }
            }
            leave(&scene, member, &mut rng).await;
        }
        scene.pause(&mut rng, 10..300).await;
    }
}

async fn join(scene: &Scene, group: &Group, member: &str) -> Option<Member> {
    let nonce = scene.tape.nonce();
    let id = scene.tape.call(Op::Join {
        session: scene.id(),
        group: group.name().to_owned(),
        member: member.to_owned(),
        nonce: nonce.clone(),
    });
    let joined = tokio::select! {
        joined = group.join(member, Instance::new().value(nonce)) => Some(joined),
        () = scene.leaves() => None,
    };
    match joined {
        Some(Ok(member)) => {
            scene.tape.done(id, outcome::at(member.revision()));
            Some(member)
        }
        Some(Err(error @ (Error::Conflict { .. } | Error::Invalid { .. } | Error::Unavailable { .. }))) => {
            scene.tape.returned(id, outcome::of(&error));
            None
        }
        refused => {
            // Nothing is left behind, but it may have been there for a moment until the session withdrew it.
            match refused {
                Some(Err(error)) => scene.tape.returned(id, outcome::open(&error)),
                _ => scene.tape.dropped(id),
            }
            let op = Op::Leave { session: scene.id(), group: group.name().to_owned(), member: member.to_owned() };
            scene.tape.dropped(scene.tape.call(op));
            None
        }
    }
}

async fn update(scene: &Scene, member: &Member) {
    let nonce = scene.tape.nonce();
    let id = scene.tape.call(Op::Update {
        session: scene.id(),
        group: member.group().to_owned(),
        member: member.id().to_owned(),
        nonce: nonce.clone(),
    });
    match timeout(scene.patience, member.set_value(nonce)).await {
        Ok(Ok(revision)) => scene.tape.done(id, outcome::at(revision)),
        Ok(Err(error)) => scene.tape.returned(id, outcome::open(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn leave(scene: &Scene, member: Member, rng: &mut fastrand::Rng) {
    let (group, name) = (member.group().to_owned(), member.id().to_owned());
    let id = scene.tape.call(Op::Leave { session: scene.id(), group, member: name });
    if rng.u8(0..8) == 0 {
        drop(member);
        return scene.tape.dropped(id);
    }
    match timeout(scene.patience, member.leave()).await {
        Ok(Ok(())) => scene.tape.done(id, Done::default()),
        Ok(Err(error)) => scene.tape.returned(id, outcome::open(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn look(scene: &Scene, group: &Group) {
    let id = scene.tape.call(Op::Members { group: group.name().to_owned() });
    match timeout(scene.patience, group.members()).await {
        Ok(Ok(members)) => {
            let found = members.list.iter().map(|member| Found {
                key: member.id.clone(),
                revision: member.revision.get(),
                nonce: String::from_utf8(member.instance.value.to_vec()).ok(),
            });
            let done = Done { revision: Some(members.revision.get()), found: found.collect(), ..Done::default() };
            scene.tape.done(id, done);
        }
        Ok(Err(error)) => scene.tape.returned(id, outcome::of(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}
