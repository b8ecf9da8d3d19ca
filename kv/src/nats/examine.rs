//! A look at a bucket, its servers and this user, by what opening and using it would do.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Options, api, bucket,
    consumer::{Consumer, Start},
    link::{Failure, Link},
    names::Names,
    target::Target,
    write::{Refusal, Writer},
};
use crate::{
    Error, Finding, Key, Result,
    examine::timing::{ROUNDS, judged},
};

/// How long one answer is waited for.
const LIMIT: Duration = Duration::from_secs(2);
/// How long a refusal to subscribe may take to come.
const REFUSAL: Duration = Duration::from_millis(300);
/// A limit that is used up so far will soon be reached.
const MUCH: u64 = 80;
/// Servers that keep a copy tell each other of themselves every second.
const SILENT: Duration = Duration::from_secs(5);

/// Says so where the server `name` is not there. One that died is called current for seconds more, and offline only after
/// minutes; and a leader that has never heard of it since it leads tells nothing else.
fn out_of_reach(name: &str, peer: &Value) -> Option<String> {
    if peer["offline"].as_bool() == Some(true) {
        return Some(format!("the copy on {name} is offline"));
    }
    let silent = Duration::from_nanos(peer["active"].as_u64()?);
    if silent.is_zero() && peer["current"].as_bool() != Some(true) {
        return Some(format!("the copy on {name} is out of reach: the leader has not heard of its server yet"));
    }
    let says = || format!("the copy on {name} is out of reach: its server was last heard of {} s ago", silent.as_secs());
    (silent >= SILENT).then(says)
}

/// As [`crate::examine`].
pub(crate) async fn examine(url: &str, lease: Duration) -> Result<Vec<Finding>> {
    let target = Target::parse(url)?;
    let names = Names::new(&target.bucket);
    let options = Options { timeout: LIMIT, ..target.options };
    let link = match Link::connect(&target).await {
        Ok(link) => link,
        Err(error) => return Ok(vec![split("connection", &error)]),
    };
    let server = link.client().server_info();
    let mut findings =
        vec![Finding::ok("connection", format!("connected to the server {} at {}", server.server_name, target.shown))];
    findings.push(match bucket::new_enough(&server.server_name, &server.version) {
        Ok(()) => Finding::ok("version", format!("the server is version {}; 2.14.4 is the least", server.version)),
        Err(error) => split("version", &error),
    });
    let account = account(&link).await;
    let without_jetstream = account.iter().any(|finding| finding.check == "jetstream" && finding.level == crate::Level::Critical);
    findings.extend(account);
    if without_jetstream {
        return Ok(findings);
    }
    match bucket::info(&link, &names, &options).await {
        Ok(Some(info)) => findings.extend(of_stream(&names, &info, options.replicas)),
        Ok(None) => {
            let says = format!("there is no bucket {}", names.bucket);
            findings.push(
                Finding::critical("bucket", says).mend("it is created by who opens it first, such as `tenured --store URL`"),
            );
            return Ok(findings);
        }
        Err(error) => {
            findings.push(Finding::critical("bucket", error.to_string()));
            return Ok(findings);
        }
    }
    findings.extend(use_of(&link, &names, lease).await);
    findings.push(Finding::ok("clock", "no clock of servers or clients is compared with another's, so none needs to be set"));
    findings.push(
        Finding::unseen("sync_interval", "how often servers sync to disk is not told to clients; unless always, a power cut of most servers at once loses acknowledged writes")
            .mend("look for `sync_interval: always` in the jetstream block of every server's configuration"),
    );
    Ok(findings)
}

/// What opening the bucket would fail with: what is wrong, and after it how to mend it.
fn split(check: &str, error: &Error) -> Finding {
    let text = error.to_string();
    match text.rsplit_once("; ").or_else(|| text.rsplit_once(": ")) {
        Some((says, mend)) => Finding::critical(check, says).mend(mend),
        None => Finding::critical(check, text),
    }
}

