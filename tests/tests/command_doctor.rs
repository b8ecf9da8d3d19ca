//! `tenure doctor --store nats://…` and `tenure permissions`: what is wrong with a bucket is found and mended.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod sidecar_support;

use std::process::Command;

use serde_json::{Value, json};
use sidecar_support::{settle, soon};
use tenure::Role;
use tenure_tests::{NatsCluster, NatsServer, unique_bucket};

fn tenure(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_test-tenure")).args(arguments).env_remove("TENURE_SOCKET").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Exit code and findings.
async fn doctor(url: &str) -> (i32, Vec<Value>) {
    let url = url.to_owned();
    let (code, out, errors) =
        tokio::task::spawn_blocking(move || tenure(&["doctor", "--store", &url, "--format", "json"])).await.unwrap();
    assert_eq!(errors, "");
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}")))
}

fn of<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check} in {findings:?}"))
}

fn levels(findings: &[Value], level: &str) -> Vec<String> {
    let those = findings.iter().filter(|finding| finding["level"] == level);
    those.map(|finding| finding["check"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_bucket_on_one_server_has_one_warning() {
    let url = NatsServer::shared().await.url(&unique_bucket("doctor"));
    settle(&url).await;
    let (code, findings) = doctor(&url).await;
    assert_eq!(code, 0, "{findings:?}");
    assert!(levels(&findings, "critical").is_empty(), "{findings:?}");
    assert_eq!(of(&findings, "replicas")["level"], "warning");
    assert_eq!(of(&findings, "sync_interval")["level"], "unseen");
    for check in [
        "connection",
        "version",
        "jetstream",
        "max_msgs_per_subject",
        "allow_msg_ttl",
        "allow_atomic",
        "allow_direct",
        "permissions",
    ] {
        assert_eq!(of(&findings, check)["level"], "ok", "{findings:?}");
    }
    for check in ["read", "write"] {
        assert!(of(&findings, check)["measured_ms"][format!("{check}_p99")].as_f64().unwrap() > 0.0);
    }
    let (code, line, _) = tenure(&["doctor", "--store", &url, "--format", "nagios"]);
    assert!(code == 1 && line.starts_with("TENURE WARNING - one server keeps the only copy"), "{code} {line}");
    assert!(line.lines().count() == 1 && line.contains(" | ") && line.contains("write_max="), "{line}");
    let (code, line, _) = tenure(&["doctor", "--store", &url, "--format", "nagios", "--lease", "1ms"]);
    assert!(code == 1 && line.contains("leaves no room"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_bucket_on_a_cluster_has_no_warning_about_copies() {
    let url = NatsCluster::shared().await.url(&unique_bucket("doctor"));
    settle(&url).await;
    let (code, findings) = doctor(&url).await;
    assert_eq!((code, &of(&findings, "replicas")["level"]), (0, &json!("ok")), "{findings:?}");
    assert_eq!(findings.iter().filter(|finding| finding["check"] == "replica").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_wrong_with_a_bucket_is_named_with_what_mends_it() {
    let server = NatsServer::shared().await;
    let bucket = unique_bucket("wrong");
    let client = async_nats::connect(server.client_url()).await.unwrap();
    let config = json!({
        "name": format!("KV_{bucket}"), "subjects": [format!("$KV.{bucket}.>")], "storage": "memory", "retention": "limits",
        "max_msgs_per_subject": 5, "discard": "new", "allow_rollup_hdrs": true, "allow_direct": true, "allow_msg_ttl": true,
        "subject_delete_marker_ttl": 60_000_000_000_u64, "deny_delete": true, "max_bytes": 1_000_000,
    });
    let made = client.request(format!("$JS.API.STREAM.CREATE.KV_{bucket}"), config.to_string().into());
    let made: Value = serde_json::from_slice(&soon("the stream", made).await.unwrap().payload).unwrap();
    assert!(made["error"].is_null(), "{made}");
    let url = server.url(&bucket);
    let (code, findings) = doctor(&url).await;
    assert_eq!(code, 2);
    let wrong = levels(&findings, "critical");
    for (check, mend) in [
        ("storage", format!("nats stream rm KV_{bucket}")),
        ("max_msgs_per_subject", format!("nats stream edit KV_{bucket} --max-msgs-per-subject=1")),
        ("allow_rollup_hdrs", "--no-allow-rollup".to_owned()),
        ("allow_atomic", "--allow-batch".to_owned()),
        ("subject_delete_marker_ttl", "--subject-del-markers-ttl=0s".to_owned()),
        ("deny_purge", "--deny-purge".to_owned()),
        ("republish", "--republish-source".to_owned()),
    ] {
        assert!(wrong.iter().any(|found| found == check), "{check} in {wrong:?}");
        assert!(of(&findings, check)["mend"].as_str().unwrap().contains(&mend), "{}", of(&findings, check));
    }
    assert_eq!(of(&findings, "allow_direct")["level"], "ok");
    // What opening says is the same.
    let error = tenure_kv::open(&url).await.unwrap_err().to_string();
    for finding in findings.iter().filter(|finding| finding["level"] == "critical") {
        let says = finding["says"].as_str().unwrap();
        assert!(error.contains(says), "{says} is not in {error}");
    }
    let (code, line, _) = tenure(&["doctor", "--store", &url, "--format", "nagios"]);
    assert!(code == 2 && line.starts_with("TENURE CRITICAL - "), "{line}");
    let (code, text, _) = tenure(&["doctor", "--store", &url]);
    assert!(code == 2 && text.contains("critical  storage") && text.contains("→ nats stream edit"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_one_finding() {
    let server = NatsServer::shared().await;
    let (code, findings) = doctor(&server.url("none_such")).await;
    assert_eq!((code, levels(&findings, "critical")), (2, vec!["bucket".to_owned()]), "{findings:?}");
    // The looking did not make it.
    let (code, _) = doctor(&server.url("none_such")).await;
    assert_eq!(code, 2);
    let mut dead = NatsServer::start().await;
    let url = dead.url("locks");
    dead.kill();
    let (code, findings) = doctor(&url).await;
    assert_eq!((code, levels(&findings, "critical")), (2, vec!["connection".to_owned()]));
    assert!(findings[0]["says"].as_str().unwrap().contains("no NATS server answers"), "{findings:?}");
    let (code, line, _) = tenure(&["doctor", "--store", &url, "--format", "nagios"]);
    assert!(code == 2 && line.starts_with("TENURE CRITICAL - no NATS server answers"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_write_is_told_so() {
    let granted = tenure_kv::permissions("nats://x/locks", &Role::Observer.writes(None).unwrap()).unwrap();
    let users =
        format!("authorization {{ users: [ {{ user: admin, password: s }}\n {{ user: looks, password: s\n{granted} }} ] }}");
    let server = NatsServer::start_with(&users).await;
    let url = |user: &str| format!("{}/locks", server.client_url().replace("nats://", &format!("nats://{user}:s@")));
    settle(&url("admin")).await;
    let (code, findings) = doctor(&url("looks")).await;
    assert_eq!(code, 0, "{findings:?}");
    let permissions = of(&findings, "permissions");
    assert_eq!((&permissions["level"], &permissions["says"]), (&json!("warning"), &json!("this user is refused to write")));
    assert_eq!(of(&findings, "account")["level"], "unseen");
    let (_, findings) = doctor(&url("admin")).await;
    assert_eq!(of(&findings, "permissions")["level"], "ok", "{findings:?}");
}

#[test]
fn permissions_are_printed_for_servers_and_for_tokens() {
    let (code, text, errors) = tenure(&["permissions", "--role", "holder", "--prefix", "web", "--store", "nats://n1/locks"]);
    assert_eq!((code, &*errors), (0, ""));
    assert!(text.contains("publish: { allow: [") && text.contains("\"$KV.locks.lock.web.>\""), "{text}");
    assert!(!text.contains("\"$KV.locks.>\"") && !text.contains("member"), "{text}");
    let (code, text, _) =
        tenure(&["permissions", "--role", "holder", "--role", "registrar", "--store", "nats://n1/locks", "-o", "json"]);
    assert_eq!(code, 0);
    let json: Value = serde_json::from_str(&text).unwrap();
    let allowed = json["pub"]["allow"].as_array().unwrap();
    for subject in ["$KV.locks.lock.>", "$KV.locks.member.>", "$JS.API.STREAM.INFO.KV_locks"] {
        assert!(allowed.contains(&subject.into()), "{text}");
    }
    assert_eq!(json["sub"]["allow"], json!(["_INBOX.>", "$TENURE.locks.>"]));
    for (arguments, remedy) in [
        (&["--role", "holder", "--store", "file:x"][..], "NATS"),
        (&["--role", "registrar", "--prefix", "web", "--store", "nats://n1/locks"], "prefix"),
        (&["--role", "holder", "--prefix", "a b", "--store", "nats://n1/locks"], "prefix"),
        (&["--role", "boss", "--store", "nats://n1/locks"], "registrar"),
        (&["--role", "holder", "--store", "nats://n1"], "bucket"),
        (&["--store", "nats://n1/locks"], "--role"),
    ] {
        let (code, _, errors) = tenure(&[&["permissions"], arguments].concat());
        assert_eq!((code, errors.lines().count()), (64, 1), "{arguments:?}: {errors}");
        assert!(errors.contains(remedy), "{arguments:?}: {errors}");
    }
}
