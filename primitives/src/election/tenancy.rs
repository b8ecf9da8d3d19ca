//! Working while elected, and campaigning again: the loop that everybody else writes by hand.

use std::{fmt::Display, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Election, Leadership};
use crate::{Error, Result};

/// The first pause before another campaign.
const FIRST: Duration = Duration::from_millis(50);

impl Election {
    /// Campaigns, runs `work` while elected, and campaigns again after a while when it was lost or `work` failed,
    /// until `work` succeeds. Then the office is given up and its output returned.
    ///
    /// `work` is dropped when the office can no longer be relied on, also where it may turn out to be kept. With
    /// [`yields`](Self::yields) it is dropped, too, when a candidate with a higher priority asks for the office,
    /// which is then handed over.
    ///
    /// # Errors
    /// [`Error::Lost`] when the session is lost; [`Error::Invalid`] for a value that is too long.
    ///
    /// # Cancel safety
    /// Safe to drop: drops `work` and gives up the office or the candidature.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let session = tenure::Session::open(tenure_kv::open("memory:").await?).await?;
    /// let election = session.election("nightly")?;
    /// let rows = election.run_while_leader("me", |leadership| async move {
    ///     println!("leading in term {}", leadership.term());
    ///     Ok::<_, tenure::Error>(42)
    /// }).await?;
    /// assert_eq!(rows, 42);
    /// # Ok(()) }
    /// ```
    pub async fn run_while_leader<F, W, T, E>(&self, value: impl Into<Bytes>, mut work: F) -> Result<T>
    where
        F: FnMut(Arc<Leadership>) -> W,
        W: Future<Output = std::result::Result<T, E>>,
        E: Display,
    {
        let value = value.into();
        let mut pause = FIRST;
        loop {
            let leadership = Arc::new(self.campaign(value.clone()).await?);
            let elected = self.session.inner().clock.now();
            let challenged =
                async { if self.ballot.yields { leadership.asked_to_step_down().await } else { std::future::pending().await } };
            let outcome = tokio::select! {
                biased;
                outcome = leadership.run(work(leadership.clone())) => Ok(outcome),
                challenger = challenged => Err(challenger),
            };
            match outcome {
                Ok(Ok(Ok(output))) => {
                    // On failure the session goes on with it.
                    let _ = leadership.step_down().await;
                    return Ok(output);
                }
                Ok(Ok(Err(error))) => {
                    tracing::warn!(election = self.name(), %error, "the leader's work failed; it is tried again");
                    let _ = leadership.step_down().await;
                }
                Ok(Err(error)) => {
                    if let Some(loss) = self.session.inner().validity.lost() {
                        return Err(Error::lost(loss));
                    }
                    tracing::info!(election = self.name(), %error, "the office is over; campaigning again");
                    // It may be kept for all that is known, but the work has been dropped.
                    let _ = leadership.step_down().await;
                }
                Err(challenger) => {
                    if leadership.transfer(&challenger.id).await.is_err() {
                        let _ = leadership.step_down().await;
                    }
                    pause = FIRST;
                }
            }
            drop(leadership);
            if self.session.inner().clock.now().saturating_since(elected) > self.session.lease() {
                pause = FIRST;
            }
            let clock = &self.session.inner().clock;
            tokio::select! {
                loss = self.session.lost() => return Err(Error::lost(loss)),
                () = clock.sleep_until(clock.now() + jittered(pause)) => {}
            }
            pause = (pause * 2).min(self.session.lease());
        }
    }
}

/// Between half of it and all, so that candidates that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let draw = u32::from(fastrand::u8(..));
    pause / 2 + pause / 2 * draw / 255
}
