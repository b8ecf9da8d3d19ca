//! The log as programs read it: requests with who asked for what, and no values.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;
mod http_rig;

use http_rig::start_with;
use serde_json::{Value as Json, json};

#[test]
fn each_request_is_a_line_of_json_without_values() {
    let arguments = ["--log-format", "json", "--log", "tenure=debug,info"];
    let (daemon, _, log) = start_with(&arguments, |_| {});
    let mut wire = daemon.connect();
    let held = wire.call("lock.acquire", json!({ "name": "orders", "label": "secret" })).unwrap();
    wire.call("kv.put", json!({ "key": "k", "value": "secret" })).unwrap();
    wire.call("election.campaign", json!({ "name": "e", "value": "secret" })).unwrap();
    wire.call("member.join", json!({ "group": "g", "id": "m", "value": "secret", "metadata": { "m": "secret" } })).unwrap();
    wire.call("kv.get", json!({ "key": 5, "name": "secret".repeat(100) })).unwrap_err();
    wire.call("lock.release", json!({ "lease": held["lease"] })).unwrap();
    let mut done = Vec::new();
    while done.len() < 6 {
        let line = log.find("");
        assert!(!line.contains("secret"), "{line}");
        let line: Json = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        if line["target"] == "tenure::request" && line["message"] == "done" {
            done.push(line);
        }
    }
    let first = &done[0];
    let span = &first["span"];
    assert_eq!((&span["method"], &span["subject"], &span["outcome"]), (&json!("lock.acquire"), &json!("orders"), &json!("ok")));
    assert_eq!((&span["pid"], &span["name"]), (&json!(std::process::id()), &json!("request")), "{first}");
    assert!(span["uid"].is_u64() && first["duration_ms"].as_f64().unwrap() > 0.0, "{first}");
    let outcome = |method: &str| {
        let line = done.iter().find(|line| line["span"]["method"] == method).unwrap_or_else(|| panic!("{method}: {done:?}"));
        line["span"]["outcome"].clone()
    };
    assert_eq!((outcome("kv.get"), outcome("member.join")), (json!("invalid_params"), json!("ok")));
    let release = done.iter().find(|line| line["span"]["method"] == "lock.release").unwrap();
    assert_eq!(release["span"]["lease"], held["lease"]);
}

#[test]
fn by_default_a_request_says_nothing() {
    let (mut daemon, _, log) = start_with(&[], |_| {});
    let mut wire = daemon.connect();
    let (lease, _) = wire.acquire("orders");
    wire.call("lock.release", json!({ "lease": lease })).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon_support::wait(&mut daemon.child).success());
    let line = log.find("");
    assert!(line.contains("leaving"), "something was said before: {line}");
}

#[cfg(not(feature = "otlp"))]
#[test]
fn traces_are_refused_where_they_cannot_be_sent() {
    for (arguments, code, said) in [
        (&["--otlp-endpoint", "http://127.0.0.1:1"][..], 1, "feature otlp"),
        (&["config", "check", "--otlp-endpoint", "http://127.0.0.1:1"][..], 78, "feature otlp"),
        (&["--otlp-endpoint", "127.0.0.1:1"][..], 64, "http://127.0.0.1:4318"),
        (&["--log-format", "yaml"][..], 64, "text or json"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = daemon_support::command(&directory.path().join("s.sock"), &["--store", "memory:"]);
        let output = command.args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(code), 1), "{arguments:?}: {text}");
        assert!(text.contains(said), "{text}");
    }
}
