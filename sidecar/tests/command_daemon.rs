//! `tenure lock` through a real daemon: who gets the lock when, and what happens when one of them dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{
    collections::HashSet,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use command_stage::{
    Job,
    daemon::{Daemon, LONG},
    is_alive, is_stopped, lines_of, outcome, signal, until,
};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn a_lock_that_is_taken_is_75_and_says_by_whom() {
    let daemon = Daemon::memory();
    let holder = daemon.run(&["--label", "nightly backup"], LONG);
    holder.line();

    let (code, errors) = outcome(&mut daemon.command(&["-n"], "echo never"));
    assert_eq!(code, 75);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("x is held by nightly backup (") && errors.contains(&format!("pid {}", holder.pid())), "{errors}");
    assert!(errors.contains("-w 30s"), "{errors}");

    let begun = Instant::now();
    let (code, errors) = outcome(&mut daemon.command(&["-w", "300ms"], "echo never"));
    assert_eq!(code, 75);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(errors.contains("not acquired within 300ms"), "{errors}");

    assert_eq!(outcome(&mut daemon.command(&["-n", "-E", "9"], "echo never")).0, 9);
    assert_eq!(outcome(&mut daemon.command(&["-n", "-q"], "echo never")), (75, String::new()));
    assert_eq!(daemon.waiters(), 0);
}

#[test]
fn the_next_one_waits_and_has_a_larger_token() {
    let daemon = Daemon::memory();
    let first = daemon.run(&[], "echo $TENURE_FENCE; while [ ! -e \"$0\" ]; do sleep 0.02; done");
    let token: u64 = first.line().parse().unwrap();
    let second = daemon.run(&["-w", "1m"], "echo $TENURE_FENCE");
    until("the second waits", || daemon.waiters() == 1);
    first.signal(Signal::TERM);
    assert_eq!(first.end().0, 143);
    assert!(second.line().parse::<u64>().unwrap() > token);
    assert_eq!(second.end().0, 0);
}

