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
    let temporary = tempfile::tempdir().unwrap();
    let mut command = example(name);
    command.args(arguments).env("TMPDIR", temporary.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut director = command.spawn().unwrap();
    let mut lines = BufReader::new(director.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains(sign)).unwrap().unwrap();
    assert_ne!(processes_of(temporary.path()), Vec::<String>::new());
    kill(Pid::from_raw(director.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    lines.for_each(drop);
    assert_eq!(director.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    director.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains(words), "{said}");
    assert_eq!(processes_of(temporary.path()), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// Command lines of living processes that name `directory`.
fn processes_of(directory: &Path) -> Vec<String> {
    let directory = directory.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(directory)).collect()
}

/// Runs it with arguments that make no sense: one clear error that has `part` in it.
pub fn refused(name: &str, arguments: &[&str], code: i32, part: &str) {
    let Output { status, stderr, .. } = example(name).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(part) && !said.contains("panicked"), "{arguments:?}: {said}");
    assert!(code != 2 || said.lines().count() == 1, "{arguments:?}: {said}");
}
