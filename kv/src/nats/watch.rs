//! A watch: a task that follows one consumer after another and loses nothing in between.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream, stream::BoxStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Inner, bucket,
    buffer::Buffer,
    consumer::{Consumer, Delivery, SILENCE, Start},
    height::{Course, Watched},
};
use crate::{Entry, Error, Event, Key, KeyRange, Result, Revision, Since, State};

/// How long a full buffer may hold up the server before the consumer is given back.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a stream's leader may know less than was told before that counts as a loss of data.
const CATCHING_UP: Duration = Duration::from_secs(10);
/// From when a server first said that nothing was pending to when that is believed of what it had then.
const SETTLING: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) async fn watch(store: &Arc<Inner>, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
    let start = match since {
        // Where more than the latest is kept.
        Since::History if store.plain.is_some() => Start::All,
        Since::Current | Since::History => Start::Latest,
        Since::After(revision) => Start::At(revision.next().get()),
        Since::Now => Start::New,
    };
    let filter = store.names.filter(&range);
    let consumer = Consumer::create(&store.link, &store.names, &filter, start, store.options.timeout).await?;
    let buffer = Arc::new(Buffer::default());
    let begun = match since {
        Since::Current | Since::History => 0,
        Since::After(revision) => revision.get(),
        Since::Now => consumer.position,
    };
    let task = Task {
        store: store.clone(),
        filter,
        buffer: buffer.clone(),
        begun,
        told: begun,
        live: HashMap::new(),
        unseen: None,
        abreast: None,
        left: Some(if since == Since::Now { 0 } else { consumer.pending }),
        passed: false,
        behind: None,
        healed: false,
        course: Course::new(0),
        _watched: store.height.watched(),
    };
    let task = AbortOnDropHandle::new(tokio::spawn(task.run(consumer)));
    let events = stream::unfold((buffer, task), |(buffer, task)| async move {
        let event = buffer.pop().await?;
        Some((event, (buffer, task)))
    });
    Ok(events.boxed())
}

struct Task {
    store: Arc<Inner>,
    filter: String,
    buffer: Arc<Buffer>,
    /// Nothing is told of what was written up to here.
    begun: u64,
    /// The highest revision told: everything up to it was told, or superseded by something told.
    told: u64,
    /// The keys that were told to have a value, and where.
    live: HashMap<Key, u64>,
    /// After a gap: the keys that were live before it and have not been seen since. Those that the store
    /// turns out not to have any more went, tombstone and all, while nobody listened.
    unseen: Option<HashSet<Key>>,
    /// Since when, after a gap, there was nothing pending any more.
    abreast: Option<Instant>,
    /// How much of what was there at the beginning is still to be told; `None` once caught up.
    left: Option<u64>,
    /// As many have been told as there were at the beginning. Keys of those that were written again meanwhile
    /// are among what was pending then.
    passed: bool,
    /// Since when the stream's leader has known less than was told.
    behind: Option<Instant>,
    /// A gap has healed and nobody has been told yet.
    healed: bool,
    course: Course,
    _watched: Watched,
}

enum Stop {
    /// Make another consumer.
    Gap,
    /// Nobody reads: make another consumer when somebody does.
    Unread,
    Fatal(Error),
}

impl Task {
    async fn run(mut self, mut consumer: Consumer) {
        loop {
            let stop = self.listen(&mut consumer).await;
            drop(consumer);
            match stop {
                Stop::Gap => {}
                Stop::Unread => self.buffer.room().await,
                Stop::Fatal(error) => return self.buffer.end(error),
            }
            consumer = match self.again().await {
                Ok(consumer) => consumer,
                Err(error) => return self.buffer.end(error),
            };
            self.healed = true;
        }
    }

    async fn listen(&mut self, consumer: &mut Consumer) -> Stop {
        let mut health = self.store.link.health();
        let losses = health.borrow_and_update().losses;
        if self.healed {
            if let Err(stop) = self.tell(Event::Gap).await {
                return stop;
            }
            self.healed = false;
        }
        if self.left == Some(0)
            && let Err(stop) = self.caught_up().await
        {
            return stop;
        }
        self.course = Course::new(self.store.height.known());
        let mut silent = Instant::now() + SILENCE;
        loop {
            let delivery = tokio::select! {
                biased;
                delivery = consumer.next(&self.store.names) => delivery,
                changed = health.changed() => {
                    if changed.is_ok() && health.borrow_and_update().losses == losses {
                        continue;
                    }
                    Delivery::Broken
                }
                () = sleep_until(silent) => Delivery::Broken,
            };
            let done = match delivery {
                Delivery::Stored { entry, sequence, pending } => self.stored(entry, sequence, pending).await,
                Delivery::Idle { position } => self.idle(position).await,
                Delivery::Nothing => Ok(()),
                Delivery::Broken => Err(Stop::Gap),
                Delivery::Closed => Err(Stop::Fatal(Error::unavailable("the NATS connection was closed"))),
            };
            if let Err(stop) = done {
                return stop;
            }
            silent = Instant::now() + SILENCE;
        }
    }

