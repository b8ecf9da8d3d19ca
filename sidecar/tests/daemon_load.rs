//! What many clients cost a daemon, and what one user cannot take from another.
//!
//! `cargo test --release -p tenure-sidecar --test daemon_load -- --nocapture` prints the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;
mod peer;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use daemon_support::{Daemon, Mortal, PATIENCE, Wire, await_socket, command, kind, may_open, wait};
use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::{SysconfVar, sysconf},
};
use peer::Peer;
use serde_json::{Value as Json, json};

/// What 10,000 connections may take, each with a lease: 400 MB.
const MOST_KB: u64 = 400_000;

/// Not a test: the process of [`Peer`].
#[test]
#[ignore = "the client process of other tests, started by them"]
fn peer_process() {
    peer::process();
}

/// How many connections this process and a daemon can have, of `wanted`.
fn as_many_as_descriptors_allow(wanted: usize) -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Root may have more.
    let more = wanted as u64 * 6 / 5 + 3_000;
    let hard = if hard < more && setrlimit(Resource::RLIMIT_NOFILE, more, more).is_ok() { more } else { hard };
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    // For the daemon it is one for each and one for this process, with a tenth more for others, and some for checks and itself.
    let free = usize::try_from(hard).unwrap_or(usize::MAX) - 64;
    let most = (free - (free / 8).min(1_024)) / 11 * 10 - 2;
    if most < wanted {
        println!("the limit of open files, {hard}, leaves room for {most} connections and not for {wanted}");
    }
    wanted.min(most)
}

/// What the daemon keeps in memory.
fn resident_kb(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What the daemon has used of the processor, in ticks of the system.
fn ticks(daemon: &Daemon) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// A connection that has said hello, with little memory of its own.
fn connect(socket: &Path) -> UnixStream {
    let begun = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            // The backlog is full.
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&mut stream, "hello", &json!({ "protocol": [1] }));
    stream
}

fn ask(stream: &mut UnixStream, method: &str, params: &Json) {
    let line = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::with_capacity(4_096, &*stream).read_line(&mut answer).unwrap();
    assert!(answer.contains("\"result\""), "{method}: {answer}");
}

#[test]
fn ten_thousand_connections_with_a_lease_each_fit_into_400_megabytes() {
    let wanted = as_many_as_descriptors_allow(10_000);
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "10m"]);
    let before = resident_kb(&daemon);
    let begun = Instant::now();
    let mut all = Vec::with_capacity(wanted);
    for n in 0..wanted {
        let mut stream = connect(&daemon.socket());
        ask(&mut stream, "lock.acquire", &json!({ "name": format!("n{n}") }));
        all.push(stream);
    }
    let resident = resident_kb(&daemon);
    println!(
        "{wanted} connections with a lease each: {resident} kB resident, {before} kB before; opened in {:?}",
        begun.elapsed()
    );
    assert!(resident <= before + (MOST_KB - before) * wanted as u64 / 10_000, "{resident} kB");
    // All of them are there, and are served.
    let status = format!("{:?}", daemon_status(&mut all[0]));
    assert!(status.contains(&format!("\\\"leases\\\":{wanted},")), "{status}");
    drop(all);
}

fn daemon_status(stream: &mut UnixStream) -> String {
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"status\"}\n").unwrap();
    let mut answer = String::new();
    BufReader::with_capacity(65_536, &*stream).read_line(&mut answer).unwrap();
    answer
}

#[test]
fn two_thousand_idle_connections_cost_no_processor_time() {
    let wanted = as_many_as_descriptors_allow(2_000);
    let (idle, crowded) = (Daemon::start(), Daemon::start());
    let all: Vec<UnixStream> = (0..wanted).map(|_| connect(&crowded.socket())).collect();
    let time = Duration::from_secs(4);
    let before = [ticks(&idle), ticks(&crowded)];
    // What is measured is that nothing happens in this time.
    std::thread::sleep(time);
    let used = [ticks(&idle) - before[0], ticks(&crowded) - before[1]];
    let second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
    println!("in {time:?}: {} ticks without connections, {} with {wanted}; {second} ticks are a second", used[0], used[1]);
    assert!(used[1] <= used[0] + 2, "{used:?}");
    drop(all);
}

