//! Tasks that belong to a group, share its partitions, and follow who is there.

use std::{collections::BTreeMap, time::Duration};

use tenure::{
    Guard, Instance, Member, MemberEvent, Session, membership,
    partitions::{PartitionEvent, Partitions},
};
use tenure_check::history::{Done, MemberKind, Mode, Op, Outcome, Sight};
use tenure_kv::Revision;

use super::{Actor, at};

const GROUP: &str = "g";
const PARTITIONS: u32 = 3;

pub(super) async fn work(actor: Actor, session: Session) {
    let mut rng = actor.rng(80);
    let Ok(group) = session.group(GROUP) else { return };
    while !actor.world.is_finishing() {
        actor.pause(&mut rng, session.lease()).await;
        // Few ids, so that two want the same now and then.
        let member = format!("m{}", rng.u8(..4));
        let nonce = actor.nonce();
        let op =
            Op::Join { session: session.id().to_owned(), group: GROUP.to_owned(), member: member.clone(), nonce: nonce.clone() };
        // In a bucket made anew it may be written before the session has noticed.
        let key = format!("member.{GROUP}.{member}");
        let wrote = |revision: Revision, nonce: &str| Done {
            epoch: actor.world.epoch_of_write(&key, revision.get(), Some(nonce)),
            ..at(revision)
        };
        let join = group.join(&member, Instance::new().value(nonce.clone()));
        let joined = actor.entrust(op, join, |member| wrote(member.revision(), &nonce)).await;
        let Ok(joined) = joined else { continue };
        if actor.habits.partitions && rng.bool() {
            share(&actor, &session, &joined, &mut rng).await;
        }
        for _ in 0..rng.u32(0..6) {
            actor.pause(&mut rng, session.lease()).await;
            let nonce = actor.nonce();
            let op = Op::Update {
                session: session.id().to_owned(),
                group: GROUP.to_owned(),
                member: member.clone(),
                nonce: nonce.clone(),
            };
            drop(actor.entrust(op, joined.set_value(nonce.clone()), |revision| wrote(*revision, &nonce)).await);
        }
        let op = Op::Leave { session: session.id().to_owned(), group: GROUP.to_owned(), member };
        drop(actor.entrust(op, joined.leave(), |()| Default::default()).await);
    }
}

/// Owns partitions for a while. A partition is a lock: gained, it is noted as one that was acquired at once.
async fn share(actor: &Actor, session: &Session, member: &Member, rng: &mut fastrand::Rng) {
    let grace = if rng.bool() { session.lease() / 4 } else { Duration::from_secs(20) };
    let builder = Partitions::builder(member, PARTITIONS).grace(grace);
    let Ok(mut partitions) = builder.start().await else { return };
    let mut owned = BTreeMap::<u32, Guard>::new();
    let mut left = rng.u32(5..60);
    while left > 0 && !actor.world.is_finishing() {
        let event = tokio::select! {
            biased;
            event = partitions.next() => match event {
                Some(event) => Some(event),
                None => break,
            },
            () = actor.pause(rng, session.lease() / 4) => None,
        };
        left -= 1;
        match event {
            // Lost before it was heard of: nothing was gained.
            Some(PartitionEvent::Gained { guard, .. }) if !guard.is_held() => drop(guard),
            Some(PartitionEvent::Gained { partition, guard }) => {
                let lock = name(partition);
                let op = Op::Acquire { session: session.id().to_owned(), lock, mode: Mode::Try, limit_ms: None };
                let token = at(guard.token());
                drop(actor.run(op, async { Ok(()) }, |()| token).await);
                owned.insert(partition, guard);
            }
            Some(PartitionEvent::Losing { partition }) => {
                if let Some(guard) = owned.remove(&partition) {
                    let (lock, token) = (name(partition), guard.token().get());
                    let op = Op::Release { session: session.id().to_owned(), lock, token };
                    release(actor, op, guard).await;
                }
            }
            None => {}
        }
        for (partition, guard) in &owned {
            actor.saw(Sight::Held { lock: name(*partition), token: guard.token().get(), yes: guard.is_held() });
        }
    }
    for (partition, guard) in owned {
        let op = Op::Release { session: session.id().to_owned(), lock: name(partition), token: guard.token().get() };
        let id = actor.call(op);
        drop(guard);
        id.returned(Outcome::Unknown { why: "dropped".to_owned() });
    }
}

async fn release(actor: &Actor, op: Op, guard: Guard) {
    let id = actor.call(op);
    match guard.release().await {
        Ok(()) => id.returned(Outcome::Ok(Default::default())),
        Err(error @ tenure::Error::Lost { .. }) => id.returned(super::failure(&error)),
        Err(error) => id.returned(Outcome::Unknown { why: error.to_string() }),
    }
}

fn name(partition: u32) -> String {
    format!("partitions/{GROUP}/{partition}")
}

pub(super) async fn follow(actor: Actor) {
    let mut rng = actor.rng(90);
    loop {
        let watch = actor.world.number();
        let saw = |member: String, revision, kind| {
            actor.saw(Sight::Member { watch, group: GROUP.to_owned(), member, revision, kind });
        };
        let kind = MemberKind::End;
        let last = Sight::Member { watch, group: GROUP.to_owned(), member: String::new(), revision: 0, kind };
        if let Ok(mut events) = membership::watch(&actor.store, GROUP).await {
            let _last = actor.finally(last);
            while let Ok(event) = events.next().await {
                match event {
                    MemberEvent::Insert(record) => saw(record.id, record.revision.get(), MemberKind::Insert),
                    MemberEvent::Update(record) => saw(record.id, record.revision.get(), MemberKind::Update),
                    MemberEvent::Remove { id, revision } => saw(id, revision.get(), MemberKind::Remove),
                    MemberEvent::CaughtUp { revision } => saw(String::new(), revision.get(), MemberKind::CaughtUp),
                    _ => {}
                }
            }
        }
        actor.pause(&mut rng, actor.habits.lease).await;
    }
}