async fn account(link: &Link) -> Vec<Finding> {
    let denials = link.health().borrow().denials;
    let info = match api::request(link, "INFO", None, LIMIT, "looking at the account").await {
        Ok(Ok(info)) => info,
        Ok(Err(error)) => return vec![split("jetstream", &error.into_error("looking at the account"))],
        Err(_) if link.health().borrow().denials > denials => {
            let says = "this user may not see the limits of its account";
            return vec![Finding::unseen("account", says).mend("look at them with `nats account info` as another user")];
        }
        Err(error) => return vec![split("jetstream", &error)],
    };
    let mut findings = vec![Finding::ok("jetstream", "JetStream is enabled for this account")];
    for (what, used, limit) in [
        ("storage", &info["storage"], &info["limits"]["max_storage"]),
        ("streams", &info["streams"], &info["limits"]["max_streams"]),
        ("consumers", &info["consumers"], &info["limits"]["max_consumers"]),
    ] {
        if let (Some(used), Some(limit)) = (used.as_u64(), limit.as_u64().filter(|limit| *limit > 0)) {
            let says = format!("the account uses {used} of {limit} allowed ({what})");
            findings.push(if used.saturating_mul(100) >= limit.saturating_mul(MUCH) {
                Finding::warning("account", says).mend("raise the account's limit: at it new watches or writes are refused")
            } else {
                Finding::ok("account", says)
            });
        }
    }
    findings
}

fn of_stream(names: &Names, info: &Value, replicas: Option<u16>) -> Vec<Finding> {
    let config = &info["config"];
    let stream = &names.stream;
    let mut findings = Vec::new();
    if let Some(version) = config["metadata"]["_nats.ver"].as_str()
        && let Err(error) = bucket::new_enough(info["cluster"]["leader"].as_str().unwrap_or("that keeps the bucket"), version)
    {
        findings.push(split("version", &error));
    }
    for verdict in bucket::judge(names, config, replicas) {
        let says = verdict.says();
        findings.push(match (verdict.fits, &verdict.mend) {
            (true, _) => Finding::ok(verdict.setting, says),
            (false, bucket::Mend::Edit(flag)) => {
                Finding::critical(verdict.setting, says).mend(format!("nats stream edit {stream} {flag}"))
            }
            (false, bucket::Mend::Recreate) => Finding::critical(verdict.setting, says)
                .mend(format!("it cannot be changed: save what you need, `nats stream rm {stream}`, and open it again")),
        });
    }
    let count = config["num_replicas"].as_u64().unwrap_or(1);
    findings.push(if count >= 3 {
        Finding::ok("replicas", format!("{count} servers keep a copy"))
    } else {
        let copies = if count == 1 {
            "one server keeps the only copy".to_owned()
        } else {
            format!("{count} servers keep a copy, and both are needed to write")
        };
        Finding::warning("replicas", format!("{copies}: its end is that of every lock"))
            .mend(format!("nats stream edit {stream} --replicas=3, in a cluster of three or more"))
    });
    let cluster = &info["cluster"];
    if count > 1 && cluster["leader"].as_str().is_none_or(str::is_empty) {
        findings.push(
            Finding::critical("leader", "the bucket has no leader: nothing can be written")
                .mend("bring most of its servers back"),
        );
    }
    for peer in cluster["replicas"].as_array().into_iter().flatten() {
        let name = peer["name"].as_str().unwrap_or("?");
        findings.push(if let Some(says) = out_of_reach(name, peer) {
            Finding::critical("replica", says)
                .mend(format!("bring the server {name} back, and where it is up and reaches the others start it anew"))
        } else if peer["current"].as_bool() == Some(true) {
            Finding::ok("replica", format!("the copy on {name} is current"))
        } else {
            let lag = peer["lag"].as_u64().unwrap_or(0);
            Finding::warning("replica", format!("the copy on {name} is {lag} writes behind"))
                .mend("wait until it has caught up before another server is taken down")
        });
    }
    for (what, used, limit) in
        [("bytes", &info["state"]["bytes"], &config["max_bytes"]), ("messages", &info["state"]["messages"], &config["max_msgs"])]
    {
        if let (Some(used), Some(limit)) = (used.as_u64(), limit.as_u64().filter(|limit| *limit > 0)) {
            let flag = if what == "bytes" { "--max-bytes" } else { "--max-msgs" };
            let says = format!("the bucket has {used} of {limit} {what} allowed");
            findings.push(if used.saturating_mul(100) >= limit.saturating_mul(MUCH) {
                Finding::critical("room", says + ": once it is full, locks cannot be renewed")
                    .mend(format!("nats stream edit {stream} {flag}=-1"))
            } else {
                Finding::ok("room", says)
            });
        }
    }
    findings
}