fn await_connections(wire: &mut Wire, count: usize) {
    let begun = Instant::now();
    while wire.call("status", json!({})).unwrap()["connections"] != count {
        assert!(begun.elapsed() < PATIENCE, "there are never {count} connections");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_one_user_may_have_is_counted_over_its_connections() {
    let daemon = Daemon::with(&[
        "--store",
        "memory:",
        "--lease",
        "60s",
        "--max-connections-per-uid",
        "3",
        "--max-leases-per-uid",
        "4",
        "--max-subscriptions-per-uid",
        "2",
        "--max-requests-per-uid",
        "5",
    ]);
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    let refused = |wire: &mut Wire, method: &str, params: Json, limit: &str| {
        let error = wire.call(method, params).unwrap_err();
        assert_eq!((kind(&error).as_str(), &error["data"]["limit"]), ("limit", &json!(limit)), "{error}");
    };
    let hello = one.call("hello", json!({ "protocol": [1] })).unwrap();
    assert_eq!([&hello["limits"]["connections_per_uid"], &hello["limits"]["leases_per_uid"]], [3, 4]);

    // Leases, and waits for one.
    let (lease, _) = one.acquire("a");
    one.acquire("b");
    two.acquire("c");
    let waiting = two.send("lock.acquire", &json!({ "name": "a" }));
    one.await_waiters("a", 1);
    refused(&mut one, "lock.acquire", json!({ "name": "d" }), "leases_per_uid");
    refused(&mut two, "member.join", json!({ "group": "g", "id": "x" }), "leases_per_uid");
    one.call("lock.release", json!({ "lease": lease })).unwrap();
    let granted = two.result(waiting).unwrap();
    one.acquire("d");
    refused(&mut two, "lock.acquire", json!({ "name": "e" }), "leases_per_uid");
    two.call("lock.release", json!({ "lease": granted["lease"] })).unwrap();

    // Subscriptions.
    let first = one.call("kv.watch", json!({ "key": "k" })).unwrap();
    two.call("kv.watch", json!({ "key": "k" })).unwrap();
    refused(&mut two, "election.observe", json!({ "name": "e" }), "subscriptions_per_uid");
    one.call("subscription.cancel", json!({ "subscription": first["subscription"] })).unwrap();
    two.call("kv.watch", json!({ "key": "k" })).unwrap();

    // Connections. What the third had, all have again when it is gone.
    await_connections(&mut one, 2);
    let mut third = daemon.connect();
    third.acquire("f");
    refused(&mut one, "lock.acquire", json!({ "name": "g" }), "leases_per_uid");
    let mut fourth = daemon.connect();
    let refusal = fourth.line().unwrap();
    assert_eq!((kind(&refusal["error"]).as_str(), &refusal["error"]["data"]["limit"]), ("limit", &json!("connections_per_uid")));
    assert!(fourth.at_end());
    drop(third);
    await_connections(&mut one, 2);
    daemon.connect().acquire("f");
}

#[test]
fn requests_in_flight_are_counted_over_the_connections_of_a_user_and_a_release_is_never_refused() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s", "--max-requests-per-uid", "5"]);
    let (mut one, mut two) = (daemon.connect(), daemon.connect());
    let (lease, _) = one.acquire("a");
    let first = one.send("lock.acquire", &json!({ "name": "a" }));
    one.await_waiters("a", 1);
    let more: Vec<u64> = (0..4).map(|_| two.send("lock.acquire", &json!({ "name": "a" }))).collect();
    // Whatever came after these is refused.
    let begun = Instant::now();
    let error = loop {
        match two.call("lock.get", json!({ "name": "a" })) {
            Err(error) => break error,
            Ok(_) => assert!(begun.elapsed() < PATIENCE),
        }
    };
    assert_eq!((kind(&error).as_str(), &error["data"]["limit"]), ("limit", &json!("requests_per_uid")), "{error}");
    assert!(two.call("ping", json!({})).is_ok());
    for id in &more {
        two.call("cancel", json!({ "id": id })).unwrap();
        assert_eq!(kind(&two.result(*id).unwrap_err()), "cancelled");
    }
    one.call("lock.release", json!({ "lease": lease })).unwrap();
    one.result(first).unwrap();
    assert!(two.call("lock.get", json!({ "name": "a" })).is_ok());
}

#[test]
fn whoever_has_taken_all_connections_has_not_taken_the_first_of_another() {
    if !peer::can_be_others() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let arguments =
        ["--store", "memory:", "--lease", "60s", "--socket-mode", "0666", "--max-connections", "20", "--max-leases-per-uid", "1"];
    let daemon = Daemon::in_directory(directory, &arguments);
    // The one that found the daemon listening may not be gone yet.
    let mut mine = vec![daemon.connect()];
    await_connections(&mut mine[0], 1);
    mine.extend((1..20).map(|_| daemon.connect()));
    for wire in &mut mine {
        wire.call("ping", json!({})).unwrap();
    }
    let refusal = daemon.connect().line().unwrap();
    assert_eq!(refusal["error"]["data"]["limit"], "connections");
    mine[0].acquire("a");
    assert_eq!(mine[1].refused("lock.acquire", json!({ "name": "b" })), "limit");
    let mut other = Peer::start(&daemon.socket(), 54_321, 54_321, "");
    assert_eq!(other.call("status", json!({})).unwrap()["connections"], 21);
    other.call("lock.acquire", json!({ "name": "b" })).unwrap();
    assert_eq!(kind(&other.call("lock.acquire", json!({ "name": "c" })).unwrap_err()), "limit");
}

#[test]
fn where_few_files_may_be_open_no_more_are_let_in_than_have_room_and_others_still_are() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = directory.path().join("s.sock");
    let few = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 128 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tenured"), "--store", "memory:"]);
        command
            .args(["--log", "warn", "--max-connections", "10000", "--socket-mode", "0666", "--socket"])
            .arg(&socket)
            .args(arguments)
            .env_remove("TENURE_CONFIG");
        command
    };
    let mut child = Mortal::spawn(few(&[]).stderr(Stdio::piped()));
    let mut first = await_socket(&mut child, &socket);
    await_connections(&mut first, 1);
    let max = |wire: &mut Wire| wire.call("status", json!({})).unwrap()["connections_max"].as_u64().unwrap();
    let limits = first.call("hello", json!({ "protocol": [1] })).unwrap()["limits"].take();
    // Of one process there may be nearly twice as many as of as many processes.
    let (fewest, most) = (max(&mut first), limits["connections"].as_u64().unwrap());
    assert_eq!(limits["connections_per_uid"], most);
    assert!((16..64).contains(&fewest) && most >= fewest * 3 / 2 && most < 64, "{fewest} {most}");
    let shown = few(&["config", "show"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let said = format!("flag --max-connections; {fewest} to {most} with the 128 files that this process may open");
    assert!(shown.lines().any(|line| line.starts_with("max_connections = 10000 ") && line.ends_with(&said)), "{shown}");

    let mut mine: Vec<_> = (1..most).map(|_| Wire::connect(&socket)).collect();
    for wire in &mut mine {
        wire.call("ping", json!({})).unwrap();
    }
    assert_eq!(max(&mut first), most);
    for _ in 0..100 {
        assert_eq!(Wire::connect(&socket).line().unwrap()["error"]["data"]["limit"], "connections_per_uid");
    }
    if peer::can_be_others() {
        Peer::start(&socket, 54_321, 54_321, "").call("lock.acquire", json!({ "name": "a" })).unwrap();
        // Of many processes there are fewer, and then none of them is let in.
        mine.clear();
        await_connections(&mut first, 1);
        let mut many: Vec<_> = (1..fewest).map(|_| Peer::start(&socket, 0, 0, "")).collect();
        for peer in &mut many {
            peer.call("ping", json!({})).unwrap();
        }
        assert_eq!(max(&mut first), fewest);
        assert_eq!(Wire::connect(&socket).line().unwrap()["error"]["data"]["limit"], "connections");
        Peer::start(&socket, 54_321, 54_321, "").call("lock.acquire", json!({ "name": "a" })).unwrap();
    }
    nix::sys::signal::kill(daemon_support::pid(child.id()), Signal::SIGTERM).unwrap();
    drop((first, mine));
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(
        log.contains("leaves no room for max_connections")
            && log.contains(&format!("connections={fewest} of_one_process={most}"))
            && !log.contains("cannot accept"),
        "{log}"
    );
}

#[test]
fn a_daemon_that_has_no_descriptors_left_keeps_its_promises_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, store) = (directory.path().join("s.sock"), format!("file:{}", directory.path().join("store").display()));
    let mut child = Mortal::spawn(command(&socket, &["--store", &store]).stderr(Stdio::piped()));
    let mut first = await_socket(&mut child, &socket);
    may_open(&child, 64);
    let (lease, _) = first.acquire("a");
    for _ in 0..3 {
        let crowd: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        // Until it has none: nobody of the last is answered.
        let mut last = crowd.last().unwrap().try_clone().unwrap();
        last.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        last.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n").unwrap();
        assert!(last.read(&mut [0; 64]).is_err(), "it has descriptors left");
        assert_eq!(first.call("lock.check", json!({ "lease": lease })).unwrap()["held"], true);
        first.call("kv.put", json!({ "key": "k", "value": "x", "fence_lease": lease })).unwrap();
        drop((last, crowd));
        // The end of those is noticed, and then whoever comes is served.
        let mut next = Wire::connect(&socket);
        assert_eq!(next.refused("lock.acquire", json!({ "name": "a", "wait_ms": 0 })), "timeout");
        next.acquire("b");
    }
    nix::sys::signal::kill(daemon_support::pid(child.id()), Signal::SIGTERM).unwrap();
    drop(first);
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("cannot accept"), "it did run out: {said}");
}

