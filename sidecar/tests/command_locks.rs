//! `tenure locks` and `tenure wait` through a real daemon.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use command_stage::{
    Job,
    daemon::{Daemon, LONG},
    outcome, result, tenure, until,
};
use rustix::process::Signal;
use serde_json::{Value, json};

fn locks(daemon: &Daemon, arguments: &[&str]) -> (i32, String, String) {
    result(&mut daemon.tenure(&[&["locks"], arguments].concat()))
}

fn json_of(daemon: &Daemon, arguments: &[&str]) -> Value {
    let (code, output, errors) = locks(daemon, arguments);
    assert_eq!((code, errors.as_str()), (0, ""), "{arguments:?}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output}"))
}

fn wait(daemon: &Daemon, arguments: &[&str]) -> Command {
    daemon.tenure(&[&["wait"], arguments].concat())
}

/// Whether the daemon tells a wait what becomes of what it waits for.
fn is_told(daemon: &Daemon) -> bool {
    daemon.rpc("status", "{}")["subscriptions"] == 1
}

/// Whether the daemon has heard of a wait: it has a connection besides that which asks.
fn is_connected(daemon: &Daemon) -> bool {
    daemon.rpc("status", "{}")["connections"].as_u64().unwrap() > 1
}

#[test]
fn who_holds_and_who_waits_is_shown() {
    let daemon = Daemon::memory();
    assert_eq!(locks(&daemon, &["ls", "-o", "json"]), (0, "[]\n".to_owned(), String::new()));
    let (code, output, errors) = locks(&daemon, &["show", "x"]);
    assert_eq!((code, output.as_str(), errors.lines().count()), (1, "", 1), "{errors}");
    assert!(errors.contains("nobody holds x"), "{errors}");

    let first = daemon.run(&["--label", "the first"], &format!("echo $TENURE_FENCE; {LONG}"));
    let token = first.line();
    let _second = daemon.run(&["--label", "the second"], "echo never");
    until("the second waits", || daemon.waiters() == 1);
    let shown = json_of(&daemon, &["show", "x", "-o", "json"]);
    assert_eq!(shown["holder"]["fence"].to_string(), token);
    assert_eq!((&shown["holder"]["label"], &shown["waiters"][0]["label"]), (&json!("the first"), &json!("the second")));
    assert_eq!(json_of(&daemon, &["ls", "-o", "jsonl"]), shown);
    assert_eq!(json_of(&daemon, &["ls", "x", "-o", "json"]), json!([shown]));
    assert_eq!(json_of(&daemon, &["ls", "y", "-o", "json"]), json!([]));

    let table = locks(&daemon, &["ls"]).1;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("LOCK") && lines[0].ends_with("WAITING"), "{table}");
    assert!(lines[1].starts_with("x ") && lines[1].contains("the first") && lines[1].ends_with(" 1"), "{table}");
    let table = locks(&daemon, &["show", "x"]).1;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[1].starts_with("holds") && lines[1].contains("the first"), "{table}");
    assert!(lines[2].starts_with("waits 1") && lines[2].contains("the second") && lines.len() == 3, "{table}");
}

#[test]
fn only_the_very_hold_is_broken() {
    let daemon = Daemon::memory();
    let first = daemon.run(&[], &format!("echo $TENURE_FENCE; {LONG}"));
    let token = first.line();
    let second = daemon.run(&[], "echo mine");
    until("the second waits", || daemon.waiters() == 1);
    for options in [&["--fence", "9999"][..], &["--fence", "9999", "--yes"]] {
        let (code, _, errors) = locks(&daemon, &[&["break", "x"], options].concat());
        assert!(code == 73 && errors.contains("not held with token 9999"), "{code}: {errors}");
    }
    assert_eq!(daemon.waiters(), 1);
    assert_eq!(locks(&daemon, &["break", "x", "--fence", &token]), (0, String::new(), String::new()));
    second.expect("mine");
    assert_eq!(first.end().0, 79);
    assert_eq!(locks(&daemon, &["break", "x", "--fence", &token]).0, 73);
}

