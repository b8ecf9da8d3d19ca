//! `tenure watch` and `tenure kv watch` through a real daemon: every last state is told, and handed to a command.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{io::Write, process::Stdio};

use command_stage::{
    Job,
    daemon::{Daemon, LONG},
    is_alive, lines_of, outcome, tenure, until,
};
use rustix::process::Signal;
use serde_json::{Value, json};

fn put(daemon: &Daemon, key: &str, value: &str) -> u64 {
    daemon.rpc("kv.put", &json!({"key": key, "value": value}).to_string())["revision"].as_u64().unwrap()
}

fn delete(daemon: &Daemon, key: &str) {
    daemon.rpc("kv.delete", &json!({ "key": key }).to_string());
}

fn event(job: &Job) -> Value {
    serde_json::from_str(&job.line()).unwrap()
}

/// Kind, key and value of the next event.
fn told(job: &Job) -> (String, String, String) {
    let event = event(job);
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("key"), text("value"))
}

fn expect(job: &Job, kind: &str, key: &str, value: &str) {
    assert_eq!(told(job), (kind.to_owned(), key.to_owned(), value.to_owned()));
}

#[test]
fn keys_are_told_as_they_change_until_interrupted() {
    let daemon = Daemon::memory();
    put(&daemon, "config/a", "1");
    put(&daemon, "other", "1");
    let all = daemon.start_tenure(&["kv", "watch", "--prefix", "config/", "-o", "jsonl"]);
    expect(&all, "put", "config/a", "1");
    expect(&all, "sync", "", "");
    let later = daemon.start_tenure(&["kv", "watch", "config/a", "--updates-only", "-o", "jsonl"]);
    expect(&later, "sync", "", "");
    let revision = put(&daemon, "config/a", "2");
    for job in [&all, &later] {
        let event = event(job);
        assert_eq!((&event["value"], &event["revision"]), (&json!("2"), &json!(revision)));
    }
    put(&daemon, "config/b", "x");
    expect(&all, "put", "config/b", "x");
    delete(&daemon, "config/a");
    expect(&all, "delete", "config/a", "");
    expect(&later, "delete", "config/a", "");
    let since = daemon.start_tenure(&["kv", "watch", "--prefix", "", "--from-revision", &revision.to_string(), "-o", "jsonl"]);
    expect(&since, "put", "config/b", "x");
    expect(&since, "delete", "config/a", "");
    for job in [all, later, since] {
        job.signal(Signal::INT);
        assert_eq!(job.end(), (130, String::new()));
    }
    let table = daemon.start_tenure(&["kv", "watch", "config/b"]);
    assert_eq!(table.line().split_whitespace().collect::<Vec<_>>(), ["EVENT", "REVISION", "KEY", "VALUE"]);
    let row = table.line();
    assert!(row.starts_with("put") && row.ends_with("config/b                  x"), "{row}");
}

#[test]
fn a_watch_of_keys_goes_on_at_the_next_daemon_and_tells_what_changed() {
    let daemon = Daemon::memory();
    put(&daemon, "a", "1");
    put(&daemon, "b", "1");
    let watch = daemon.start_tenure(&["kv", "watch", "--prefix", "", "-o", "jsonl"]);
    expect(&watch, "put", "a", "1");
    expect(&watch, "put", "b", "1");
    expect(&watch, "sync", "", "");
    // The next one has a store with nothing in it.
    let daemon = daemon.replace(Signal::KILL);
    let mut told_again = vec![told(&watch), told(&watch), told(&watch)];
    told_again.sort();
    let gone = |key: &str| ("delete".to_owned(), key.to_owned(), String::new());
    assert_eq!(told_again, [gone("a"), gone("b"), ("sync".to_owned(), String::new(), String::new())]);
    put(&daemon, "a", "1");
    expect(&watch, "put", "a", "1");
    watch.signal(Signal::TERM);
    let (code, errors) = watch.end();
    assert_eq!(code, 143);
    assert!(errors.lines().count() == 1 && errors.contains("tenured went away"), "{errors}");
}

