//! Ends that do not come.
//!
//! What its owner has turned away from is ended by the session, in a task of its own and for as long as that takes. Where
//! the store does not answer, each new try would leave one more of these. So while there are many, nothing new is begun.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tenure_kv::{ClockExt, Error as StoreError};
use tokio::sync::watch;

use super::Inner;
use crate::{Error, Result};

/// An end that takes longer is stuck.
const SLOW: Duration = Duration::from_secs(1);
/// Nothing new is begun while so many are stuck.
const MOST: usize = 1_024;
/// How long whoever begins something waits for room, as it would for the answer to its first write.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many ends are stuck.
#[derive(Debug)]
pub(super) struct Stuck(watch::Sender<usize>);

impl Default for Stuck {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

struct One<'a>(&'a Stuck);

impl Stuck {
    fn one(&self) -> One<'_> {
        self.0.send_modify(|count| *count += 1);
        One(self)
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

impl Inner {
    /// Does what brings something to its end.
    pub(crate) async fn ending(&self, end: impl Future<Output = ()> + Send) {
        let mut end = pin!(end);
        if self.clock.timeout(SLOW, &mut end).await.is_err() {
            let _one = self.stuck.one();
            end.await;
        }
    }

    /// Waits until there is room for something new.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store has not answered for long; [`Error::Lost`]. Nothing was begun.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn room(self: &Arc<Self>) -> Result<()> {
        if *self.stuck.0.borrow() < MOST {
            return Ok(());
        }
        let mut stuck = self.stuck.0.subscribe();
        tokio::select! {
            biased;
            loss = self.lost() => Err(Error::lost(loss)),
            // The sender is this session's.
            _ = stuck.wait_for(|count| *count < MOST) => Ok(()),
            () = self.clock.sleep(PATIENCE) => {
                let said = format!("the store does not answer: {MOST} things that this session has given up are still to be ended");
                Err(StoreError::unavailable(said).into())
            }
        }
    }
}
