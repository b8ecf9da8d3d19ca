//! One attempt to write: messages with expectations, and what the server's answer proves.

use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::Bytes;
use serde::Deserialize;

use super::{
    api::ApiError,
    link::{Failure, Link, denied},
    names::Names,
};
use crate::{Change, Error, Fence, Key, Op, Result, Revision, Ttl};

/// The header with what tells one write from all others.
pub(super) const MARK: HeaderName = HeaderName::from_static("Tenure-Write");

/// The header with the subject of an expected revision, where that is not the message's own.
pub(super) const EXPECTED_OF: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence-Subject");

/// What a writer needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer<'a> {
    pub(super) link: &'a Link,
    pub(super) names: &'a Names,
    pub(super) timeout: Duration,
    /// Whether the bucket is an ordinary one, to which nothing is written but what was asked for.
    pub(super) plain: bool,
    /// Whether a purge takes what the bucket keeps of the key with it.
    pub(super) roll_up: bool,
}

/// An attempt that certainly applied nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Something was not at its expected revision; the server names the revision it found.
    Wrong { found: u64 },
    /// Another write to, or check of, the same key is under way, or this write itself.
    Busy(String),
    /// It was applied before, by an attempt that was called busy.
    Repeated(String),
    /// The answer is final.
    Final(Error),
}

struct Message {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    stream: String,
    error: Option<ApiError>,
}

impl Writer<'_> {
    /// Tries once to apply `ops`, each key at its entry of `expected`, and returns the last revision. The `mark` tells
    /// what it writes from any other write.
    pub(super) async fn attempt(&self, ops: &[Op], expected: &[Option<u64>], mark: Option<&str>) -> Result<u64, Refusal> {
        let messages = self.messages(ops, expected, mark);
        let what = match ops {
            [op] => format!("the write to {}", op.key),
            _ => format!("the write to {} and {} more", ops[0].key, ops.len() - 1),
        };
        match <[Message; 1]>::try_from(messages) {
            Ok([message]) => self.single(message, &what).await,
            Err(messages) => self.batch(messages, &what).await,
        }
    }

    /// Whether those who lead the stream now find `key` at `revision` (0: not there). False where that is not known.
    pub(super) async fn finds(&self, key: &Key, revision: u64) -> bool {
        if self.plain {
            return false;
        }
        let carrier = self.carrier(&Fence { key: key.clone(), revision: Revision::new(revision) });
        self.single(carrier, "a check of a refusal").await.is_ok()
    }

    /// Writes a message that is no key's and goes by itself.
    pub(super) async fn probe(&self) -> Result<(), Refusal> {
        let subject = self.names.carrier(uuid::Uuid::new_v4().simple());
        let mut message = Message { subject, headers: HeaderMap::new(), payload: Bytes::new() };
        time_to_live(&mut message.headers, Ttl::MIN);
        self.single(message, "a try to write").await.map(drop)
    }

    /// The messages that say it all. One message has room for one expectation; when an operation has two
    /// (of its own key and a fence), a message of its own carries the fence.
    fn messages(&self, ops: &[Op], expected: &[Option<u64>], mark: Option<&str>) -> Vec<Message> {
        let mut carriers: Vec<Message> = Vec::new();
        let mut carried: Vec<&Fence> = Vec::new();
        let mut messages = Vec::with_capacity(ops.len());
        let fenced = ops.iter().any(|op| op.fence.is_some());
        for (place, (op, expected)) in ops.iter().zip(expected).enumerate() {
            let mut message = self.change(op);
            if let Some(mark) = mark {
                message.headers.insert(MARK, mark);
                // No fence that stands would refuse a second copy. What expects a revision needs no id, and a server says of one
                // that it knows that it was done, whatever has been written since.
                if fenced && expected.is_none() {
                    message.headers.insert(header::NATS_MESSAGE_ID, format!("{mark}-{place}"));
                }
            }
            match (expected, &op.fence) {
                (Some(revision), fence) => {
                    message.headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, value(revision));
                    if let Some(fence) = fence.as_ref().filter(|fence| !carried.contains(fence)) {
                        carriers.push(self.carrier(fence));
                        carried.push(fence);
                    }
                }
                (None, Some(fence)) if !carried.contains(&fence) => {
                    self.fence(&mut message, fence);
                    carried.push(fence);
                }
                (None, _) => {}
            }
            messages.push(message);
        }
        // Carriers first, so that the operations have consecutive revisions.
        carriers.append(&mut messages);
        carriers
    }

    fn change(&self, op: &Op) -> Message {
        let mut headers = HeaderMap::new();
        let (payload, ttl) = match &op.change {
            Change::Put(value, ttl) => (value.clone(), *ttl),
            Change::Delete { marker, note } => {
                headers.insert("KV-Operation", "DEL");
                (note.clone(), *marker)
            }
            Change::Purge { marker } => {
                headers.insert("KV-Operation", "PURGE");
                if self.roll_up {
                    headers.insert(header::NATS_ROLLUP, "sub");
                }
                (Bytes::new(), *marker)
            }
        };
        if let Some(ttl) = ttl {
            time_to_live(&mut headers, ttl);
        }
        Message { subject: self.names.subject(&op.key), headers, payload }
    }

    fn carrier(&self, fence: &Fence) -> Message {
        let subject = self.names.carrier(uuid::Uuid::new_v4().simple());
        let mut message = Message { subject, headers: HeaderMap::new(), payload: Bytes::new() };
        time_to_live(&mut message.headers, Ttl::MIN);
        self.fence(&mut message, fence);
        message
    }

    fn fence(&self, message: &mut Message, fence: &Fence) {
        message.headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, value(&fence.revision.get()));
        message.headers.insert(EXPECTED_OF, self.names.subject(&fence.key));
    }

    async fn single(&self, message: Message, what: &str) -> Result<u64, Refusal> {
        let Message { subject, headers, payload } = message;
        let headers = Some(headers).filter(|headers| !headers.is_empty());
        let reply = self.link.ask_patiently(&subject, headers, payload, self.timeout).await;
        self.acknowledged(reply.map(|reply| reply.payload), what)
    }

    async fn batch(&self, mut messages: Vec<Message>, what: &str) -> Result<u64, Refusal> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        for (i, message) in messages.iter_mut().enumerate() {
            message.headers.insert(header::NATS_BATCH_ID, id.as_str());
            message.headers.insert(header::NATS_BATCH_SEQUENCE, value(&(i as u64 + 1)));
        }
        let denials = self.link.health().borrow().denials;
        let Some(mut last) = messages.pop() else { return Err(Refusal::Final(Error::invalid("an empty batch"))) };
        last.headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        let mut rest = messages.into_iter();
        let Some(first) = rest.next() else { return self.single(last, what).await };

        // The first message asks for an answer too: it says why a batch cannot begin. Both wait at the same
        // time, and nothing is stored before the last message arrives.
        let opening = async {
            let reply = self.link.ask(&first.subject, Some(first.headers), first.payload, self.timeout).await?;
            Ok::<_, Failure>(serde_json::from_slice::<Ack>(&reply.payload).ok().and_then(|ack| ack.error))
        };
        let committing = async {
            for Message { subject, headers, payload } in rest {
                let sent = self.link.client().publish_with_headers(subject, headers, payload).await;
                sent.map_err(|e| Refusal::Final(Failure::TooLarge(e.to_string()).of_write(what)))?;
            }
            self.single(last, what).await
        };
        let mut opening = std::pin::pin!(opening);
        let mut committing = std::pin::pin!(committing);
        let mut opened = None;
        let outcome = loop {
            tokio::select! {
                biased;
                answer = &mut opening, if opened.is_none() => opened = Some(answer),
                outcome = &mut committing => break outcome,
            }
        };
        // Without its first message the batch is refused as incomplete; the first one's own answer says why.
        match (outcome, opened) {
            (Err(Refusal::Busy(_)), Some(Ok(Some(error)))) => Err(judged(error, what)),
            (Err(Refusal::Busy(_)), Some(Err(failure @ (Failure::Denied(_) | Failure::TooLarge(_))))) => {
                Err(Refusal::Final(failure.of_write(what)))
            }
            (Err(Refusal::Busy(said)), _) => {
                let health = self.link.health();
                let now = health.borrow();
                let ours = now.denials > denials && now.denial.contains(&format!("\"$KV.{}.", self.names.bucket));
                Err(if ours { Refusal::Final(denied(what, &now.denial)) } else { Refusal::Busy(said) })
            }
            (outcome, _) => outcome,
        }
    }

    fn acknowledged(&self, reply: Result<Bytes, Failure>, what: &str) -> Result<u64, Refusal> {
        let payload = reply.map_err(|failure| Refusal::Final(failure.of_write(what)))?;
        let ack: Ack = serde_json::from_slice(&payload).map_err(|e| {
            Refusal::Final(Error::unknown(format!("{what}: an acknowledgement that makes no sense")).caused_by(e))
        })?;
        match ack {
            Ack { error: Some(error), .. } => Err(judged(error, what)),
            Ack { seq, stream, .. } if seq > 0 && stream == self.names.stream => Ok(seq),
            Ack { stream, .. } => {
                Err(Refusal::Final(Error::unknown(format!("{what}: acknowledged by {stream:?}, not by {}", self.names.stream))))
            }
        }
    }
}

