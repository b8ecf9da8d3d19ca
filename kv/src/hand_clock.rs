//! A clock that stands still until a test moves it.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{Clock, Moment};

/// A [`Clock`] moved by hand; clones share the time. It starts at its origin.
#[derive(Clone, Debug)]
pub struct HandClock(Arc<watch::Sender<Moment>>);

impl Default for HandClock {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Moment::default())))
    }
}

impl HandClock {
    /// Moves to `at`; moving back is refused silently, as a monotonic clock never does.
    pub fn set(&self, at: Moment) {
        self.0.send_if_modified(|now| {
            let later = at > *now;
            *now = at.max(*now);
            later
        });
    }

    /// Moves on by `by`.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = *now + by);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Moment {
        *self.0.borrow()
    }

    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
        let mut time = self.0.subscribe();
        let keep = self.clone();
        Box::pin(async move {
            // The sender lives in `keep`, so waiting cannot fail.
            let _ = time.wait_for(|now| *now >= at).await;
            drop(keep);
        })
    }
}
