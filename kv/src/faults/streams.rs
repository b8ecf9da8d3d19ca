//! Watches and notices that can be cut, paused and ended, and that heal as the contract demands.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::watch;

use super::{Operation, Wire, changed, rules};
use crate::{Entry, Error, Event, Key, KeyRange, Notice, Result, Revision, Since, State, Store};

/// How long to wait before a watch that could not be opened again is tried once more.
const RETRY: Duration = Duration::from_millis(10);
/// Entries per page when the end of a range is looked for.
const PAGE: usize = 1_000;

/// What a test can do to a watch or a follower.
pub(super) struct Line {
    pub(super) operation: Operation,
    range: KeyRange,
    signal: watch::Sender<Signal>,
}

#[derive(Clone, Copy, Default)]
struct Signal {
    cuts: u64,
    paused: bool,
    ended: bool,
}

impl Line {
    fn new(operation: Operation, range: KeyRange) -> Arc<Self> {
        Arc::new(Self { operation, range, signal: watch::Sender::default() })
    }

    pub(super) fn lies_under(&self, prefix: &str) -> bool {
        rules::lies_under(&self.range, prefix)
    }

    pub(super) fn cut(&self) {
        self.signal.send_modify(|signal| signal.cuts += 1);
    }

    pub(super) fn end(&self) {
        self.signal.send_modify(|signal| signal.ended = true);
    }

    pub(super) fn pause(&self, paused: bool) {
        self.signal.send_modify(|signal| signal.paused = paused);
    }
}

/// One stream and what may befall it.
struct Cable<T> {
    wire: Wire,
    line: Arc<Line>,
    signal: watch::Receiver<Signal>,
    cuts: u64,
    /// `None` while it is cut.
    stream: Option<BoxStream<'static, T>>,
}

/// What happens next on a cable.
enum Next<T> {
    Item(T),
    /// The stream must be opened again.
    Broken,
    /// The test ended the stream.
    Ended,
    /// The wrapped store ended the stream.
    Over,
}

impl<T> Cable<T> {
    fn new(wire: Wire, line: Arc<Line>, stream: BoxStream<'static, T>) -> Self {
        Self { wire, signal: line.signal.subscribe(), line, cuts: 0, stream: Some(stream) }
    }

    async fn next(&mut self) -> Next<T> {
        loop {
            let silent = self.wire.partition.borrow_and_update().is_some();
            let signal = *self.signal.borrow_and_update();
            if signal.ended {
                return Next::Ended;
            }
            if signal.cuts != self.cuts {
                self.cuts = signal.cuts;
                self.stream = None;
            }
            tokio::select! {
                biased;
                () = changed(&mut self.wire.partition) => {}
                () = changed(&mut self.signal) => {}
                next = Self::pull(&mut self.stream), if !silent && !signal.paused => return next,
            }
        }
    }

    async fn pull(stream: &mut Option<BoxStream<'static, T>>) -> Next<T> {
        match stream {
            None => Next::Broken,
            Some(stream) => stream.next().await.map_or(Next::Over, Next::Item),
        }
    }
}

struct Watching {
    cable: Cable<Result<Event>>,
    /// The last revision told, or the one the watch began after.
    base: Revision,
    /// The keys that were told to have a value.
    live: BTreeSet<Key>,
    /// After a cut: those of them that have not been seen since. What is not there any more went, tombstone
    /// and all, while nobody listened.
    unseen: Option<BTreeSet<Key>>,
    /// Everything that is there has been seen; what of it was missed is to be told.
    unsettled: bool,
    caught_up: bool,
    over: bool,
}

/// Opens a watch that can be cut.
pub(super) async fn watch(wire: Wire, range: KeyRange, since: Since) -> Result<(Weak<Line>, BoxStream<'static, Result<Event>>)> {
    let base = match since {
        Since::Current | Since::History => Revision::ZERO,
        Since::After(revision) => revision,
        // Needed to heal a watch that was cut before it told anything.
        Since::Now => end_of(&*wire.store, &range).await?,
    };
    let stream = wire.store.watch(range.clone(), since).await?;
    let line = Line::new(Operation::Watch, range);
    let weak = Arc::downgrade(&line);
    let watching = Watching {
        cable: Cable::new(wire, line, stream),
        base,
        live: BTreeSet::new(),
        unseen: None,
        unsettled: false,
        caught_up: false,
        over: false,
    };
    Ok((weak, stream::unfold(watching, Watching::step).boxed()))
}

