//! The sessions of a process, one after the other: each with all that is done under it, and every way in which it ends.

use std::{future::pending, time::Duration};

use tenure::{Session, SessionState};
use tenure_check::history::{Done, Op, Outcome, SessionState as Shown, Sight};
use tokio::task::JoinSet;

use super::{Actor, electing, failure, grouping, locking, register, viewing};

/// Why a session is not used any more.
enum End {
    Lost,
    /// All work is done: the run comes to its end.
    Done,
    /// The process wants another one.
    Turned,
}

/// What is done under one session.
struct Tasks {
    work: JoinSet<()>,
    /// Those who look on for as long as they are let.
    watchers: JoinSet<()>,
}

impl Tasks {
    fn start(actor: &Actor, session: &Session) -> Self {
        let (mut work, mut watchers) = (JoinSet::new(), JoinSet::new());
        for n in 0..actor.habits.lockers {
            work.spawn(locking::work(actor.clone(), session.clone(), n));
        }
        for n in 0..actor.habits.electors {
            work.spawn(electing::work(actor.clone(), session.clone(), n));
            watchers.spawn(electing::look_on(actor.clone(), session.clone(), n));
        }
        if actor.habits.groups {
            work.spawn(grouping::work(actor.clone(), session.clone()));
            watchers.spawn(grouping::follow(actor.clone()));
        }
        for n in 0..actor.habits.registers {
            work.spawn(register::work(actor.clone(), n));
        }
        if actor.habits.breaks {
            work.spawn(locking::break_some(actor.clone(), session.lease()));
        }
        if actor.habits.views {
            watchers.spawn(viewing::look_on(actor.clone()));
        }
        watchers.spawn(watch_over(actor.clone(), session.clone()));
        Self { work, watchers }
    }

    async fn abort(mut self) {
        self.work.shutdown().await;
        self.watchers.shutdown().await;
    }
}

/// Opens a session, works, and opens another when that is over, until the run comes to its end.
pub(crate) async fn live(mut actor: Actor) {
    let mut rng = actor.rng(0);
    loop {
        // Tokens may repeat in a bucket made anew, so who holds what is told apart by the session, too.
        actor.client = actor.world.enlist(actor.slot);
        let Some(session) = open(&actor).await else {
            if actor.world.is_finishing() {
                return;
            }
            actor.world.retire(actor.slot, actor.client);
            actor.pause(&mut rng, actor.habits.lease).await;
            continue;
        };
        let mut tasks = Tasks::start(&actor, &session);
        let turns = rng.u8(..8) == 0;
        let span = Duration::from_micros(rng.u64(1..6_000_000));
        let end = tokio::select! {
            biased;
            _ = session.lost() => End::Lost,
            () = async { while tasks.work.join_next().await.is_some() {} } => End::Done,
            () = actor.sleep(span), if turns => End::Turned,
        };
        match end {
            End::Lost => {
                // The application takes a moment to hear of it; what it goes on doing meanwhile must be refused.
                actor.pause(&mut rng, Duration::from_millis(20)).await;
                drop_all(&actor, session, tasks).await;
            }
            End::Turned if rng.bool() => {
                // Under those who rely on it.
                close(&actor, &session, &mut rng).await;
                actor.pause(&mut rng, Duration::from_millis(20)).await;
                tasks.abort().await;
            }
            End::Turned => drop_all(&actor, session, tasks).await,
            // Who stays has its observers asked for the last states.
            End::Done => {
                if rng.bool() {
                    close(&actor, &session, &mut rng).await;
                    return pending().await;
                }
                session.lost().await;
                // Not at the same moment: what is asked to end by then may be lost without a reason.
                actor.pause(&mut rng, Duration::from_millis(20)).await;
                drop_all(&actor, session, tasks).await;
            }
        }
        actor.world.retire(actor.slot, actor.client);
    }
}

async fn open(actor: &Actor) -> Option<Session> {
    let lease_ms = u64::try_from(actor.habits.lease.as_millis()).unwrap_or(u64::MAX);
    let id = actor.call(Op::Open { lease_ms });
    let builder = Session::builder(actor.store.clone()).lease(actor.habits.lease).clock(actor.clock.clone());
    let opened = builder.host(format!("m{}", actor.client)).pid(1).open().await;
    let outcome = opened.as_ref().map_or_else(failure, |session| {
        Outcome::Ok(Done { session: Some(session.id().to_owned()), epoch: actor.world.epoch_of(session.id()), ..Done::default() })
    });
    id.returned(outcome);
    opened.ok()
}

/// The last handle to the session is dropped with all that it had, and that ends it. A lost one, too: where a renewal of it is
/// under way its task has not heard of the loss, and leaves a tombstone.
async fn drop_all(actor: &Actor, session: Session, tasks: Tasks) {
    let id = actor.call(Op::Close { session: session.id().to_owned() });
    tasks.abort().await;
    drop(session);
    id.returned(Outcome::Unknown { why: "dropped".to_owned() });
}

/// Now and then nobody waits for the end of it.
async fn close(actor: &Actor, session: &Session, rng: &mut fastrand::Rng) {
    let id = actor.call(Op::Close { session: session.id().to_owned() });
    let impatient = rng.u8(..4) == 0;
    let most = Duration::from_micros(rng.u64(1..1_000));
    tokio::select! {
        biased;
        closed = session.close() => id.returned(closed.as_ref().map_or_else(failure, |()| Outcome::Ok(Done::default()))),
        () = actor.sleep(most), if impatient => id.returned(Outcome::Unknown { why: "dropped".to_owned() }),
    }
}

async fn watch_over(actor: Actor, session: Session) {
    let mut states = session.states();
    loop {
        let state = match *states.borrow_and_update() {
            SessionState::Held => Shown::Held,
            SessionState::Suspect => Shown::Suspect,
            SessionState::Restored => Shown::Restored,
            SessionState::Lost(_) => Shown::Lost,
        };
        actor.saw(Sight::Session { session: session.id().to_owned(), state });
        if states.changed().await.is_err() {
            return;
        }
    }
}
