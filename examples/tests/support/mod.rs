//! Running examples as programs.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test uses what it needs")]

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

/// An example, which Cargo builds next to the tests.
pub fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let program: PathBuf = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: cargo build -p tenure-examples --example {name}", program.display());
    let mut command = Command::new(program);
    command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    command
}

/// Runs it with `--json`; the exit code and what it said.
pub fn summary(name: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = example(name).args(arguments).arg("--json").output().unwrap();
    let said = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), said)
}

/// The promises of a summary that were broken.
pub fn broken(summary: &Value) -> Vec<&str> {
    let verdicts = summary["verdicts"].as_array().unwrap();
    assert!(verdicts.len() > 1);
    let broken = verdicts.iter().filter(|verdict| !verdict["broken"].as_array().unwrap().is_empty());
    broken.map(|verdict| verdict["promise"].as_str().unwrap()).collect()
}

/// Interrupts it once a line has `sign` in it: it must end with 130, say `words`, and leave no process and no file.
pub fn interrupt(name: &str, arguments: &[&str], sign: &str, words: &str) {
    disturb(name, arguments, sign, Signal::SIGINT, |_, director| Some(director), (130, words));
}

/// Kills the daemon once a line has `sign` in it: the run must fail, say so, and leave no process and no file.
pub fn kill_the_daemon(name: &str, arguments: &[&str], sign: &str) {
    let daemon = |directory: &Path, _| {
        processes_of(directory).into_iter().find_map(|(pid, line)| line.contains("--role\0daemon").then_some(pid))
    };
    disturb(name, arguments, sign, Signal::SIGKILL, daemon, (2, "the daemon ended (signal: 9"));
}

fn disturb(
    name: &str,
    arguments: &[&str],
    sign: &str,
    signal: Signal,
    whom: impl Fn(&Path, i32) -> Option<i32>,
    (code, words): (i32, &str),
) {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = example(name);
    command.args(arguments).env("TMPDIR", temporary.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut director = command.spawn().unwrap();
    let mut lines = BufReader::new(director.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains(sign)).unwrap().unwrap();
    assert_ne!(processes_of(temporary.path()), []);
    kill(Pid::from_raw(whom(temporary.path(), director.id().try_into().unwrap()).unwrap()), signal).unwrap();
    lines.for_each(drop);
    assert_eq!(director.wait().unwrap().code(), Some(code));
    let mut said = String::new();
    director.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains(words), "{said}");
    assert_eq!(processes_of(temporary.path()), []);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// Numbers and command lines of living processes that name `directory`.
fn processes_of(directory: &Path) -> Vec<(i32, String)> {
    let directory = directory.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let processes = processes.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        Some((pid, std::fs::read_to_string(process.path().join("cmdline")).ok()?))
    });
    processes.filter(|(_, line)| line.contains(directory)).collect()
}

/// Runs it with arguments that make no sense: one clear error that has `part` in it.
pub fn refused(name: &str, arguments: &[&str], code: i32, part: &str) {
    let Output { status, stderr, .. } = example(name).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(part) && !said.contains("panicked"), "{arguments:?}: {said}");
    assert!(code != 2 || said.lines().count() == 1, "{arguments:?}: {said}");
}
