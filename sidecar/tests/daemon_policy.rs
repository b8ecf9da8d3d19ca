//! Who may do what: the policy file of a running daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;
mod peer;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use daemon_support::{Daemon, PATIENCE, Wire, bare, command, kind};
use nix::sys::signal::Signal;
use peer::Peer;
use serde_json::{Value as Json, json};

/// Not a test: the process of [`Peer`].
#[test]
#[ignore = "the client process of other tests, started by them"]
fn peer_process() {
    peer::process();
}

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A daemon whose policy is in `policy.toml` beside its socket, which every user can reach.
fn daemon(rules: &str) -> (Daemon, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let policy = directory.path().join("policy.toml");
    fs::write(&policy, rules).unwrap();
    let path = policy.to_str().unwrap().to_owned();
    let arguments = ["--store", "memory:", "--lease", "60s", "--socket-mode", "0666", "--policy", &path];
    (Daemon::in_directory(directory, &arguments), policy)
}

/// Has the daemon read `rules`, and waits until `done` says so.
fn reload(daemon: &Daemon, policy: &Path, rules: &str, done: impl Fn(&Json) -> bool) -> Json {
    fs::write(policy, rules).unwrap();
    ask_to_reload(daemon, done)
}

fn ask_to_reload(daemon: &Daemon, done: impl Fn(&Json) -> bool) -> Json {
    daemon.signal(Signal::SIGHUP);
    let begun = Instant::now();
    loop {
        let found = daemon.connect().call("status", json!({})).unwrap()["policy"].take();
        if done(&found) {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "the policy is never read: {found}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn denied(wire: &mut Wire, method: &str, params: Json, needs: &str) {
    let error = wire.call(method, params.clone()).expect_err(&format!("{method} {params}"));
    assert_eq!((kind(&error).as_str(), &error["data"]["needs"]), ("denied", &json!(needs)), "{error}");
    assert_eq!((&error["code"], &error["data"]["retryable"]), (&json!(7), &json!(false)));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(needs) && message.contains("rule") && message.contains(&format!("user {}", own())), "{message}");
}

#[test]
fn what_no_rule_allows_is_denied_and_the_message_says_what_is_needed() {
    let own = own();
    let (daemon, _policy) = daemon(&format!(
        "[[allow]]\nuser = {own}\nmethods = [\"lock\", \"election\", \"member\", \"kv\"]\nprefix = \"a.\"\n\n\
         [[allow]]\nuser = {own}\nmethods = [\"lock.observe\", \"kv.observe\"]\nname = \"seen\"\n\n\
         [[deny]]\nuser = \"*\"\nmethods = \"lock.use\"\nprefix = \"a.not.\"\n"
    ));
    let mut wire = daemon.connect();
    let (lease, _) = wire.acquire("a.1");
    wire.call("lock.check", json!({ "lease": lease })).unwrap();
    wire.call("lock.release", json!({ "lease": lease })).unwrap();
    for (method, params, needs) in [
        ("lock.acquire", json!({ "name": "b" }), "lock.use"),
        ("lock.acquire", json!({ "name": "seen" }), "lock.use"),
        ("lock.acquire", json!({ "name": "a.not.b" }), "lock.use"),
        ("lock.get", json!({ "name": "b" }), "lock.observe"),
        ("lock.observe", json!({ "name": "b" }), "lock.observe"),
        ("election.campaign", json!({ "name": "b", "wait_ms": 0 }), "election.use"),
        ("election.leader", json!({ "name": "seen" }), "election.observe"),
        ("election.candidates", json!({ "name": "b" }), "election.observe"),
        ("election.observe", json!({ "name": "b" }), "election.observe"),
        ("member.join", json!({ "group": "b", "id": "x" }), "member.use"),
        ("member.list", json!({ "group": "b" }), "member.observe"),
        ("member.watch", json!({ "group": "b" }), "member.observe"),
        ("kv.get", json!({ "key": "b" }), "kv.observe"),
        ("kv.history", json!({ "key": "b" }), "kv.observe"),
        ("kv.watch", json!({ "key": "b" }), "kv.observe"),
        ("kv.put", json!({ "key": "seen", "value": "x" }), "kv.use"),
        ("kv.create", json!({ "key": "b", "value": "x" }), "kv.use"),
        ("kv.update", json!({ "key": "b", "value": "x", "revision": 1 }), "kv.use"),
        ("kv.delete", json!({ "key": "b" }), "kv.use"),
        ("kv.purge", json!({ "key": "b" }), "kv.use"),
        // Leave for a key is none for one of that name in another bucket.
        ("kv.get", json!({ "key": "a.1", "bucket": "other" }), "kv.observe"),
        ("kv.keys", json!({ "bucket": "other" }), "kv.observe"),
    ] {
        denied(&mut wire, method, params, needs);
    }
    for (method, params) in [
        ("lock.get", json!({ "name": "seen" })),
        ("lock.observe", json!({ "name": "seen" })),
        ("election.leader", json!({ "name": "a.e" })),
        ("member.list", json!({ "group": "a.g" })),
        ("kv.put", json!({ "key": "a.k", "value": "x" })),
        ("kv.get", json!({ "key": "seen" })),
        ("lock.list", json!({})),
        ("kv.keys", json!({})),
        ("ping", json!({})),
        ("hello", json!({ "protocol": [1] })),
    ] {
        wire.call(method, params).unwrap();
    }
    // What is no request is not denied.
    assert_eq!(wire.refused("lock.acquire", json!({})), "invalid_params");
    assert_eq!(wire.refused("lock.acquire", json!({ "name": 7 })), "invalid_params");
    assert_eq!(wire.refused("lock.steal", json!({ "name": "b" })), "method_not_found");
}

#[test]
fn elections_and_groups_are_listed_for_those_who_may_see_them() {
    let all = "[[allow]]\nuser = \"*\"\nmethods = [\"election\", \"member\"]\n";
    let (daemon, policy) = daemon(all);
    let mut wire = daemon.connect();
    for name in ["a.1", "b.1"] {
        wire.call("election.campaign", json!({ "name": name })).unwrap();
        wire.call("member.join", json!({ "group": name, "id": "x" })).unwrap();
    }
    let names = |wire: &mut Wire, method: &str, of: &str| -> Vec<String> {
        let listed = wire.call(method, json!({})).unwrap();
        listed[of].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let of_clients = |names: Vec<String>| names.into_iter().filter(|name| !name.starts_with("tenure/")).collect::<Vec<_>>();
    assert_eq!(of_clients(names(&mut wire, "election.list", "elections")), ["a.1", "b.1"]);
    assert_eq!(names(&mut wire, "member.groups", "groups"), ["a.1", "b.1"]);
    reload(&daemon, &policy, &format!("{all}prefix = \"a.\"\n"), |status| status["rules"] == 1 && status["problem"].is_null());
    // The number of rules is as before, so what tells that they are the new ones is what they say.
    let begun = std::time::Instant::now();
    while names(&mut wire, "member.groups", "groups") != ["a.1"] {
        assert!(begun.elapsed() < daemon_support::PATIENCE, "the other group is still listed");
    }
    assert_eq!(names(&mut wire, "election.list", "elections"), ["a.1"]);
}

#[test]
fn new_rules_judge_what_comes_and_leave_what_is_held() {
    let own = own();
    let all = "[[allow]]\nuser = \"*\"\nmethods = [\"lock\", \"kv\"]\n";
    let (daemon, policy) = daemon(all);
    let mut wire = daemon.connect();
    let (mine, _) = wire.acquire("a.1");
    let (theirs, _) = wire.acquire("b.1");
    for key in ["a.k", "b.k"] {
        wire.call("kv.put", json!({ "key": key, "value": "x" })).unwrap();
    }
    let rules = format!("{all}prefix = \"a.\"\n[[allow]]\nuser = {own}\nmethods = \"election\"\n");
    let status = reload(&daemon, &policy, &rules, |status| status["rules"] == 2);
    assert_eq!(status, json!({ "path": policy.to_str().unwrap(), "rules": 2 }));

    let names = |listed: Json, of: &str| -> Vec<String> {
        listed[of].as_array().unwrap().iter().map(|lock| lock["name"].as_str().or(lock.as_str()).unwrap().to_owned()).collect()
    };
    assert_eq!(names(wire.call("lock.list", json!({})).unwrap(), "locks"), ["a.1"]);
    assert_eq!(names(wire.call("kv.keys", json!({})).unwrap(), "keys"), ["a.k"]);
    denied(&mut wire, "lock.acquire", json!({ "name": "b.2" }), "lock.use");
    assert_eq!(wire.call("lock.check", json!({ "lease": theirs })).unwrap()["held"], true);

    // A watch shows no more than a list does.
    let mut watch = daemon.connect();
    watch.call("kv.watch", json!({ "prefix": "" })).unwrap();
    let begun: Vec<Json> = (0..2).map(|_| watch.notice().1).collect();
    for key in ["b.k", "a.k"] {
        let params = json!({ "key": key, "value": "y" });
        assert_eq!(wire.call("kv.put", params).is_ok(), key == "a.k");
    }
    let told: Vec<Json> = begun.into_iter().chain([watch.notice().1]).collect();
    assert_eq!(
        told.iter().map(|event| event["key"].as_str().unwrap_or("-")).collect::<Vec<_>>(),
        ["a.k", "-", "a.k"],
        "{told:?}"
    );

    // What is not right changes nothing, and is said.
    let problem =
        reload(&daemon, &policy, "[[allow]]\nuser = \"*\"\nmethods = \"lokc\"\n", |status| !status["problem"].is_null());
    let said = problem["problem"].as_str().unwrap();
    assert!(
        problem["rules"] == 2 && said.contains("policy.toml:3: unknown method \"lokc\"; did you mean \"lock\"?"),
        "{problem}"
    );
    denied(&mut wire, "lock.acquire", json!({ "name": "b.2" }), "lock.use");
    wire.acquire("a.2");
    fs::remove_file(&policy).unwrap();
    daemon.signal(Signal::SIGHUP);
    reload(&daemon, &policy, all, |status| status["rules"] == 1 && status["problem"].is_null());
    wire.acquire("b.2");
    for lease in [mine, theirs] {
        wire.call("lock.release", json!({ "lease": lease })).unwrap();
    }
}

#[test]
fn a_policy_that_is_not_right_keeps_the_daemon_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, policy) = (directory.path().join("s.sock"), directory.path().join("policy.toml"));
    let path = policy.to_str().unwrap();
    for (rules, said) in [
        (Some("[[allow]]\nuser = \"*\"\n"), "policy.toml:1: the rule does not say what it is about"),
        (Some("[[allow]]\nuser = \"no-such-user\"\nmethods = \"lock\"\n"), "policy.toml:2: user: this machine knows no user"),
        (None, "policy.toml: cannot read it: No such file"),
    ] {
        match rules {
            Some(rules) => fs::write(&policy, rules).unwrap(),
            None => fs::remove_file(&policy).unwrap(),
        }
        let served = command(&socket, &["--store", "memory:", "--policy", path]).output().unwrap();
        let checked = bare().args(["config", "check", "--store", "memory:", "--policy", path]).output().unwrap();
        for output in [served, checked] {
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{stderr}");
            assert!(stderr.contains(said) && stderr.lines().count() == 1, "{stderr}");
        }
        assert!(!socket.exists());
    }
}

