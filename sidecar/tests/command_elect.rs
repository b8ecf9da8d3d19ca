//! `tenure elect` through a real daemon: who leads when, and what happens when one of them dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use command_stage::{
    Job,
    daemon::{Daemon, LONG},
    is_alive, outcome, result, tenure, until,
};
use rustix::process::Signal;
use serde_json::Value;

/// A command line that campaigns for `x` and runs `script`.
fn campaign<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["elect", "x"], options, &["--", "bash", "-c", script]].concat()
}

fn run(daemon: &Daemon, options: &[&str], script: &str) -> Job {
    daemon.start_tenure(&campaign(options, script))
}

fn candidates(daemon: &Daemon) -> usize {
    daemon.rpc("election.candidates", r#"{"name":"x"}"#)["candidates"].as_array().unwrap().len()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn the_next_one_leads_when_the_command_has_ended_and_has_a_larger_term() {
    let daemon = Daemon::memory();
    let first = run(&daemon, &[], "echo $TENURE_FENCE; while :; do sleep 0.02; done");
    let term: u64 = first.line().parse().unwrap();
    let second = run(&daemon, &["-w", "1m"], "echo $TENURE_FENCE");
    until("the second waits", || candidates(&daemon) == 1);
    first.signal(Signal::TERM);
    assert_eq!(first.end().0, 143);
    assert!(second.line().parse::<u64>().unwrap() > term);
    assert_eq!(second.end().0, 0);
    assert_eq!(daemon.rpc("election.leader", r#"{"name":"x"}"#)["leader"], Value::Null);
}

#[test]
fn a_leader_that_is_killed_takes_its_command_along_and_the_next_one_leads_at_once() {
    let daemon = Daemon::memory();
    let first = run(&daemon, &[], LONG);
    let command: i32 = first.line().parse().unwrap();
    let second = run(&daemon, &[], "echo leads");
    until("the second waits", || candidates(&daemon) == 1);
    let killed = Instant::now();
    first.signal(Signal::KILL);
    second.expect("leads");
    // The lease of this daemon is a minute.
    assert!(killed.elapsed() < Duration::from_secs(10));
    until("the command is gone", || !is_alive(command));
    assert_eq!(second.end().0, 0);
}

#[test]
fn who_is_not_elected_in_time_is_75_and_says_who_leads() {
    let daemon = Daemon::memory();
    let leader = run(&daemon, &["--label", "the scheduler"], LONG);
    leader.line();
    let (code, errors) = outcome(&mut daemon.tenure(&campaign(&["-n"], "echo never")));
    assert_eq!((code, errors.lines().count()), (75, 1), "{errors}");
    assert!(errors.contains("x is led by the scheduler (") && errors.contains(&format!("pid {}", leader.pid())), "{errors}");
    let begun = Instant::now();
    let (code, errors) = outcome(&mut daemon.tenure(&campaign(&["-w", "300ms"], "echo never")));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(code == 75 && errors.contains("not elected within 300ms"), "{code}: {errors}");
    assert_eq!(outcome(&mut daemon.tenure(&campaign(&["-n", "-E", "9"], "echo never"))).0, 9);
    assert_eq!(outcome(&mut daemon.tenure(&campaign(&["-n", "-q"], "echo never"))), (75, String::new()));
    assert_eq!(candidates(&daemon), 0);
}

#[test]
fn a_campaign_ends_with_a_signal_and_is_withdrawn() {
    let daemon = Daemon::memory();
    let leader = run(&daemon, &[], LONG);
    leader.line();
    for (options, kind, code) in [(&[][..], Signal::INT, 130), (&["--forever"], Signal::TERM, 143)] {
        let waiting = run(&daemon, options, "echo never");
        until("it waits", || candidates(&daemon) == 1);
        waiting.signal(kind);
        assert!(waiting.rest().is_empty());
        assert_eq!(waiting.end(), (code, String::new()));
        until("it is withdrawn", || candidates(&daemon) == 0);
    }
}

#[test]
fn exit_codes_are_those_of_lock() {
    let daemon = Daemon::memory();
    assert_eq!(outcome(&mut daemon.tenure(&campaign(&[], "exit 7"))).0, 7);
    assert_eq!(outcome(&mut daemon.tenure(&campaign(&[], "kill -KILL $$"))).0, 137);
    assert_eq!(outcome(&mut daemon.tenure(&["elect", "x", "--", "no-such-program"])).0, 127);
    assert_eq!(outcome(&mut daemon.tenure(&["elect", "x", "--", "/etc/passwd"])).0, 126);
    assert_eq!(outcome(&mut tenure(["elect", "x", "--store", "memory:", "--", "bash", "-c", "exit 8"])).0, 8);
}

#[test]
fn a_daemon_that_dies_ends_the_command_with_79() {
    let mut daemon = Daemon::memory();
    let leader = run(&daemon, &[], LONG);
    let command: i32 = leader.line().parse().unwrap();
    daemon.job.signal(Signal::KILL);
    daemon.job.wait();
    let (code, errors) = leader.end();
    assert_eq!(code, 79);
    assert!(errors.contains("lost x: ") && errors.contains("the command was stopped"), "{errors}");
    assert!(!is_alive(command));
}

#[test]
fn a_term_fences_the_writes_of_the_command() {
    let daemon = Daemon::memory();
    let script = r#""$TENURE" rpc kv.put "{\"key\":\"k\",\"value\":\"v\",\"election\":\"$TENURE_ELECTION\",\"fence\":$TENURE_FENCE}"
        echo $TENURE_ELECTION $TENURE_FENCE ${TENURE_LEASE:+leased} $TENURE_SOCKET"#;
    let job = Job::start(daemon.tenure(&campaign(&[], script)).env("TENURE", env!("CARGO_BIN_EXE_tenure")));
    let lines = job.rest();
    assert_eq!(job.end().0, 0);
    assert!(lines.concat().contains("revision"), "{lines:?}");
    let told: Vec<&str> = lines.last().unwrap().split(' ').collect();
    assert_eq!((told[0], told[2], told[3]), ("x", "leased", daemon.socket().to_str().unwrap()), "{told:?}");
    let stale = format!(r#"{{"key":"k","value":"w","election":"x","fence":{}}}"#, told[1]);
    let (code, _, errors) = result(&mut daemon.tenure(&["rpc", "kv.put", &stale]));
    assert_eq!(code, 73, "{errors}");
}

#[test]
fn forever_campaigns_again_after_each_end_until_asked_to_end() {
    let daemon = Daemon::memory();
    let job = run(&daemon, &["--forever"], "echo $TENURE_FENCE; exit 3");
    let terms: Vec<u64> = (0..3).map(|_| job.line().parse().unwrap()).collect();
    assert!(terms.is_sorted_by(|a, b| a < b), "{terms:?}");
    job.signal(Signal::TERM);
    let (code, errors) = job.end();
    assert!(code == 143 || code == 3, "{code}: {errors}");
    assert!(errors.contains("x: the command ended with 3; again in "), "{errors}");

    let job = run(&daemon, &["--forever"], "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done");
    job.expect("ready");
    job.signal(Signal::TERM);
    let (code, errors) = job.end();
    assert!(code == 5 && !errors.contains("again in"), "{code}: {errors}");

    let (code, _) = outcome(&mut daemon.tenure(&["elect", "x", "--forever", "--", "no-such-program"]));
    assert_eq!(code, 127);
}

#[test]
fn forever_outlives_the_daemon() {
    let daemon = Daemon::memory();
    let job = run(&daemon, &["--forever"], LONG);
    let first = job.line();
    let daemon = daemon.replace(Signal::KILL);
    let second = job.line();
    assert_ne!(first, second);
    assert!(!is_alive(first.parse().unwrap()));
    let leader = daemon.rpc("election.leader", r#"{"name":"x"}"#);
    assert_eq!(leader["leader"]["pid"], job.pid());
    job.signal(Signal::TERM);
    let (code, errors) = job.end();
    assert!(code == 143 && errors.contains("lost x: "), "{code}: {errors}");
}

#[test]
fn a_leader_that_yields_makes_way_for_a_higher_priority() {
    let daemon = Daemon::memory();
    let polite = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let first = run(&daemon, &["--yield", "--priority", "1"], polite);
    first.expect("ready");
    let equal = run(&daemon, &["--priority", "1"], "echo equal");
    until("one waits", || candidates(&daemon) == 1);
    let higher = run(&daemon, &["--priority", "2", "--label", "higher"], "echo higher");
    first.expect("bye");
    let (code, errors) = first.end();
    assert_eq!(code, 79);
    assert!(errors.contains("lost x: higher (") && errors.contains("asks for it with priority 2"), "{errors}");
    higher.expect("higher");
    assert_eq!(higher.end().0, 0);
    equal.expect("equal");
    assert_eq!(equal.end().0, 0);
}

#[test]
fn without_yield_the_leader_stays() {
    let daemon = Daemon::memory();
    let first = run(&daemon, &[], "trap 'echo term' TERM; read -t 1.5 <> <(:); echo stayed");
    until("it leads", || !daemon.rpc("election.leader", r#"{"name":"x"}"#)["leader"].is_null());
    let higher = run(&daemon, &["--priority", "9"], "echo higher");
    first.expect("stayed");
    assert_eq!(first.end().0, 0);
    higher.expect("higher");
}

#[test]
fn leader_prints_who_leads() {
    let daemon = Daemon::memory();
    let (code, out, errors) = result(&mut daemon.tenure(&["elect", "x", "--leader"]));
    assert_eq!((code, out.as_str(), errors.as_str()), (1, "", "tenure: nobody leads x\n"));
    let (code, out, _) = result(&mut daemon.tenure(&["elect", "x", "--leader", "-o", "json"]));
    assert_eq!((code, out.as_str()), (1, "null\n"));

    let leader = run(&daemon, &["--value", "10.0.0.7:5432", "--label", "db"], LONG);
    leader.line();
    let (code, out, errors) = result(&mut daemon.tenure(&["elect", "x", "--leader"]));
    assert_eq!((code, errors.as_str(), out.lines().count()), (0, "", 2), "{out}");
    let mut lines = out.lines();
    let (head, row) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(row.contains("db") && row.ends_with("10.0.0.7:5432"), "{out}");
    assert_eq!(head.find("VALUE"), row.find("10.0.0.7"), "{out}");
    for format in ["json", "jsonl"] {
        let (_, out, _) = result(&mut daemon.tenure(&["elect", "x", "--leader", "-o", format]));
        let told = json(&out);
        assert_eq!((&told["value"], &told["label"], &told["pid"]), (&"10.0.0.7:5432".into(), &"db".into(), &leader.pid().into()));
    }
    let (code, ..) = result(&mut tenure(["elect", "x", "--leader", "--store", "memory:"]));
    assert_eq!(code, 1);
}

#[test]
fn observe_tells_every_state_nobody_included_also_from_the_next_daemon() {
    let daemon = Daemon::memory();
    let seen = daemon.start_tenure(&["elect", "x", "--observe", "-o", "jsonl"]);
    let leads = || json(&seen.line())["leader"]["label"].as_str().map(str::to_owned);
    assert_eq!(leads(), None);
    let first = run(&daemon, &["--label", "first"], LONG);
    assert_eq!(leads().as_deref(), Some("first"));
    let second = run(&daemon, &["--label", "second"], LONG);
    until("the second waits", || candidates(&daemon) == 1);
    first.signal(Signal::KILL);
    let mut next = leads();
    while next.is_none() {
        next = leads();
    }
    assert_eq!(next.as_deref(), Some("second"));
    second.signal(Signal::TERM);
    assert_eq!(leads(), None);

    let daemon = daemon.replace(Signal::KILL);
    assert_eq!(leads(), None, "told again");
    let _third = run(&daemon, &["--label", "third"], LONG);
    assert_eq!(leads().as_deref(), Some("third"));
    seen.signal(Signal::INT);
    let (code, errors) = seen.end();
    assert!(code == 130 && errors.contains("tenured went away"), "{code}: {errors}");
}

#[test]
fn wrong_usage_is_64_and_one_line_that_helps() {
    let cases: [(&[&str], &str); 16] = [
        (&[], "NAME"),
        (&["x"], "-- COMMAND"),
        (&["x", "true"], "-- COMMAND"),
        (&["a b", "--", "true"], "election name"),
        (&["", "--leader"], "election name"),
        (&["x", "-n", "-w", "3s", "--", "true"], "cannot be used with"),
        (&["x", "--forever", "-n", "--", "true"], "cannot be used with"),
        (&["x", "--observe", "--", "true"], "cannot be used with"),
        (&["x", "--observe", "--leader"], "cannot be used with"),
        (&["x", "--observe", "--value", "v"], "cannot be used with"),
        (&["x", "--leader", "-w", "3s"], "cannot be used with"),
        (&["x", "-o", "json", "--", "true"], "--observe"),
        (&["x", "--leader", "-o", "xml"], "table, json, jsonl"),
        (&["x", "--priority", "high", "--", "true"], "--priority"),
        (&["x", "--lease", "1ms", "--", "true"], "150ms"),
        (&["x", "--store", "carrier-pigeon:", "--", "true"], "memory:, file:PATH or nats://"),
    ];
    for (arguments, remedy) in cases {
        let (code, errors) = outcome(&mut tenure([&["elect"], arguments].concat()));
        assert_eq!(code, 64, "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
        assert!(errors.starts_with("tenure: ") && errors.contains(remedy), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_missing_daemon_is_125_and_says_what_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("nobody");
    for arguments in [&["elect", "x", "--", "true"][..], &["elect", "x", "--leader"], &["elect", "x", "--observe"]] {
        let (code, errors) = outcome(tenure(arguments).env("TENURE_SOCKET", &nobody).stdin(Stdio::null()));
        assert_eq!((code, errors.lines().count()), (125, 1), "{arguments:?}: {errors}");
        assert!(
            errors.contains(nobody.to_str().unwrap())
                && errors.contains("start one with `tenured`, name its --socket, or use --store"),
            "{errors}"
        );
    }
}