/// A revision that the last write of the range does not exceed.
async fn end_of(store: &dyn Store, range: &KeyRange) -> Result<Revision> {
    let mut from = Revision::ZERO;
    loop {
        let page = store.scan(range, from, PAGE).await?;
        if page.complete {
            return Ok(page.through);
        }
        from = page.through.next();
    }
}

impl Watching {
    async fn step(mut self) -> Option<(Result<Event>, Self)> {
        if self.over {
            return None;
        }
        loop {
            if self.unsettled {
                if let Some(key) = self.unseen.as_mut().and_then(BTreeSet::pop_first) {
                    let entry = Entry { key, revision: self.base, state: State::Expired, created: SystemTime::now() };
                    return Some((Ok(self.tell(entry)), self));
                }
                (self.unseen, self.unsettled) = (None, false);
                if !std::mem::replace(&mut self.caught_up, true) {
                    return Some((Ok(Event::CaughtUp), self));
                }
            }
            match self.cable.next().await {
                Next::Item(Ok(Event::Entry(entry))) => {
                    if let Some(unseen) = &mut self.unseen {
                        unseen.remove(&entry.key);
                        if entry.revision <= self.base {
                            continue;
                        }
                    }
                    return Some((Ok(self.tell(entry)), self));
                }
                Next::Item(Ok(Event::CaughtUp)) => self.unsettled = true,
                Next::Item(item) => return Some((item, self)),
                Next::Broken => match self.reopen().await {
                    Ok(true) => return Some((Ok(Event::Gap), self)),
                    Ok(false) => {}
                    Err(error) => {
                        self.over = true;
                        return Some((Err(error), self));
                    }
                },
                Next::Ended => {
                    self.over = true;
                    return Some((Err(Error::unavailable("the watch was ended by the store")), self));
                }
                Next::Over => return None,
            }
        }
    }

    fn tell(&mut self, entry: Entry) -> Event {
        self.base = self.base.max(entry.revision);
        if entry.is_live() {
            self.live.insert(entry.key.clone());
        } else {
            self.live.remove(&entry.key);
        }
        Event::Entry(entry)
    }

    /// Begins with the latest entry of every key, so that what was told can be compared with what is there. False
    /// when the store is still out of reach.
    async fn reopen(&mut self) -> Result<bool> {
        match self.cable.wire.store.watch(self.cable.line.range.clone(), Since::Current).await {
            Ok(stream) => {
                self.cable.stream = Some(stream);
                (self.unseen, self.unsettled) = (Some(self.live.clone()), false);
                Ok(true)
            }
            Err(error) if error.is_unavailable() => {
                tokio::time::sleep(RETRY).await;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Opens notices that can be cut.
pub(super) async fn follow(wire: Wire, key: Key) -> Result<(Weak<Line>, BoxStream<'static, Notice>)> {
    let stream = wire.store.follow(&key).await?;
    let line = Line::new(Operation::Follow, KeyRange::One(key.clone()));
    let weak = Arc::downgrade(&line);
    let cable = Cable::new(wire, line, stream);
    let stream = stream::unfold((cable, key), async |(mut cable, key)| {
        loop {
            match cable.next().await {
                Next::Item(notice) => return Some((notice, (cable, key))),
                Next::Broken => match cable.wire.store.follow(&key).await {
                    Ok(stream) => {
                        cable.stream = Some(stream);
                        return Some((Notice::Reconnected, (cable, key)));
                    }
                    Err(_) => tokio::time::sleep(RETRY).await,
                },
                Next::Ended | Next::Over => return None,
            }
        }
    });
    Ok((weak, stream.boxed()))
}
