//! An ephemeral push consumer: made, listened to, deleted on drop.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{HeaderName, Message, Subscriber, header};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    api,
    link::{Failure, Link},
    names::{Names, number, state},
};
use crate::{Entry, Error, Result, Revision};

/// How often an idle consumer says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A consumer that was silent for so long is gone or cut off.
pub(super) const SILENCE: Duration = Duration::from_millis(3_500);
/// How long it is waited for an answer before another one is asked for.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the server keeps of a consumer that nobody listens to and nobody could delete.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The latest message of every subject, then whatever comes.
    Latest,
    /// From this sequence.
    At(u64),
    /// Every message there is, then whatever comes.
    All,
    /// As `Latest`, but of values nothing.
    Names,
    /// Whatever comes.
    New,
}

#[derive(Debug)]
pub(super) struct Consumer {
    client: async_nats::Client,
    delete: String,
    messages: Subscriber,
    /// How many messages there were to deliver when it was made.
    pub(super) pending: u64,
    /// The stream's last sequence that it will not deliver any more.
    pub(super) position: u64,
    heard: u64,
}

/// What a consumer delivers.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A message; `None` when its subject is no key. `pending` more are waiting.
    Stored { entry: Option<Entry>, sequence: u64, pending: u64 },
    /// Everything that matches up to this sequence has been delivered.
    Idle { position: u64 },
    /// Nothing to tell.
    Nothing,
    /// Something was lost, or the consumer is gone.
    Broken,
    /// The client is closed for good.
    Closed,
}

impl Consumer {
    /// Makes one, within `limit`.
    ///
    /// In a cluster it may fall to a server that has just been started and does not know of it yet. Then nobody answers, and
    /// the next one may fall to another.
    pub(super) async fn create(link: &Link, names: &Names, filter: &str, start: Start, limit: Duration) -> Result<Self> {
        let begun = Instant::now();
        loop {
            let (sent, left) = (Instant::now(), limit.saturating_sub(begun.elapsed()));
            let outcome = Self::attempt(link, names, filter, start, left.min(PATIENCE)).await;
            let unanswered = outcome.as_ref().is_err_and(|error| error.is_unavailable() && sent.elapsed() >= PATIENCE);
            if !(unanswered && link.is_up() && left > PATIENCE) {
                return outcome;
            }
        }
    }

    async fn attempt(link: &Link, names: &Names, filter: &str, start: Start, limit: Duration) -> Result<Self> {
        let what = format!("watching {filter}");
        let client = link.client().clone();
        let inbox = client.new_inbox();
        let name = uuid::Uuid::new_v4().simple().to_string();
        let mut config = json!({
            "name": name,
            "deliver_subject": inbox,
            "filter_subject": filter,
            "ack_policy": "none",
            "replay_policy": "instant",
            "flow_control": true,
            "idle_heartbeat": nanos(HEARTBEAT),
            "inactive_threshold": nanos(FORGOTTEN),
            "num_replicas": 1,
            "mem_storage": true,
        });
        match start {
            Start::Latest => config["deliver_policy"] = "last_per_subject".into(),
            Start::All => config["deliver_policy"] = "all".into(),
            Start::Names => {
                config["deliver_policy"] = "last_per_subject".into();
                config["headers_only"] = true.into();
            }
            Start::New => config["deliver_policy"] = "new".into(),
            Start::At(sequence) => {
                config["deliver_policy"] = "by_start_sequence".into();
                config["opt_start_seq"] = sequence.into();
            }
        }
        let messages = client.subscribe(inbox).await.map_err(|e| Failure::Other(e.to_string()).of_read(&what))?;
        // From here on the consumer may exist, whatever we hear, so it is deleted on every way out.
        let mut consumer = Self {
            client,
            delete: format!("$JS.API.CONSUMER.DELETE.{}.{name}", names.stream),
            messages,
            pending: 0,
            position: 0,
            heard: 0,
        };
        let request = json!({ "stream_name": names.stream, "config": config, "action": "create" });
        let call = format!("CONSUMER.CREATE.{}.{name}.{filter}", names.stream);
        let info = match api::request(link, &call, Some(&request), limit, &what).await? {
            Ok(info) => info,
            Err(error) if error.err_code == api::TOO_MANY_CONSUMERS => {
                return Err(Error::unavailable(format!(
                    "{what}: the stream {} has as many consumers as it may have; end some watches",
                    names.stream
                )));
            }
            Err(error) => return Err(error.into_error(&what)),
        };
        let field = |value: &Value| value.as_u64().unwrap_or(0);
        consumer.pending = field(&info["num_pending"]);
        consumer.position = field(&info["delivered"]["stream_seq"]);
        Ok(consumer)
    }

