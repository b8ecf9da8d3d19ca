//! What becomes of a command whose lock cannot be kept: a daemon that does what it is told tells when.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{
    io::Write,
    process::Stdio,
    time::{Duration, Instant},
};

use command_stage::{Job, Puppet, is_alive, is_stopped, lines_of, until};
use rustix::process::Signal;
use serde_json::json;

const LEASE: Duration = Duration::from_secs(3);

/// Tells of TERM and goes on.
const STUBBORN: &str = "trap 'echo term' TERM; echo ready; while :; do sleep 0.2; done";
/// Ends a little while after TERM.
const POLITE: &str = "trap 'sleep 0.1; echo bye; exit 3' TERM; echo ready; while :; do sleep 0.2; done";

/// Waits for the end of the output, which is the end of the command and all its children.
fn died(job: &Job) -> (Vec<String>, Instant) {
    (job.rest(), Instant::now())
}

#[test]
fn the_environment_names_the_daemon_and_its_lease() {
    let daemon = Puppet::new(LEASE);
    let job = daemon.run(&["--label", "me"], "echo $TENURE_LOCK $TENURE_FENCE $TENURE_LEASE $TENURE_SOCKET");
    job.expect(&format!("x 7 l_1 {}", daemon.path().display()));
    let asked = daemon.request("lock.acquire").params;
    assert_eq!(asked, json!({"name": "x", "label": "me"}));
    assert_eq!(daemon.request("lock.release").params, json!({"lease": "l_1"}));
    assert_eq!(job.end().0, 0);
}

#[test]
fn options_reach_the_daemon() {
    let daemon = Puppet::new(LEASE);
    let job = daemon.run(&["-n", "--lease", "2s"], "exit 0");
    let asked = daemon.request("lock.acquire").params;
    assert_eq!(asked, json!({"name": "x", "label": "bash", "wait_ms": 0, "lease_ms": 2_000}));
    assert_eq!(job.end().0, 0);
}

#[test]
fn renewals_keep_the_command_running() {
    let daemon = Puppet::new(Duration::from_millis(1_500));
    let (code, errors) = daemon.run(&[], "sleep 4; exit 4").end();
    assert_eq!(code, 4, "{errors}");
}

#[test]
fn a_daemon_that_hangs_means_term_then_kill_before_the_lease_ends() {
    let daemon = Puppet::new(LEASE);
    let job = daemon.run(&[], STUBBORN);
    job.expect("ready");
    let end = daemon.hang();
    let hung = Instant::now();
    job.expect("term");
    let termed = Instant::now();
    // Not at the first unanswered question: there is time until a fifth of the lease is left.
    assert!(termed.duration_since(hung) > LEASE / 4, "{:?}", termed.duration_since(hung));
    let (rest, dead) = died(&job);
    assert!(rest.is_empty(), "{rest:?}");
    assert!(dead < end, "{:?} too late", dead.duration_since(end));
    assert!(dead.duration_since(termed) > LEASE / 8, "{:?}", dead.duration_since(termed));
    let (code, errors) = job.end();
    assert_eq!(code, 79);
    assert!(errors.contains("lost x: the lease could not be renewed in time; the command was stopped"), "{errors}");
}

#[test]
fn a_command_that_heeds_term_is_not_killed() {
    let daemon = Puppet::new(LEASE);
    let job = daemon.run(&[], POLITE);
    job.expect("ready");
    let end = daemon.hang();
    let (rest, dead) = died(&job);
    assert_eq!(rest, ["bye"]);
    assert!(dead < end);
    assert_eq!(job.end().0, 79);
}

#[test]
fn kill_after_sets_the_time_between_term_and_kill() {
    let daemon = Puppet::new(LEASE);
    let job = daemon.run(&["--kill-after", "400ms"], STUBBORN);
    job.expect("ready");
    let end = daemon.hang();
    job.expect("term");
    let termed = Instant::now();
    assert!(end.duration_since(termed) < LEASE / 4, "{:?} early", end.duration_since(termed));
    let (_, dead) = died(&job);
    assert!(dead < end);
    assert_eq!(job.end().0, 79);
}

