//! A connection is woken by its own tasks and by others.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use futures::future::poll_fn;

use super::{
    quiet::quiet,
    work::{Work, Worker},
};
use crate::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
    thread,
};

/// Notes that somebody woke it.
#[derive(Default)]
struct Outside(AtomicBool);

impl Wake for Outside {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls `future` until it is done. Where it is not, and `others` have come to their end, it must have been woken.
fn drive(future: impl Future<Output = ()>, others: thread::JoinHandle<()>) {
    let outside = Arc::new(Outside::default());
    let waker = Waker::from(outside.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    let mut others = Some(others);
    while future.as_mut().poll(&mut context).is_pending() {
        if let Some(others) = others.take_if(|_| !outside.0.load(Ordering::SeqCst)) {
            others.join().unwrap();
        }
        assert!(outside.0.swap(false, Ordering::SeqCst), "it waits though there is something for it");
    }
}

/// A future that ends once `sent`.
fn receives(sent: Arc<AtomicBool>, slot: Arc<Mutex<Option<Waker>>>) -> impl Future<Output = ()> + Send {
    poll_fn(move |context: &mut Context<'_>| {
        *slot.lock().unwrap() = Some(context.waker().clone());
        if sent.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    })
}

fn send(sent: &AtomicBool, slot: &Mutex<Option<Waker>>) {
    sent.store(true, Ordering::SeqCst);
    let waker = slot.lock().unwrap().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A wake that comes while a future is polled, or just before or after that, has it polled again.
pub fn no_wake_is_lost() {
    let (sent, slot) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
    let sender = thread::spawn({
        let (sent, slot) = (sent.clone(), slot.clone());
        move || send(&sent, &slot)
    });
    drive(quiet(receives(sent, slot)), sender);
}

/// A task that another thread adds is run.
pub fn no_task_is_forgotten() {
    let (work, done) = (Arc::new(Work::default()), Arc::new(AtomicBool::new(false)));
    let slot = Arc::new(Mutex::new(None::<Waker>));
    let adder = thread::spawn({
        let (work, done, slot) = (work.clone(), done.clone(), slot.clone());
        move || work.add(async move { send(&done, &slot) })
    });
    let mut worker = Worker::new(&work);
    let mut working = Box::pin(worker.run());
    drive(
        quiet(poll_fn(|context: &mut Context<'_>| {
            let _ = Pin::new(&mut working).poll(context);
            *slot.lock().unwrap() = Some(context.waker().clone());
            if done.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })),
        adder,
    );
}
