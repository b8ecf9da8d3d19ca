//! Names that shells complete: those that the daemon knows, or none and no delay.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::time::{Duration, Instant};

use command_stage::{
    Puppet,
    daemon::{Daemon, LONG},
    result,
    screen::Screen,
    tenure,
};

const TENURE: &str = env!("CARGO_BIN_EXE_tenure");

fn names(daemon: &Daemon, words: &[&str]) -> Vec<String> {
    let (code, out, errors) = result(&mut daemon.tenure(&[&["__complete"], words].concat()));
    assert_eq!((code, &*errors), (0, ""), "{words:?}");
    out.lines().map(str::to_owned).collect()
}

#[test]
fn names_are_those_there_are() {
    let daemon = Daemon::memory();
    for key in ["config/color", "config/size", "jobs/1"] {
        daemon.rpc("kv.put", &format!(r#"{{"key":"{key}","value":"x"}}"#));
    }
    let holds = daemon.run(&[], LONG);
    let leads = daemon.start_tenure(&["elect", "scheduler", "--", "bash", "-c", LONG]);
    let joined = daemon.start_tenure(&["join", "web", "--", "bash", "-c", LONG]);
    for job in [&holds, &leads, &joined] {
        job.line();
    }
    assert_eq!(names(&daemon, &["lock", ""]), ["x"]);
    assert_eq!(names(&daemon, &["locks", "show", ""]), ["x"]);
    let token = daemon.rpc("lock.get", r#"{"name":"x"}"#)["holder"]["fence"].to_string();
    assert_eq!(names(&daemon, &["locks", "break", "x", "--fence", ""]), [token]);
    assert_eq!(names(&daemon, &["elect", ""]), ["scheduler"]);
    assert_eq!(names(&daemon, &["wait", "leader", "s"]), ["scheduler"]);
    for words in [&["members", ""][..], &["join", "w"], &["watch", "members", ""]] {
        assert_eq!(names(&daemon, words), ["web"], "{words:?}");
    }
    assert_eq!(names(&daemon, &["kv", "get", "config/"]), ["config/color", "config/size"]);
    assert_eq!(names(&daemon, &["watch", "kv", "j"]), ["jobs/1"]);
    // Of whoever may write a key, and none of what one asks for.
    daemon.rpc("kv.put", r#"{"key":"--socket=/tmp/other.sock","value":"x"}"#);
    let keys = names(&daemon, &["kv", "get", ""]);
    assert!(keys.contains(&"jobs/1".to_owned()) && !keys.iter().any(|key| key.starts_with('-')), "{keys:?}");
    for words in [&["lock", "y"][..], &["lock", "-"], &["lock", "x", "--", ""], &["status", ""], &[""], &[]] {
        assert!(names(&daemon, words).is_empty(), "{words:?}");
    }
}

#[test]
fn no_daemon_means_no_names_no_words_and_no_delay() {
    // One that hears and says nothing.
    let puppet = Puppet::new(Duration::from_secs(60));
    for socket in ["/no/such/socket", puppet.path().to_str().unwrap()] {
        let begun = Instant::now();
        let (code, out, errors) = result(tenure(["__complete", "lock", ""]).env("TENURE_SOCKET", socket));
        assert_eq!((code, &*out, &*errors), (0, "", ""));
        // A busy machine is slow to start a process; the wait itself is 0.15 s.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_real_bash_completes_them() {
    let daemon = Daemon::memory();
    daemon.rpc("kv.put", r#"{"key":"config/color","value":"x"}"#);
    let holds = daemon.run(&[], LONG);
    holds.line();
    let socket = daemon.socket();
    let path = format!("{}:{}", TENURE.rsplit_once('/').unwrap().0, std::env::var("PATH").unwrap());
    let environment = [("TENURE_SOCKET", socket.to_str().unwrap()), ("PATH", &path)];
    let screen = Screen::with(&["bash", "--noprofile", "--norc", "-i"], (200, 24), &environment);
    screen.expect("$ ");
    screen.types("source <(tenure completions bash); echo rea''dy\n");
    screen.expect("ready");
    screen.types("echo do''ne; tenure kv get conf\t--raw; echo en''d\n");
    screen.expect("config/color --raw");
    screen.expect("done");
    screen.expect("end");
    screen.types("tenure locks show \t-o jsonl\n");
    screen.expect("locks show x -o jsonl");
    screen.expect("\"name\":\"x\"");
    screen.types("tenure sta\t\n");
    screen.expect("uptime_ms");
}