#[test]
fn a_wait_for_a_lock_ends_when_it_is_free() {
    let daemon = Daemon::memory();
    assert_eq!(outcome(&mut wait(&daemon, &["lock", "x"])), (0, String::new()));
    let holder = daemon.run(&[], LONG);
    holder.line();
    assert_eq!(outcome(&mut wait(&daemon, &["lock", "x", "--timeout", "0s"])).0, 75);
    let waiting = Job::start(&mut wait(&daemon, &["lock", "x"]));
    until("it is told", || is_told(&daemon));
    holder.signal(Signal::TERM);
    assert_eq!(waiting.end(), (0, String::new()));
}

#[test]
fn a_wait_for_a_leader_ends_when_somebody_leads() {
    let daemon = Daemon::memory();
    let waiting = Job::start(&mut wait(&daemon, &["leader", "e", "--timeout", "1m"]));
    until("it is told", || is_told(&daemon));
    let leader = daemon.start_tenure(&["elect", "e", "--", "bash", "-c", LONG]);
    assert_eq!(waiting.end(), (0, String::new()));
    leader.line();
    assert_eq!(outcome(&mut wait(&daemon, &["leader", "e", "--timeout", "0s"])), (0, String::new()));
}

#[test]
fn a_wait_for_a_key_ends_when_it_has_a_value() {
    let daemon = Daemon::memory();
    let waiting = Job::start(&mut wait(&daemon, &["key", "k"]));
    until("it is told", || is_told(&daemon));
    // Neither a tombstone nor another key is a value.
    assert_eq!(outcome(&mut daemon.tenure(&["kv", "del", "k"])).0, 0);
    assert_eq!(outcome(&mut daemon.tenure(&["kv", "put", "k.k", "v"])).0, 0);
    assert!(is_told(&daemon));
    assert_eq!(outcome(&mut daemon.tenure(&["kv", "put", "k", ""])).0, 0);
    assert_eq!(waiting.end(), (0, String::new()));
    assert_eq!(outcome(&mut wait(&daemon, &["key", "k", "--timeout", "0s"])), (0, String::new()));
}

#[test]
fn where_no_more_is_told_a_wait_looks() {
    let daemon = Daemon::start("memory:", &["--max-subscriptions-per-uid", "1"]);
    let _first = Job::start(&mut daemon.tenure(&["kv", "watch", "other"]));
    until("the first is told", || is_told(&daemon));
    for (what, then) in [("leader", &["elect", "k", "--", "sleep", "60"][..]), ("key", &["kv", "put", "k", "v"])] {
        let waiting = Job::start(&mut wait(&daemon, &[what, "k"]));
        until("it waits", || daemon.rpc("status", "{}")["connections"] == 3);
        let _then = Job::start(&mut daemon.tenure(then));
        assert_eq!(waiting.end(), (0, String::new()));
    }
}

#[test]
fn a_wait_for_a_key_of_another_bucket_is_not_about_the_key_of_that_name() {
    let daemon = Daemon::memory();
    assert_eq!(outcome(&mut daemon.tenure(&["kv", "put", "k", "own"])).0, 0);
    assert_eq!(outcome(&mut wait(&daemon, &["key", "k", "--bucket", "b", "-w", "0s", "-q"])).0, 75);
    let waiting = Job::start(&mut wait(&daemon, &["key", "k", "--bucket", "b"]));
    until("it is told", || is_told(&daemon));
    assert_eq!(outcome(&mut daemon.tenure(&["kv", "put", "k", "v", "--bucket", "b"])).0, 0);
    assert_eq!(waiting.end(), (0, String::new()));
}

#[test]
fn a_wait_in_vain_is_75_and_says_what_is_not_so() {
    let daemon = Daemon::memory();
    let holder = daemon.run(&[], LONG);
    holder.line();
    for (what, name, state) in [("leader", "e", "has no leader"), ("lock", "x", "is held"), ("key", "k", "has no value")] {
        let begun = Instant::now();
        let (code, errors) = outcome(&mut wait(&daemon, &[what, name, "--timeout", "300ms"]));
        assert!(begun.elapsed() >= Duration::from_millis(300), "{what}");
        assert_eq!((code, errors.lines().count()), (75, 1), "{what}: {errors}");
        assert!(errors.contains(&format!("{name} {state} after 300ms")), "{errors}");
        assert_eq!(outcome(&mut wait(&daemon, &[what, name, "-w", "0s", "-E", "9"])).0, 9);
        assert_eq!(outcome(&mut wait(&daemon, &[what, name, "-w", "0s", "-q"])), (75, String::new()));
    }
}