#[test]
fn the_daemon_connects_only_for_whom_a_rule_lets_check() {
    let rules = "[[allow]]\nuser = \"*\"\nmethods = \"member\"\n";
    let (daemon, policy) = daemon(rules);
    let mut wire = daemon.connect();
    let join = |group: &str, check: &str| json!({ "group": group, "id": "m", "checks": [{ "check": check }] });
    wire.call("member.join", join("beats", "heartbeat:60")).unwrap();
    for check in ["tcp:127.0.0.1:1", "http://127.0.0.1:1/"] {
        denied(&mut wire, "member.join", join("g.1", check), "member.check");
        let mixed = json!({ "group": "g.1", "checks": [{ "check": "heartbeat:60" }, { "check": check }] });
        denied(&mut wire, "member.join", mixed, "member.check");
    }
    assert_eq!(wire.call("member.groups", json!({})).unwrap()["groups"][0]["name"], "beats");
    let more = format!("{rules}\n[[allow]]\nuser = \"*\"\nmethods = \"member.check\"\nprefix = \"g.\"\n");
    reload(&daemon, &policy, &more, |found| found["rules"] == 2);
    wire.call("member.join", join("g.1", "tcp:127.0.0.1:1")).unwrap();
    denied(&mut wire, "member.join", join("h", "tcp:127.0.0.1:1"), "member.check");
}

