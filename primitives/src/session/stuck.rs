//! Ends that do not come.
//!
//! What its owner has turned away from is ended by the session, in a task of its own and for as long as that takes. Where
//! the store does not answer, each new try would leave one more of these. So while many are stuck, no new ticket, candidate,
//! claim to an office or member is written.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tenure_kv::{ClockExt, Error as StoreError};
use tokio::sync::watch;

use super::{Inner, timing};
use crate::{Error, Result};

/// An end that takes longer is stuck.
const SLOW: Duration = Duration::from_secs(1);
/// There is room while fewer are stuck.
const MOST: usize = 1_024;
/// How long whoever begins something waits for room, as it would for the answer to its first write.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries to end something: a store that answers again is not kept waiting for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
        // Of no interest to who waits for room.
        self.0.send_if_modified(|count| {
            *count += 1;
            false
        });
        One(self)
    }

    fn has_room(&self) -> bool {
        *self.0.borrow() < MOST
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.0.send_if_modified(|count| {
            *count -= 1;
            *count == MOST - 1
        });
    }
}

/// The pauses between tries to end something.
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) fn of(inner: &Inner) -> Self {
        Self { next: timing::renewal_retry(inner.lease) / 4, longest: timing::renewal_interval(inner.lease).min(LONGEST_PAUSE) }
    }

    pub(crate) async fn pause(&mut self, inner: &Inner) {
        inner.clock.sleep_until(inner.clock.now() + self.next).await;
        self.next = (self.next * 2).min(self.longest);
    }
}

impl Inner {
    /// Does what brings something to its end.
    ///
    /// # Cancel safety
    /// As `end`.
    pub(crate) async fn ending(&self, end: impl Future<Output = ()> + Send) {
        let mut end = pin!(end);
        if self.clock.timeout(SLOW, &mut end).await.is_err() {
            let _one = self.stuck.one();
            end.await;
        }
    }

    /// Whether there is room for something new at this moment.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none.
    pub(crate) fn room_now(&self) -> Result<()> {
        if self.stuck.has_room() { Ok(()) } else { Err(crowded()) }
    }

    /// Waits until there is room for something new.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there was none for long; [`Error::Lost`]. Nothing was begun.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(crate) async fn room(self: &Arc<Self>) -> Result<()> {
        if self.stuck.has_room() {
            return Ok(());
        }
        let mut stuck = self.stuck.0.subscribe();
        tokio::select! {
            biased;
            loss = self.lost() => Err(Error::lost(loss)),
            // The sender is this session's.
            _ = stuck.wait_for(|count| *count < MOST) => Ok(()),
            () = self.clock.sleep(PATIENCE) => Err(crowded()),
        }
    }
}

fn crowded() -> Error {
    let said = format!("{MOST} things that this session has given up are still to be ended; the store does not answer");
    StoreError::unavailable(said).into()
}
