//! How long something is held, by the holder's own clock: what guards and leaderships share.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{Error, Loss, Result, session::Inner};

/// What a hold does when its lease runs out and is then renewed late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// It is lost at the deadline. Right for work that nothing else protects.
    #[default]
    AtDeadline,
    /// It pauses at the deadline and goes on if a late renewal proves that nobody was granted in
    /// between. Right where every write is fenced.
    WhenProven,
}

impl Inner {
    /// Resolves when the lease is valid. Past the deadline even the bucket may be another one, where a revision
    /// that was known stands for something else; a renewal proves that it is not.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn vouched(&self) -> Result<()> {
        let mut states = self.states();
        loop {
            if let Some(loss) = self.validity.lost() {
                return Err(Error::lost(loss));
            }
            if !self.validity.remaining(&*self.clock).is_zero() {
                return Ok(());
            }
            if states.changed().await.is_err() {
                return Err(Error::lost(Loss::Closed));
            }
        }
    }
}

/// One hold; its clones are the same one.
#[derive(Clone)]
pub(crate) struct Hold {
    pub(crate) inner: Arc<Inner>,
    policy: OnLoss,
    /// How often the session had been interrupted when this was granted.
    interruptions: u64,
    /// Why this very hold ended, where it is not the session's end.
    ended: Arc<watch::Sender<Option<Loss>>>,
}

impl Hold {
    pub(crate) fn new(inner: Arc<Inner>, policy: OnLoss, ended: Arc<watch::Sender<Option<Loss>>>) -> Self {
        Self { interruptions: inner.validity.interruptions(), ended, policy, inner }
    }

    /// How long it is held if no renewal succeeds from now on.
    pub(crate) fn remaining(&self) -> Duration {
        if self.ended.borrow().is_some() {
            return Duration::ZERO;
        }
        match self.policy {
            OnLoss::AtDeadline => self.inner.validity.remaining_since(&*self.inner.clock, self.interruptions),
            OnLoss::WhenProven => self.inner.validity.remaining(&*self.inner.clock),
        }
    }

    /// Why it is lost, if it is.
    pub(crate) fn loss(&self) -> Option<Loss> {
        if let Some(loss) = *self.ended.borrow() {
            return Some(loss);
        }
        if let Some(loss) = self.inner.validity.lost() {
            return Some(loss);
        }
        (self.policy == OnLoss::AtDeadline && self.remaining().is_zero()).then(|| self.end(Loss::Deadline))
    }

    /// Ends this hold for good; the first reason stays.
    pub(crate) fn end(&self, loss: Loss) -> Loss {
        self.ended.send_if_modified(|slot| {
            let news = slot.is_none();
            slot.get_or_insert(loss);
            news
        });
        self.ended.borrow().unwrap_or(loss)
    }

    /// Resolves when it is lost, before anybody else can be granted.
    pub(crate) async fn lost(self) -> Loss {
        let mut ended = self.ended.subscribe();
        let session = self.inner.lost();
        tokio::pin!(session);
        loop {
            if let Some(loss) = self.loss() {
                return loss;
            }
            let deadline = async {
                match self.policy {
                    OnLoss::AtDeadline => self.inner.clock.sleep_until(self.inner.validity.deadline()).await,
                    OnLoss::WhenProven => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                loss = &mut session => return loss,
                _ = ended.changed() => {}
                () = deadline => {}
            }
        }
    }
}
