//! An ordinary bucket beside the one for coordination, over the same connection: read and written as any NATS key-value
//! client would, whatever its settings.

use std::{collections::HashSet, fmt, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;

use super::{Inner, bucket, consumer::Start, names::Names, target::bucket_name, walk::Most, watch};
use crate::{Beside, Bucket, Change, Entry, Error, Event, Expect, Info, Key, KeyRange, Op, Result, Revision, Since};

/// What the settings of a bucket allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traits {
    /// Direct gets.
    pub(super) direct: bool,
    /// A purge that takes what was before with it.
    pub(super) rollup: bool,
    /// A TTL of one message.
    ttl: bool,
    /// Older writes to a key are kept, too.
    past: bool,
    /// How long the markers of removed values stay, in seconds; 0 for no markers.
    markers: u64,
}

/// Opens the bucket `name` over the connection of `store`.
pub(super) async fn open(store: &Arc<Inner>, name: &str) -> Result<Beside> {
    let name = bucket_name(name)?;
    if name == store.names.bucket {
        return Err(Error::invalid(format!("{name} is the coordination bucket itself; leave bucket out for the values in it")));
    }
    let names = Names::new(&name);
    let Some(info) = bucket::info(&store.link, &names, &store.options).await? else {
        return Ok(Beside::Missing(format!("there is no bucket {name}; make it with `nats kv add {name}`")));
    };
    let plain = Some(judge(&names, &info["config"])?);
    let facts = bucket::facts(&store.link, &info);
    let server = store.info.url.rsplit_once('/').map_or("", |(server, _)| server);
    let info = Info { url: format!("{server}/{name}"), shared: true, replicas: facts.replicas };
    let (link, replies, options) = (store.link.clone(), store.replies.clone(), store.options.clone());
    Ok(Beside::There(Arc::new(Plain(Arc::new(Inner::new(link, replies, names, options, facts, info, plain))))))
}

/// What can be done with the bucket, or why nothing.
fn judge(names: &Names, config: &Value) -> Result<Traits> {
    let Names { bucket, stream, .. } = names;
    if let Some(origin) = config["mirror"]["name"].as_str() {
        let origin = origin.strip_prefix("KV_").unwrap_or(origin);
        return Err(Error::invalid(format!("the bucket {bucket} is a mirror; use the one that it copies, {origin}")));
    }
    let mut subjects = config["subjects"].as_array().into_iter().flatten();
    if !subjects.any(|subject| subject.as_str() == Some(&names.everything())) {
        return Err(Error::invalid(format!(
            "the stream {stream} is no key-value bucket: it does not take {}",
            names.everything()
        )));
    }
    if config["republish"]["dest"].as_str() == Some(&names.republished_everything()) {
        return Err(Error::invalid(format!(
            "the bucket {bucket} is one that Tenure coordinates in; its records are not for kv: use a bucket of your own"
        )));
    }
    let is = |setting: &str| config[setting].as_bool() == Some(true);
    Ok(Traits {
        direct: is("allow_direct"),
        rollup: is("allow_rollup_hdrs"),
        ttl: is("allow_msg_ttl"),
        past: config["max_msgs_per_subject"].as_i64() != Some(1),
        markers: config["subject_delete_marker_ttl"].as_u64().unwrap_or_default().div_ceil(1_000_000_000),
    })
}

impl Traits {
    /// `op` as this bucket can take it.
    fn adapt(self, names: &Names, mut op: Op) -> Result<Op> {
        if op.fence.is_some() {
            return Err(Error::invalid("a fence works in the coordination bucket only"));
        }
        let Names { bucket, stream, .. } = names;
        match &mut op.change {
            Change::Put(_, Some(_)) if !self.ttl => Err(Error::invalid(format!(
                "the bucket {bucket} takes no ttl for single values; allow it with `nats stream edit {stream} --allow-msg-ttl`"
            ))),
            // What was there before would be the latest again.
            Change::Put(_, Some(_)) if self.past && op.expect != Expect::Absent => Err(Error::invalid(format!(
                "the bucket {bucket} keeps older values, which would come back once a ttl is over: create the key with it, \
                 or use a bucket with a history of 1"
            ))),
            // The server makes a shorter one as long as that, and says nothing.
            Change::Put(_, Some(ttl)) if self.past && u64::from(ttl.as_secs()) < self.markers => Err(Error::invalid(format!(
                "the bucket {bucket} keeps older values, and its limit markers for {markers} s, so no ttl in it is shorter: use \
                 {markers} s or more, or a bucket with a history of 1",
                markers = self.markers
            ))),
            Change::Put(..) => Ok(op),
            // Nor may a value come back when its tombstone is forgotten.
            Change::Purge { .. } if self.ttl && self.rollup => Ok(op),
            Change::Delete { marker, .. } | Change::Purge { marker } => {
                *marker = None;
                Ok(op)
            }
        }
    }
}

struct Plain(Arc<Inner>);

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").field("info", &self.0.info).field("can", &self.0.plain).finish_non_exhaustive()
    }
}

