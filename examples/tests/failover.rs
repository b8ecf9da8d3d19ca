//! The failover example as a program: it passes, it fails when a rule is broken, and it leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tenure_tests::{NatsServer, unique_bucket};

/// The example, which Cargo builds next to the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples/failover");
    assert!(program.exists(), "{} is missing: cargo build -p tenure-examples --example failover", program.display());
    program
}

fn failover(temporary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env("TMPDIR", temporary).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    command
}

fn run(arguments: &[&str]) -> Output {
    let temporary = tempfile::tempdir().unwrap();
    failover(temporary.path(), arguments).output().unwrap()
}

/// Runs it for four seconds; the exit code and what it said.
fn summary(arguments: &[&str]) -> (Option<i32>, Value) {
    summary_after("4", arguments)
}

fn summary_after(seconds: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = run(&[&["--seconds", seconds, "--json"], arguments].concat());
    let said = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), said)
}

fn broken(summary: &Value) -> Vec<&str> {
    let mut rules: Vec<_> = summary["violations"].as_array().unwrap().iter().map(|v| v["rule"].as_str().unwrap()).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[test]
fn killed_and_paused_holders_break_nothing() {
    breaks_nothing(&summary(&[]));
}

#[tokio::test]
async fn killed_and_paused_holders_break_nothing_on_nats() {
    let server = NatsServer::start().await;
    // A new bucket grants nothing for one lease.
    breaks_nothing(&summary_after("7", &["--store", &server.url(&unique_bucket("failover"))]));
}

fn breaks_nothing((code, summary): &(Option<i32>, Value)) {
    assert_eq!((*code, broken(summary)), (Some(0), vec![]), "{summary:#}");
    for figure in ["/hand_over/release/count", "/hand_over/kill/count", "/hand_over/pause/count"] {
        assert!(summary.pointer(figure).is_some_and(|count| count.as_u64() > Some(0)), "{figure} in {summary:#}");
    }
    for figure in ["appends", "refused_by_file", "refused_by_store"] {
        assert!(summary[figure].as_u64() > Some(0), "{figure} in {summary:#}");
    }
}

#[test]
fn without_the_lock_the_check_fails() {
    let (code, summary) = summary(&["--store", "memory:", "--sabotage", "no-lock"]);
    assert_eq!((code, broken(&summary)), (Some(1), vec!["lost", "overlap", "tokens"]), "{summary:#}");
}

#[test]
fn without_the_fence_the_check_fails() {
    let (code, summary) = summary(&["--store", "memory:", "--sabotage", "no-fence"]);
    assert_eq!(code, Some(1), "{summary:#}");
    assert!(broken(&summary).contains(&"tokens"), "{summary:#}");
}

#[test]
fn a_lost_append_fails_the_check() {
    let (code, summary) = summary(&["--store", "memory:", "--sabotage", "lose"]);
    assert_eq!(code, Some(1), "{summary:#}");
    assert!(broken(&summary).contains(&"lost"), "{summary:#}");
}

#[test]
fn an_interrupt_ends_everybody_and_removes_everything() {
    let temporary = tempfile::tempdir().unwrap();
    let mut director =
        failover(temporary.path(), &["--seconds", "60"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(director.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("is stopped")).unwrap().unwrap();
    kill(Pid::from_raw(director.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    lines.for_each(drop);
    assert_eq!(director.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    director.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("interrupted: ended 5 workers and the daemon"), "{said}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    assert_eq!(processes_of(temporary.path()), Vec::<String>::new());
}

/// Command lines of living processes that name `directory`.
fn processes_of(directory: &Path) -> Vec<String> {
    let directory = directory.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(directory)).collect()
}

#[test]
fn wrong_usage_is_one_clear_error() {
    for (arguments, code, part) in [
        (&["--workers", "1"][..], 64, "2..=100"),
        (&["--lease", "1ms"], 64, "between 150ms and 1day"),
        (&["--role", "worker"], 64, "--dir"),
        (&["--store", "redis://x"], 2, "redis"),
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part) && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}
