//! The store as a simulated process has it: every verb is a message there and one back.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream, stream::BoxStream};
use tenure_check::history::Micros;
use tenure_kv::{
    Batch, Clock, ClockExt, Entry, Error, Event as Told, Info, Key, KeyRange, Notice, Page, Result, Revision, Since, Store,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    plan::MS,
    wire::{Ask, Said},
    world::{Event, Request, World},
};

/// A connection to the simulated server.
pub(crate) struct Remote {
    world: Arc<World>,
    slot: usize,
    clock: Arc<dyn Clock>,
    patience: Duration,
    /// Of the process that uses it.
    lease: Micros,
    info: Info,
}

/// Why there is no answer.
enum Silence {
    /// It was never sent.
    NotSent,
    /// Nobody knows.
    TimedOut,
}

impl Remote {
    pub(crate) fn new(
        world: Arc<World>,
        slot: usize,
        clock: Arc<dyn Clock>,
        patience: Duration,
        lease: Micros,
        replicas: u16,
    ) -> Self {
        let info = Info { url: "sim:".to_owned(), shared: true, replicas };
        Self { world, slot, clock, patience, lease, info }
    }

    /// Sends a request and waits for its answer.
    async fn ask(&self, ask: Ask) -> std::result::Result<Said, Silence> {
        let (to, said) = oneshot::channel();
        let answer = Arc::new(Mutex::new(Some(to)));
        {
            let mut world = self.world.inner();
            let world = &mut *world;
            let wire = &world.wires[self.slot];
            if wire.is_refused() {
                return Err(Silence::NotSent);
            }
            let request = Request { slot: self.slot, ask, answer: answer.clone(), epoch: world.epoch };
            let mut at = world.now + wire.delay(&mut world.rng);
            // Its holder may have lost what it writes under by then: nothing but the server's refusal is left.
            if is_fenced(&request.ask) && world.rng.u8(..32) == 0 {
                at += world.rng.u64(..=3 * self.lease);
            }
            // Not where a server may refuse what is right: the first copy's refusal would not be the last word.
            if wire.stale == 0
                && wire.comes_twice(&mut world.rng)
                && matches!(&request.ask, Ask::Commit(batch) if is_conditional(batch))
            {
                let later = wire.delay(&mut world.rng) * 8;
                // What makes something new would make it once more when the tombstone of the first is forgotten, after a
                // second. Tenure sends such a write once, and no network keeps a copy for so long.
                let later = at + if creates(&request.ask) { later.min(900 * MS) } else { later };
                // Nobody waits for the answer to the second copy: what it would be told is not of its own request.
                let answer = Arc::default();
                world.agenda.add(later, Event::Arrive(Request { answer, ..request.clone() }));
            }
            world.agenda.add(at, Event::Arrive(request));
        }
        let said = self.clock.timeout(self.patience, said).await;
        drop(answer);
        said.ok().and_then(std::result::Result::ok).ok_or(Silence::TimedOut)
    }

    async fn read(&self, ask: Ask) -> Result<Said> {
        match self.ask(ask).await {
            Ok(Said::Refused(error)) => Err(error),
            Ok(said) => Ok(said),
            Err(_) => Err(Error::unavailable("the server did not answer")),
        }
    }
}

fn is_fenced(ask: &Ask) -> bool {
    matches!(ask, Ask::Commit(batch) if batch.ops.iter().any(|op| op.fence.is_some()))
}

fn creates(ask: &Ask) -> bool {
    let new = |op: &tenure_kv::Op| op.expect == tenure_kv::Expect::At(Revision::ZERO);
    matches!(ask, Ask::Commit(batch) if batch.ops.iter().any(new))
}

/// A second copy of such a write changes nothing.
fn is_conditional(batch: &Batch) -> bool {
    batch.ops.iter().all(|op| matches!(op.expect, tenure_kv::Expect::At(_)))
}

fn astray() -> Error {
    Error::unavailable("the answer belongs to another question")
}

#[async_trait]
impl Store for Remote {
    fn info(&self) -> &Info {
        &self.info
    }

    async fn bucket(&self, name: &str) -> tenure_kv::Result<tenure_kv::Beside> {
        tenure_kv::check_bucket(name).map(|()| tenure_kv::Beside::Range)
    }

    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.entries(std::slice::from_ref(key)).await?.into_iter().next().flatten())
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        match self.read(Ask::Entries(keys.to_vec())).await? {
            Said::Entries(entries) => Ok(entries),
            _ => Err(astray()),
        }
    }

    async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        match self.read(Ask::Scan(range.clone(), from, limit)).await? {
            Said::Page(page) => Ok(page),
            _ => Err(astray()),
        }
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        batch.validate()?;
        match self.ask(Ask::Commit(batch)).await {
            Ok(Said::Committed(revision)) => Ok(revision),
            Ok(Said::Refused(error)) => Err(error),
            Ok(_) => Err(Error::unknown("the answer belongs to another question")),
            Err(Silence::NotSent) => Err(Error::unavailable("the server is out of reach")),
            Err(Silence::TimedOut) => Err(Error::unknown("the server did not answer")),
        }
    }

    fn outages(&self) -> u64 {
        self.world.inner().outages[self.slot]
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Told>>> {
        // Bounded by the length of a run.
        let (to, told) = mpsc::unbounded_channel();
        self.read(Ask::Watch(range, since, to)).await?;
        Ok(stream::unfold(told, |mut told| async move { told.recv().await.map(|event| (event, told)) }).boxed())
    }

    async fn follow(&self, key: &Key) -> Result<BoxStream<'static, Notice>> {
        let (to, notices) = mpsc::unbounded_channel();
        // A client's library keeps a subscription and sends it until the server has it: there is no answer to be lost.
        self.world.inner().subscribe(self.slot, key.clone(), to);
        Ok(stream::unfold(notices, |mut notices| async move { notices.recv().await.map(|notice| (notice, notices)) }).boxed())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("slot", &self.slot).finish_non_exhaustive()
    }
}
