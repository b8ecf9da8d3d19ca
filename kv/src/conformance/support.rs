//! What the behaviours share: keys of their own, commits that must pass or be refused, reads that wait.

use std::{
    collections::HashMap,
    fmt::{Debug, Display},
    future::Future,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use crate::{Batch, Entry, Error, Event, Key, KeyRange, Notice, Op, Result, Revision, Since, State, Store};

/// An operation on a key that is not known yet.
pub(super) type MakeOp = fn(Key) -> Op;

tokio::task_local! {
    pub(super) static PATIENCE: Duration;
}

/// How long to wait for what must come.
pub(super) fn patience() -> Duration {
    PATIENCE.try_with(|patience| *patience).unwrap_or(Duration::from_secs(20))
}

/// Runs `future`, which must end within the patience.
pub(super) async fn in_time<T>(what: impl Display, future: impl Future<Output = T>) -> T {
    match timeout(patience(), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing came within {:?}", patience()),
    }
}

/// The value of `result`, which must not be an error.
#[track_caller]
pub(super) fn ok<T>(result: Result<T>, what: impl Display) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what} must pass, but: {error} ({error:?})"),
    }
}

/// The error of `result`, which must be a conflict.
#[track_caller]
pub(super) fn conflict<T: Debug>(result: Result<T>, what: impl Display) -> Error {
    match result {
        Err(error) if error.is_conflict() => error,
        other => panic!("{what} must be refused as a conflict, but gave {other:?}"),
    }
}

/// `result` must be refused as invalid.
#[track_caller]
pub(super) fn invalid<T: Debug>(result: Result<T>, what: impl Display) {
    match result {
        Err(error) if error.is_invalid() => {}
        other => panic!("{what} must be refused as invalid, but gave {other:?}"),
    }
}

/// Runs `task` beside the others, with the patience of its behaviour.
pub(super) fn spawn<T: Send + 'static>(tasks: &mut JoinSet<T>, task: impl Future<Output = T> + Send + 'static) {
    tasks.spawn(PATIENCE.scope(patience(), task));
}

/// Everything the tasks return; a panic in one of them is passed on.
pub(super) async fn join<T: 'static>(mut tasks: JoinSet<T>) -> Vec<T> {
    let mut all = Vec::with_capacity(tasks.len());
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(value) => all.push(value),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => panic!("a task of the suite was cancelled: {error}"),
        }
    }
    all
}

/// `count` bytes that differ from their neighbours.
pub(super) fn noise(count: usize) -> Bytes {
    (0..count).map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as u8).collect()
}

/// A store and a prefix nobody else uses.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) store: Arc<dyn Store>,
    root: Key,
}

impl Ground {
    pub(super) fn new(store: &Arc<dyn Store>) -> Self {
        let root = ok(Key::new(format!("conform.{}", Uuid::new_v4().simple())), "the suite's prefix");
        Self { store: store.clone(), root }
    }

    pub(super) fn root(&self) -> &Key {
        &self.root
    }

    pub(super) fn key(&self, name: impl Display) -> Key {
        ok(self.root.child(name), "a key of the suite")
    }

    /// Every key of this ground.
    pub(super) fn range(&self) -> KeyRange {
        KeyRange::Under(self.root.clone())
    }

    /// `pattern` below the prefix.
    pub(super) fn like(&self, pattern: impl Display) -> KeyRange {
        ok(KeyRange::new(format!("{}.{pattern}", self.root)), "a range of the suite")
    }

    /// Whether other replicas may answer reads, so that a read may be behind an acknowledged write.
    pub(super) fn reads_lag(&self) -> bool {
        self.store.info().replicas > 1
    }

    /// Commits what must pass.
    pub(super) async fn commit(&self, batch: impl Into<Batch>, what: impl Display) -> Revision {
        ok(self.store.commit(batch.into()).await, what)
    }

    /// Commits what must be refused as a conflict.
    pub(super) async fn refused(&self, batch: impl Into<Batch>, what: impl Display) -> Error {
        conflict(self.store.commit(batch.into()).await, what)
    }

    pub(super) async fn put(&self, key: &Key, value: impl Into<Bytes>) -> Revision {
        self.commit(Op::put(key.clone(), value), format!("a put of {key}")).await
    }

    pub(super) async fn delete(&self, key: &Key) -> Revision {
        self.commit(Op::delete(key.clone()), format!("a delete of {key}")).await
    }

    /// Proves by a write that `key` is still at `revision`: reads may lag, commits may not.
    pub(super) async fn still_at(&self, key: &Key, revision: Revision, why: impl Display) -> Revision {
        let op = Op::put(key.clone(), "still").if_at(revision);
        ok(self.store.commit(op.into()).await, format!("{key} must still be at {revision} ({why}): an update of it"))
    }

    /// Proves by a write that `key` was never written.
    pub(super) async fn never_written(&self, key: &Key, why: impl Display) -> Revision {
        let op = Op::put(key.clone(), "first").if_at(Revision::ZERO);
        ok(self.store.commit(op.into()).await, format!("{key} must never have been written ({why}): a first write"))
    }

    /// The entry of `key` once reads have come to `revision`.
    pub(super) async fn read(&self, key: &Key, revision: Revision) -> Entry {
        poll(format!("a read of {key} that has come to {revision}"), || async {
            ok(self.store.entry(key).await, format_args!("a read of {key}")).filter(|entry| entry.revision >= revision)
        })
        .await
    }

    /// `key` reads as `state` written at `revision`.
    pub(super) async fn reads_as(&self, key: &Key, revision: Revision, state: &State) {
        let entry = self.read(key, revision).await;
        assert_eq!(entry.key, *key, "an entry names another key than the one that was read");
        assert_eq!(entry.revision, revision, "{key} reads at another revision than the write returned");
        assert_eq!(entry.state, *state, "{key} at {revision} reads as something else than was written");
    }