#[async_trait]
impl Bucket for Plain {
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        self.0.entry(key).await
    }

    async fn entry_at(&self, key: &Key, revision: Revision) -> Result<Option<Entry>> {
        match &self.0.own {
            Some(own) => own.entry_at(self.0.reader(), key, revision).await,
            None => self.0.reader().entry_at(key, revision).await,
        }
    }

    async fn history(&self, key: &Key, most: usize) -> Result<Vec<Entry>> {
        let most = Most { bytes: most, ..Most::ALL };
        self.0.reader().walk(&self.0.names.subject(key), Start::All, most).await
    }

    async fn keys(&self, range: &KeyRange) -> Result<Vec<Key>> {
        let found = self.0.reader().walk(&self.0.names.filter(range), Start::Names, Most::ALL).await?;
        let mut keys = HashSet::with_capacity(found.len());
        // A key that was written meanwhile comes twice.
        for entry in found {
            if entry.is_live() {
                keys.insert(entry.key);
            } else {
                keys.remove(&entry.key);
            }
        }
        Ok(keys.into_iter().collect())
    }

    async fn write(&self, op: Op) -> Result<Revision> {
        let store = &self.0;
        let op = match &store.plain {
            Some(traits) => traits.adapt(&store.names, op)?,
            None => op,
        };
        store.check_server()?;
        store.commit(&op.into()).await
    }

    async fn watch(&self, range: KeyRange, since: Since) -> Result<BoxStream<'static, Result<Event>>> {
        watch::watch(&self.0, range, since).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Ttl;

    fn config() -> Value {
        json!({ "subjects": ["$KV.b.>"], "max_msgs_per_subject": 1, "allow_direct": true, "allow_rollup_hdrs": true })
    }

    fn with(setting: &str, value: Value) -> Value {
        let mut config = config();
        config[setting] = value;
        config
    }

    #[test]
    fn what_is_no_ordinary_bucket_is_refused_with_the_reason() {
        let names = Names::new("b");
        let traits = judge(&names, &config()).unwrap();
        assert_eq!(traits, Traits { direct: true, rollup: true, ttl: false, past: false, markers: 0 });
        assert!(judge(&names, &with("max_msgs_per_subject", json!(-1))).unwrap().past);
        assert_eq!(judge(&names, &with("subject_delete_marker_ttl", json!(60_000_000_000_u64))).unwrap().markers, 60);
        for (setting, value, word) in [
            ("mirror", json!({ "name": "KV_a" }), "copies, a"),
            ("subjects", json!(["$KV.c.>"]), "no key-value bucket"),
            ("republish", json!({ "src": "$KV.b.>", "dest": "$TENURE.b.>" }), "Tenure"),
        ] {
            let said = judge(&names, &with(setting, value)).unwrap_err();
            assert!(said.is_invalid() && said.to_string().contains(word), "{said}");
        }
    }

    #[test]
    fn no_ttl_lets_an_older_value_come_back() {
        let names = Names::new("b");
        let key = || Key::new("k").unwrap();
        let all = Traits { direct: true, rollup: true, ttl: true, past: true, markers: 0 };
        let marker = |traits: Traits, op: Op| match traits.adapt(&names, op.ttl(Ttl::MIN)).unwrap().change {
            Change::Delete { marker, .. } | Change::Purge { marker } => marker,
            Change::Put(_, ttl) => ttl,
        };
        assert_eq!(marker(all, Op::delete(key())), None);
        assert_eq!(marker(all, Op::purge(key())), Some(Ttl::MIN));
        assert_eq!(marker(Traits { rollup: false, ..all }, Op::purge(key())), None);
        assert_eq!(marker(Traits { ttl: false, ..all }, Op::purge(key())), None);
        assert_eq!(marker(all, Op::put(key(), "x").if_absent()), Some(Ttl::MIN));
        let put = || Op::put(key(), "x").ttl(Ttl::MIN);
        assert!(all.adapt(&names, put()).unwrap_err().to_string().contains("history of 1"));
        assert!(Traits { past: false, ..all }.adapt(&names, put()).is_ok());
        let refused = Traits { ttl: false, ..all }.adapt(&names, put().if_absent()).unwrap_err().to_string();
        assert!(refused.contains("nats stream edit KV_b --allow-msg-ttl"), "{refused}");
        let marked = Traits { markers: 60, ..all };
        let create = |seconds| Op::put(key(), "x").if_absent().ttl(Ttl::from_secs(seconds).unwrap());
        assert!(marked.adapt(&names, create(59)).unwrap_err().to_string().contains("use 60 s or more"));
        assert!(marked.adapt(&names, create(60)).is_ok() && marked.adapt(&names, Op::purge(key()).ttl(Ttl::MIN)).is_ok());
        assert!(Traits { past: false, ..marked }.adapt(&names, create(1)).is_ok());
        assert!(all.adapt(&names, Op::put(key(), "x").fenced(Key::new("f").unwrap(), Revision::ZERO)).is_err());
    }
}