/// What an error number proves. Every number that is not listed leaves the outcome unknown.
fn judged(error: ApiError, what: &str) -> Refusal {
    let ApiError { err_code, description } = error;
    let said = format!("{what}: {description} (NATS error {err_code})");
    match err_code {
        // Wrong last sequence.
        10071 => {
            let found = description.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            Refusal::Wrong { found }
        }
        // In flight; this write itself in flight; not ready; batch incomplete (so never committed); too many batches; too many
        // requests.
        10164 | 10158 | 10163 | 10176 | 10210 | 10167 => Refusal::Busy(said),
        // The id of a message of a batch is known.
        10201 => Refusal::Repeated(said),
        // Stored nothing because the stream is at a limit of its own.
        10077 if description.contains("maximum") => Refusal::Final(Error::unavailable(format!("{said}: the bucket is full"))),
        // Storage or account limits, which an operator can raise; sealed or offline.
        10002 | 10023 | 10028 | 10047 | 10118 | 10122 => Refusal::Final(Error::unavailable(said)),
        // Message or headers too large, TTL, sealed, another stream, roll-up, batch too large or not allowed.
        10054 | 10097 | 10165 | 10166 | 10109 | 10060 | 10111 | 10199 | 10174 | 10193 => Refusal::Final(Error::invalid(said)),
        _ => Refusal::Final(Error::unknown(said)),
    }
}

fn time_to_live(headers: &mut HeaderMap, ttl: Ttl) {
    headers.insert(header::NATS_MESSAGE_TTL, format!("{}s", ttl.as_secs()));
}

fn value(number: &u64) -> HeaderValue {
    HeaderValue::from(*number)
}

/// The key whose fence or expectation a single message was checked against.
pub(super) fn checked_key(op: &Op) -> &Key {
    op.fence.as_ref().map_or(&op.key, |fence| &fence.key)
}
