//! What the command says and how it exits when the daemon refuses a call, or goes away during it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    thread,
};

use command_stage::{outcome, tenure};
use serde_json::{Value, json};

/// A daemon with one answer to everything.
struct Oracle {
    directory: tempfile::TempDir,
}

impl Oracle {
    /// Answers with this error; with none it hangs up.
    fn new(error: Option<Value>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        // Ends with the test process; a listener cannot be woken.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // The other side closes once it has read.
                for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                    let Some(error) = &error else { break };
                    let request: Value = serde_json::from_str(&line).unwrap();
                    let answer = json!({"jsonrpc": "2.0", "id": request["id"], "error": error});
                    let _ = writeln!(&stream, "{answer}");
                }
            }
        });
        Self { directory }
    }

    fn of(kind: &str) -> Self {
        Self::new(Some(json!({"code": 42, "message": "not today", "data": {"kind": kind, "retryable": false, "limit": "days"}})))
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

fn run(socket: &Path, arguments: &[&str]) -> (i32, String) {
    let (code, errors) = outcome(tenure(arguments).env("TENURE_SOCKET", socket));
    assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
    (code, errors)
}

#[test]
fn the_exit_code_is_that_of_the_kind() {
    let kinds = [
        ("parse_error", 64),
        ("invalid_request", 64),
        ("method_not_found", 64),
        ("invalid_params", 64),
        ("unsupported", 64),
        ("timeout", 75),
        ("conflict", 73),
        ("not_held", 79),
        ("lost", 79),
        ("not_found", 1),
        ("unavailable", 125),
        ("limit", 125),
        ("denied", 77),
        ("unknown_outcome", 74),
        ("internal", 74),
        ("cancelled", 74),
        ("of_a_later_daemon", 74),
    ];
    for (kind, expected) in kinds {
        let oracle = Oracle::of(kind);
        for call in [
            &["rpc", "kv.put", r#"{"key":"k","value":"v"}"#][..],
            &["kv", "put", "k", "v"],
            &["kv", "create", "k", "v"],
            &["kv", "del", "k"],
            &["locks", "break", "x", "--fence", "7"],
        ] {
            let (code, errors) = run(&oracle.path(), call);
            assert_eq!(code, expected, "{kind}: {call:?}: {errors}");
            let said = if (kind, call[0]) == ("conflict", "locks") { "x is not held with token 7" } else { "not today" };
            assert!(errors.contains(said), "{kind}: {call:?}: {errors}");
        }
        // What only reads cannot have been done.
        let (code, _) = run(&oracle.path(), &["kv", "get", "k"]);
        assert_eq!(code, if expected == 74 { 125 } else { expected }, "{kind}");
    }
}

#[test]
fn rpc_tells_all_that_the_error_says() {
    let oracle = Oracle::of("limit");
    let (_, errors) = run(&oracle.path(), &["rpc", "lock.get", r#"{"name":"x"}"#]);
    assert_eq!(errors, "tenure: limit (code 42): not today; {\"limit\":\"days\"}\n");
    let oracle = Oracle::new(Some(json!({"code": -32603, "message": "bare"})));
    assert_eq!(run(&oracle.path(), &["rpc", "ping"]), (125, "tenure: error (code -32603): bare\n".to_owned()));
}

#[test]
fn a_daemon_that_goes_away_during_a_write_leaves_it_unknown() {
    let oracle = Oracle::new(None);
    for call in [&["kv", "put", "k", "v"][..], &["kv", "purge", "k"]] {
        let (code, errors) = run(&oracle.path(), call);
        assert!(code == 74 && errors.contains("`tenure kv get k`"), "{call:?}: {code}: {errors}");
    }
    assert_eq!(run(&oracle.path(), &["rpc", "kv.put", r#"{"key":"k","value":"v"}"#]).0, 74);
    for call in [&["kv", "get", "k"][..], &["kv", "ls"], &["kv", "history", "k"], &["status"], &["rpc", "lock.list"]] {
        assert_eq!(run(&oracle.path(), call).0, 125, "{call:?}");
    }
}

#[test]
fn a_wait_for_what_cannot_be_seen_is_not_told_as_one_in_vain() {
    for what in ["leader", "lock", "key"] {
        let oracle = Oracle::of("unavailable");
        let wait = |timeout| outcome(tenure(["wait", what, "x", "--timeout", timeout]).env("TENURE_SOCKET", oracle.path()));
        let (code, errors) = wait("0s");
        assert_eq!((code, errors.lines().count()), (125, 1), "{what}: {errors}");
        // Once while it goes on, and once at the end, however often it looked.
        let (code, errors) = wait("300ms");
        assert_eq!((code, errors.lines().count()), (125, 2), "{what}: {errors}");
        assert!(errors.contains("not today; looking again"), "{errors}");
        let oracle = Oracle::of("denied");
        assert_eq!(run(&oracle.path(), &["wait", what, "x"]).0, 77);
        let oracle = Oracle::new(None);
        assert_eq!(run(&oracle.path(), &["wait", what, "x", "--timeout", "0s"]).0, 125);
    }
}
