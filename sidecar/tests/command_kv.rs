//! `tenure kv` through a real daemon: what is written is read, and what must not be written is not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{
    ffi::OsStr,
    io::Write,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    process::{Command, Stdio},
};

use command_stage::{Job, daemon::Daemon, outcome, result, tenure, until};
use rustix::process::Signal;
use serde_json::{Value, json};

const TENURE: &str = env!("CARGO_BIN_EXE_tenure");
const VERBS: [&[&str]; 8] = [
    &["get", "k"],
    &["put", "k", "v"],
    &["create", "k", "v"],
    &["update", "k", "v", "--revision", "1"],
    &["del", "k"],
    &["purge", "k"],
    &["ls"],
    &["history", "k"],
];

fn kv(daemon: &Daemon, arguments: &[&str]) -> Command {
    daemon.tenure(&[&["kv"], arguments].concat())
}

/// Exit code and standard output; what went well says nothing else.
fn said(daemon: &Daemon, arguments: &[&str]) -> (i32, String) {
    let (code, output, errors) = result(&mut kv(daemon, arguments));
    assert_eq!(errors.lines().count(), usize::from(code != 0), "{arguments:?}: {errors}");
    (code, output)
}

fn json_of(daemon: &Daemon, arguments: &[&str]) -> Value {
    let (code, output) = said(daemon, arguments);
    assert_eq!(code, 0, "{arguments:?}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output}"))
}

