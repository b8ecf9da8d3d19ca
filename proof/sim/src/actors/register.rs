//! Tasks that write plain keys, with and without expectations.

use tenure::data_key;
use tenure_check::history::{Done, Expect, Op};
use tenure_kv::{Op as Write, Revision, StoreExt};

use super::{Actor, at};

pub(super) async fn work(actor: Actor, n: usize) {
    let mut rng = actor.rng(100 + n as u64);
    let name = format!("r{}", n % 2);
    let Ok(key) = data_key(&name) else { return };
    let mut seen: Option<Revision> = None;
    while !actor.world.is_finishing() {
        actor.pause(&mut rng, actor.habits.lease / 2).await;
        let commit = async |write: Write| Ok(actor.store.commit(write.into()).await?);
        let (expect, expected) = match (rng.u8(..8), seen) {
            (0, _) => (Expect::Any, tenure_kv::Expect::Any),
            (1, _) | (_, None) => (Expect::Absent, tenure_kv::Expect::Absent),
            (_, Some(revision)) => (Expect::At(revision.get()), tenure_kv::Expect::At(revision)),
        };
        let done = |revision: &Revision, nonce: Option<&str>| Done {
            epoch: actor.world.epoch_of_write(key.as_str(), revision.get(), nonce),
            ..at(*revision)
        };
        if rng.u8(..8) == 0 {
            once(&actor).await;
        }
        let written = match rng.u8(..8) {
            0..=2 => {
                let read = async { Ok(actor.store.get(&key).await?) };
                let found = |read: &Option<(tenure_kv::Bytes, Revision)>| Done {
                    revision: read.as_ref().map(|(_, revision)| revision.get()),
                    nonce: read.as_ref().map(|(value, _)| String::from_utf8_lossy(value).into_owned()),
                    ..Done::default()
                };
                let read = actor.run(Op::Get { key: name.clone() }, read, found).await;
                seen = read.ok().flatten().map(|(_, revision)| revision);
                continue;
            }
            3 => {
                let op = Op::Delete { key: name.clone(), expect };
                let write = Write::delete(key.clone()).expect(expected);
                actor.run(op, commit(write), |revision| done(revision, None)).await.map(|_| None)
            }
            _ => {
                let nonce = actor.nonce();
                let op = Op::Put { key: name.clone(), nonce: nonce.clone(), expect };
                let write = Write::put(key.clone(), nonce.clone()).expect(expected);
                actor.run(op, commit(write), |revision| done(revision, Some(&nonce))).await.map(Some)
            }
        };
        seen = written.unwrap_or(None);
    }
}

/// A key that is written once and never again: whoever misses it has nothing to correct it by.
async fn once(actor: &Actor) {
    let nonce = actor.nonce();
    let name = format!("once.{nonce}");
    let Ok(key) = data_key(&name) else { return };
    let op = Op::Put { key: name, nonce: nonce.clone(), expect: Expect::Absent };
    let write = Write::put(key.clone(), nonce.clone()).if_absent();
    let done = |revision: &Revision| Done {
        epoch: actor.world.epoch_of_write(key.as_str(), revision.get(), Some(&nonce)),
        ..at(*revision)
    };
    drop(actor.run(op, async { Ok(actor.store.commit(write.into()).await?) }, done).await);
}
