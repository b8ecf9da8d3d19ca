//! `tenure doctor` of a daemon and of stores on this machine, and the lists that a daemon gives of what there is.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use command_stage::{
    daemon::{Daemon, LONG},
    outcome, result, tenure,
};
use serde_json::{Value, json};

fn of<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check} in {findings:?}"))
}

fn findings(command: &mut std::process::Command) -> (i32, Vec<Value>) {
    let (code, out, errors) = result(command);
    assert_eq!(errors, "");
    (code, serde_json::from_str(&out).unwrap())
}

#[test]
fn a_daemon_is_asked_how_it_is() {
    let daemon = Daemon::memory();
    let held = daemon.run(&[], LONG);
    held.line();
    let (code, found) = findings(&mut daemon.tenure(&["doctor", "--format", "json"]));
    assert_eq!(code, 0, "{found:?}");
    for (check, level) in [("daemon", "ok"), ("store", "warning"), ("session", "ok"), ("read", "ok"), ("settings", "unseen")] {
        assert_eq!(of(&found, check)["level"], level, "{found:?}");
    }
    let (code, line, _) = result(&mut daemon.tenure(&["doctor", "--format", "nagios"]));
    assert!(code == 1 && line.starts_with("TENURE WARNING - the store is in memory") && line.contains("read_p50="), "{line}");
    let (code, text, _) = result(&mut daemon.tenure(&["doctor"]));
    assert!(code == 0 && text.contains("warning   store") && text.contains("→ tenured --store"), "{text}");
}

#[test]
fn no_daemon_is_critical() {
    let doctor = |format: &str| {
        let mut command = tenure(["doctor", "--format", format]);
        command.env("TENURE_SOCKET", "/no/such/socket");
        command
    };
    let (code, found) = findings(&mut doctor("json"));
    assert_eq!((code, &of(&found, "daemon")["level"]), (2, &json!("critical")));
    let (code, line, _) = result(&mut doctor("nagios"));
    assert!(code == 2 && line.starts_with("TENURE CRITICAL - no tenured answers"), "{line}");
}

#[test]
fn a_file_is_looked_at_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().join("db").display());
    let doctor = || tenure(["doctor", "--store", &url, "--format", "json"]);
    let (code, found) = findings(&mut doctor());
    assert_eq!((code, &of(&found, "file")["level"]), (0, &json!("warning")), "{found:?}");
    assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "looking creates nothing");
    let daemon = Daemon::start(&url, &[]);
    let (code, found) = findings(&mut doctor());
    assert_eq!((code, &of(&found, "format")["level"]), (0, &json!("unseen")), "{found:?}");
    let (_, found_by_daemon) = findings(&mut daemon.tenure(&["doctor", "--format", "json"]));
    assert_eq!(of(&found_by_daemon, "store")["level"], "ok");
    drop(daemon);
    command_stage::until("the file is free", || of(&findings(&mut doctor()).1, "format")["level"] == "ok");
    let (code, found) = findings(&mut doctor());
    assert_eq!(code, 0, "{found:?}");
    for check in ["file", "space", "sync", "format"] {
        assert_eq!(of(&found, check)["level"], "ok", "{found:?}");
    }
    assert!(of(&found, "write")["measured_ms"]["write_p99"].as_f64().unwrap() > 0.0);
    std::fs::write(directory.path().join("db"), "no store at all").unwrap();
    let (code, found) = findings(&mut doctor());
    assert_eq!((code, &of(&found, "format")["level"]), (2, &json!("critical")), "{found:?}");
    let (code, found) = findings(&mut tenure(["doctor", "--store", "memory:", "--format", "json"]));
    assert!(code == 0 && found[0]["says"].as_str().unwrap().contains("lost"), "{found:?}");
}

#[test]
fn wrong_usage_is_64_and_one_line_that_helps() {
    for (arguments, remedy) in [
        (&["doctor", "--store", "redis://x"][..], "memory:"),
        (&["doctor", "--store", "nats://x"], "bucket"),
        (&["doctor", "--format", "xml"], "nagios"),
        (&["doctor", "--lease", "5s"], "--store"),
    ] {
        let (code, errors) = outcome(&mut tenure(arguments));
        assert_eq!((code, errors.lines().count()), (64, 1), "{arguments:?}: {errors}");
        assert!(errors.contains(remedy), "{arguments:?}: {errors}");
    }
    let (code, line, _) = result(&mut tenure(["doctor", "--store", "redis://x", "--format", "nagios"]));
    assert!(code == 3 && line.starts_with("TENURE UNKNOWN - "), "{line}");
}

#[test]
fn elections_and_groups_are_listed() {
    let daemon = Daemon::memory();
    assert_eq!(daemon.rpc("election.list", "{}"), json!({"elections": []}));
    assert_eq!(daemon.rpc("member.groups", "{}"), json!({"groups": []}));
    let leads = daemon.start_tenure(&["elect", "a.b", "--label", "chief", "--value", "v", "--", "bash", "-c", LONG]);
    leads.line();
    let waits = daemon.start_tenure(&["elect", "a.b", "--", "bash", "-c", LONG]);
    let other = daemon.start_tenure(&["elect", "c", "--", "bash", "-c", LONG]);
    other.line();
    let list = |prefix: &str| daemon.rpc("election.list", &json!({ "prefix": prefix }).to_string())["elections"].clone();
    command_stage::until("the second waits", || list("a")[0]["candidates"] == 1);
    let listed = list("a.");
    assert_eq!(
        (listed.as_array().unwrap().len(), &listed[0]["name"], &listed[0]["leader"]["label"]),
        (1, &json!("a.b"), &json!("chief"))
    );
    assert_eq!(listed[0]["leader"]["fence"], daemon.rpc("election.leader", r#"{"name":"a.b"}"#)["leader"]["fence"]);
    assert!(listed[0]["leader"]["value"].is_null());
    let members: Vec<_> = ["web.eu", "web.eu", "db"]
        .map(|group| daemon.start_tenure(&["join", group, "--", "bash", "-c", LONG]))
        .into_iter()
        .inspect(|job| drop(job.line()))
        .collect();
    let groups = daemon.rpc("member.groups", "{}")["groups"].clone();
    assert_eq!(groups, json!([{"name": "db", "members": 1}, {"name": "web.eu", "members": 2}]));
    assert_eq!(daemon.rpc("member.groups", r#"{"prefix":"web"}"#)["groups"].as_array().unwrap().len(), 1);
    drop((leads, waits, members));
    command_stage::until("nobody leads, and nobody is there", || {
        list("a") == json!([]) && daemon.rpc("member.groups", "{}") == json!({"groups": []})
    });
}
