//! Watching who holds a lock and who waits, without hearing heartbeats.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tenure_kv::{ClockExt, KeyRange, Moment};

use super::tickets::Tickets;
use crate::{
    Error, LockState, Result, View,
    layout::{self, Name},
    session::{Inner, Watched, timing},
    view::{Change, Changes},
};

/// So often it is looked at again whether a session lives that a read did not show.
const LOOKS: usize = 8;
/// How long the view may take to hear of what a read has shown.
const CATCH_UP: Duration = Duration::from_millis(500);

pub(super) fn observe(inner: &Arc<Inner>, name: &Name) -> BoxStream<'static, Result<LockState>> {
    let now = inner.clock.now();
    let range = match name.tickets() {
        Ok(range) => range,
        Err(error) => return stream::iter([Err(error)]).boxed(),
    };
    let observer = Observer {
        range,
        queue: None,
        tickets: Tickets::default(),
        watched: HashMap::new(),
        outages: inner.store.outages(),
        seen: now,
        look_at: now,
        blind: false,
        told: Told::Nothing,
        pause: timing::renewal_retry(inner.lease),
        inner: inner.clone(),
        over: false,
    };
    stream::unfold(observer, |mut observer| async move {
        let state = observer.next().await?;
        Some((state, observer))
    })
    .boxed()
}

struct Observer {
    inner: Arc<Inner>,
    range: KeyRange,
    /// A view of the queue, and what has not been taken in of it.
    queue: Option<(View, Changes)>,
    tickets: Tickets,
    /// The sessions of those who are shown.
    watched: HashMap<String, Watched>,
    /// After how many outages the queue was read from its beginning.
    outages: u64,
    /// When the store was last heard.
    seen: Moment,
    look_at: Moment,
    /// The last look failed; changes do not hurry the next one.
    blind: bool,
    told: Told,
    pause: Duration,
    over: bool,
}

/// What was told last.
#[derive(PartialEq)]
enum Told {
    Nothing,
    OutOfReach,
    State(LockState),
}

impl Observer {
    async fn next(&mut self) -> Option<Result<LockState>> {
        if self.over {
            return None;
        }
        let inner = self.inner.clone();
        loop {
            let news = tokio::select! {
                biased;
                loss = inner.lost() => {
                    self.over = true;
                    return Some(Err(Error::lost(loss)));
                }
                news = self.turn() => news,
            };
            if let Some(news) = news {
                return Some(news);
            }
        }
    }

    /// Waits for something to look at, looks, and tells what is new.
    async fn turn(&mut self) -> Option<Result<LockState>> {
        if self.inner.clock.now() < self.look_at {
            self.wait().await;
        }
        match self.look().await {
            Ok(state) => {
                self.pause = timing::renewal_retry(self.inner.lease);
                self.seen = self.inner.clock.now();
                self.blind = false;
                if matches!(&self.told, Told::State(told) if *told == state) {
                    return None;
                }
                self.told = Told::State(state.clone());
                Some(Ok(state))
            }
            Err(error) => {
                tracing::debug!(range = %self.range, %error, "the observer could not look");
                let now = self.inner.clock.now();
                self.look_at = now + self.pause;
                self.pause = (self.pause * 2).min(self.inner.lease / 2);
                self.blind = true;
                // The bucket may come back as it was before what was seen, deaths above all.
                self.begin_anew();
                // What was told may be over by now, for all that is known.
                let out_of_reach = now.saturating_since(self.seen) > timing::validity(self.inner.lease);
                if out_of_reach && self.told != Told::OutOfReach {
                    self.told = Told::OutOfReach;
                    return Some(Err(error));
                }
                None
            }
        }
    }

    /// Forgets all that was concluded: the queue is read from its beginning, and no silence so far proves anything.
    fn begin_anew(&mut self) {
        self.outages = self.inner.store.outages();
        self.watched.clear();
        self.tickets = Tickets::default();
        if let Some((view, changes)) = &mut self.queue {
            *changes = view.changes();
        }
    }