    /// The next delivery.
    ///
    /// # Cancel safety
    /// Safe to drop: nothing is taken and forgotten.
    pub(super) async fn next(&mut self, names: &Names) -> Delivery {
        let Some(message) = self.messages.next().await else { return Delivery::Closed };
        match message.status.map(|status| status.as_u16()) {
            None => self.stored(&message, names),
            Some(100) => self.control(&message),
            Some(_) => Delivery::Broken,
        }
    }

    fn stored(&mut self, message: &Message, names: &Names) -> Delivery {
        let Some(place) = message.reply.as_ref().and_then(|reply| Place::parse(reply)) else { return Delivery::Broken };
        self.heard += 1;
        if place.delivered != self.heard {
            return Delivery::Broken;
        }
        let entry = names.key(&message.subject).map(|key| Entry {
            key,
            revision: Revision::new(place.sequence),
            state: state(message),
            created: place.created,
        });
        Delivery::Stored { entry, sequence: place.sequence, pending: place.pending }
    }

    /// Answers what keeps the flow going, and compares the server's count with ours.
    fn control(&self, message: &Message) -> Delivery {
        let headers = message.headers.as_ref();
        // It was held up for a heartbeat or longer. What came to be and was forgotten meanwhile, a tombstone
        // for one, will not be delivered any more, and no count shows it.
        if headers.is_some_and(|headers| headers.get(STALLED).is_some()) {
            return Delivery::Broken;
        }
        if let Some(subject) = &message.reply {
            self.send(subject.to_string());
            return Delivery::Nothing;
        }
        let count = |name| headers.and_then(|headers| number(headers, name));
        match (count(header::NATS_LAST_CONSUMER), count(header::NATS_LAST_STREAM)) {
            (Some(delivered), Some(position)) if delivered == self.heard => Delivery::Idle { position },
            _ => Delivery::Broken,
        }
    }

    /// Sends without waiting: both uses are made up for by the server's own clocks when the queue is full.
    fn send(&self, subject: String) {
        let _ = self.client.publish(subject, Bytes::new()).now_or_never();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.send(self.delete.clone());
    }
}

const STALLED: HeaderName = HeaderName::from_static("Nats-Consumer-Stalled");

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A message's place, as its reply subject tells it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    sequence: u64,
    delivered: u64,
    created: SystemTime,
    pending: u64,
}

impl Place {
    /// `$JS.ACK.[domain.account.]stream.consumer.deliveries.sequence.delivered.time.pending[.random]`
    fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let numbers = match tokens.len() {
            7 => &tokens[3..],
            9.. => &tokens[5..],
            _ => return None,
        };
        let at = |i: usize| numbers.get(i)?.parse::<u64>().ok();
        Some(Self { sequence: at(0)?, delivered: at(1)?, created: UNIX_EPOCH + Duration::from_nanos(at(2)?), pending: at(3)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_both_forms_of_reply_subjects() {
        let place = Place { sequence: 42, delivered: 7, created: UNIX_EPOCH + Duration::from_nanos(5), pending: 3 };
        assert_eq!(Place::parse("$JS.ACK.KV_b.c.1.42.7.5.3").as_ref(), Some(&place));
        assert_eq!(Place::parse("$JS.ACK._.hash.KV_b.c.1.42.7.5.3").as_ref(), Some(&place));
        assert_eq!(Place::parse("$JS.ACK.hub.hash.KV_b.c.1.42.7.5.3.xyz").as_ref(), Some(&place));
        for bad in ["", "x", "$JS.ACK.KV_b.c.1.42", "$JS.ACK.KV_b.c.1.x.7.5.3"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }
}