#[test]
fn on_lost_kill_sends_no_term() {
    let daemon = Puppet::new(LEASE);
    let job = daemon.run(&["--on-lost", "kill"], STUBBORN);
    job.expect("ready");
    let end = daemon.hang();
    let (rest, dead) = died(&job);
    assert!(rest.is_empty(), "{rest:?}");
    assert!(dead < end);
    assert!(end.duration_since(dead) < LEASE / 4, "{:?} early", end.duration_since(dead));
    assert_eq!(job.end().0, 79);
}

#[test]
fn on_lost_ignore_lets_it_run_with_a_warning() {
    let daemon = Puppet::new(Duration::from_millis(300));
    let job = daemon.run(&["--on-lost", "ignore"], "echo ready; sleep 1; echo done; exit 6");
    job.expect("ready");
    daemon.cut();
    job.expect("done");
    let (code, errors) = job.end();
    assert_eq!(code, 6);
    assert!(errors.contains("warning") && errors.contains("runs on without the lock"), "{errors}");
}

#[test]
fn a_reader_of_our_errors_that_sleeps_holds_up_nothing() {
    let daemon = Puppet::new(Duration::from_secs(60));
    let (reader, mut errors) = std::io::pipe().unwrap();
    // As much as a pipe takes; one byte more would wait for the reader.
    errors.write_all(&vec![b'x'; rustix::pipe::fcntl_getpipe_size(&errors).unwrap()]).unwrap();
    let mut command = command_stage::under_lock(
        ["--socket", daemon.path().to_str().unwrap()],
        &["--on-lost", "ignore", "--kill-after", "55s"],
        "exec 2>&-; read line; exit 6",
    );
    let mut child = command.stdin(Stdio::piped()).stderr(errors).spawn().unwrap();
    daemon.request("lock.check");
    daemon.cut();
    child.stdin.take().unwrap().write_all(b"end\n").unwrap();
    let mut code = None;
    until("tenure ends", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(6));
    drop(reader);
}

#[test]
fn everybody_in_the_group_is_gone_not_only_the_command() {
    let daemon = Puppet::new(LEASE);
    // The command heeds TERM at once, its child does not, and holds the output open.
    let job = daemon.run(&[], "(trap '' TERM; echo $BASHPID; while :; do sleep 0.2; done) & trap 'exit 0' TERM; wait");
    let child: i32 = job.line().parse().unwrap();
    let end = daemon.hang();
    let (_, dead) = died(&job);
    assert!(dead < end);
    assert!(!is_alive(child));
    assert_eq!(job.end().0, 79);
}

#[test]
fn a_hold_that_is_broken_ends_the_command_at_once() {
    let daemon = Puppet::new(Duration::from_secs(60));
    let job = daemon.run(&[], STUBBORN);
    job.expect("ready");
    daemon.notify("lease", &json!({"lease": "l_2", "state": "lost", "reason": "broken"}));
    daemon.notify("lease", &json!({"lease": "l_1", "state": "suspect"}));
    daemon.notify("lease", &json!({"lease": "l_1", "state": "restored"}));
    let told = Instant::now();
    daemon.notify("lease", &json!({"lease": "l_1", "state": "lost", "reason": "broken"}));
    let (rest, dead) = died(&job);
    // TERM comes first, but on a busy machine KILL may overtake what it sets off.
    assert!(rest.is_empty() || rest == ["term"], "{rest:?}");
    assert!(dead.duration_since(told) < Duration::from_secs(2), "{:?}", dead.duration_since(told));
    let (code, errors) = job.end();
    assert_eq!(code, 79);
    assert!(errors.contains("an administrator broke this hold"), "{errors}");
}

#[test]
fn the_end_of_the_connection_is_a_loss() {
    let daemon = Puppet::new(Duration::from_secs(60));
    let job = daemon.run(&[], STUBBORN);
    job.expect("ready");
    let cut = Instant::now();
    daemon.cut();
    let (rest, dead) = died(&job);
    assert!(rest.is_empty() || rest == ["term"], "{rest:?}");
    assert!(dead.duration_since(cut) < Duration::from_secs(2), "{:?}", dead.duration_since(cut));
    let (code, errors) = job.end();
    assert_eq!(code, 79);
    assert!(errors.contains("connection"), "{errors}");
}

