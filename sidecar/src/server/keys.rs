//! The method `kv.watch`: keys of applications, as events.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use tenure_kv::{Bucket, Entry, Event, Key, KeyRange, Revision, Since, State};
use tokio::time::Instant;

use super::{
    connection::Connection,
    errors,
    policy::{Ability, Sight},
    quota::Unread,
    subscriptions::{Source, Subscription},
};
use crate::protocol::{ErrorObject, Happening, Kind, KvWatch, value};

/// Bytes of events that are kept for a client that is waited for.
const MOST_UNREAD: usize = 4 << 20;
/// What an event takes besides its key and its value.
const EACH: usize = 128;
/// How long a client that has to be waited for may take to read what was there at the beginning. Until then the store keeps
/// what is unread, once for each key: what is there anyway, and what has gone since.
const BEGINNING: Duration = Duration::from_secs(600);
/// Of how many keys it is known at the beginning that they were told. Beyond it every removal is told.
const MOST_TOLD: usize = 4_096;

/// `kv.watch`, in the bucket that `params` names; without one, which the store could not be reached for, it ends at once.
pub(super) fn watch(
    connection: &Connection,
    bucket: Option<Arc<dyn Bucket>>,
    params: KvWatch,
) -> Result<Subscription<Keys>, ErrorObject> {
    let sight = connection.sight(Ability::SEE_KEYS, params.bucket.as_deref());
    let (range, prefix) = match (params.key, params.prefix) {
        (Some(key), None) => {
            // The longest key is that of the coordination bucket: what is a key here is one there.
            tenure::data_key(&key).map_err(|error| errors::of(&error).with("param", "key"))?;
            let key = Key::new(&key).map_err(|error| errors::of_store(error).with("param", "key"))?;
            (KeyRange::One(key), String::new())
        }
        (None, Some(prefix)) => (around(&prefix)?, prefix),
        (Some(_), Some(_)) => return Err(errors::param("prefix", "kv.watch: key and prefix exclude each other")),
        (None, None) => return Err(errors::param("key", "kv.watch: missing parameter `key` (or `prefix` for more than one)")),
    };
    let since = match (params.from_revision, params.updates_only.unwrap_or_default()) {
        (None, false) => Since::Current,
        (None, true) => Since::Now,
        (Some(from), false) => Since::After(Revision::new(from.saturating_sub(1))),
        (Some(_), true) => {
            let said = "kv.watch: from_revision and updates_only exclude each other";
            return Err(errors::param("updates_only", said));
        }
    };
    let end = bucket.is_none().then(|| Kind::Unavailable.as_str().to_owned());
    connection.subscriptions.add(Keys {
        bucket,
        range,
        prefix,
        sight,
        since,
        begun: Instant::now(),
        events: None,
        reached: Revision::ZERO,
        synced: false,
        told: (since == Since::Current).then(HashSet::new),
        unread: VecDeque::new(),
        bytes: 0,
        of_user: connection.unread.clone(),
        end,
    })
}

/// The smallest range with all keys that begin with `prefix`.
fn around(prefix: &str) -> Result<KeyRange, ErrorObject> {
    if !prefix.is_empty() {
        let whole = Key::new(prefix.strip_suffix('.').unwrap_or(prefix));
        whole.map_err(|error| errors::param("prefix", error.to_string().replacen("key", "prefix", 1)))?;
    }
    let parent = prefix.rsplit_once('.').map_or("", |(parent, _)| parent);
    KeyRange::new(if parent.is_empty() { ">".to_owned() } else { format!("{parent}.>") })
        .map_err(|error| errors::of_store(error).with("param", "prefix"))
}

/// Keys, as events.
pub(super) struct Keys {
    bucket: Option<Arc<dyn Bucket>>,
    range: KeyRange,
    /// What the keys of the range begin with that are told.
    prefix: String,
    /// Which of these the peer may see.
    sight: Sight,
    since: Since,
    begun: Instant,
    events: Option<BoxStream<'static, Result<Event, tenure_kv::Error>>>,
    /// The last revision the store told.
    reached: Revision,
    synced: bool,
    /// Before `sync`, where that means the values there are: the keys that were told to have one.
    told: Option<HashSet<Key>>,
    /// What came while the client was waited for.
    unread: VecDeque<Happening>,
    bytes: usize,
    /// What all watches of the same user keep.
    of_user: Unread,
    /// Why nothing comes after that.
    end: Option<String>,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.of_user.give_back(self.bytes);
    }
}

