//! Watching who leads, without hearing heartbeats.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tenure_kv::{Entry, Key, Moment, Notice, Revision};

use super::{Election, Leader, Look, Stood, decide::later, record::Record};
use crate::{
    Error, Result,
    session::{Inner, Watched, timing},
};

pub(super) fn observe(election: &Election) -> BoxStream<'static, Result<Option<Leader>>> {
    looks(election, false, None).map(|look| look.map(|look| look.leader)).boxed()
}

/// What `each` look shows, or what is new in them only; nothing from before the `last` one, which may be another session's.
pub(super) fn looks(election: &Election, each: bool, last: Option<&Look>) -> BoxStream<'static, Result<Look>> {
    let inner = election.session.inner().clone();
    let (now, key) = (inner.clock.now(), election.ballot.key.clone());
    // What stood in another bucket says nothing of this one.
    let stood = last.map(|last| &last.stood).filter(|stood| stood.epoch == inner.epoch);
    // After an outage the dead may live again.
    let dead = stood.filter(|stood| stood.outages == inner.store.outages()).and_then(|stood| stood.dead.clone());
    let observer = Observer {
        latest: stood.and_then(|stood| stood.latest.clone()).filter(|entry| entry.key == key),
        dead,
        outages: stood.map_or_else(|| inner.store.outages(), |stood| stood.outages),
        key,
        notices: None,
        watched: None,
        seen: now,
        look_at: now,
        told: Told::Nothing,
        each,
        pause: timing::renewal_retry(inner.lease),
        inner,
        news: VecDeque::new(),
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
    key: Key,
    notices: Option<BoxStream<'static, Notice>>,
    /// What stands in the election's key, never going back unless the bucket was set back.
    latest: Option<Entry>,
    /// How many outages the store had had before it was read last that nothing older stands there.
    outages: u64,
    /// The session of the leader that the key names.
    watched: Option<(String, Watched)>,
    /// The session that the key names and that is proven dead.
    dead: Option<String>,
    /// When the store was last heard.
    seen: Moment,
    look_at: Moment,
    told: Told,
    /// What is no news is told as well.
    each: bool,
    pause: Duration,
    news: VecDeque<Entry>,
    over: bool,
}

/// What was told last.
#[derive(PartialEq)]
enum Told {
    Nothing,
    OutOfReach,
    State(Option<Leader>),
}

impl Observer {
    async fn next(&mut self) -> Option<Result<Look>> {
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
    async fn turn(&mut self) -> Option<Result<Look>> {
        if self.inner.clock.now() < self.look_at {
            self.wait().await;
        }
        if let Some(entry) = self.news.pop_front() {
            self.latest = later(self.latest.take(), Some(entry));
        }
        let asked = self.inner.clock.now();
        match self.look().await {
            Ok(state) => {
                self.pause = timing::renewal_retry(self.inner.lease);
                self.seen = self.inner.clock.now();
                self.tell(state, asked)
            }
            Err(error) => {
                tracing::debug!(key = %self.key, %error, "the observer could not look");
                let now = self.inner.clock.now();
                self.look_at = now + self.pause;
                self.pause = (self.pause * 2).min(self.inner.lease / 2);
                if let Some((_, watched)) = &mut self.watched {
                    watched.cut_off(&self.inner);
                }
                // The bucket may come back as it was before that death.
                self.dead = None;
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

    fn tell(&mut self, leader: Option<Leader>, asked: Moment) -> Option<Result<Look>> {
        if !self.each && matches!(&self.told, Told::State(told) if *told == leader) {
            return None;
        }
        self.told = Told::State(leader.clone());
        let (latest, dead) = (self.latest.clone(), self.dead.clone());
        let stood = Stood { latest, dead, outages: self.outages, epoch: self.inner.epoch.clone() };
        Some(Ok(Look { leader, asked, stood }))
    }

    async fn wait(&mut self) {
        let look = self.inner.clock.sleep_until(self.look_at);
        let Some(notices) = &mut self.notices else { return look.await };
        tokio::select! {
            biased;
            notice = notices.next() => match notice {
                Some(Notice::Entry(entry)) => self.news.push_back(entry),
                Some(Notice::Recheck) => {}
                Some(Notice::Reconnected) => {
                    if let Some((_, watched)) = &mut self.watched {
                        watched.cut_off(&self.inner);
                    }
                }
                None => {
                    self.notices = None;
                    self.inner.clock.sleep_until(self.inner.clock.now() + self.pause).await;
                }
            },
            () = look => {}
        }
    }

    /// Takes in what a read after so many `outages` has shown of the key. What is older comes from a server that is behind,
    /// unless the bucket was set back.
    async fn take(&mut self, shown: Option<Entry>, outages: u64) {
        let at = |entry: Option<&Entry>| entry.map_or(Revision::ZERO, |entry| entry.revision);
        if at(shown.as_ref()) >= at(self.latest.as_ref()) {
            self.latest = later(self.latest.take(), shown);
            self.outages = outages;
        } else if self.inner.is_set_back_to(self.outages, &self.key, shown.as_ref()).await {
            (self.latest, self.outages, self.dead) = (shown, outages, None);
            // What was heard of before is of what was lost. It is followed anew before the next read.
            self.news.clear();
            self.notices = None;
        }
    }

    /// Reads what the key says and whether the session of the leader that it names lives.
    async fn look(&mut self) -> Result<Option<Leader>> {
        let inner = self.inner.clone();
        if self.notices.is_none() {
            self.notices = Some(inner.patient.follow(&self.key).await?);
        }
        for _ in 0..8 {
            let named = self.latest.as_ref().and_then(Record::read);
            let mut keys = vec![self.key.clone()];
            if let Some(record) = &named {
                if self.watched.as_ref().is_none_or(|(session, _)| *session != record.session) {
                    self.watched = Some((record.session.clone(), Watched::new(&inner, &record.session)?));
                }
                keys.extend(self.watched.as_ref().map(|(_, watched)| watched.key().clone()));
            }
            let outages = inner.store.outages();
            let mut found = inner.patient.entries(&keys).await?.into_iter();
            self.take(found.next().flatten(), outages).await;
            let session = found.next().flatten();
            if let Some((id, watched)) = &mut self.watched
                && keys.len() == 2
                && (watched.saw(&inner, session.as_ref())
                    || (watched.never_seen() || watched.is_silent(&inner)) && watched.depose(&inner).await)
            {
                self.dead = Some(id.clone());
            }
            let entry = self.latest.as_ref().and_then(|entry| Some((Record::read(entry)?, entry.revision)));
            let next = inner.clock.now() + inner.lease / 2;
            let Some((record, revision)) = entry else {
                self.look_at = next;
                return Ok(None);
            };
            if self.dead.as_ref() == Some(&record.session) {
                self.look_at = next;
                return Ok(None);
            }
            if let Some((id, watched)) = &self.watched
                && *id == record.session
                && !watched.never_seen()
            {
                // A leader with a long lease need not be looked at so often, but for who wants to know how fresh that is.
                let every = if self.each { watched.lease().min(inner.lease) } else { watched.lease() } / 2;
                self.look_at = (inner.clock.now() + every).min(watched.silent_from().max(inner.clock.now()));
                return Ok(Some(record.leader(revision)));
            }
            // Another leader than the one whose session was read: look again.
        }
        Err(tenure_kv::Error::unavailable("the leader changes faster than it can be looked at").into())
    }
}
