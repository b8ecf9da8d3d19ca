//! What a client does under one session: many small loops side by side, each with chances of its own.

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tenure::{Loss, Session, SessionState};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{elections, groups, locks, registers};
use crate::{order::Field, tape::Tape};

/// What all roles of one session share.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) session: Session,
    pub(super) tape: Arc<Tape>,
    /// The session is over, or about to be.
    pub(super) over: CancellationToken,
    pub(super) lease: Duration,
    /// How long a call that does not end is waited for.
    pub(super) patience: Duration,
    pub(super) pace: f64,
    pub(super) held_long: bool,
}

impl Scene {
    pub(super) fn id(&self) -> String {
        self.session.id().to_owned()
    }

    /// Waits for some milliseconds, drawn from `span`, at the pace of this history.
    pub(super) async fn pause(&self, rng: &mut fastrand::Rng, span: Range<u64>) {
        pause_at(self.pace, rng, span, &self.over).await;
    }

    /// Resolves when whoever waits is to turn away: the client ends the session by itself. Once the session is lost
    /// every call has to end without that.
    pub(super) async fn leaves(&self) {
        self.over.cancelled().await;
        let state = *self.session.states().borrow();
        if matches!(state, SessionState::Lost(loss) if loss != Loss::Closed) {
            std::future::pending().await
        }
    }

    /// `work`, unless the scene is over first.
    pub(super) async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.over.run_until_cancelled(work).await
    }
}

/// One of the loops.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Lock(String),
    Election(String),
    Member {
        group: String,
        ids: usize,
    },
    Register(String),
    /// Breaks holds of so many locks.
    Breaker(usize),
}

impl Role {
    /// Everybody that a client is.
    pub(super) fn all(field: &Field) -> Vec<Self> {
        let mut all = Vec::new();
        for n in 0..field.locks {
            let waiters = if n == 0 { field.crowd } else { field.waiters };
            all.extend((0..waiters).map(|_| Self::Lock(format!("l{n}"))));
        }
        all.extend((0..field.elections).map(|n| Self::Election(format!("e{n}"))));
        all.extend((0..field.groups).map(|n| Self::Member { group: format!("g{n}"), ids: field.ids }));
        all.extend((0..field.registers).map(|n| Self::Register(format!("r{n}"))));
        all.push(Self::Breaker(field.locks));
        all
    }

    pub(super) fn play(self, scene: Scene, rng: fastrand::Rng) -> BoxFuture<'static, ()> {
        match self {
            Self::Lock(name) => Box::pin(locks::play(scene, name, rng)),
            Self::Election(name) => Box::pin(elections::play(scene, name, rng)),
            Self::Member { group, ids } => Box::pin(groups::play(scene, group, ids, rng)),
            Self::Breaker(locks) => Box::pin(locks::break_some(scene, locks, rng)),
            Self::Register(name) => Box::pin(registers::play(scene, name, rng)),
        }
    }
}

/// Waits for so many milliseconds, drawn from `span`, but not beyond the end.
pub(crate) async fn pause(rng: &mut fastrand::Rng, span: Range<u64>, over: &CancellationToken) {
    pause_at(1.0, rng, span, over).await;
}

/// The same, `pace` times as long.
pub(crate) async fn pause_at(pace: f64, rng: &mut fastrand::Rng, span: Range<u64>, over: &CancellationToken) {
    let span = Duration::from_millis(rng.u64(span)).mul_f64(pace);
    let _ = over.run_until_cancelled(sleep(span)).await;
}