    async fn stored(&mut self, entry: Option<Entry>, sequence: u64, pending: u64) -> Result<(), Stop> {
        if let Some(entry) = entry {
            // A replica that is behind may show a write before the one that was told.
            if let Some(unseen) = &mut self.unseen
                && self.live.get(&entry.key).is_none_or(|at| sequence >= *at)
            {
                unseen.remove(&entry.key);
            }
            if sequence > self.told {
                let (key, live) = (entry.key.clone(), entry.is_live());
                self.tell(Event::Entry(entry)).await?;
                if live {
                    self.live.insert(key, sequence);
                } else {
                    self.live.remove(&key);
                }
            } else if self.was_never_told(&entry, sequence) {
                return Err(Stop::Fatal(self.rolled_back(sequence)));
            }
        }
        self.told = self.told.max(sequence);
        // A range that is written to all the time is never idle. Servers count what is pending a moment late.
        if pending == 0 && self.unseen.is_some() && self.abreast.get_or_insert_with(Instant::now).elapsed() >= SETTLING {
            self.bury(sequence).await?;
        }
        if let Some(left) = &mut self.left {
            *left = if pending == 0 { 0 } else { left.saturating_sub(1) };
            if *left == 0 && pending > 0 && !self.passed {
                self.passed = true;
                *left = pending;
            }
            if *left == 0 {
                self.caught_up().await?;
            }
        }
        Ok(())
    }

    /// Whether a write that should have been told before, or was superseded by something told, is another one: the
    /// only server that has the bucket has lost its last writes, and others stand in their place.
    fn was_never_told(&self, entry: &Entry, sequence: u64) -> bool {
        // In a bucket that keeps older writes they come back when what came after them expires or is removed.
        if self.store.plain.is_some() {
            return false;
        }
        // Of what was told to be gone nothing is known but that.
        let another = self.live.get(&entry.key).map_or(entry.is_live(), |at| *at != sequence);
        self.store.facts.replicas == 1 && sequence > self.begun && another
    }

    fn rolled_back(&self, last: u64) -> Error {
        let (bucket, told) = (&self.store.names.bucket, self.told);
        Error::unavailable(format!(
            "the bucket {bucket} was created anew or rolled back (it shows revision {last}, {told} was seen)"
        ))
    }

    async fn idle(&mut self, position: u64) -> Result<(), Stop> {
        if self.course.stands_still(position, self.store.height.known()) {
            tracing::debug!(filter = self.filter, position, "a watch stands still and is begun anew");
            return Err(Stop::Gap);
        }
        self.bury(position).await?;
        self.told = self.told.max(position);
        if self.left.is_some() {
            self.caught_up().await?;
        }
        Ok(())
    }

    /// Everything up to `position` has been delivered: what was live before a gap and did not come again is gone.
    async fn bury(&mut self, position: u64) -> Result<(), Stop> {
        if let Some(unseen) = &self.unseen {
            // A replica that is behind has not got what it has not told: wait until it has.
            let gone: Vec<Key> =
                unseen.iter().filter(|key| self.live.get(*key).is_none_or(|at| *at <= position)).cloned().collect();
            let revision = Revision::new(self.told.max(position));
            for key in gone {
                if self.live.contains_key(&key) {
                    let entry = Entry { key: key.clone(), revision, state: State::Expired, created: SystemTime::now() };
                    self.tell(Event::Entry(entry)).await?;
                }
                self.live.remove(&key);
                if let Some(unseen) = &mut self.unseen {
                    unseen.remove(&key);
                }
            }
            if self.unseen.as_ref().is_some_and(HashSet::is_empty) {
                self.unseen = None;
            }
        }
        Ok(())
    }

    async fn caught_up(&mut self) -> Result<(), Stop> {
        self.tell(Event::CaughtUp).await?;
        self.left = None;
        Ok(())
    }

    async fn tell(&self, event: Event) -> Result<(), Stop> {
        let Err(event) = self.buffer.push(event) else { return Ok(()) };
        if timeout(PATIENCE, self.buffer.room()).await.is_err() {
            return Err(Stop::Unread);
        }
        self.buffer.push(event).map_err(|_| Stop::Unread)
    }

    /// A new consumer after a gap. It begins with the latest entry of every key, so that what was told can be
    /// compared with what is there.
    async fn again(&mut self) -> Result<Consumer> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt().await {
                Ok(consumer) => {
                    self.unseen = Some(self.live.keys().cloned().collect());
                    self.abreast = None;
                    if self.left.is_some() {
                        self.left = Some(consumer.pending);
                        self.passed = false;
                    }
                    return Ok(consumer);
                }
                Err(Some(error)) => return Err(error),
                Err(None) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// `Err(None)` when it is worth trying again.
    async fn attempt(&mut self) -> Result<Consumer, Option<Error>> {
        let Inner { link, names, options, facts, height, .. } = &*self.store;
        let retry = |error: Error| {
            tracing::debug!(%error, filter = self.filter, "a watch is waiting for NATS");
            None
        };
        let known = height.known();
        let info = bucket::info(link, names, options).await.map_err(retry)?;
        let Some(info) = info else {
            return Err(Some(Error::unavailable(format!("the bucket {} was deleted", names.bucket))));
        };
        let last = bucket::last(&info);
        height.said(known, last);
        // A leader that has just been elected may still be applying what it has.
        let behind = (last < self.told).then(|| *self.behind.get_or_insert_with(Instant::now));
        self.behind = behind;
        // Who keeps it alone has nothing to catch up with.
        let rolled_back = behind.is_some_and(|since| since.elapsed() > CATCHING_UP || facts.replicas == 1);
        if behind.is_some() && !rolled_back {
            return Err(None);
        }
        if info["created"].as_str() != Some(&facts.created) || rolled_back {
            return Err(Some(self.rolled_back(last)));
        }
        Consumer::create(link, names, &self.filter, Start::Latest, options.timeout).await.map_err(retry)
    }
}
