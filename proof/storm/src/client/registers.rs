//! A plain register by compare-and-set: the store's own verbs, with nothing of Tenure's around them.

use tenure::data_key;
use tenure_check::history::{Done, Expect, Op, Outcome};
use tenure_kv::{Key, Op as Change, Revision, StoreExt as _};
use tokio::time::timeout;

use super::{outcome, roles::Scene};

pub(super) async fn play(scene: Scene, name: String, mut rng: fastrand::Rng) {
    let Ok(key) = data_key(&name) else { return };
    let mut known = None;
    while !scene.over.is_cancelled() {
        match rng.u8(0..10) {
            0..4 => known = read(&scene, &name, &key).await,
            4 => {
                let outcome = delete(&scene, &name, &key, expectation(known, &mut rng)).await;
                known = outcome.unwrap_or(None);
            }
            _ => known = write(&scene, &name, &key, expectation(known, &mut rng)).await.unwrap_or(known),
        }
        scene.pause(&mut rng, 1..80).await;
    }
}

/// What is believed to be there; now and then anything will do.
fn expectation(known: Option<u64>, rng: &mut fastrand::Rng) -> Expect {
    match known {
        _ if rng.u8(0..6) == 0 => Expect::Any,
        Some(revision) => Expect::At(revision),
        None => Expect::Absent,
    }
}

fn expected(change: Change, expect: Expect) -> Change {
    match expect {
        Expect::Any => change,
        Expect::Absent => change.if_absent(),
        Expect::At(revision) => change.if_at(Revision::new(revision)),
    }
}

async fn read(scene: &Scene, name: &str, key: &Key) -> Option<u64> {
    let id = scene.tape.call(Op::Get { key: name.to_owned() });
    match timeout(scene.patience, scene.session.store().get(key)).await {
        Ok(Ok(found)) => {
            let revision = found.as_ref().map(|(_, revision)| revision.get());
            let nonce = found.and_then(|(value, _)| String::from_utf8(value.to_vec()).ok());
            scene.tape.done(id, Done { revision, nonce, ..Done::default() });
            return revision;
        }
        Ok(Err(error)) => scene.tape.returned(id, outcome::of_store(&error)),
        Err(_) => scene.tape.dropped(id),
    }
    None
}

async fn write(scene: &Scene, name: &str, key: &Key, expect: Expect) -> Option<Option<u64>> {
    let nonce = scene.tape.nonce();
    let id = scene.tape.call(Op::Put { key: name.to_owned(), nonce: nonce.clone(), expect });
    commit(scene, id, expected(Change::put(key.clone(), nonce), expect)).await
}

/// On success nothing is there any more.
async fn delete(scene: &Scene, name: &str, key: &Key, expect: Expect) -> Option<Option<u64>> {
    let id = scene.tape.call(Op::Delete { key: name.to_owned(), expect });
    commit(scene, id, expected(Change::delete(key.clone()), expect)).await.map(|_| None)
}

/// Where the write is, when it is known to be anywhere.
async fn commit(scene: &Scene, id: u64, change: Change) -> Option<Option<u64>> {
    match timeout(scene.patience, scene.session.store().commit(change.into())).await {
        Ok(Ok(revision)) => {
            scene.tape.done(id, outcome::at(revision));
            return Some(Some(revision.get()));
        }
        Ok(Err(error)) => {
            let outcome = outcome::of_store(&error);
            // Whatever was known has been overtaken, or may have been.
            let overtaken = !matches!(outcome, Outcome::Failed { .. }) || error.is_conflict();
            scene.tape.returned(id, outcome);
            return overtaken.then_some(None);
        }
        Err(_) => scene.tape.dropped(id),
    }
    Some(None)
}
