//! What holders and leaders write under their hold: one key or two, with and without expectations, and its end.

use std::time::Duration;

use tenure::{Result, data_key};
use tenure_check::history::{Done, Expect, Hold, Op};
use tenure_kv::{Batch, Key, Op as Write, Revision};

use super::{Actor, at};

/// Keys that are written under one hold, and what their writer knows of them.
pub(super) struct Desk {
    actor: Actor,
    session: String,
    under: Hold,
    /// Without `data.`.
    key: String,
    /// Where what was written last is, as far as that is known.
    own: Option<Revision>,
}

impl Desk {
    pub(super) const fn new(actor: Actor, session: String, under: Hold, key: String) -> Self {
        Self { actor, session, under, key, own: None }
    }

    /// Writes something by way of `commit`, which adds the fence.
    pub(super) async fn write(&mut self, rng: &mut fastrand::Rng, commit: impl AsyncFnOnce(Batch) -> Result<Revision>) {
        // Now and then its caller goes on without an answer, so that the hold may be over when it lands.
        let most = u64::try_from(self.actor.habits.lease.as_micros()).unwrap_or(u64::MAX) / 8;
        let patience = (rng.u8(..8) == 0).then(|| Duration::from_micros(rng.u64(100..most)));
        let actor = self.actor.clone();
        let commit = async move |batch| {
            tokio::select! {
                biased;
                ended = commit(batch) => ended,
                () = actor.sleep(patience.unwrap_or_default()), if patience.is_some() => {
                    Err(tenure_kv::Error::unknown("nobody waits for it").into())
                }
            }
        };
        let Ok(key) = data_key(&self.key) else { return };
        match (rng.u8(..8), self.own) {
            (0, Some(own)) => return self.delete(key, own, commit).await,
            (1, _) => return self.write_two(key, commit).await,
            _ => {}
        }
        let nonce = self.actor.nonce();
        let write = Write::put(key, nonce.clone());
        // The history has no word for this under a hold: what is refused for it is a failure like another.
        let write = match (rng.u8(..4), self.own) {
            (0, Some(own)) => write.if_at(own),
            (1, None) => write.if_absent(),
            _ => write,
        };
        let op = self.fenced(&self.key, nonce);
        let written = self.actor.run(op, commit(write.into()), |revision| at(*revision)).await;
        self.own = written.ok();
    }

    async fn delete(&mut self, key: Key, own: Revision, commit: impl AsyncFnOnce(Batch) -> Result<Revision>) {
        self.own = None;
        let op = Op::Delete { key: self.key.clone(), expect: Expect::At(own.get()) };
        let world = self.actor.world.clone();
        let done =
            |revision: &Revision| Done { epoch: world.epoch_of_write(key.as_str(), revision.get(), None), ..at(*revision) };
        drop(self.actor.run(op, commit(Write::delete(key.clone()).if_at(own).into()), done).await);
    }

    /// Both or neither, the one beside first.
    async fn write_two(&mut self, key: Key, commit: impl AsyncFnOnce(Batch) -> Result<Revision>) {
        let beside = format!("{}.beside", self.key);
        let Ok(other) = data_key(&beside) else { return };
        let (first, second) = (self.actor.nonce(), self.actor.nonce());
        let batch = Batch::new().and(Write::put(other, first.clone())).and(Write::put(key, second.clone()));
        let ops = (self.fenced(&beside, first), self.fenced(&self.key, second));
        let written = self.actor.clone().run_two(ops, commit(batch)).await;
        self.own = written.ok();
    }

    fn fenced(&self, key: &str, nonce: String) -> Op {
        Op::FencedPut { session: self.session.clone(), under: self.under.clone(), key: key.to_owned(), nonce }
    }
}