#[test]
fn a_policy_that_is_no_file_any_more_keeps_no_later_one_from_being_read() {
    let (daemon, policy) = daemon("[[allow]]\nuser = \"*\"\nmethods = \"lock\"\n");
    fs::remove_file(&policy).unwrap();
    nix::unistd::mkfifo(&policy, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let told = ask_to_reload(&daemon, |status| !status["problem"].is_null());
    assert!(told["rules"] == 1 && told["problem"].as_str().unwrap().contains("no regular file"), "{told}");
    fs::remove_file(&policy).unwrap();
    reload(&daemon, &policy, "", |status| status["problem"].is_null() && status["rules"] == 0);
}

#[test]
fn the_command_says_that_it_is_denied() {
    let (daemon, _policy) = daemon("[[allow]]\nuser = \"*\"\nmethods = [\"lock\", \"election\", \"kv\"]\nprefix = \"a.\"\n");
    let tenure = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tenure"));
        let output = command.args(arguments).env("TENURE_SOCKET", daemon.socket()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, needs) in [
        (&["lock", "b", "--", "true"][..], "lock.use"),
        (&["elect", "b", "--", "true"], "election.use"),
        (&["join", "a.g", "--", "true"], "member.use"),
        (&["kv", "put", "b", "x"], "kv.use"),
        (&["locks", "show", "b"], "lock.observe"),
    ] {
        let (code, stderr) = tenure(arguments);
        assert_eq!(code, Some(77), "{arguments:?}: {stderr}");
        assert!(stderr.contains(needs) && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
    }
    assert_eq!(tenure(&["lock", "a.b", "--", "true"]), (Some(0), String::new()));
}

#[test]
fn users_and_groups_are_those_that_the_kernel_tells() {
    if !peer::can_be_others() {
        return;
    }
    let (daemon, policy) = daemon(
        "[[allow]]\nuser = 54321\nmethods = [\"lock\", \"admin\"]\nprefix = \"mine.\"\n\n\
         [[allow]]\ngroup = 60001\nmethods = \"lock\"\nprefix = \"group.\"\n\n\
         [[allow]]\nuser = \"*\"\nmethods = \"lock\"\nname = \"all\"\n\n\
         [[deny]]\ngroup = 60002\nmethods = \"lock.use\"\nname = \"all\"\n",
    );
    let socket = daemon.socket();
    let mut named = Peer::start(&socket, 54_321, 54_321, "");
    let mut primary = Peer::start(&socket, 54_322, 60_001, "");
    let mut beside = Peer::start(&socket, 54_323, 54_323, "60000,60001");
    let mut refused = Peer::start(&socket, 54_324, 54_324, "60002");
    let allowed = |peer: &mut Peer, name: &str| match peer.call("lock.acquire", json!({ "name": name, "wait_ms": 60_000 })) {
        Ok(held) => peer.call("lock.release", json!({ "lease": held["lease"] })).map(|_| true).unwrap(),
        Err(error) => {
            assert_eq!(kind(&error), "denied", "{error}");
            false
        }
    };
    assert!(allowed(&mut named, "mine.a") && !allowed(&mut named, "group.a") && allowed(&mut named, "all"));
    for peer in [&mut primary, &mut beside] {
        assert!(!allowed(peer, "mine.a") && allowed(peer, "group.a") && allowed(peer, "all"));
    }
    assert!(!allowed(&mut refused, "mine.a") && !allowed(&mut refused, "group.a") && !allowed(&mut refused, "all"));
    // Root is under the rules too, but for breaking locks.
    let mut root = daemon.connect();
    denied(&mut root, "lock.acquire", json!({ "name": "mine.a" }), "lock.use");

    // A lock is broken by root, and by whom a rule lets; what is not there is found out after that.
    let held = named.call("lock.acquire", json!({ "name": "mine.a" })).unwrap();
    let fence = &held["fence"];
    assert_eq!(kind(&primary.call("lock.break", json!({ "name": "mine.a", "fence": fence })).unwrap_err()), "denied");
    assert_eq!(kind(&named.call("lock.break", json!({ "name": "group.a", "fence": fence })).unwrap_err()), "denied");
    root.call("lock.break", json!({ "name": "mine.a", "fence": fence })).unwrap();

    // Of a broken file others hear no more than that.
    let told = reload(&daemon, &policy, "[[allow]]\nuser = \"bob-who-is-not-there\"\n", |status| !status["problem"].is_null());
    assert!(told["problem"].as_str().unwrap().contains("bob"), "{told}");
    let told = primary.call("status", json!({})).unwrap()["policy"].take();
    assert!(told["rules"] == 4 && !told["problem"].is_null() && !told.to_string().contains("bob"), "{told}");
}

#[test]
fn a_write_is_fenced_only_by_a_lock_that_may_be_used() {
    let rules = format!("[[allow]]\nuser = {0}\nmethods = [\"lock\", \"kv\", \"election\"]\nprefix = \"mine.\"\n", own());
    let (daemon, policy) = daemon(&rules);
    let (mut holder, mut other) = (daemon.connect(), daemon.connect());
    let (_, fence) = holder.acquire("mine.lock");
    let put = |fence: u64| json!({ "key": "mine.key", "value": "x", "lock": "mine.lock", "fence": fence });
    other.call("kv.put", put(fence)).expect("a lock that may be used");
    let without = rules.replace("\"lock\", ", "");
    reload(&daemon, &policy, &format!("{without}\n{without}"), |found| found["rules"] == 2);
    // Whatever the token: the answer does not tell whether it is right.
    for fence in [fence, fence + 1] {
        denied(&mut other, "kv.put", put(fence), "lock.use");
    }
    let election = json!({ "key": "mine.key", "election": "theirs.election", "fence": 1 });
    denied(&mut other, "kv.delete", election, "election.use");
}
