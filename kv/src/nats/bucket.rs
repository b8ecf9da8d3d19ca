//! The stream behind a bucket: made as coordination needs it, or refused if it is not so.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Options, api, link::Link, names::Names};
use crate::{Error, Result};

/// Older servers wrongly reject batches in which several messages have expectations.
const OLDEST: [u32; 3] = [2, 14, 4];

/// How long one request for a stream's state is waited for before it is sent again.
const PATIENCE: Duration = Duration::from_millis(700);

/// What is known of an open bucket.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) replicas: u16,
    /// When the stream was made: a different answer later means a different stream.
    pub(super) created: String,
    /// Whether more than one server may take part.
    pub(super) clustered: bool,
    /// The sequence of the last write when it was opened.
    pub(super) last: u64,
}

pub(super) async fn open(link: &Link, names: &Names, options: &Options) -> Result<Facts> {
    let server = link.client().server_info();
    new_enough(&server.server_name, &server.version)?;
    let mut info = info(link, names, options).await?;
    if info.is_none() {
        if !options.create {
            return Err(Error::invalid(format!(
                "there is no bucket {}; let it be created with create=true in the URL",
                names.bucket
            )));
        }
        info = create(link, names, options).await?;
    }
    let Some(info) = info else {
        return Err(Error::unavailable(format!("the bucket {} was deleted while it was opened", names.bucket)));
    };
    let config = &info["config"];
    if let Some(version) = config["metadata"]["_nats.ver"].as_str() {
        new_enough(info["cluster"]["leader"].as_str().unwrap_or("that keeps the bucket"), version)?;
    }
    check(names, config, options.replicas)?;
    Ok(facts(link, &info))
}

/// What is known of a stream by what it says of itself.
pub(super) fn facts(link: &Link, info: &Value) -> Facts {
    let server = link.client().server_info();
    let replicas = info["config"]["num_replicas"].as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(1);
    let created = info["created"].as_str().unwrap_or_default().to_owned();
    // A server on its own also says who leads: itself. Behind another leader, be it over a leaf connection, a
    // new subscription takes a while to be known there.
    let leader = info["cluster"]["leader"].as_str();
    let elsewhere = leader.is_some_and(|leader| leader != server.server_name);
    let clustered = replicas > 1 || elsewhere || server.cluster.as_ref().is_some_and(|name| !name.is_empty());
    Facts { replicas, created, clustered, last: last(info) }
}

/// The sequence of the last write, by what a stream says of itself.
pub(super) fn last(info: &Value) -> u64 {
    info["state"]["last_seq"].as_u64().unwrap_or(0)
}

/// The stream's state and configuration, or `None` when there is no such stream.
pub(super) async fn info(link: &Link, names: &Names, options: &Options) -> Result<Option<Value>> {
    let what = format!("opening the bucket {}", names.bucket);
    let call = format!("STREAM.INFO.{}", names.stream);
    let begun = Instant::now();
    loop {
        let left = options.timeout.saturating_sub(begun.elapsed());
        return match api::request(link, &call, None, left.min(PATIENCE), &what).await {
            Ok(Ok(info)) => Ok(Some(info)),
            Ok(Err(error)) if error.err_code == api::STREAM_NOT_FOUND => Ok(None),
            Ok(Err(error)) => Err(error.into_error(&what)),
            // A stream that is just being made does not answer at all.
            Err(error) if error.is_unavailable() && link.is_up() && left > PATIENCE => continue,
            // How long the last of several tries was is of no interest.
            Err(error) if error.is_unavailable() && begun.elapsed() >= options.timeout => Err(Error::unavailable(format!(
                "{what}: no answer from NATS within {:?}; where its leader has just died there will be another in a moment",
                options.timeout
            ))),
            Err(error) => Err(error),
        };
    }
}

async fn create(link: &Link, names: &Names, options: &Options) -> Result<Option<Value>> {
    let what = format!("creating the bucket {}", names.bucket);
    let config = configuration(names, options.replicas.unwrap_or(1));
    match api::request(link, &format!("STREAM.CREATE.{}", names.stream), Some(&config), options.timeout, &what).await? {
        Ok(info) => Ok(Some(info)),
        // Somebody else was faster, with other settings; those are judged like any existing ones.
        Err(error) if error.err_code == api::STREAM_NAME_IN_USE => info(link, names, options).await,
        Err(error) => Err(error.into_error(&what)),
    }
}

fn configuration(names: &Names, replicas: u16) -> Value {
    json!({
        "name": names.stream,
        "description": "Tenure",
        "subjects": [names.everything()],
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msg_size": -1,
        "max_age": 0,
        "max_msgs_per_subject": 1,
        "discard": "new",
        "duplicate_window": 120_000_000_000_u64,
        "allow_direct": true,
        "allow_msg_ttl": true,
        "allow_atomic": true,
        "allow_rollup_hdrs": false,
        "deny_delete": true,
        "deny_purge": true,
        "republish": { "src": names.everything(), "dest": names.republished_everything() },
    })
}

/// How a wrong setting is mended: by flags of `nats stream edit`, or not at all.
pub(super) enum Mend {
    Edit(String),
    Recreate,
}

/// What became of one setting.
pub(super) struct Verdict {
    pub(super) setting: &'static str,
    pub(super) fits: bool,
    found: Value,
    needed: Value,
    pub(super) mend: Mend,
}

impl Verdict {
    pub(super) fn says(&self) -> String {
        let shown = |value: &Value| if value.is_null() { "unset".to_owned() } else { value.to_string() };
        if self.fits {
            format!("{} is {}", self.setting, shown(&self.needed))
        } else {
            format!("{} is {}, must be {}", self.setting, self.found, shown(&self.needed))
        }
    }
}

