//! One partition of one member: taken when it is ours, let go of when it is somebody else's.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    PartitionEvent,
    plan::{Plan, Wish},
};
use crate::{Error, Guard, Mutex, leash::Leash};

/// How long to wait before a partition is taken again that was let go of without need, or could not be taken.
const PAUSE: Duration = Duration::from_millis(500);

/// Who tends one partition.
pub(super) struct Tender {
    pub(super) partition: u32,
    pub(super) mutex: Mutex,
    pub(super) me: String,
    pub(super) plan: watch::Receiver<Plan>,
    /// Bounds how many wait at the same time.
    pub(super) waits: Arc<Semaphore>,
    pub(super) tell: mpsc::Sender<PartitionEvent>,
    pub(super) grace: Duration,
}

impl Tender {
    /// Tends the partition until all is to be let go and it is, or until the session is lost.
    ///
    /// # Cancel safety
    /// Dropping gives up a wait; a guard that was handed out stays with whoever has it.
    pub(super) async fn run(mut self) {
        loop {
            let wish = self.until(|wish, stopping| wish == Wish::Own || stopping).await;
            if wish != Some(Wish::Own) {
                return;
            }
            match self.take().await {
                Ok(Some(leash)) => self.hold(leash).await,
                Ok(None) => continue,
                // A ticket that somebody has broken is lost alone.
                Err(Error::Lost { .. }) if self.mutex.session().inner().validity.lost().is_some() => return,
                Err(error) => {
                    tracing::debug!(lock = self.mutex.name(), %error, "the partition could not be taken; trying again");
                }
            }
            self.pause().await;
        }
    }

    /// Waits for the lock and hands it to the application; `None` when it is no longer to be ours.
    async fn take(&mut self) -> Result<Option<Leash>, Error> {
        let (waits, mutex) = (self.waits.clone(), self.mutex.clone());
        let Ok(permit) = waits.acquire().await else { return Ok(None) };
        if self.plan.borrow().wish(&self.me, self.partition) != Wish::Own {
            return Ok(None);
        }
        let otherwise = async {
            self.until(|wish, _| wish != Wish::Own).await;
        };
        let mut guard: Guard = match mutex.lock_until(otherwise).await {
            Ok(guard) => guard,
            Err(Error::NotAcquired { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        drop(permit);
        let leash = guard.leash();
        let (tell, partition) = (self.tell.clone(), self.partition);
        tokio::select! {
            biased;
            // Nobody has heard of it: whoever should have it need not wait.
            _ = self.until(|wish, _| wish == Wish::LetGo) => Ok(None),
            room = tell.reserve() => {
                let Ok(room) = room else { return Ok(None) };
                room.send(PartitionEvent::Gained { partition, guard });
                Ok(Some(leash))
            }
        }
    }

    /// Returns when the application has let go, the hold is lost, or it was taken back.
    async fn hold(&mut self, leash: Leash) {
        let wish = tokio::select! {
            biased;
            () = leash.over() => None,
            wish = self.until(|wish, _| wish == Wish::LetGo) => wish,
        };
        if wish.is_some() {
            let clock = self.mutex.session().inner().clock.clone();
            let grace = async {
                let end = clock.now() + self.grace;
                // Who does not read events will learn from the guard.
                tokio::select! {
                    room = self.tell.reserve() => {
                        if let Ok(room) = room {
                            room.send(PartitionEvent::Losing { partition: self.partition });
                        }
                        clock.sleep_until(end).await;
                    }
                    () = clock.sleep_until(end) => {}
                }
            };
            tokio::select! {
                biased;
                () = leash.over() => {}
                () = grace => {}
            }
        }
        leash.revoke().await;
    }

    /// Waits for a plan that `is` what is waited for; what it wishes, or `None` if no plan will come.
    async fn until(&mut self, is: impl Fn(Wish, bool) -> bool) -> Option<Wish> {
        let plan = self.plan.wait_for(|plan| is(plan.wish(&self.me, self.partition), plan.stopping)).await;
        plan.ok().map(|plan| plan.wish(&self.me, self.partition))
    }

    /// Not to be in a hurry to take again what was let go; skipped when it is not ours anyway.
    async fn pause(&mut self) {
        let clock = self.mutex.session().inner().clock.clone();
        tokio::select! {
            () = clock.sleep_until(clock.now() + PAUSE) => {}
            _ = self.until(|wish, _| wish != Wish::Own) => {}
        }
    }
}