#[async_trait]
impl Source for Keys {
    async fn next(&mut self) -> Result<Happening, String> {
        loop {
            if let Some(happening) = self.unread.pop_front() {
                let size = size(&happening);
                self.bytes -= size;
                self.of_user.give_back(size);
                return Ok(happening);
            }
            if let Some(reason) = &self.end {
                return Err(reason.clone());
            }
            if let Some(happening) = self.pull().await? {
                return Ok(happening);
            }
        }
    }

    async fn overrun(&mut self) {
        while self.synced && self.end.is_none() && self.bytes < MOST_UNREAD && self.of_user.has_room() {
            match self.pull().await {
                Ok(Some(happening)) => {
                    let size = size(&happening);
                    self.bytes += size;
                    self.of_user.add(size);
                    self.unread.push_back(happening);
                }
                Ok(None) => {}
                Err(reason) => self.end = Some(reason),
            }
        }
        if !self.synced {
            tokio::time::sleep_until(self.begun + BEGINNING).await;
        } else if self.end.is_some() {
            std::future::pending().await
        }
    }

    fn start(&self) -> Option<u64> {
        Some(match self.since {
            Since::After(revision) => revision.next().get(),
            _ => 0,
        })
    }
}

impl Keys {
    /// The store's next event, if it is one to tell.
    async fn pull(&mut self) -> Result<Option<Happening>, String> {
        // A long range of which little is told must not keep others waiting.
        tokio::task::coop::consume_budget().await;
        if self.events.is_none()
            && let Some(bucket) = &self.bucket
        {
            self.events = Some(bucket.watch(self.range.clone(), self.since).await.map_err(reason)?);
        }
        match self.events.as_mut().map(StreamExt::next) {
            Some(next) => match next.await {
                Some(event) => Ok(self.shown(event.map_err(reason)?)),
                None => Err(Kind::Unavailable.as_str().to_owned()),
            },
            None => Err(Kind::Internal.as_str().to_owned()),
        }
    }

    fn shown(&mut self, event: Event) -> Option<Happening> {
        match event {
            Event::Entry(entry) => {
                self.reached = self.reached.max(entry.revision);
                let seen = |key: &str| key.starts_with(&self.prefix) && self.sight.sees(key);
                if !seen(entry.key.as_str()) {
                    return None;
                }
                if let Some(told) = &mut self.told {
                    if !entry.is_live() && !told.contains(&entry.key) {
                        return None;
                    }
                    if told.len() < MOST_TOLD {
                        told.insert(entry.key.clone());
                    } else {
                        self.told = None;
                    }
                }
                Some(happening(&entry))
            }
            Event::CaughtUp => {
                self.synced = true;
                self.told = None;
                Some(Happening::Sync { revision: Some(self.reached.get()).filter(|revision| *revision > 0) })
            }
            Event::Gap => Some(Happening::Gap {}),
        }
    }
}

fn reason(error: tenure_kv::Error) -> String {
    errors::of_store(error).kind().unwrap_or(Kind::Unavailable).as_str().to_owned()
}

fn happening(entry: &Entry) -> Happening {
    let key = entry.key.as_str().to_owned();
    let revision = entry.revision.get();
    match &entry.state {
        State::Live(bytes) => {
            let (value, value_b64) = value::encode(bytes);
            Happening::Put { key, revision, value, value_b64 }
        }
        State::Deleted(_) => Happening::Delete { key, revision },
        State::Purged => Happening::Purge { key, revision },
        State::Expired => Happening::Expire { key, revision },
    }
}

/// About how much memory it takes.
fn size(happening: &Happening) -> usize {
    let text = match happening {
        Happening::Put { key, value, value_b64, .. } => key.len() + value.as_ref().or(value_b64.as_ref()).map_or(0, String::len),
        Happening::Delete { key, .. } | Happening::Purge { key, .. } | Happening::Expire { key, .. } => key.len(),
        _ => 0,
    };
    EACH + text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_watched_through_the_smallest_range_around_it() {
        for (prefix, range) in [("", ">"), ("jobs", ">"), ("jobs.", "jobs.>"), ("jobs.a", "jobs.>"), ("a.b.c", "a.b.>")] {
            assert_eq!(around(prefix).unwrap(), KeyRange::new(range).unwrap(), "{prefix}");
        }
        for prefix in [".", "..", "a..", ".a", "a b", "*", "a.>", &"x".repeat(1_100)] {
            let error = around(prefix).unwrap_err();
            assert_eq!((error.kind(), &error.data["param"]), (Some(Kind::InvalidParams), &"prefix".into()), "{prefix}");
            assert!(error.message.contains("prefix"), "{error}");
        }
    }
}