#[test]
fn many_who_wait_and_go_at_once_keep_nobody_from_renewals() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "2s"]);
    let mut holder = daemon.connect();
    let (lease, _) = holder.acquire("kept");
    let _front = daemon.connect().acquire("hot");
    let crowd: Vec<_> = (0..32)
        .map(|_| {
            let mut wire = daemon.connect();
            for _ in 0..64 {
                wire.send("lock.acquire", &json!({ "name": "hot" }));
            }
            wire
        })
        .collect();
    let requests = |wire: &mut Wire| wire.call("status", json!({})).unwrap()["requests"].as_u64().unwrap();
    let begun = Instant::now();
    while requests(&mut holder) < 2_000 {
        assert!(begun.elapsed() < 4 * PATIENCE, "they never wait");
    }
    drop(crowd);
    let begun = Instant::now();
    while requests(&mut holder) > 0 {
        assert!(begun.elapsed() < 4 * PATIENCE, "they never go");
        std::thread::sleep(Duration::from_millis(10));
    }
    let check = holder.call("lock.check", json!({ "lease": lease })).expect("the lock of who had nothing to do with them");
    assert_eq!(check["held"], true);
}

#[test]
fn the_checks_of_one_user_leave_room_for_others() {
    let daemon = Daemon::with(&["--store", "memory:", "--lease", "60s"]);
    let mut wire = daemon.connect();
    let check = json!({ "check": "tcp:127.0.0.1:1", "interval_ms": 3_600_000 });
    let mut join = |id: u32| wire.call("member.join", json!({ "group": "g", "id": id.to_string(), "checks": vec![&check; 16] }));
    let first = join(0).unwrap();
    (1..64).for_each(|id| drop(join(id).unwrap()));
    let error = join(64).unwrap_err();
    assert_eq!((kind(&error).as_str(), &error["data"]["limit"]), ("limit", &json!("checks_per_uid")), "{error}");
    wire.call("member.join", json!({ "group": "g", "id": "plain" })).expect("one without a check");
    wire.call("member.leave", json!({ "lease": first["lease"] })).unwrap();
    let again = json!({ "group": "g", "id": "64", "checks": [check] });
    wire.call("member.join", again).expect("what was given back");
}

#[test]
fn what_the_watches_of_one_user_leave_unread_is_bounded_for_all_of_them() {
    let daemon = Daemon::with(&["--store", "memory:", "--stall", "600s"]);
    let mut deaf = daemon.connect();
    for _ in 0..96 {
        deaf.send("kv.watch", &json!({ "prefix": "" }));
    }
    let mut wire = daemon.connect();
    let subscriptions = |wire: &mut Wire| wire.call("status", json!({})).unwrap()["subscriptions"].as_u64().unwrap();
    let begun = Instant::now();
    while subscriptions(&mut wire) < 96 {
        assert!(begun.elapsed() < PATIENCE, "they never begin");
    }
    // Less than one of them may keep, and more than all.
    let value = "x".repeat(100_000);
    (0..20).for_each(|n| drop(wire.call("kv.put", json!({ "key": format!("k{n}"), "value": value })).unwrap()));
    let begun = Instant::now();
    while subscriptions(&mut wire) == 96 {
        assert!(begun.elapsed() < PATIENCE, "all of them keep everything");
        std::thread::sleep(Duration::from_millis(10));
    }
}
