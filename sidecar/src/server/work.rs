//! The tasks of one connection. They run within its own: what one does for another wakes no thread, and they end with
//! it.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, StreamExt, future::poll_fn, stream::FuturesUnordered};

use crate::sync::{Mutex, MutexGuard, PoisonError};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct Queue {
    new: Vec<Task>,
    /// Of who runs them.
    waker: Option<Waker>,
    closed: bool,
}

/// Where a connection's tasks are handed over.
#[derive(Default)]
pub(super) struct Work(Mutex<Queue>);

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("new", &self.queue().new.len()).finish_non_exhaustive()
    }
}

impl Work {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a task. After the end of who runs them it is dropped.
    pub(super) fn add(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = AssertUnwindSafe(task).catch_unwind().map(|ended| {
            if ended.is_err() {
                tracing::error!("a task of a connection ended in a panic; the connection goes on without it");
            }
        });
        let task: Task = Box::pin(task);
        let mut queue = self.queue();
        if queue.closed {
            drop(queue);
            return drop(task);
        }
        queue.new.push(task);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Who runs the tasks. Dropped, it drops them.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    work: &'a Work,
    running: FuturesUnordered<Task>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(work: &'a Work) -> Self {
        Self { work, running: FuturesUnordered::new() }
    }

    /// Runs the tasks that there are and those that come.
    ///
    /// # Cancel safety
    /// Dropped, the tasks stay where they are until they are run again.
    pub(super) async fn run(&mut self) {
        poll_fn(|context| {
            let _ = self.poll(context);
            Poll::<()>::Pending
        })
        .await;
    }

    /// Runs the tasks that there are and those that they add, until none is left.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub(super) async fn finish(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Ready when there is nothing to run at the moment.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut queue = self.work.queue();
            self.running.extend(queue.new.drain(..));
            if queue.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
                queue.waker = Some(context.waker().clone());
            }
            drop(queue);
            match self.running.poll_next_unpin(context) {
                // What else the connection has to do comes between two tasks, of which each may take its time.
                Poll::Ready(Some(())) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if self.work.queue().new.is_empty() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        let mut queue = self.work.queue();
        queue.closed = true;
        let waker = queue.waker.take();
        let new = std::mem::take(&mut queue.new);
        drop(queue);
        // Outside the lock: what they drop may add some.
        drop((waker, new));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn tasks_and_what_they_add_are_run_to_their_end() {
        let (work, done) = (Arc::new(Work::default()), Arc::new(AtomicUsize::new(0)));
        let mut worker = Worker::new(&work);
        let (send, receive) = oneshot::channel::<()>();
        work.add({
            let (work, done) = (work.clone(), done.clone());
            async move {
                work.add(async move {
                    receive.await.unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        work.add(async { panic!("one of them") });
        assert!(worker.finish().now_or_never().is_none(), "one waits");
        send.send(()).unwrap();
        worker.finish().await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
        assert!(worker.run().now_or_never().is_none(), "others may come");
    }

    #[test]
    fn one_task_comes_to_its_end_at_a_time() {
        let (work, done) = (Work::default(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..3 {
            let done = done.clone();
            work.add(async move {
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut worker = Worker::new(&work);
        for turn in 1..=3 {
            assert!(worker.finish().now_or_never().is_none());
            assert_eq!(done.load(Ordering::SeqCst), turn);
        }
        assert!(worker.finish().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_task_that_another_thread_adds_is_run() {
        let work = Arc::new(Work::default());
        let mut worker = Worker::new(&work);
        for _ in 0..1_000 {
            let (send, mut receive) = oneshot::channel();
            let adder = std::thread::spawn({
                let work = work.clone();
                move || work.add(async move { send.send(()).unwrap() })
            });
            tokio::select! {
                () = worker.run() => {}
                received = &mut receive => received.unwrap(),
            }
            adder.join().unwrap();
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_after_the_end() {
        let (work, kept) = (Arc::new(Work::default()), Arc::new(()));
        let keep = |kept: &Arc<()>| {
            let kept = kept.clone();
            async move {
                std::future::pending::<()>().await;
                drop(kept);
            }
        };
        let mut worker = Worker::new(&work);
        work.add(keep(&kept));
        assert!(worker.run().now_or_never().is_none());
        work.add(keep(&kept));
        drop(worker);
        work.add(keep(&kept));
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
