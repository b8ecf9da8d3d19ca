//! A task that mirrors a range.

use tenure::{Change, View};
use tenure_check::history::{Sight, ViewKind};
use tenure_kv::{Key, KeyRange};

use super::Actor;

pub(super) async fn look_on(actor: Actor) {
    let mut rng = actor.rng(110);
    let Ok(data) = Key::new("data") else { return };
    loop {
        let view = actor.world.number();
        let saw = |key: String, revision, live, kind| {
            actor.saw(Sight::View { view, key, revision, live, nonce: None, kind });
        };
        if let Ok(opened) = View::open(&actor.store, KeyRange::Under(data.clone())).await {
            let kind = ViewKind::End;
            let last = Sight::View { view, key: String::new(), revision: 0, live: false, nonce: None, kind };
            let _last = actor.finally(last);
            saw(data.to_string(), 0, false, ViewKind::Open);
            let mut changes = opened.changes();
            loop {
                match changes.next().await {
                    Ok(Change::Put(entry)) => saw(entry.key.to_string(), entry.revision.get(), true, ViewKind::Entry),
                    Ok(Change::Gone(entry)) => saw(entry.key.to_string(), entry.revision.get(), false, ViewKind::Entry),
                    Ok(Change::CaughtUp) => saw(String::new(), 0, false, ViewKind::CaughtUp),
                    Ok(Change::Gap) => saw(String::new(), 0, false, ViewKind::Gap),
                    Err(_) => break,
                }
            }
        }
        actor.pause(&mut rng, actor.habits.lease).await;
    }
}
