//! What simulated processes do: everything that Tenure offers, at once, each task in its own pace.

mod electing;
mod fenced;
mod grouping;
mod locking;
mod register;
mod sessions;
mod viewing;

pub(crate) use sessions::live;

use std::{sync::Arc, time::Duration};

use tenure::Error;
use tenure_check::history::{Call, Done, Failure, Line, Micros, Op, Outcome, Return, Sight};
use tenure_kv::{Clock, ClockExt, Revision, Store};

use crate::world::World;

/// What a process does under one session after the other, drawn from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    pub(crate) seed: u64,
    pub(crate) lease: Duration,
    pub(crate) lockers: usize,
    pub(crate) electors: usize,
    pub(crate) groups: bool,
    pub(crate) partitions: bool,
    pub(crate) registers: usize,
    pub(crate) views: bool,
    /// It breaks others' holds now and then.
    pub(crate) breaks: bool,
}

/// What every task of a process has at hand.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) world: Arc<World>,
    pub(crate) slot: usize,
    /// A number for each session that a process opens.
    pub(crate) client: u64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) habits: Arc<Habits>,
}

impl Actor {
    async fn sleep(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    /// A pause of at most so much.
    async fn pause(&self, rng: &mut fastrand::Rng, most: Duration) {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(2);
        self.sleep(Duration::from_micros(rng.u64(1..most))).await;
    }

    fn rng(&self, task: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.habits.seed ^ self.client.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ task << 56)
    }

    fn nonce(&self) -> String {
        format!("n{}", self.world.number())
    }

    fn call(&self, op: Op) -> Pending {
        let id = self.world.number();
        let at = self.world.now();
        self.world.inner().open += 1;
        self.world.note(Line::Call(Call { at, id, client: self.client, op }));
        Pending { world: self.world.clone(), id: Some(id) }
    }

    fn saw(&self, what: Sight) {
        self.world.saw(self.client, what);
    }

    /// Notes `last` when it is dropped, however the task ends.
    fn finally(&self, last: Sight) -> Finally {
        Finally(self.clone(), Some(last))
    }

    /// Carries out `work`, which is `op`, and notes how it ended.
    async fn run<T>(
        &self,
        op: Op,
        work: impl Future<Output = tenure::Result<T>>,
        done: impl FnOnce(&T) -> Done,
    ) -> tenure::Result<T> {
        let id = self.call(op);
        let ended = work.await;
        id.returned(ended.as_ref().map_or_else(failure, |value| Outcome::Ok(done(value))));
        ended
    }

    /// As [`run`](Self::run), for two writes in one: the later one's revision follows the other's.
    async fn run_two(&self, ops: (Op, Op), work: impl Future<Output = tenure::Result<Revision>>) -> tenure::Result<Revision> {
        let (first, second) = (self.call(ops.0), self.call(ops.1));
        let ended = work.await;
        let one = |revision: u64| Outcome::Ok(Done { revision: Some(revision), ..Done::default() });
        first.returned(ended.as_ref().map_or_else(failure, |revision| one(revision.get() - 1)));
        second.returned(ended.as_ref().map_or_else(failure, |revision| one(revision.get())));
        ended
    }

    /// As [`run`](Self::run), for what goes on in a task of the session: its loss says nothing of a write under way.
    async fn entrust<T>(
        &self,
        op: Op,
        work: impl Future<Output = tenure::Result<T>>,
        done: impl FnOnce(&T) -> Done,
    ) -> tenure::Result<T> {
        let id = self.call(op);
        let ended = work.await;
        let outcome = match &ended {
            Ok(value) => Outcome::Ok(done(value)),
            Err(error @ Error::Lost { .. }) => Outcome::Unknown { why: error.to_string() },
            Err(error) => failure(error),
        };
        id.returned(outcome);
        ended
    }
}

/// A call whose end is still to be noted. Dropped, it was given up, and nobody knows what became of it.
struct Pending {
    world: Arc<World>,
    id: Option<u64>,
}

impl Pending {
    fn returned(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(id) = self.id.take() {
            let at: Micros = self.world.now();
            self.world.inner().open -= 1;
            self.world.note(Line::Return(Return { at, id, outcome }));
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.end(Outcome::Unknown { why: "dropped".to_owned() });
    }
}

struct Finally(Actor, Option<Sight>);

impl Drop for Finally {
    fn drop(&mut self) {
        if let Some(last) = self.1.take() {
            self.0.saw(last);
        }
    }
}

fn at(revision: Revision) -> Done {
    Done { revision: Some(revision.get()), ..Done::default() }
}

fn failure(error: &Error) -> Outcome {
    let why = error.to_string();
    let kind = match error {
        Error::NotAcquired { .. } => Failure::Timeout,
        Error::Lost { .. } => Failure::Lost,
        Error::Conflict { .. } => Failure::Conflict,
        Error::Unavailable { .. } => Failure::Unavailable,
        Error::Invalid { .. } => Failure::Invalid,
        _ => return Outcome::Unknown { why },
    };
    Outcome::Failed { kind, why }
}