#[test]
fn a_command_fences_its_writes_by_its_environment() {
    let daemon = Daemon::memory();
    let script = r#"
        echo $TENURE_FENCE
        while [ ! -e "$GO" ]; do sleep 0.02; done
        "$TENURE" rpc kv.put "{\"key\":\"k\",\"value\":\"$TENURE_FENCE\",\"lock\":\"$TENURE_LOCK\",\"fence\":$TENURE_FENCE}"
    "#;
    let go = |name: &str| daemon.directory.path().join(name);
    let run = |name: &str| {
        let mut command = daemon.command(&["--on-lost", "ignore"], script);
        Job::start(command.env("GO", go(name)).env("TENURE", env!("CARGO_BIN_EXE_tenure")))
    };
    let value = || daemon.rpc("kv.get", r#"{"key":"k"}"#)["entry"]["value"].clone();
    let held = run("held");
    let token = held.line();
    std::fs::write(go("held"), "").unwrap();
    assert!(held.rest().concat().contains("revision"));
    assert_eq!((held.end().0, value()), (0, token.clone().into()));

    let broken = run("broken");
    let stale: u64 = broken.line().parse().unwrap();
    daemon.rpc("lock.break", &format!(r#"{{"name":"x","fence":{stale}}}"#));
    std::fs::write(go("broken"), "").unwrap();
    let (code, errors) = broken.end();
    assert_eq!(code, 73, "{errors}");
    assert!(errors.contains(&format!("nobody holds x with token {stale}")), "{errors}");
    assert_eq!(value(), token);
}

#[test]
fn whoever_waits_goes_on_at_the_next_daemon() {
    for kind in [Signal::KILL, Signal::TERM] {
        let daemon = Daemon::memory();
        let holder = daemon.run(&[], LONG);
        holder.line();
        let waiter = daemon.run(&["-w", "1m"], "echo ran");
        until("one waits", || daemon.waiters() == 1);
        let _daemon = daemon.replace(kind);
        assert_eq!(holder.end().0, 79, "{kind:?}");
        waiter.expect("ran");
        let (code, errors) = waiter.end();
        assert_eq!(code, 0, "{kind:?}: {errors}");
        assert_eq!(errors.matches("went away while x was waited for").count(), 1, "{kind:?}: {errors}");
    }
}

#[test]
fn no_next_daemon_within_the_wait_is_125() {
    let mut daemon = Daemon::memory();
    let holder = daemon.run(&[], LONG);
    holder.line();
    let waiter = daemon.run(&["-w", "3s"], "echo never");
    until("one waits", || daemon.waiters() == 1);
    let begun = Instant::now();
    daemon.job.signal(Signal::KILL);
    daemon.job.wait();
    let (code, errors) = waiter.end();
    assert_eq!(code, 125, "{errors}");
    assert!(errors.contains("went away") && errors.contains("no tenured answers"), "{errors}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn twenty_contenders_never_overlap() {
    let daemon = Daemon::start("file:", &[]);
    let log = daemon.directory.path().join("log");
    let script =
        format!("echo start $TENURE_FENCE >>{0}; sleep 0.005; (exec sleep 0.005); echo end $TENURE_FENCE >>{0}", log.display());
    let jobs: Vec<Job> = (0..20).map(|_| daemon.run(&[], &script)).collect();
    for job in jobs {
        let (code, errors) = job.end();
        assert_eq!(code, 0, "{errors}");
    }
    let lines = lines_of(&log);
    assert_eq!(lines.len(), 40);
    let mut last = 0;
    for pair in lines.chunks(2) {
        let token: u64 = pair[0].strip_prefix("start ").unwrap().parse().unwrap();
        assert_eq!(pair[1], format!("end {token}"));
        assert!(token > last, "{lines:?}");
        last = token;
    }
}

#[test]
fn tenure_killed_takes_the_command_along_and_frees_the_lock() {
    let daemon = Daemon::memory();
    let first = daemon.run(&[], LONG);
    let pid: i32 = first.line().parse().unwrap();
    let second = daemon.run(&[], "echo mine");
    until("the second waits", || daemon.waiters() == 1);
    let killed = Instant::now();
    first.signal(Signal::KILL);
    second.expect("mine");
    // The lease is a minute: nobody waited for it.
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    until("the command died with tenure", || !is_alive(pid));
}

#[test]
fn a_daemon_that_stops_costs_the_command_its_life_before_the_lease_ends() {
    let lease = Duration::from_secs(3);
    let daemon = Daemon::start("memory:", &["--lease", "3s"]);
    let job = daemon.run(&[], "trap 'echo term' TERM; echo ready; while :; do sleep 0.2; done");
    job.expect("ready");
    let stopped = Instant::now();
    daemon.job.signal(Signal::STOP);
    until("the daemon stands", || is_stopped(daemon.job.pid()));
    job.expect("term");
    assert!(job.rest().is_empty());
    assert!(stopped.elapsed() < lease, "{:?}", stopped.elapsed());
    let (code, errors) = job.end();
    assert_eq!(code, 79, "{errors}");
    daemon.job.signal(Signal::CONT);
}

#[test]
fn a_short_stop_of_the_daemon_costs_nothing() {
    let daemon = Daemon::start("memory:", &["--lease", "3s"]);
    let job = daemon.run(&[], "echo ready; sleep 2; exit 4");
    job.expect("ready");
    daemon.job.signal(Signal::STOP);
    until("the daemon stands", || is_stopped(daemon.job.pid()));
    std::thread::sleep(Duration::from_millis(300));
    daemon.job.signal(Signal::CONT);
    let (code, errors) = job.end();
    assert_eq!(code, 4, "{errors}");
}

#[test]
fn a_daemon_that_dies_ends_the_command() {
    let daemon = Daemon::memory();
    let job = daemon.run(&[], LONG);
    let pid: i32 = job.line().parse().unwrap();
    let killed = Instant::now();
    daemon.job.signal(Signal::KILL);
    let (code, errors) = job.end();
    assert_eq!(code, 79, "{errors}");
    assert!(!is_alive(pid));
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
}

#[test]
fn a_daemon_that_is_told_to_leave_waits_for_the_command_to_end() {
    let daemon = Daemon::start("memory:", &["--lease", "60s", "--drain", "2s"]);
    let mark = daemon.directory.path().join("mark");
    let script = format!("trap 'sleep 0.2; echo ended >{}; exit 3' TERM; {LONG}", mark.display());
    let job = daemon.run(&[], &script);
    job.line();
    daemon.job.signal(Signal::TERM);
    let (code, errors) = job.end();
    assert_eq!(code, 79, "{errors}");
    assert!(errors.contains("tenured is shutting down"), "{errors}");
    assert_eq!(lines_of(&mark), ["ended"]);
    assert_eq!(daemon.job.end().0, 0);
}

#[test]
fn a_hold_broken_by_an_administrator_ends_the_command() {
    let daemon = Daemon::memory();
    let first = daemon.run(&[], &format!("echo $TENURE_FENCE; {LONG}"));
    let token = first.line();
    let second = daemon.run(&[], "echo mine");
    until("the second waits", || daemon.waiters() == 1);
    daemon.rpc("lock.break", &format!(r#"{{"name":"x","fence":{token}}}"#));
    let (code, errors) = first.end();
    assert_eq!(code, 79);
    assert!(errors.contains("an administrator broke this hold"), "{errors}");
    second.expect("mine");
    assert_eq!(second.end().0, 0);
}

#[test]
fn a_wait_that_is_interrupted_leaves_the_queue() {
    let daemon = Daemon::memory();
    let first = daemon.run(&[], LONG);
    first.line();
    for kind in [Signal::INT, Signal::KILL] {
        let second = daemon.run(&[], "echo never");
        until("the second waits", || daemon.waiters() == 1);
        second.signal(kind);
        until("the second has left", || daemon.waiters() == 0);
    }
}

#[test]
fn locks_nest_through_the_environment() {
    let daemon = Daemon::memory();
    let script = format!("exec {} lock y -- bash -c 'echo $TENURE_LOCK'", env!("CARGO_BIN_EXE_tenure"));
    let job = daemon.run(&[], &script);
    job.expect("y");
    assert_eq!(job.end().0, 0);
}

#[test]
fn status_and_rpc_print_json_and_refuse_what_is_wrong() {
    let daemon = Daemon::memory();
    let tenure = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
        command.args(arguments).env("TENURE_SOCKET", daemon.socket());
        command
    };
    let status = tenure(&["status"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["sessions"].is_array(), "{status}");
    let (code, errors) = outcome(&mut tenure(&["rpc", "lock.get", "not json"]));
    assert_eq!((code, errors.lines().count()), (64, 1), "{errors}");
    let (code, errors) = outcome(&mut tenure(&["rpc", "lock.get", r#"{"nome":"x"}"#]));
    assert_eq!((code, errors.lines().count()), (64, 1), "{errors}");
    assert!(errors.contains("nome"), "{errors}");
    let (code, errors) = outcome(&mut tenure(&["rpc", "no.such"]));
    assert_eq!((code, errors.lines().count()), (64, 1), "{errors}");
    assert!(errors.contains("method_not_found (code -32601)"), "{errors}");
}

#[test]
fn straight_on_a_file_only_one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().join("db").display());
    let mut tokens = HashSet::new();
    for _ in 0..2 {
        let job = Job::start(command_stage::under_lock(["--store", &url], &[], "echo $TENURE_FENCE").stdin(Stdio::null()));
        assert!(tokens.insert(job.line()));
        assert_eq!(job.end().0, 0);
    }
    let first = Job::start(command_stage::under_lock(["--store", &url], &[], LONG).stdin(Stdio::null()));
    let pid: i32 = first.line().parse().unwrap();
    let (code, errors) = outcome(&mut command_stage::under_lock(["--store", &url], &["-n"], "echo never"));
    assert_eq!((code, errors.lines().count()), (125, 1), "{errors}");
    signal(first.pid(), Signal::TERM);
    assert_eq!(first.end().0, 143);
    assert!(!is_alive(pid));
}
