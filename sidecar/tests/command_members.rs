//! `tenure join` and `tenure members` through a real daemon: who comes, goes, dies and is well.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use command_stage::{
    Job,
    daemon::{Daemon, LONG},
    is_alive, outcome, result, tenure, until,
};
use rustix::process::Signal;
use serde_json::Value;

/// A command line that joins `web` and runs `script`.
fn joining<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["join", "web"], options, &["--", "bash", "-c", script]].concat()
}

fn join(daemon: &Daemon, options: &[&str], script: &str) -> Job {
    daemon.start_tenure(&joining(options, script))
}

fn members(daemon: &Daemon) -> Vec<Value> {
    let (code, out, errors) = result(&mut daemon.tenure(&["members", "web", "-o", "json"]));
    assert_eq!(code, 0, "{errors}");
    serde_json::from_str(&out).unwrap()
}

fn state(daemon: &Daemon) -> String {
    members(daemon).first().map(|member| member["state"].as_str().unwrap().to_owned()).unwrap_or_default()
}

/// What `tenure members web --watch` prints, event by event.
struct Watch(Job);

impl Watch {
    fn start(daemon: &Daemon) -> Self {
        Self(daemon.start_tenure(&["members", "web", "--watch", "-o", "jsonl"]))
    }

    /// The next event's kind and the id that it is about.
    fn next(&self) -> (String, String) {
        let event: Value = serde_json::from_str(&self.0.line()).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = if event["member"].is_null() { &event["id"] } else { &event["member"]["id"] };
        (text(&event["kind"]), text(id))
    }

    fn expect(&self, kind: &str, id: &str) {
        assert_eq!(self.next(), (kind.to_owned(), id.to_owned()));
    }

    /// The next event is that `id` is gone; it may have been seen draining before.
    fn expect_leave(&self, id: &str) {
        let mut next = self.next();
        if next == ("update".to_owned(), id.to_owned()) {
            next = self.next();
        }
        assert_eq!(next, ("leave".to_owned(), id.to_owned()));
    }
}

#[test]
fn a_watch_tells_who_joins_leaves_and_crashes() {
    let daemon = Daemon::memory();
    let before = join(&daemon, &["--id", "before"], LONG);
    before.line();
    let watch = Watch::start(&daemon);
    watch.expect("join", "before");
    watch.expect("sync", "");
    let short = join(&daemon, &["--id", "short"], LONG);
    watch.expect("join", "short");
    let command: i32 = short.line().parse().unwrap();
    command_stage::signal(command, Signal::KILL);
    watch.expect("leave", "short");
    assert_eq!(short.end().0, 137);
    let crashing = join(&daemon, &["--id", "crashing"], LONG);
    let command: i32 = crashing.line().parse().unwrap();
    watch.expect("join", "crashing");
    let killed = Instant::now();
    crashing.signal(Signal::KILL);
    watch.expect("leave", "crashing");
    // The lease of this daemon is a minute.
    assert!(killed.elapsed() < Duration::from_secs(10));
    until("the command is gone", || !is_alive(command));
    before.signal(Signal::TERM);
    watch.expect_leave("before");
    assert_eq!(before.end().0, 143);
    watch.0.signal(Signal::INT);
    assert_eq!(watch.0.end(), (130, String::new()));
}

#[test]
fn a_watch_goes_on_at_the_next_daemon_and_tells_what_changed() {
    let daemon = Daemon::memory();
    let watch = Watch::start(&daemon);
    watch.expect("sync", "");
    let stays = join(&daemon, &["--id", "stays"], LONG);
    stays.line();
    watch.expect("join", "stays");
    let goes = join(&daemon, &["--id", "goes", "--on-lost", "kill"], LONG);
    goes.line();
    watch.expect("join", "goes");
    let _daemon = daemon.replace(Signal::KILL);
    assert_eq!(goes.end().0, 79);
    // In which order the three come back is open.
    let mut told: Vec<_> = (0..3).map(|_| watch.next()).collect();
    told.sort();
    let pair = |kind: &str, id: &str| (kind.to_owned(), id.to_owned());
    let at_once = [pair("leave", "goes"), pair("sync", ""), pair("update", "stays")];
    if told != at_once {
        assert_eq!(told, [pair("leave", "goes"), pair("leave", "stays"), pair("sync", "")]);
        watch.expect("join", "stays");
    }
}

