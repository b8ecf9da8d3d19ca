//! A future that wakes itself is polled again at once.
//!
//! The scheduler would put it into its queue and wake another thread to look there: on a machine with few cores that
//! costs more than what most requests do.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures::task::AtomicWaker;

use crate::sync::atomic::{AtomicBool, Ordering};

/// So many times in a row, and no longer than that; then others have their turn.
const IN_A_ROW: u32 = 16;
const AT_ONCE: Duration = Duration::from_millis(1);

/// Whether a future is being polled, and was woken meanwhile.
#[derive(Debug)]
struct Bell {
    polling: AtomicBool,
    rung: AtomicBool,
    outside: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the look at who polls: whoever ends polling looks at these two in the other order.
        self.rung.store(true, Ordering::SeqCst);
        if !self.polling.load(Ordering::SeqCst) {
            self.outside.wake();
        }
    }
}

/// A future whose wakes of itself are heard here.
#[derive(Debug)]
pub(super) struct Quiet<F> {
    bell: Arc<Bell>,
    waker: Waker,
    inner: Pin<Box<F>>,
}

/// Polls `inner` again at once where it was woken while it was polled.
pub(super) fn quiet<F: Future>(inner: F) -> Quiet<F> {
    let bell = Arc::new(Bell { polling: AtomicBool::new(false), rung: AtomicBool::new(false), outside: AtomicWaker::new() });
    Quiet { waker: Waker::from(bell.clone()), bell, inner: Box::pin(inner) }
}

impl<F: Future> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { bell, waker, inner } = &mut *self;
        bell.outside.register(context.waker());
        let mut inside = Context::from_waker(waker);
        let begun = Instant::now();
        for _ in 0..IN_A_ROW {
            bell.polling.store(true, Ordering::SeqCst);
            // What rang until here is seen by the poll that follows.
            bell.rung.swap(false, Ordering::SeqCst);
            let polled = inner.as_mut().poll(&mut inside);
            bell.polling.store(false, Ordering::SeqCst);
            if polled.is_ready() {
                return polled;
            }
            if !bell.rung.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
            if begun.elapsed() >= AT_ONCE {
                break;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicU32, AtomicUsize},
        },
        thread,
    };

    use futures::{
        executor::block_on,
        future::poll_fn,
        task::{ArcWake, waker},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl ArcWake for Count {
        fn wake_by_ref(count: &Arc<Self>) {
            count.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wakes itself `times` times before it is done.
    fn restless(mut times: u32) -> impl Future<Output = ()> {
        poll_fn(move |context| {
            if times == 0 {
                return Poll::Ready(());
            }
            times -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn who_wakes_itself_wakes_nobody_else() {
        let count = Arc::new(Count::default());
        let waker = waker(count.clone());
        let mut context = Context::from_waker(&waker);
        let mut few = quiet(restless(IN_A_ROW - 1));
        assert!(Pin::new(&mut few).poll(&mut context).is_ready());
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn what_takes_its_time_is_not_polled_again_at_once() {
        let count = Arc::new(Count::default());
        let waker = waker(count.clone());
        let mut slow = quiet(poll_fn(|context| {
            thread::sleep(AT_ONCE);
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert!(Pin::new(&mut slow).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn others_have_their_turn() {
        let count = Arc::new(Count::default());
        let waker = waker(count.clone());
        let mut context = Context::from_waker(&waker);
        let mut many = quiet(restless(2 * IN_A_ROW));
        for turn in 1..=2 {
            assert!(Pin::new(&mut many).poll(&mut context).is_pending());
            assert_eq!(count.0.load(Ordering::SeqCst), turn);
        }
        assert!(Pin::new(&mut many).poll(&mut context).is_ready());
    }

    #[test]
    fn no_wake_of_another_thread_is_lost() {
        let (sent, slot) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(None::<Waker>)));
        let rounds = 20_000;
        let sender = thread::spawn({
            let (sent, slot) = (sent.clone(), slot.clone());
            move || {
                for round in 1..=rounds {
                    // A step behind its taker: some come while it polls, some between, some after.
                    let waker = loop {
                        let taken = slot.lock().unwrap().take();
                        match taken {
                            Some(waker) => break waker,
                            None => thread::yield_now(),
                        }
                    };
                    sent.store(round, Ordering::SeqCst);
                    waker.wake();
                }
            }
        });
        for round in 1..=rounds {
            block_on(quiet(poll_fn(|context| {
                if sent.load(Ordering::SeqCst) >= round {
                    return Poll::Ready(());
                }
                *slot.lock().unwrap() = Some(context.waker().clone());
                if sent.load(Ordering::SeqCst) >= round { Poll::Ready(()) } else { Poll::Pending }
            })));
        }
        sender.join().unwrap();
    }
}