    async fn wait(&mut self) {
        let look = self.inner.clock.sleep_until(self.look_at);
        let Some((_, changes)) = self.queue.as_mut().filter(|_| !self.blind) else { return look.await };
        let change = tokio::select! {
            biased;
            change = changes.next() => change,
            () = look => return,
        };
        match change {
            Ok(change) => self.take(change),
            Err(error) => {
                tracing::debug!(range = %self.range, %error, "the queue is watched anew");
                self.queue = None;
                self.begin_anew();
                self.look_at = self.inner.clock.now() + self.pause;
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Put(entry) => self.tickets.put(&entry),
            Change::Gone(entry) => self.tickets.gone(&entry.key),
            Change::CaughtUp => {}
            Change::Gap => {
                // Who watched nothing for a while begins its windows again.
                self.watched.values_mut().for_each(|watched| watched.cut_off(&self.inner));
                self.look_at = self.inner.clock.now();
            }
        }
    }

    /// Takes in what the queue is now, and reads whether the sessions of those who are shown live: of all at the time for
    /// it, of who came since then otherwise.
    async fn look(&mut self) -> Result<LockState> {
        let inner = self.inner.clone();
        if inner.store.outages() != self.outages {
            // What is back may not be where the view was.
            self.queue = None;
            self.begin_anew();
            self.look_at = inner.clock.now();
        }
        if self.queue.is_none() {
            let opened = inner.clock.timeout(timing::patience(inner.lease), View::open(&inner.store, self.range.clone()));
            let view =
                opened.await.unwrap_or_else(|_| Err(tenure_kv::Error::unavailable("the store did not answer in time").into()))?;
            let changes = view.changes();
            self.queue = Some((view, changes));
        }
        self.take_all();
        let due = inner.clock.now() >= self.look_at;
        if due {
            self.compare().await?;
            self.take_all();
        }
        let (mut all, mut looks) = (due, 0);
        loop {
            let sessions = self.to_read(all);
            if sessions.is_empty() {
                break;
            }
            if looks == LOOKS {
                return Err(tenure_kv::Error::unavailable("a lagging read does not show whether the lock is held").into());
            }
            // Each death is progress, and there are only so many to find.
            looks = if self.read(&sessions).await? { 0 } else { looks + 1 };
            all = false;
        }
        let shown: HashSet<&str> = self.tickets.shown().map(|holder| &*holder.session).collect();
        self.watched.retain(|session, _| shown.contains(&**session));
        let next = self.next_look();
        self.look_at = if due { next } else { self.look_at.min(next) };
        Ok(self.tickets.state())
    }

    fn take_all(&mut self) {
        while let Some(change) = self.queue.as_mut().and_then(|(_, changes)| changes.ready()) {
            self.take(change);
        }
    }

    /// Reads the front of the queue: a view that is silent may be one that hears nothing.
    async fn compare(&mut self) -> Result<()> {
        let Some((view, _)) = &self.queue else { return Ok(()) };
        let (inner, first) = (self.inner.clone(), self.tickets.first());
        let from = first.as_ref().map_or_else(|| view.revision().next(), |(_, token)| *token);
        let page = inner.patient.scan(&self.range, from, 1).await?;
        let found = page.entries.first().map(|entry| entry.revision);
        let caught_up = view.wait_until(|now| {
            let same = match &first {
                // Who has got that far has had the ticket.
                Some((ticket, token)) if page.through >= *token && found != Some(*token) => {
                    now.get(ticket).is_none_or(|entry| entry.revision != *token)
                }
                Some(_) => true,
                None => found.is_none_or(|found| now.revision() >= found),
            };
            same.then_some(())
        });
        match inner.clock.timeout(CATCH_UP, caught_up).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.queue = None;
                Err(tenure_kv::Error::unavailable("the watch of the queue is behind the store").into())
            }
        }
    }

    /// The sessions to read now. Our own is not: without it all this is over.
    fn to_read(&self, all: bool) -> Vec<String> {
        let unknown = |session: &str| self.watched.get(session).is_none_or(Watched::never_seen);
        let shown = self.tickets.shown().map(|holder| &holder.session).filter(|session| **session != self.inner.id);
        let mut sessions: Vec<String> = shown.filter(|session| all || unknown(session)).cloned().collect();
        sessions.sort_unstable();
        sessions.dedup();
        sessions
    }

    /// Reads what became of `sessions`. True when one of them is dead.
    async fn read(&mut self, sessions: &[String]) -> Result<bool> {
        let inner = self.inner.clone();
        let keys = sessions.iter().map(|session| layout::session_key(session)).collect::<Result<Vec<_>>>()?;
        let found = inner.patient.entries(&keys).await?;
        let mut deaths = false;
        for (session, entry) in sessions.iter().zip(found) {
            let mut watched = match self.watched.remove(session) {
                Some(known) => known,
                None => Watched::new(&inner, session)?,
            };
            if watched.saw(&inner, entry.as_ref())
                || (watched.never_seen() || watched.is_silent(&inner)) && watched.depose(&inner).await
            {
                self.tickets.bury(session);
                deaths = true;
            } else {
                self.watched.insert(session.clone(), watched);
            }
        }
        Ok(deaths)
    }

    /// Twice in a lease, the holder's or our own if that is shorter: an outage has to be noticed, too.
    fn next_look(&self) -> Moment {
        let now = self.inner.clock.now();
        let holder = self.tickets.shown().next().and_then(|holder| self.watched.get(&holder.session));
        match holder {
            Some(holder) => (now + holder.lease().min(self.inner.lease) / 2).min(holder.silent_from().max(now)),
            None => now + self.inner.lease / 2,
        }
    }
}
