//! Reads by direct get: from whichever replica answers, so possibly late.

use std::{collections::HashMap, time::Duration};

use async_nats::{HeaderName, Message, StatusCode, header};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    consumer::Start,
    link::{FIRST_PAUSE, Failure, LONGEST_PAUSE, Link},
    names::{Names, number},
    replies::Replies,
    walk::{Most, walk},
    write::{EXPECTED_OF, MARK},
};
use crate::{Entry, Error, Key, KeyRange, Page, Result, Revision};

/// Subjects in one request for several keys; the server's own limit for answers is 1,024.
const KEYS_AT_ONCE: usize = 512;
/// How often an answer with holes is asked for again.
const HOLES: usize = 3;

const END_OF_BATCH: u16 = 204;
const NOT_FOUND: u16 = 404;
const TOO_MANY: u16 = 413;
const NO_RESPONDERS: u16 = 503;
const PENDING: HeaderName = HeaderName::from_static("Nats-Num-Pending");
const UP_TO: HeaderName = HeaderName::from_static("Nats-UpTo-Sequence");

/// What reads need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) link: &'a Link,
    pub(super) names: &'a Names,
    pub(super) replies: &'a Replies,
    pub(super) timeout: Duration,
    /// Whether the stream answers direct gets.
    pub(super) direct: bool,
}

/// What a stored write says of itself.
pub(super) struct Origin {
    /// The mark of the commit that made it, if that has one.
    pub(super) mark: Option<String>,
    /// Which revision of its key it expected.
    pub(super) replaced: Option<u64>,
}

/// What an answer of several messages says.
enum Listing {
    Found {
        messages: Vec<Message>,
        /// How many matches lie beyond.
        pending: u64,
        /// The last sequence that was looked at, as far as the server says.
        through: u64,
    },
    Nothing,
    TooMany,
}