#[test]
fn a_wait_ends_with_a_signal() {
    let daemon = Daemon::memory();
    for (what, kind, code) in [("leader", Signal::INT, 130), ("key", Signal::TERM, 143)] {
        let waiting = Job::start(&mut wait(&daemon, &[what, "k"]));
        until("it waits", || is_connected(&daemon));
        waiting.signal(kind);
        assert_eq!(waiting.end(), (code, String::new()));
        until("it is gone", || !is_connected(&daemon));
    }
}

#[test]
fn a_wait_goes_on_at_the_next_daemon() {
    for (what, then) in [("leader", &["elect", "k", "--", "true"][..]), ("key", &["kv", "put", "k", "v"])] {
        let daemon = Daemon::memory();
        let waiting = Job::start(&mut wait(&daemon, &[what, "k"]));
        until("it waits", || is_connected(&daemon));
        let daemon = daemon.replace(Signal::KILL);
        until("it is told again", || is_told(&daemon));
        assert_eq!(outcome(&mut daemon.tenure(then)).0, 0);
        let (code, errors) = waiting.end();
        assert!(code == 0 && errors.contains("tenured went away"), "{what}: {code}: {errors}");
    }
}

#[test]
fn wrong_usage_is_64_and_one_line_that_helps() {
    let cases: [(&[&str], &str); 15] = [
        (&["locks"], "tenure locks --help"),
        (&["locks", "shake"], "tenure locks --help"),
        (&["locks", "show"], "tenure locks show [OPTIONS] <NAME>"),
        (&["locks", "show", "a..b"], "lock name"),
        (&["locks", "break", "x"], "--fence"),
        (&["locks", "break", "x", "--fence", "latest"], "--fence"),
        (&["locks", "ls", "-o", "xml"], "table, json, jsonl"),
        (&["wait"], "tenure wait --help"),
        (&["wait", "leader"], "NAME"),
        (&["wait", "godot", "x"], "leader, lock, key"),
        (&["wait", "key", "a b"], "key"),
        (&["wait", "key", "k", "--bucket", "a.b"], "no bucket name"),
        (&["wait", "lock", "k", "--bucket", "b"], "--bucket is for keys"),
        (&["wait", "lock", "x", "--timeout", "3"], "30s"),
        (&["wait", "lock", "x", "-E", "256"], "0..=255"),
    ];
    let daemon = Daemon::memory();
    for (arguments, remedy) in cases {
        let (code, errors) = outcome(&mut daemon.tenure(arguments));
        assert_eq!((code, errors.lines().count()), (64, 1), "{arguments:?}: {errors}");
        assert!(errors.starts_with("tenure: ") && errors.contains(remedy), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_missing_daemon_is_125_and_says_what_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("nobody");
    for arguments in [
        &["locks", "ls"][..],
        &["locks", "show", "x"],
        &["locks", "break", "x", "--fence", "1"],
        &["wait", "leader", "x"],
        &["wait", "lock", "x", "--timeout", "1m"],
        &["wait", "key", "x"],
    ] {
        let (code, errors) = outcome(tenure(arguments).env("TENURE_SOCKET", &nobody));
        assert_eq!((code, errors.lines().count()), (125, 1), "{arguments:?}: {errors}");
        assert!(
            errors.contains(nobody.to_str().unwrap()) && errors.contains("start one with `tenured`, or name its --socket\n"),
            "{errors}"
        );
    }
}

#[test]
fn every_help_has_an_example() {
    for path in [&["locks"][..], &["locks", "ls"], &["locks", "show"], &["locks", "break"], &["wait"], &["rpc"]] {
        let (code, output, _) = result(&mut tenure([path, &["--help"]].concat()));
        assert!(code == 0 && output.contains("Example") && output.contains("  tenure "), "{path:?}: {output}");
    }
}