#[test]
fn a_lock_an_election_and_a_group_are_told_as_states() {
    let daemon = Daemon::memory();
    let lock = daemon.start_tenure(&["watch", "lock", "x", "-o", "jsonl"]);
    let leader = daemon.start_tenure(&["watch", "leader", "e", "-o", "jsonl"]);
    let members = daemon.start_tenure(&["watch", "members", "web", "-o", "jsonl"]);
    let free = event(&lock);
    assert_eq!((&free["kind"], &free["event"], &free["holder"]), (&json!("lock"), &json!("free"), &Value::Null));
    assert_eq!(event(&leader)["event"], "vacant");
    assert_eq!(event(&members)["members"], json!([]));
    let holds = daemon.run(&["--label", "me"], LONG);
    holds.line();
    let held = event(&lock);
    assert_eq!((&held["event"], &held["holder"]["label"], &held["waiting"]), (&json!("held"), &json!("me"), &json!(0)));
    let waits = daemon.run(&["--label", "next"], LONG);
    let queue = event(&lock);
    assert_eq!((&queue["waiting"], &queue["waiters"][0]["label"]), (&json!(1), &json!("next")));
    waits.signal(Signal::TERM);
    assert_eq!(waits.end().0, 143);
    assert_eq!(event(&lock)["waiting"], 0);
    let leads = daemon.start_tenure(&["elect", "e", "--value", "here", "--", "bash", "-c", LONG]);
    leads.line();
    let led = event(&leader);
    assert_eq!((&led["event"], &led["leader"]["value"]), (&json!("led"), &json!("here")));
    let joined = daemon.start_tenure(&["join", "web", "--id", "w1", "--", "bash", "-c", LONG]);
    joined.line();
    until("the member is told", || event(&members)["members"][0]["id"] == "w1");
    for job in [holds, leads, joined] {
        job.signal(Signal::TERM);
        assert_eq!(job.end().0, 143);
    }
    assert_eq!(event(&lock)["event"], "free");
    assert_eq!(event(&leader)["event"], "vacant");
    until("the end of the member is told", || event(&members)["members"] == json!([]));
}

#[test]
fn a_command_runs_for_each_change_one_at_a_time_with_the_latest() {
    let daemon = Daemon::memory();
    put(&daemon, "color", "red");
    // The first run lasts until the file `on` is there.
    let gate = daemon.directory.path().join("on");
    let script = format!(
        "read -r line; echo \"$TENURE_KIND $TENURE_EVENT $TENURE_KEY=$TENURE_VALUE@$TENURE_REVISION $line\"; \
         while [ ! -e {} ]; do sleep 0.02; done",
        gate.display()
    );
    let watch = daemon.start_tenure(&["watch", "kv", "color", "--", "bash", "-c", &script]);
    let line = watch.line();
    let (words, given) = line.split_once(" {").unwrap();
    assert!(words.starts_with("kv put color=red@"), "{line}");
    let given: Value = serde_json::from_str(&format!("{{{given}")).unwrap();
    assert_eq!((&given["key"], &given["value"], &given["kind"]), (&json!("color"), &json!("red"), &json!("kv")));
    let mut last = 0;
    for value in ["green", "blue", "black"] {
        last = put(&daemon, "color", value);
    }
    // A watch that began later has the last one: this one has heard of it, or will before the gate opens.
    let other = daemon.start_tenure(&["kv", "watch", "color", "-o", "jsonl"]);
    expect(&other, "put", "color", "black");
    std::fs::write(&gate, "").unwrap();
    let mut lines = vec![watch.line()];
    while !lines.last().unwrap().starts_with(&format!("kv put color=black@{last} ")) {
        lines.push(watch.line());
    }
    assert!(lines.len() < 3, "{lines:?}");
    delete(&daemon, "color");
    let line = watch.line();
    assert!(line.starts_with("kv delete color=@"), "{line}");
    watch.signal(Signal::INT);
    assert_eq!(watch.end(), (130, String::new()));
}