fn raw(daemon: &Daemon, key: &str) -> Vec<u8> {
    let output = kv(daemon, &["get", key, "--raw"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn put_from_input(daemon: &Daemon, key: &str, bytes: &[u8]) -> (i32, String) {
    let mut command = kv(daemon, &["put", key, "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // Who has read enough to refuse it reads no more.
    let _ = input.write_all(bytes);
    drop(input);
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_value_comes_back_byte_for_byte() {
    let daemon = Daemon::memory();
    for text in ["green", "", "two\nlines\n", "-5", "\u{e4}\u{2028} \"quoted\""] {
        assert_eq!(said(&daemon, &["put", "k", text]).0, 0, "{text:?}");
        assert_eq!(raw(&daemon, "k"), text.as_bytes());
    }
    assert_eq!(said(&daemon, &["put", "k", "--", "--ttl"]).0, 0);
    assert_eq!(raw(&daemon, "k"), b"--ttl");
    let every: Vec<u8> = (0..=255).collect();
    let large = vec![b'\x01'; tenure_kv::MAX_VALUE];
    for bytes in [&b""[..], b"text", &every, &large] {
        assert_eq!(put_from_input(&daemon, "k", bytes), (0, String::new()));
        assert!(raw(&daemon, "k") == bytes, "{} bytes differ", bytes.len());
    }
    let status = kv(&daemon, &["put", "k"]).arg(OsStr::from_bytes(b"\xff\xfe")).output().unwrap().status;
    assert!(status.success());
    assert_eq!(raw(&daemon, "k"), b"\xff\xfe");
    assert_eq!(json_of(&daemon, &["get", "k", "-o", "json"])["value_b64"], "//4=");
}

#[test]
fn too_long_a_value_is_refused_before_it_is_sent() {
    let daemon = Daemon::memory();
    let (code, errors) = put_from_input(&daemon, "k", &vec![b'x'; tenure_kv::MAX_VALUE + 1]);
    assert_eq!((code, errors.lines().count()), (64, 1), "{errors}");
    assert!(errors.contains("the limit"), "{errors}");
    assert_eq!(said(&daemon, &["get", "k"]).0, 1);
}

#[test]
fn what_is_expected_is_checked_by_the_store() {
    let daemon = Daemon::memory();
    let first = json_of(&daemon, &["create", "k", "one", "-o", "json"])["revision"].to_string();
    let (code, errors) = outcome(&mut kv(&daemon, &["create", "k", "two"]));
    assert!(code == 73 && errors.contains("k has a value already"), "{code}: {errors}");
    let (code, second) = said(&daemon, &["update", "k", "two", "--revision", &first, "--raw"]);
    assert_eq!(code, 0);
    for stale in [
        &["update", "k", "three", "--revision", &first][..],
        &["del", "k", "--revision", &first],
        &["purge", "k", "--revision", &first],
    ] {
        let (code, errors) = outcome(&mut kv(&daemon, stale));
        assert!(code == 73 && errors.contains("nothing was written"), "{stale:?}: {code}: {errors}");
    }
    assert_eq!(raw(&daemon, "k"), b"two");
    assert_eq!(said(&daemon, &["get", "k", "--revision", &first]).0, 1);
    assert_eq!(said(&daemon, &["del", "k", "--revision", second.trim()]).0, 0);
    assert_eq!(json_of(&daemon, &["history", "k", "-o", "json"])[0]["operation"], "delete");
    assert_eq!(said(&daemon, &["create", "k", "again"]).0, 0);
    assert_eq!(said(&daemon, &["purge", "k"]).0, 0);
    assert_eq!(json_of(&daemon, &["history", "k", "-o", "json"])[0]["operation"], "purge");
}

#[test]
fn a_key_that_is_not_there_is_1() {
    let daemon = Daemon::memory();
    let (code, output, errors) = result(&mut kv(&daemon, &["get", "k"]));
    assert_eq!((code, output.as_str(), errors.as_str()), (1, "", "tenure: k has no value\n"));
    assert_eq!(said(&daemon, &["get", "k", "--raw"]), (1, String::new()));
    assert_eq!(result(&mut kv(&daemon, &["get", "k", "--quiet"])), (1, String::new(), String::new()));
    assert_eq!(said(&daemon, &["get", "k", "-o", "json"]), (1, "null\n".to_owned()));
    assert_eq!(said(&daemon, &["history", "k", "-o", "json"]), (1, "[]\n".to_owned()));
    assert_eq!(said(&daemon, &["history", "k"]), (1, String::new()));
    // Deleting is stating what is to be, not what was.
    assert_eq!(said(&daemon, &["del", "k"]).0, 0);
    assert_eq!(said(&daemon, &["ls", "-o", "json"]), (0, "[]\n".to_owned()));
}

#[test]
fn it_is_printed_as_asked() {
    let daemon = Daemon::memory();
    for key in ["a/1", "b", "a/2"] {
        assert_eq!(said(&daemon, &["put", key, "x"]).0, 0);
    }
    assert_eq!(said(&daemon, &["ls", "--raw"]).1, "a/1\na/2\nb\n");
    assert_eq!(said(&daemon, &["ls", "a/"]).1, "KEY\na/1\na/2\n");
    assert_eq!(said(&daemon, &["ls", "a/", "-o", "jsonl"]).1, "{\"key\":\"a/1\"}\n{\"key\":\"a/2\"}\n");
    assert_eq!(json_of(&daemon, &["ls", "a/", "-o", "json"]), json!([{"key": "a/1"}, {"key": "a/2"}]));

    let (_, written) = said(&daemon, &["put", "b", "two words", "-o", "jsonl"]);
    let written: Value = serde_json::from_str(&written).unwrap();
    let entry = json_of(&daemon, &["get", "b", "-o", "jsonl"]);
    assert_eq!((&entry["revision"], &entry["value"]), (&written["revision"], &json!("two words")));
    let table = said(&daemon, &["get", "b"]).1;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["KEY", "REVISION", "WRITTEN", "VALUE"]);
    assert_eq!((lines[1][0], &lines[1][3..], lines.len()), ("b", &["two", "words"][..], 2));
    let history = said(&daemon, &["history", "b"]).1;
    assert!(history.lines().nth(1).is_some_and(|line| line.contains("put") && line.contains("two words")), "{history}");

    // What others wrote must not steer this terminal.
    assert_eq!(said(&daemon, &["put", "b", "\x1b[2J"]).0, 0);
    assert!(!said(&daemon, &["get", "b"]).1.contains('\x1b'));
}

#[test]
fn a_value_with_a_ttl_is_forgotten() {
    let daemon = Daemon::memory();
    assert_eq!(said(&daemon, &["put", "k", "v", "--ttl", "10ms"]).0, 0);
    until("it is forgotten", || said(&daemon, &["get", "k"]).0 == 1);
}

#[test]
fn a_fenced_write_passes_while_the_lock_is_held_and_never_after() {
    let daemon = Daemon::memory();
    let script = format!(
        "echo $TENURE_FENCE; {TENURE} kv put k held --fence --raw >/dev/null; echo $?
         read -r; {TENURE} kv put k late --fence; echo $?; {TENURE} kv del k --fence; echo $?; {TENURE} kv put other free --raw >/dev/null; echo $?"
    );
    let mut command = daemon.command(&["--on-lost", "ignore"], &script);
    let (input, mut go) = std::io::pipe().unwrap();
    let job = Job::start(command.stdin(input));
    let token = job.line();
    job.expect("0");
    assert_eq!(raw(&daemon, "k"), b"held");
    daemon.rpc("lock.break", &format!(r#"{{"name":"x","fence":{token}}}"#));
    let second = daemon.run(&[], &format!("{TENURE} kv put k next --fence >/dev/null; echo $?"));
    second.expect("0");
    go.write_all(b"\n").unwrap();
    for code in ["73", "73", "0"] {
        job.expect(code);
    }
    let (_, errors) = job.end();
    assert!(errors.contains("nobody holds x with token"), "{errors}");
    assert_eq!(raw(&daemon, "k"), b"next");
}

#[test]
fn a_fence_is_the_innermost_hold() {
    let daemon = Daemon::memory();
    let inner =
        format!("{TENURE} elect e -- bash -c 'echo \"$TENURE_LOCK\"; {TENURE} kv put k led --fence --raw >/dev/null; echo $?'");
    let script = format!("{inner}; {TENURE} kv put k held --fence --raw >/dev/null; echo $?");
    let job = daemon.run(&[], &script);
    job.expect("");
    job.expect("0");
    job.expect("0");
    assert_eq!(job.end().0, 0);
    assert_eq!(raw(&daemon, "k"), b"held");
}

#[test]
fn a_fence_outside_of_a_lock_is_wrong_usage() {
    let daemon = Daemon::memory();
    let (code, errors) = outcome(kv(&daemon, &["put", "k", "v", "--fence"]).env_remove("TENURE_FENCE"));
    assert_eq!((code, errors.lines().count()), (64, 1), "{errors}");
    assert!(errors.contains("tenure lock") && errors.contains("TENURE_FENCE"), "{errors}");
    let mut command = kv(&daemon, &["put", "k", "v", "--fence"]);
    let (code, errors) = outcome(command.env("TENURE_LOCK", "x").env("TENURE_FENCE", "7").env_remove("TENURE_ELECTION"));
    assert!(code == 73 && errors.contains("nobody holds x with token 7"), "{code}: {errors}");
    assert_eq!(said(&daemon, &["get", "k"]).0, 1);
}

#[test]
fn an_interrupt_while_the_value_is_typed_writes_nothing() {
    let daemon = Daemon::memory();
    let (input, mut typed) = std::io::pipe().unwrap();
    typed.write_all(b"half").unwrap();
    let mut job = Job::start(kv(&daemon, &["put", "k", "-"]).stdin(input));
    until("it reads", || std::fs::read_to_string(format!("/proc/{}/comm", job.pid())).is_ok_and(|name| name.trim() == "tenure"));
    job.signal(Signal::INT);
    assert_eq!(job.wait().signal(), Some(Signal::INT.as_raw()));
    assert_eq!(said(&daemon, &["get", "k"]).0, 1);
}

#[test]
fn data_that_cannot_be_written_is_not_taken_for_all_there_is() {
    let daemon = Daemon::memory();
    assert_eq!(said(&daemon, &["put", "k", "v"]).0, 0);
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for arguments in
        [&["kv", "get", "k", "--raw"][..], &["kv", "get", "k"], &["kv", "ls", "-o", "json"], &["locks", "ls"], &["status"]]
    {
        let output = daemon.tenure(arguments).stdout(full()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), errors.lines().count()), (Some(125), 1), "{arguments:?}: {errors}");
        assert!(errors.contains("standard output"), "{errors}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = daemon.tenure(arguments).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(141), 0), "{arguments:?}");
    }
}

#[test]
fn every_verb_takes_a_bucket() {
    let daemon = Daemon::memory();
    let wrote = json_of(&daemon, &["put", "k", "1", "--bucket", "b", "-o", "json"]);
    assert_eq!(said(&daemon, &["create", "k", "own"]).0, 0);
    assert_eq!(said(&daemon, &["get", "k", "--raw", "--bucket", "b"]), (0, "1".to_owned()));
    let revision = wrote["revision"].to_string();
    assert_eq!(said(&daemon, &["--bucket", "b", "update", "k", "2", "--revision", &revision]).0, 0);
    let (code, errors) = outcome(&mut kv(&daemon, &["update", "k", "3", "--revision", &revision, "--bucket", "b"]));
    assert!(code == 73 && errors.contains("`tenure kv get k --bucket b`"), "{errors}");
    let (code, errors) = outcome(&mut kv(&daemon, &["create", "k", "3", "--bucket", "b"]));
    assert!(code == 73 && errors.contains("has a value already"), "{errors}");
    assert_eq!(said(&daemon, &["ls", "--raw", "--bucket", "b"]), (0, "k\n".to_owned()));
    assert_eq!(said(&daemon, &["ls", "--raw", "--bucket", "other"]), (0, String::new()));
    assert_eq!(json_of(&daemon, &["history", "k", "-o", "json", "--bucket", "b"])[0]["value"], "2");
    let watch = Job::start(&mut kv(&daemon, &["watch", "k", "-o", "jsonl", "--bucket", "b"]));
    assert!(watch.line().contains("\"value\":\"2\""));
    assert!(watch.line().contains("sync"));
    assert_eq!(said(&daemon, &["del", "k", "--bucket", "b"]).0, 0);
    assert!(watch.line().contains("delete"));
    assert_eq!(said(&daemon, &["purge", "k", "--bucket", "b"]).0, 0);
    assert!(watch.line().contains("purge"));
    assert_eq!(said(&daemon, &["get", "k", "--raw"]), (0, "own".to_owned()));
}

#[test]
fn wrong_usage_is_64_and_one_line_that_helps() {
    let daemon = Daemon::memory();
    let cases: [(&[&str], &str); 16] = [
        (&[], "get, put, create, update, del, purge, ls, history, watch; see `tenure kv --help`"),
        (&["shout", "k"], "tenure kv --help"),
        (&["get"], "tenure kv get [OPTIONS] <KEY>"),
        (&["put", "k"], "tenure kv put [OPTIONS] <KEY> <VALUE>"),
        (&["put", "k", "v", "--loud"], "tenure kv put --help"),
        (&["put", "a b", "v"], "key"),
        (&["get", "k", "--bucket", "a.b"], "no bucket name"),
        (&["put", "k", "v", "--bucket", "b", "--fence"], "leave out --bucket"),
        (&["get", ""], "key"),
        (&["put", "k", "v", "--ttl", "5"], "30s"),
        (&["put", "k", "v", "--ttl", "0s"], "leave it out"),
        (&["update", "k", "v"], "--revision"),
        (&["update", "k", "v", "--revision", "new"], "--revision"),
        (&["get", "k", "--raw", "-o", "json"], "cannot be used with"),
        (&["get", "k", "-o", "xml"], "table, json, jsonl"),
        (&["get", "k", "--store", "memory:"], "--store"),
    ];
    for (arguments, remedy) in cases {
        let (code, errors) = outcome(&mut kv(&daemon, arguments));
        assert_eq!((code, errors.lines().count()), (64, 1), "{arguments:?}: {errors}");
        assert!(errors.starts_with("tenure: ") && errors.contains(remedy), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_missing_daemon_is_125_and_says_what_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("nobody");
    for verb in VERBS {
        let (code, errors) = outcome(tenure([&["kv"], verb].concat()).env("TENURE_SOCKET", &nobody));
        assert_eq!((code, errors.lines().count()), (125, 1), "{verb:?}: {errors}");
        assert!(
            errors.contains(nobody.to_str().unwrap()) && errors.contains("start one with `tenured`, or name its --socket\n"),
            "{errors}"
        );
    }
}

#[test]
fn every_help_has_an_example() {
    for verb in VERBS.map(|verb| &verb[..1]).into_iter().chain([&[][..]]) {
        let (code, output, _) = result(&mut tenure([&["kv"], verb, &["--help"]].concat()));
        assert!(code == 0 && output.contains("Example") && output.contains("  tenure "), "{verb:?}: {output}");
    }
    let (_, output, _) = result(&mut tenure(["kv", "--help"]));
    for code in ["1 ", "64", "73", "74", "77", "125"] {
        assert!(output.lines().any(|line| line.trim_start().starts_with(code)), "{code}: {output}");
    }
}