#[test]
fn members_are_listed_as_a_table_and_as_json() {
    let daemon = Daemon::memory();
    let (code, out, errors) = result(&mut daemon.tenure(&["members", "web"]));
    assert_eq!((code, out.lines().count(), errors.as_str()), (0, 1, ""), "{out}");
    let options = ["--id", "w1", "--addr", "10.0.0.7:80", "--zone", "eu-1a", "--weight", "3", "--meta", "version=1.9"];
    let more = ["--meta", "role=a=b", "--value", "any text", "--label", "the server"];
    let first = join(&daemon, &[&options[..], &more].concat(), "echo $TENURE_GROUP $TENURE_MEMBER $TENURE_SOCKET; read");
    first.expect(&format!("web w1 {}", daemon.socket().display()));
    assert_eq!(first.end().0, 1);

    let first = join(&daemon, &[&options[..], &more].concat(), LONG);
    let second = join(&daemon, &["--id", "a-much-longer-id"], LONG);
    first.line();
    second.line();
    let listed = members(&daemon);
    assert_eq!(listed.len(), 2);
    let w1 = &listed[1];
    for (field, value) in [
        ("id", "w1".into()),
        ("address", "10.0.0.7:80".into()),
        ("zone", "eu-1a".into()),
        ("weight", 3.into()),
        ("metadata", serde_json::json!({"version": "1.9", "role": "a=b"})),
        ("value", Value::from("any text")),
        ("label", "the server".into()),
        ("state", "passing".into()),
        ("pid", first.pid().into()),
    ] {
        assert_eq!(w1[field], value, "{field}");
    }
    let (_, out, _) = result(&mut daemon.tenure(&["members", "web", "-o", "jsonl"]));
    assert_eq!(out.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>(), listed);
    let (_, out, errors) = result(&mut daemon.tenure(&["members", "web"]));
    assert!(errors.is_empty() && !out.contains('\x1b'), "{out}{errors}");
    assert_eq!(out.lines().count(), 3, "{out}");
    let address = out.lines().next().unwrap().find("ADDRESS");
    assert!(address.is_some() && out.lines().nth(2).unwrap().find("10.0.0.7:80") == address, "{out}");
}

/// Checks often enough for a test.
const OFTEN: [&str; 6] = ["--check-interval", "30ms", "--check-rise", "1", "--check-fall", "1"];