#[test]
fn the_end_of_the_watch_ends_the_command_and_its_children() {
    let daemon = Daemon::memory();
    put(&daemon, "a", "1");
    let script = "sleep 300 & echo $! $$; trap 'exit 3' TERM; wait; wait";
    let pids = |job: &Job| job.line().split(' ').map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>();
    let watch = daemon.start_tenure(&["watch", "kv", "a", "--", "bash", "-c", script]);
    let asked = pids(&watch);
    watch.signal(Signal::INT);
    assert_eq!(watch.end(), (130, String::new()));
    until("all are gone", || asked.iter().all(|pid| !is_alive(*pid)));
    let watch =
        daemon.start_tenure(&["watch", "kv", "a", "--", "bash", "-c", "trap '' TERM; echo $$; while :; do sleep 0.1; done"]);
    let deaf = pids(&watch)[0];
    watch.signal(Signal::TERM);
    until("the second signal is heard", || {
        if is_alive(watch.pid()) {
            watch.signal(Signal::TERM);
        }
        !is_alive(deaf)
    });
    assert_eq!(watch.end().0, 143);
    let watch = daemon.start_tenure(&["watch", "kv", "a", "--", "bash", "-c", LONG]);
    let orphan: i32 = watch.line().parse().unwrap();
    watch.signal(Signal::KILL);
    until("the kernel has ended it", || !is_alive(orphan));
}

#[test]
fn a_command_that_fails_is_told_of_and_one_that_is_missing_ends_the_watch() {
    let daemon = Daemon::memory();
    put(&daemon, "a", "1");
    let log = daemon.directory.path().join("log");
    let script = format!("echo $TENURE_VALUE >> {}; exit 3", log.display());
    let watch = daemon.start_tenure(&["watch", "kv", "a", "--", "bash", "-c", &script]);
    until("it ran", || lines_of(&log) == ["1"]);
    put(&daemon, "a", "2");
    until("it ran again", || lines_of(&log) == ["1", "2"]);
    watch.signal(Signal::INT);
    let (code, errors) = watch.end();
    assert!(code == 130 && errors.contains("exit code 3; watching on"), "{errors}");
    let (code, errors) = outcome(&mut daemon.tenure(&["watch", "kv", "a", "--", "/no/such/command"]));
    assert!(code == 127 && errors.contains("not found"), "{code}: {errors}");
}

#[test]
fn a_command_that_does_not_read_is_no_hindrance() {
    let daemon = Daemon::memory();
    // Too long for a command line, as it is for a variable.
    let put = |letter: &str| {
        let mut command = daemon.tenure(&["kv", "put", "a", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(letter.repeat(900_000).as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    };
    put("x");
    let watch = daemon.start_tenure(&["watch", "kv", "a", "--", "bash", "-c", "echo \"${TENURE_VALUE-unset}\""]);
    watch.expect("unset");
    put("y");
    watch.expect("unset");
    let whole = daemon.start_tenure(&["watch", "kv", "a", "--", "wc", "-c"]);
    let length: usize = whole.line().trim().parse().unwrap();
    assert!(length > 900_000, "{length}");
}

#[test]
fn wrong_usage_is_64_and_one_line_that_helps() {
    for (arguments, remedy) in [
        (&["watch"][..], "tenure watch"),
        (&["watch", "kv"], "NAME"),
        (&["watch", "lock", "a b"], "lock name"),
        (&["watch", "lock", "--prefix", "a"], "tenure watch kv --prefix"),
        (&["watch", "queue", "a"], "members"),
        (&["watch", "kv", "a", "-o", "json", "--", "true"], "--output"),
        (&["kv", "watch"], "--prefix"),
        (&["kv", "watch", "a", "--prefix", "b"], "--prefix"),
        (&["kv", "watch", "a", "--from-revision", "1", "--updates-only"], "--updates-only"),
    ] {
        let (code, errors) = outcome(&mut tenure(arguments));
        assert_eq!((code, errors.lines().count()), (64, 1), "{arguments:?}: {errors}");
        assert!(errors.contains(remedy), "{arguments:?}: {errors}");
    }
    let (code, errors) = outcome(tenure(["watch", "kv", "a"]).env("TENURE_SOCKET", "/nowhere/socket"));
    assert!(code == 125 && errors.contains("no tenured answers at /nowhere/socket"), "{errors}");
}
