//! Plain reads and writes over the socket, which knows no expectations.

use serde_json::json;
use tenure_check::history::{Done, Expect, Op};
use tenure_sidecar::protocol::{KvEntry, Written};
use tokio::time::timeout;

use super::{Scene, outcome};

pub(super) async fn play(scene: Scene, name: String, mut rng: fastrand::Rng) {
    while !scene.over.is_cancelled() {
        if rng.bool() {
            read(&scene, &name).await
        } else {
            write(&scene, &name).await
        }
        scene.pause(&mut rng, 1..80).await;
    }
}

async fn read(scene: &Scene, name: &str) {
    let id = scene.tape.call(Op::Get { key: name.to_owned() });
    match timeout(scene.patience, scene.client.call_as::<KvEntry>("kv.get", json!({ "key": name }))).await {
        Ok(Ok(KvEntry { entry })) => {
            let revision = entry.as_ref().map(|entry| entry.revision);
            scene.tape.done(id, Done { revision, nonce: entry.and_then(|entry| entry.value), ..Done::default() });
        }
        Ok(Err(error)) => scene.tape.returned(id, outcome::of(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}

async fn write(scene: &Scene, name: &str) {
    let nonce = scene.tape.nonce();
    let params = json!({ "key": name, "value": nonce });
    let id = scene.tape.call(Op::Put { key: name.to_owned(), nonce, expect: Expect::Any });
    match timeout(scene.patience, scene.client.call_as::<Written>("kv.put", params)).await {
        Ok(Ok(written)) => scene.tape.done(id, outcome::at(written.revision)),
        Ok(Err(error)) => scene.tape.returned(id, outcome::of(&error)),
        Err(_) => scene.tape.dropped(id),
    }
}