#[test]
fn a_daemon_that_leaves_gets_its_lock_back_in_time() {
    let daemon = Puppet::new(Duration::from_secs(60));
    let job = daemon.run(&[], POLITE);
    job.expect("ready");
    let told = Instant::now();
    daemon.notify("goaway", &json!({"deadline_ms": 1_000}));
    let (rest, _) = died(&job);
    assert_eq!(rest, ["bye"]);
    assert!(daemon.request("lock.release").at < told + Duration::from_secs(1));
    let (code, errors) = job.end();
    assert_eq!(code, 79);
    assert!(errors.contains("tenured is shutting down"), "{errors}");
}

#[test]
fn a_third_request_to_stop_kills() {
    let daemon = Puppet::new(Duration::from_secs(60));
    // A shell whose foreground command dies of INT may follow it, whatever its trap.
    let script = "trap 'echo term' TERM; trap 'echo int' INT; echo ready; while :; do sleep 0.2 & wait; done";
    let job = daemon.run(&["--kill-after", "20s"], script);
    job.expect("ready");
    daemon.notify("goaway", &json!({"deadline_ms": 15_000}));
    job.expect("term");
    for _ in 0..2 {
        job.signal(Signal::INT);
        job.expect("int");
    }
    let third = Instant::now();
    job.signal(Signal::INT);
    let (_, dead) = died(&job);
    assert!(dead.duration_since(third) < Duration::from_secs(3), "{:?}", dead.duration_since(third));
    assert_eq!(job.end().0, 79);
}

#[test]
fn the_release_comes_after_the_command_is_reaped() {
    let daemon = Puppet::new(LEASE);
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let script = format!("trap 'sleep 0.3; echo ended >{}; exit 3' TERM; echo $$; while :; do sleep 0.2; done", mark.display());
    let job = daemon.run(&[], &script);
    let pid: i32 = job.line().parse().unwrap();
    job.signal(Signal::TERM);
    daemon.request("lock.release");
    assert_eq!(lines_of(&mark), ["ended"]);
    assert!(!is_alive(pid) && !std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(job.end().0, 3);
}

#[test]
fn a_stopped_tenure_keeps_its_lock_and_goes_on() {
    let daemon = Puppet::new(Duration::from_millis(600));
    let job = daemon.run(&[], "echo ready; while :; do sleep 0.2; done");
    job.expect("ready");
    job.signal(Signal::STOP);
    until("tenure stands", || is_stopped(job.pid()));
    // Longer than what it last knew of the lease; the daemon still holds it.
    std::thread::sleep(Duration::from_millis(800));
    let continued = Instant::now();
    job.signal(Signal::CONT);
    while daemon.request("lock.check").at < continued {}
    std::thread::sleep(Duration::from_millis(300));
    job.signal(Signal::TERM);
    let (code, errors) = job.end();
    assert_eq!(code, 143, "{errors}");
}

#[test]
fn a_wait_ends_with_a_signal_and_gives_up_its_place() {
    for (kind, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        let daemon = Puppet::new(LEASE);
        daemon.hold_back();
        let job = daemon.run(&[], "echo never");
        daemon.request("lock.acquire");
        for harmless in [Signal::USR1, Signal::USR2, Signal::WINCH] {
            job.signal(harmless);
        }
        job.signal(kind);
        daemon.request("end");
        assert!(job.rest().is_empty());
        assert_eq!(job.end(), (code, String::new()));
    }
}

#[test]
fn harmless_signals_do_not_end_a_wait() {
    let daemon = Puppet::new(LEASE);
    daemon.hold_back();
    let job = daemon.run(&["-w", "500ms"], "echo never");
    daemon.request("lock.acquire");
    for harmless in [Signal::USR1, Signal::USR2, Signal::WINCH] {
        job.signal(harmless);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(is_alive(job.pid()));
    job.signal(Signal::INT);
    assert_eq!(job.end().0, 130);
}

#[test]
fn a_daemon_that_goes_while_we_wait_is_waited_for() {
    let daemon = Puppet::new(LEASE);
    daemon.hold_back();
    let job = daemon.run(&[], "echo ran");
    daemon.request("lock.acquire");
    daemon.cut();
    daemon.request("lock.acquire");
    daemon.grant();
    job.expect("ran");
    let (code, errors) = job.end();
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("tenured went away while x was waited for"), "{errors}");
}
