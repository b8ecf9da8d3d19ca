//! Notices about one key, from a plain subscription to the stream's republished writes.

use std::{collections::VecDeque, time::Duration};

use async_nats::{Message, Subscriber};
use futures::{FutureExt, StreamExt, stream, stream::BoxStream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Inner,
    link::{Failure, Health},
};
use crate::{Key, Notice, Result};

/// In a cluster a new subscription reaches the stream's leader only after a while.
const RECHECKS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
/// How often the key is to be read when the server lets nobody listen.
const DEAF: Duration = Duration::from_millis(500);
/// So many unread messages may have been more.
const CROWD: usize = 64;

pub(super) async fn follow(store: &Inner, key: &Key) -> Result<BoxStream<'static, Notice>> {
    let health = store.link.health();
    let subject = store.names.republished(key);
    let subscribed = store.link.client().subscribe(subject.clone()).await;
    let messages = subscribed.map_err(|e| Failure::Other(e.to_string()).of_read(&format!("following {key}")))?;
    let before = health.borrow().clone();
    let mut ear = Ear {
        messages,
        subject,
        names: store.names.clone(),
        clustered: store.facts.clustered,
        losses: before.losses,
        overflows: before.overflows,
        denials: before.denials,
        deaf: false,
        health,
        rechecks: VecDeque::new(),
    };
    ear.expect_delay();
    Ok(stream::unfold(ear, |mut ear| async move { ear.next().await.map(|notice| (notice, ear)) }).boxed())
}

struct Ear {
    messages: Subscriber,
    subject: String,
    names: super::names::Names,
    clustered: bool,
    health: watch::Receiver<Health>,
    losses: u64,
    overflows: u64,
    denials: u64,
    deaf: bool,
    rechecks: VecDeque<Instant>,
}

impl Ear {
    fn expect_delay(&mut self) {
        if self.clustered {
            let now = Instant::now();
            self.rechecks = RECHECKS.iter().map(|after| now + *after).collect();
        }
    }

    async fn next(&mut self) -> Option<Notice> {
        loop {
            if let Some(notice) = self.news() {
                return Some(notice);
            }
            let recheck = self.rechecks.front().copied();
            tokio::select! {
                biased;
                changed = self.health.changed() => changed.ok()?,
                message = self.messages.next() => {
                    if let Some(notice) = self.latest(message?) {
                        return Some(notice);
                    }
                }
                () = async { sleep_until(recheck.unwrap_or_else(Instant::now)).await }, if recheck.is_some() => {
                    self.rechecks.pop_front();
                    if self.deaf {
                        self.rechecks.push_back(Instant::now() + DEAF);
                    }
                    return Some(Notice::Recheck);
                }
            }
        }
    }

    /// What the connection's news mean here.
    fn news(&mut self) -> Option<Notice> {
        let now = self.health.borrow_and_update().clone();
        if now.denials > self.denials {
            self.denials = now.denials;
            if now.denial.contains(&format!("\"{}\"", self.subject)) {
                tracing::warn!(denial = %now.denial, "not allowed to listen, so the key is read from time to time");
                self.deaf = true;
                self.rechecks = [Instant::now()].into();
            }
        }
        if now.overflows > self.overflows {
            self.overflows = now.overflows;
            return Some(Notice::Recheck);
        }
        if now.up && now.losses > self.losses {
            self.losses = now.losses;
            self.expect_delay();
            return Some(Notice::Reconnected);
        }
        None
    }

    /// The last of all messages that wait.
    fn latest(&mut self, first: Message) -> Option<Notice> {
        let mut last = first;
        let mut crowd = 0;
        while let Some(Some(next)) = self.messages.next().now_or_never() {
            last = next;
            crowd += 1;
        }
        // What was heard once is heard from now on. But of a crowd the end may have been turned away.
        self.rechecks.clear();
        if crowd >= CROWD {
            self.rechecks.push_back(Instant::now());
        }
        self.names.entry(&last).map(Notice::Entry)
    }
}