struct Rule {
    setting: &'static str,
    needed: Value,
    mend: Mend,
}

fn rules(names: &Names, replicas: Option<u16>) -> Vec<Rule> {
    let edit = |setting, needed: Value, flags: &str| Rule { setting, needed, mend: Mend::Edit(flags.to_owned()) };
    let fixed = |setting, needed: Value| Rule { setting, needed, mend: Mend::Recreate };
    let (all, republished) = (names.everything(), names.republished_everything());
    let mut rules = vec![
        fixed("storage", json!("file")),
        fixed("retention", json!("limits")),
        fixed("persist_mode", Value::Null),
        fixed("sealed", Value::Null),
        fixed("mirror", Value::Null),
        fixed("sources", Value::Null),
        fixed("allow_msg_counter", Value::Null),
        fixed("allow_msg_schedules", Value::Null),
        edit("subjects", json!([all]), &format!("--subjects='{all}'")),
        edit("max_msgs_per_subject", json!(1), "--max-msgs-per-subject=1"),
        edit("max_age", Value::Null, "--max-age=0s"),
        edit("max_msg_size", json!(-1), "--max-msg-size=-1"),
        edit("discard", json!("new"), "--discard=new"),
        edit("discard_new_per_subject", Value::Null, "--no-discard-per-subject"),
        edit("duplicate_window", json!(120_000_000_000_u64), "--dupe-window=2m"),
        edit("no_ack", Value::Null, "--ack"),
        edit("allow_direct", json!(true), "--allow-direct"),
        edit("allow_msg_ttl", json!(true), "--allow-msg-ttl"),
        edit("subject_delete_marker_ttl", Value::Null, "--subject-del-markers-ttl=0s"),
        edit("allow_atomic", json!(true), "--allow-batch"),
        edit("allow_rollup_hdrs", Value::Null, "--no-allow-rollup"),
        edit("deny_delete", json!(true), "--deny-delete"),
        edit("deny_purge", json!(true), "--deny-purge"),
        edit("subject_transform", Value::Null, "--no-transform"),
        edit(
            "republish",
            json!({ "src": all, "dest": republished }),
            &format!("--republish-source='{all}' --republish-destination='{republished}'"),
        ),
    ];
    if let Some(count) = replicas {
        rules.push(edit("num_replicas", json!(count), &format!("--replicas={count}")));
    }
    rules
}

/// Every setting that a promise rests on.
pub(super) fn judge(names: &Names, config: &Value, replicas: Option<u16>) -> Vec<Verdict> {
    let judged = rules(names, replicas).into_iter().map(|Rule { setting, needed, mend }| {
        let found = config[setting].clone();
        Verdict { setting, fits: plain(&found) == needed, found, needed, mend }
    });
    judged.collect()
}

/// Refuses a stream whose settings would break a promise.
fn check(names: &Names, config: &Value, replicas: Option<u16>) -> Result<()> {
    let mut wrong = Vec::new();
    let mut flags = String::new();
    let mut lost = false;
    for verdict in judge(names, config, replicas).into_iter().filter(|verdict| !verdict.fits) {
        wrong.push(verdict.says());
        match verdict.mend {
            Mend::Edit(flag) => {
                flags.push(' ');
                flags.push_str(&flag);
            }
            Mend::Recreate => lost = true,
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let stream = &names.stream;
    let mend = if lost {
        format!(
            "that cannot be changed: save what you need, remove it with `nats stream rm {stream}`, and open it again to create it anew"
        )
    } else {
        format!("mend it with `nats stream edit {stream}{flags}`")
    };
    Err(Error::invalid(format!("the bucket {} is not fit for coordination: {}; {mend}", names.bucket, wrong.join("; "))))
}

/// A setting with every way to say "unset" made null.
fn plain(value: &Value) -> Value {
    match value {
        Value::Bool(false) => Value::Null,
        Value::Number(n) if n.as_u64() == Some(0) => Value::Null,
        Value::String(text) if text.is_empty() || text == "default" => Value::Null,
        Value::Array(items) if items.is_empty() => Value::Null,
        other => other.clone(),
    }
}

pub(super) fn new_enough(server: &str, version: &str) -> Result<()> {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let found = [numbers.next(), numbers.next(), numbers.next()].map(|n| n.unwrap_or(0));
    if found < OLDEST {
        return Err(Error::invalid(format!(
            "the NATS server {server} is version {version}; Tenure needs 2.14.4, better 2.15: upgrade it"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused() {
        for good in ["2.14.4", "2.15.0", "2.15.0-RC.1", "3.0.0"] {
            assert!(new_enough("s", good).is_ok(), "{good}");
        }
        for bad in ["2.14.3", "2.9.10", "1.4.0", "", "x"] {
            assert!(new_enough("s", bad).unwrap_err().is_invalid(), "{bad}");
        }
    }

    #[test]
    fn every_wrong_setting_is_named_with_one_command() {
        let names = Names::new("b");
        let mut config = configuration(&names, 1);
        assert!(check(&names, &config, None).is_ok());
        config["max_msgs_per_subject"] = json!(5);
        config["allow_rollup_hdrs"] = json!(true);
        let said = check(&names, &config, Some(3)).unwrap_err().to_string();
        for part in [
            "max_msgs_per_subject is 5, must be 1",
            "allow_rollup_hdrs is true, must be unset",
            "nats stream edit KV_b --max-msgs-per-subject=1 --no-allow-rollup --replicas=3",
        ] {
            assert!(said.contains(part), "{said}");
        }
        config["storage"] = json!("memory");
        assert!(check(&names, &config, None).unwrap_err().to_string().contains("nats stream rm KV_b"));
    }
}