/// What this user may do, and how long it takes.
async fn use_of(link: &Link, names: &Names, lease: Duration) -> Vec<Finding> {
    let mut refused = Vec::new();
    let mut findings = Vec::new();
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    if let Ok(key) = Key::new("meta.epoch") {
        let subject = format!("$JS.API.DIRECT.GET.{}.{}", names.stream, names.subject(&key));
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            match link.ask(&subject, None, Bytes::new(), LIMIT).await {
                Ok(_) => reads.push(begun.elapsed()),
                Err(failure) => {
                    findings.extend(failed("read", failure, &mut refused));
                    break;
                }
            }
        }
    }
    let request = json!({ "multi_last": [names.everything()], "batch": 1 });
    let several = format!("$JS.API.DIRECT.GET.{}", names.stream);
    if let Err(failure) = link.ask(&several, None, Bytes::from(request.to_string()), LIMIT).await {
        findings.extend(failed("read several", failure, &mut refused));
    }
    let writer = Writer { link, names, timeout: LIMIT, plain: false, roll_up: false };
    for _ in 0..ROUNDS {
        let (begun, denials) = (Instant::now(), link.health().borrow().denials);
        match writer.probe().await {
            Ok(()) => writes.push(begun.elapsed()),
            Err(_) if link.health().borrow().denials > denials => {
                refused.push("write");
                break;
            }
            Err(refusal) => {
                let said = match refusal {
                    Refusal::Final(error) => error.to_string(),
                    Refusal::Busy(said) | Refusal::Repeated(said) => said,
                    Refusal::Wrong { .. } => "a write that expects nothing was refused".to_owned(),
                };
                findings.push(Finding::critical("write", said));
                break;
            }
        }
    }
    if Consumer::create(link, names, &names.everything(), Start::New, LIMIT).await.is_err() {
        refused.push("watch");
    }
    let followed = names.republished_everything();
    let subscribed = async {
        let client = link.client();
        let _heard = client.subscribe(followed.clone()).await.map_err(|error| Failure::Other(error.to_string()))?;
        std::future::pending::<Result<(), Failure>>().await
    };
    if let Err(failure @ Failure::Denied(_)) = link.unless_it_fails(&followed, REFUSAL, subscribed).await {
        findings.extend(failed("follow", failure, &mut refused));
    }
    findings.push(if refused.is_empty() {
        Finding::ok("permissions", "this user may read, write, watch and follow the bucket")
    } else {
        let says = format!("this user is refused to {}", refused.join(", to "));
        Finding::warning("permissions", says)
            .mend("unless that is meant so, grant what `tenure permissions --role ROLE --store URL` prints")
    });
    findings.extend(judged("read", reads, lease));
    findings.extend(judged("write", writes, lease));
    findings
}

fn failed(verb: &'static str, failure: Failure, refused: &mut Vec<&'static str>) -> Option<Finding> {
    match failure {
        Failure::Denied(_) => {
            refused.push(verb);
            None
        }
        other => Some(Finding::critical("read", other.of_read(&format!("a try to {verb}")).to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    #[test]
    fn a_server_that_is_not_heard_of_is_gone_whatever_else_is_said_of_it() {
        let level = |peer: Value| {
            let info = json!({ "config": { "num_replicas": 3 }, "cluster": { "leader": "a", "replicas": [peer] } });
            let findings = of_stream(&Names::new("b"), &info, None);
            let finding = findings.iter().find(|finding| finding.check == "replica").unwrap();
            (finding.level, finding.says.clone())
        };
        let second = 1_000_000_000_u64;
        for (peer, expected, says) in [
            (json!({ "name": "b", "current": true, "active": second }), Level::Ok, "current"),
            (json!({ "name": "b", "current": false, "active": second, "lag": 7 }), Level::Warning, "7 writes behind"),
            (json!({ "name": "b", "current": true, "active": 9 * second }), Level::Critical, "9 s ago"),
            (json!({ "name": "b", "current": false, "active": 17 * second }), Level::Critical, "17 s ago"),
            (json!({ "name": "b", "current": false, "active": 0, "lag": 227 }), Level::Critical, "not heard of"),
            (json!({ "name": "b", "current": false, "offline": true }), Level::Critical, "offline"),
        ] {
            let (found, said) = level(peer.clone());
            assert!(found == expected && said.contains(says), "{peer}: {said}");
        }
    }
}
