//! Small words that the promises are told in: what must work, what must come in time, when now is.

use std::{
    fmt::{Debug, Display},
    future::Future,
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures::FutureExt;
use tenure::{Guard, Loss};
use tenure_kv::{BootClock, Clock, Moment};

/// Bounds a failure, never a success.
pub(super) const LONG: Duration = Duration::from_secs(30);
pub(super) const MS: Duration = Duration::from_millis(1);

/// What must have worked.
pub(super) trait Must<T> {
    /// The value, or a panic that says what had to work and what came instead.
    fn must(self, what: impl Display) -> T;
}

impl<T, E: Debug> Must<T> for Result<T, E> {
    #[track_caller]
    fn must(self, what: impl Display) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
}

impl<T> Must<T> for Option<T> {
    #[track_caller]
    fn must(self, what: impl Display) -> T {
        match self {
            Some(value) => value,
            None => panic!("{what}: there is none"),
        }
    }
}

/// The loss that `result` must have failed with.
#[track_caller]
pub(super) fn lost<T: Debug>(result: tenure::Result<T>, what: impl Display) -> Loss {
    match &result {
        Err(error) => error.loss().must(format!("{what} must be Lost, not {error:?}")),
        Ok(value) => panic!("{what} must be Lost, not {value:?}"),
    }
}

/// Now, on the clock that sessions use.
pub(super) fn now() -> Moment {
    BootClock.now()
}

/// How long ago `moment` was.
pub(super) fn since(moment: Moment) -> Duration {
    now().saturating_since(moment)
}

/// `future`, which must end within `limit`.
#[track_caller]
pub(super) fn within<F: Future>(limit: Duration, what: impl Display, future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(limit, future).await {
            Ok(value) => value,
            Err(_) => panic!("{what}: not within {limit:?} ({place})"),
        }
    }
}

/// Asks again and again, as an onlooker does, until `ask` gives an answer.
#[track_caller]
pub(super) fn until<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    what: impl Display,
    mut ask: impl FnMut() -> F,
) -> impl Future<Output = T> {
    within(limit, what, async move {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(2 * MS).await;
        }
    })
}

/// What the holder knows at this very moment: nothing if it may rely on the lock, else why not.
pub(super) fn loss_now(guard: &Guard) -> Option<Loss> {
    guard.lost().now_or_never()
}

/// A holder that can no longer rely on its lock must know it by now.
#[track_caller]
pub(super) fn must_have_lost(guard: &Guard, when: impl Display) {
    assert!(!guard.is_held(), "{when}, the earlier holder {guard:?} still says that it holds");
    assert!(loss_now(guard).is_some(), "{when}, lost() of the earlier holder {guard:?} has not resolved");
}

/// When [`after_polls`] drops the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// As soon as it waits: what it asked for is on its way.
    Waiting,
    /// When it would go on: what it asked for is there, and not yet looked at.
    Woken,
}

/// Polls `future` at most `polls` times, then drops it. `None` when it was dropped.
pub(super) async fn after_polls<F: Future>(polls: usize, cut: Cut, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 && cut == Cut::Waiting => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// More polls than any future needs that is dropped at every wait.
const MOST: usize = 400;

/// Drops `go` after 0, 1, 2, … polls with both kinds of cut, each time after a `prepare` of its own and with `after`
/// to follow, until it is done before it is dropped.
pub(super) async fn at_every_wait<P, T, E: Debug>(
    what: &str,
    prepare: impl AsyncFn() -> P,
    go: impl AsyncFn(&P) -> Result<T, E>,
    after: impl AsyncFn(P, &str),
) {
    for cut in [Cut::Waiting, Cut::Woken] {
        for polls in 0..MOST {
            let prepared = prepare().await;
            let when = format!("after {what} was dropped, {polls} polls, {cut:?}");
            let done = after_polls(polls, cut, go(&prepared)).await.map(|outcome| drop(outcome.must(what)));
            after(prepared, &when).await;
            if done.is_some() {
                assert!(polls > 1, "{what} never waited, so nothing was tested");
                break;
            }
            assert!(polls + 1 < MOST, "{what} does not end");
        }
    }
}

/// Numbers that look random and come again with the same seed.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64 of Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