#[test]
fn a_tcp_check_moves_the_state() {
    let daemon = Daemon::start("memory:", &["--lease", "60s", "--min-check-interval", "30ms"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let check = format!("tcp:{address}");
    let member = join(&daemon, &[&["--check", &check][..], &OFTEN].concat(), LONG);
    member.line();
    until("it is passing", || state(&daemon) == "passing");
    drop(listener);
    until("it is critical", || state(&daemon) == "critical");
    let _listener = TcpListener::bind(address).unwrap();
    until("it is passing again", || state(&daemon) == "passing");
}

/// A server that answers with this status.
fn http(status: &Arc<AtomicU16>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/health", listener.local_addr().unwrap());
    let status = status.clone();
    // Ends with the test process; a listener cannot be woken.
    std::thread::spawn(move || {
        let answer = |mut stream: TcpStream| {
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request);
            let status = status.load(Ordering::SeqCst);
            let _ = write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        listener.incoming().map_while(Result::ok).for_each(answer);
    });
    url
}

#[test]
fn an_http_check_moves_the_state() {
    let daemon = Daemon::start("memory:", &["--lease", "60s", "--min-check-interval", "30ms"]);
    let status = Arc::new(AtomicU16::new(200));
    let url = http(&status);
    let member = join(&daemon, &[&["--check", &url][..], &OFTEN].concat(), LONG);
    member.line();
    for (answer, shown) in [(200, "passing"), (429, "warning"), (503, "critical"), (204, "passing")] {
        status.store(answer, Ordering::SeqCst);
        until(shown, || state(&daemon) == shown);
    }
}

#[test]
fn a_command_tells_that_it_is_well() {
    let daemon = Daemon::memory();
    let member =
        join(&daemon, &["--check", "ttl:400ms"], "echo $NOTIFY_SOCKET; echo $WATCHDOG_USEC; while :; do sleep 0.2; done");
    let socket = member.line();
    member.expect("400000");
    let notify = UnixDatagram::unbound().unwrap();
    until("it is critical", || state(&daemon) == "critical");
    notify.send_to(b"STATUS=starting\nREADY=1", &socket).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(state(&daemon), "critical", "that was no beat");
    until("it is passing", || {
        notify.send_to(b"STATUS=fine\nWATCHDOG=1\n", &socket).unwrap();
        state(&daemon) == "passing"
    });
    until("it is critical again", || state(&daemon) == "critical");
    member.signal(Signal::TERM);
    assert_eq!(member.end().0, 143);
    assert!(!std::path::Path::new(&socket).parent().unwrap().exists());
}

#[test]
fn a_command_that_is_asked_to_end_drains_before_the_member_leaves() {
    let daemon = Daemon::memory();
    let script = "trap 'read -r _; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let mut command = daemon.tenure(&joining(&["--id", "w1"], script));
    // It ends when it is told to.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let member = Job::start(command.stdin(reader));
    drop(command);
    member.expect("ready");
    assert_eq!(state(&daemon), "passing");
    member.signal(Signal::TERM);
    until("it is draining", || state(&daemon) == "draining");
    writer.write_all(b"go\n").unwrap();
    assert_eq!(member.end().0, 3);
    assert_eq!(state(&daemon), "");
}

#[test]
fn an_id_that_somebody_has_is_75_or_waited_for() {
    let daemon = Daemon::memory();
    let first = join(&daemon, &["--id", "w1", "--label", "the server"], LONG);
    first.line();
    let (code, errors) = outcome(&mut daemon.tenure(&joining(&["--id", "w1", "-n"], "echo never")));
    assert_eq!((code, errors.lines().count()), (75, 1), "{errors}");
    assert!(errors.contains("the id w1 in the group web is taken") && errors.contains("the server"), "{errors}");
    assert_eq!(outcome(&mut daemon.tenure(&joining(&["--id", "w1", "-n", "-E", "9"], "echo never"))).0, 9);
    let begun = Instant::now();
    assert_eq!(outcome(&mut daemon.tenure(&joining(&["--id", "w1", "-w", "300ms"], "echo never"))).0, 75);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let waiting = join(&daemon, &["--id", "w1", "-w", "1m"], "echo joined");
    waiting.says("waiting until it is free");
    first.signal(Signal::KILL);
    waiting.expect("joined");
    let (code, errors) = waiting.end();
    assert!(code == 0 && errors.lines().count() <= 1, "{code}: {errors}");
}

#[test]
fn a_member_whose_daemon_dies_runs_on_and_joins_again() {
    let daemon = Daemon::memory();
    let member = join(&daemon, &["--id", "w1"], LONG);
    let command: i32 = member.line().parse().unwrap();
    let daemon = daemon.replace(Signal::KILL);
    until("it is there again", || state(&daemon) == "passing");
    assert!(is_alive(command));
    member.signal(Signal::TERM);
    let (code, errors) = member.end();
    assert_eq!(code, 143);
    assert!(errors.contains("w1 is no member of web any more") && errors.contains("w1 is a member of web again"), "{errors}");
    assert!(members(&daemon).is_empty());
}

#[test]
fn on_lost_says_what_becomes_of_the_command() {
    for (what, code) in [("term", 79), ("kill", 79), ("ignore", 6)] {
        let mut daemon = Daemon::memory();
        let script = "echo ready; for i in {1..40}; do sleep 0.05; done; exit 6";
        let member = join(&daemon, &["--id", "w1", "--on-lost", what], script);
        member.expect("ready");
        daemon.job.signal(Signal::KILL);
        daemon.job.wait();
        let (ended, errors) = member.end();
        assert_eq!(ended, code, "{what}: {errors}");
        let said = if code == 79 { "no member of web any more" } else { "without being a member" };
        assert!(errors.contains(said), "{what}: {errors}");
    }
}

#[test]
fn without_a_command_it_is_a_member_until_a_signal() {
    let daemon = Daemon::memory();
    let watch = Watch::start(&daemon);
    watch.expect("sync", "");
    for kind in [Signal::TERM, Signal::INT, Signal::HUP] {
        let member = daemon.start_tenure(&["join", "web", "--id", "w1"]);
        watch.expect("join", "w1");
        member.expect("w1");
        member.signal(kind);
        watch.expect("leave", "w1");
        assert_eq!(member.end(), (0, String::new()));
    }
    let own = daemon.start_tenure(&["join", "web"]);
    let (kind, id) = watch.next();
    assert!(kind == "join" && id.len() > 9, "{kind} {id}");
    own.expect(&id);
    own.signal(Signal::KILL);
    watch.expect("leave", &id);
    let strict = daemon.start_tenure(&["join", "web", "--id", "w2", "--on-lost", "term"]);
    watch.expect("join", "w2");
    strict.expect("w2");
    drop(daemon);
    assert_eq!(strict.end().0, 79);
}

#[test]
fn straight_in_a_store_the_exit_code_is_the_commands_own() {
    let run = |script: &str| {
        outcome(&mut tenure(["join", "web", "--store", "memory:", "--check", "tcp:127.0.0.1:1", "--", "bash", "-c", script]))
    };
    let (code, errors) = run("exit 7");
    assert!(code == 7 && errors.contains("memory: is seen by this process alone"), "{code}: {errors}");
    assert_eq!(run("kill -KILL $$").0, 137);
    let (code, out, _) = result(&mut tenure(["members", "web", "--store", "memory:", "-o", "json"]));
    assert_eq!((code, out.as_str()), (0, "[]\n"));
}

#[test]
fn wrong_usage_is_64_and_one_line_that_helps() {
    let cases: [(&[&str], &str); 22] = [
        (&["members"], "GROUP"),
        (&["members", "a b"], "group name"),
        (&["members", "web", "-o", "xml"], "table, json, jsonl"),
        (&["members", "web", "--store", "carrier-pigeon:"], "memory:, file:PATH or nats://"),
        (&["join"], "GROUP"),
        (&["join", "a..b", "--", "true"], "group name"),
        (&["join", "web", "true"], "-- COMMAND"),
        (&["join", "web", "--id", "a.b", "--", "true"], "letters, digits"),
        (&["join", "web", "--weight", "0", "--", "true"], "1..=65535"),
        (&["join", "web", "--meta", "novalue", "--", "true"], "KEY=VALUE"),
        (&["join", "web", "--meta", "=v", "--", "true"], "KEY=VALUE"),
        (&["join", "web", "--check", "ftp://x", "--", "true"], "tcp:HOST:PORT"),
        (&["join", "web", "--check", "tcp:nowhere", "--", "true"], "HOST:PORT"),
        (&["join", "web", "--check", "https://x/", "--", "true"], "http://"),
        (&["join", "web", "--check", "ttl:3", "--", "true"], "unit"),
        (&["join", "web", "--check", "ttl:3s"], "needs a command"),
        (&["join", "web", "--on-lost", "ignore"], "needs a command"),
        (&["join", "web", "--on-lost", "pray", "--", "true"], "rejoin, term, kill, ignore"),
        (&["join", "web", "--lease", "1ms", "--", "true"], "150ms"),
        (&["join", "web", "--store", "memory:", "--addr", "", "--", "true"], "address"),
        (&["join", "web", "--store", "memory:", "--check", "tcp:a:1", "--check-interval", "1ms", "--", "true"], "interval"),
        (&["join", "web", "-n", "-w", "3s", "--", "true"], "cannot be used with"),
    ];
    for (arguments, remedy) in cases {
        let (code, errors) = outcome(&mut tenure(arguments));
        assert_eq!(code, 64, "{arguments:?}: {errors}");
        let errors = errors.lines().filter(|line| !line.contains("warning: memory:")).collect::<Vec<_>>();
        assert_eq!(errors.len(), 1, "{arguments:?}: {errors:?}");
        assert!(errors[0].starts_with("tenure: ") && errors[0].contains(remedy), "{arguments:?}: {errors:?}");
    }
    // What only the daemon can tell is told the same way.
    let daemon = Daemon::memory();
    for (option, value) in [("--addr", ""), ("--zone", ""), ("--label", "a\nb")] {
        let (code, errors) = outcome(&mut daemon.tenure(&["join", "web", option, value, "--", "true"]));
        assert_eq!((code, errors.lines().count()), (64, 1), "{option}: {errors}");
    }
}

#[test]
fn a_missing_daemon_is_125_and_says_what_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("nobody");
    for arguments in [&["members", "web"][..], &["members", "web", "--watch"], &["join", "web", "--", "true"], &["join", "web"]] {
        let (code, errors) = outcome(tenure(arguments).env("TENURE_SOCKET", &nobody).stdin(Stdio::null()));
        assert_eq!((code, errors.lines().count()), (125, 1), "{arguments:?}: {errors}");
        assert!(errors.contains(nobody.to_str().unwrap()) && errors.contains("start one with `tenured`"), "{errors}");
    }
}