    /// Puts `count` keys `NAME.0`… in batches and returns them with their revisions.
    pub(super) async fn fill(&self, name: &str, count: usize) -> Vec<(Key, Revision)> {
        let keys: Vec<_> = (0..count).map(|at| self.key(format_args!("{name}.{at}"))).collect();
        self.in_batches(&keys, |key| Op::put(key.clone(), key.as_str().to_owned())).await
    }

    /// Writes `keys` in batches and returns them with their revisions.
    pub(super) async fn in_batches(&self, keys: &[Key], op: impl Fn(&Key) -> Op) -> Vec<(Key, Revision)> {
        let mut written = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(250) {
            let last = self.commit(chunk.iter().map(&op).collect::<Batch>(), "a batch of the suite").await;
            for (key, back) in chunk.iter().zip((0..chunk.len() as u64).rev()) {
                written.push((key.clone(), Revision::new(last.get().saturating_sub(back))));
            }
        }
        written
    }

    pub(super) async fn watch(&self, range: KeyRange, since: Since) -> Watched {
        let opened = in_time(format!("a watch of {range}"), self.store.watch(range.clone(), since)).await;
        let stream = ok(opened, format_args!("a watch of {range}"));
        Watched::of(stream, range)
    }

    pub(super) async fn follow(&self, key: &Key) -> Followed {
        let opened = in_time(format!("notices of {key}"), self.store.follow(key)).await;
        Followed { stream: ok(opened, format_args!("notices of {key}")), ground: self.clone(), key: key.clone() }
    }
}

/// Asks until there is an answer, within the patience.
pub(super) async fn poll<T, F: Future<Output = Option<T>>>(what: impl Display, mut ask: impl FnMut() -> F) -> T {
    let since = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(since.elapsed() < patience(), "{what} did not come within {:?}", patience());
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// A watch whose every event is held against the contract.
pub(super) struct Watched {
    stream: BoxStream<'static, Result<Event>>,
    range: KeyRange,
    last: Revision,
    caught_up: bool,
}

impl Watched {
    pub(super) const fn of(stream: BoxStream<'static, Result<Event>>, range: KeyRange) -> Self {
        Self { stream, range, last: Revision::ZERO, caught_up: false }
    }

    pub(super) async fn next(&mut self) -> Event {
        let range = &self.range;
        let event = match in_time(format!("the next event of the watch of {range}"), self.stream.next()).await {
            Some(event) => ok(event, format_args!("an event of the watch of {range}")),
            None => panic!("the watch of {range} ended"),
        };
        match &event {
            Event::CaughtUp => {
                assert!(!self.caught_up, "the watch of {range} told CaughtUp twice");
                self.caught_up = true;
            }
            Event::Gap => {}
            Event::Entry(entry) => {
                assert!(range.contains(&entry.key), "the watch of {range} told of {}, which lies outside", entry.key);
                // An expiry is no write: not every store that tells of it gives it a revision of its own.
                if entry.state != State::Expired {
                    assert!(
                        entry.revision > self.last,
                        "the watch of {range} told revision {} after {}",
                        entry.revision,
                        self.last
                    );
                    self.last = entry.revision;
                }
            }
        }
        event
    }

    /// The entries up to [`Event::CaughtUp`].
    pub(super) async fn until_caught_up(&mut self) -> Vec<Entry> {
        let mut told = Vec::new();
        loop {
            match self.next().await {
                Event::CaughtUp => return told,
                Event::Gap => {}
                Event::Entry(entry) => told.push(entry),
            }
        }
    }

    /// The entries up to the one at `revision`, which must come; CaughtUp is passed over.
    pub(super) async fn until(&mut self, revision: Revision) -> Vec<Entry> {
        let mut told = Vec::new();
        loop {
            if let Event::Entry(entry) = self.next().await {
                let at = entry.revision;
                assert!(at <= revision, "the watch of {} left out revision {revision} and told {at}", self.range);
                told.push(entry);
                if at == revision {
                    return told;
                }
            }
        }
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up
    }
}

/// The last revision of each key among `entries`.
pub(super) fn last_of_each(entries: &[Entry]) -> HashMap<Key, Revision> {
    entries.iter().map(|entry| (entry.key.clone(), entry.revision)).collect()
}

/// The keys and revisions of `entries`, in order.
pub(super) fn marks(entries: &[Entry]) -> Vec<(Key, Revision)> {
    entries.iter().map(|entry| (entry.key.clone(), entry.revision)).collect()
}

/// Notices of one key, heard as the contract allows: told outright, or by a word to read the key.
pub(super) struct Followed {
    pub(super) stream: BoxStream<'static, Notice>,
    ground: Ground,
    key: Key,
}

impl Followed {
    /// Hears that `key` has come to `revision`, and returns every entry told on the way. The last one is
    /// that of `revision` or a later one.
    pub(super) async fn hear(&mut self, revision: Revision) -> Vec<Entry> {
        let key = self.key.clone();
        let mut told = Vec::new();
        in_time(format!("the notice of {key} at {revision}"), async {
            loop {
                let entry = match self.stream.next().await {
                    Some(Notice::Entry(entry)) => entry,
                    Some(Notice::Recheck | Notice::Reconnected) => {
                        match ok(self.ground.store.entry(&key).await, "a read after a notice") {
                            Some(entry) => entry,
                            None => continue,
                        }
                    }
                    None => panic!("the notices of {key} ended"),
                };
                assert_eq!(entry.key, key, "a notice told of another key");
                let at = entry.revision;
                told.push(entry);
                if at >= revision {
                    return;
                }
            }
        })
        .await;
        told
    }
}