impl Reader<'_> {
    pub(super) async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        if !self.direct {
            return Ok(self.walk(&self.names.subject(key), Start::Latest, Most::ONE).await?.pop());
        }
        let subject = format!("$JS.API.DIRECT.GET.{}.{}", self.names.stream, self.names.subject(key));
        self.one(key, &subject, Bytes::new()).await
    }

    /// What was written to `key` at `revision`, if that is kept.
    pub(super) async fn entry_at(&self, key: &Key, revision: Revision) -> Result<Option<Entry>> {
        if revision == Revision::ZERO {
            return Ok(None);
        }
        let found = if self.direct {
            let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream);
            self.one(key, &subject, json!({ "seq": revision.get() }).to_string().into()).await?
        } else {
            self.walk(&self.names.subject(key), Start::At(revision.get()), Most::ONE).await?.pop()
        };
        Ok(found.filter(|entry| entry.key == *key && entry.revision == revision))
    }

    /// Where `entry` comes from.
    ///
    /// # Errors
    /// When there was no answer, or the entry has been written over.
    pub(super) async fn origin(&self, entry: &Entry) -> Result<Origin> {
        let what = || format!("reading whose write {} is", entry.key);
        let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream);
        let body = json!({ "seq": entry.revision.get() }).to_string().into();
        let message = self.link.ask_patiently(&subject, None, body, self.timeout).await.map_err(|e| e.of_read(&what()))?;
        match (message.status, &message.headers) {
            (None, Some(headers)) if number(headers, header::NATS_SEQUENCE) == Some(entry.revision.get()) => {
                let of_another = headers.get(EXPECTED_OF).is_some();
                Ok(Origin {
                    mark: headers.get(MARK).map(ToString::to_string),
                    replaced: number(headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE).filter(|_| !of_another),
                })
            }
            _ => Err(Error::unavailable(format!("{}: it is no longer there", what()))),
        }
    }

    /// What a consumer of its own delivers of what is there.
    pub(super) async fn walk(&self, filter: &str, start: Start, most: Most) -> Result<Vec<Entry>> {
        walk(self.link, self.names, filter, start, most, self.timeout).await
    }

    /// The entry in the answer to a direct get. One of a subject that is no key's is nothing.
    async fn one(&self, key: &Key, subject: &str, body: Bytes) -> Result<Option<Entry>> {
        let what = || format!("reading {key}");
        let message = self.link.ask_patiently(subject, None, body, self.timeout).await.map_err(|e| e.of_read(&what()))?;
        match message.status {
            None if message.headers.as_ref().is_some_and(|headers| number(headers, header::NATS_SEQUENCE).is_some()) => {
                Ok(self.names.entry(&message))
            }
            None => Err(Error::unavailable(format!("{}: an answer from NATS that makes no sense", what()))),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(Error::unavailable(format!("{}: NATS answers {status} {}", what(), description(&message)))),
        }
    }

    pub(super) async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        if let [key] = keys {
            return Ok(vec![self.entry(key).await?]);
        }
        let mut found = HashMap::with_capacity(keys.len());
        for some in keys.chunks(KEYS_AT_ONCE) {
            let subjects: Vec<_> = some.iter().map(|key| self.names.subject(key)).collect();
            let mut from = 0;
            loop {
                let request = json!({ "multi_last": subjects, "seq": from });
                let Listing::Found { messages, pending, through } = self.many(&request, "reading several keys").await? else {
                    break;
                };
                found.extend(messages.iter().filter_map(|m| self.names.entry(m)).map(|entry| (entry.key.clone(), entry)));
                if pending == 0 {
                    break;
                }
                from = through + 1;
            }
        }
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    pub(super) async fn scan(&self, range: &KeyRange, from: Revision, limit: usize) -> Result<Page> {
        if let KeyRange::One(key) = range {
            let entry = self.entry(key).await?;
            let through = entry.as_ref().map_or(Revision::ZERO, |entry| entry.revision);
            let entries = entry.into_iter().filter(|entry| entry.is_live() && entry.revision >= from).collect();
            return Ok(Page { entries, through, complete: true });
        }
        let what = format!("reading {range}");
        let filter = self.names.filter(range);
        if limit <= 1
            && let Some(page) = self.first(&filter, from, &what).await?
        {
            return Ok(page);
        }
        let mut answer = self.many(&json!({ "multi_last": [filter], "seq": from, "batch": limit }), &what).await?;
        if matches!(answer, Listing::TooMany) {
            // In the order of sequences instead. With history 1 each message is its key's last.
            let request = json!({ "next_by_subj": filter, "seq": from.get().max(1), "batch": limit });
            answer = self.many(&request, &what).await?;
        }
        match answer {
            Listing::Found { messages, pending, through } => {
                let entries = messages.iter().filter_map(|m| self.names.entry(m));
                let entries = entries.filter(|entry| entry.is_live() && range.contains(&entry.key)).collect();
                Ok(Page { entries, through: Revision::new(through), complete: pending == 0 })
            }
            Listing::Nothing => Ok(Page { entries: Vec::new(), through: Revision::ZERO, complete: true }),
            Listing::TooMany => Err(Error::unavailable(format!("{what}: NATS refuses to list so many keys"))),
        }
    }

    /// The first message of a range, which is answered without the ceremony of a batch; `None` when there is none.
    async fn first(&self, filter: &str, from: Revision, what: &str) -> Result<Option<Page>> {
        let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream);
        let body = json!({ "next_by_subj": filter, "seq": from.get().max(1) }).to_string();
        let message = self.link.ask_patiently(&subject, None, body.into(), self.timeout).await.map_err(|e| e.of_read(what))?;
        let sequence = message.headers.as_ref().and_then(|headers| number(headers, header::NATS_SEQUENCE));
        match (message.status, sequence) {
            (None, Some(sequence)) => {
                let entries = self.names.entry(&message).into_iter().filter(Entry::is_live).collect();
                Ok(Some(Page { entries, through: Revision::new(sequence), complete: false }))
            }
            (Some(StatusCode::NOT_FOUND), _) => Ok(None),
            (status, _) => Err(Error::unavailable(format!("{what}: NATS answers {status:?} {}", description(&message)))),
        }
    }

    /// Sends a request that is answered by several messages and collects them.
    async fn many(&self, request: &Value, what: &str) -> Result<Listing> {
        let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream);
        let body = Bytes::from(request.to_string());
        // What the server says when a walk in the order of sequences finds nothing, is for a list of subjects
        // the loss of one that it had already resolved.
        let nothing = if request["multi_last"].is_null() { "Message Not Found" } else { "No Results" };
        let begun = Instant::now();
        let mut holes = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            let left = self.timeout.saturating_sub(begun.elapsed());
            let collected = self.collect(&subject, &body, nothing);
            match self.link.unless_it_fails(&subject, left, collected).await {
                Ok(Some(listing)) => return Ok(listing),
                Ok(None) if holes < HOLES => holes += 1,
                Ok(None) => return Err(Error::unavailable(format!("{what}: NATS keeps answering with holes"))),
                // The stream was just made, or is choosing a leader.
                Err(Failure::NoResponders) if left > pause => sleep(pause).await,
                Err(Failure::TimedOut(_)) => return Err(Failure::TimedOut(self.timeout).of_read(what)),
                Err(failure) => return Err(failure.of_read(what)),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// `None` when something of the answer is missing.
    async fn collect(&self, subject: &str, body: &Bytes, nothing: &str) -> Result<Option<Listing>, Failure> {
        let client = self.link.client();
        let mut answer = self.replies.expect();
        let sent = client.publish_with_reply(subject.to_owned(), answer.subject.clone(), body.clone()).await;
        sent.map_err(|e| Failure::Other(e.to_string()))?;
        let Some(all) = answer.whole().await else { return Err(Failure::Other("the NATS connection is closed".into())) };
        let mut messages = Vec::with_capacity(all.len());
        let mut last = 0;
        for message in all {
            let headers = message.headers.as_ref();
            let header = |name| headers.and_then(|headers| number(headers, name));
            let whole = header(header::NATS_LAST_SEQUENCE) == Some(last);
            match message.status.map(|status| status.as_u16()) {
                None => match header(header::NATS_SEQUENCE) {
                    Some(sequence) if whole => {
                        last = sequence;
                        messages.push(message);
                    }
                    _ => return Ok(None),
                },
                Some(END_OF_BATCH) => {
                    let Some(pending) = header(PENDING).filter(|_| whole) else { return Ok(None) };
                    let through = if pending == 0 { header(UP_TO).unwrap_or(last) } else { last };
                    return Ok(Some(Listing::Found { messages, pending, through }));
                }
                Some(NOT_FOUND) if messages.is_empty() && description(&message) == nothing => return Ok(Some(Listing::Nothing)),
                Some(NOT_FOUND) => return Ok(None),
                Some(TOO_MANY) => return Ok(Some(Listing::TooMany)),
                Some(NO_RESPONDERS) => return Err(Failure::NoResponders),
                Some(status) => return Err(Failure::Other(format!("NATS answers {status} {}", description(&message)))),
            }
        }
        Ok(None)
    }
}

fn description(message: &Message) -> &str {
    message.description.as_deref().unwrap_or_default()
}
