//! The configuration of `tenured`: flags, environment, file, and what `tenured config` says of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod daemon_support;

use std::{
    fs,
    io::Read,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    process::{Command, Output, Stdio},
};

use daemon_support::{Daemon, Mortal, await_socket, bare, wait};
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::json;

/// `tenured` with nothing of this machine's own environment.
fn tenured(home: &Path, arguments: &[&str]) -> Command {
    let mut command = bare();
    command.env("XDG_STATE_HOME", home).env("XDG_RUNTIME_DIR", home).args(arguments);
    command
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_file_configures_a_daemon_and_is_overruled_by_the_environment_and_by_flags() {
    let home = tempfile::tempdir().unwrap();
    let (file, socket) = (home.path().join("t.toml"), home.path().join("s.sock"));
    fs::write(
        &file,
        format!(
            "store = \"memory:\"\nsocket = {socket:?}\nlease = \"7s\"\nmax_leases = 3\nmax_requests = 5\nmax_subscriptions = 9\n"
        ),
    )
    .unwrap();
    for by_variable in [false, true] {
        let mut command = tenured(home.path(), &["--max-subscriptions", "11"]);
        if by_variable {
            command.env("TENURE_CONFIG", &file);
        } else {
            command.arg("--config").arg(&file);
        }
        let mut child = Mortal::spawn(command.env("TENURE_MAX_REQUESTS", "6").env("TENURE_MAX_SUBSCRIPTIONS", "10"));
        let mut wire = await_socket(&mut child, &socket);
        let limits = wire.call("hello", json!({ "protocol": [1] })).unwrap()["limits"].take();
        let found = ["default_lease_ms", "leases", "requests", "subscriptions"].map(|name| limits[name].as_u64().unwrap());
        assert_eq!(found, [7_000, 3, 6, 11]);
        child.kill().unwrap();
        wait(&mut child);
    }
}

#[test]
fn what_is_wrong_in_a_file_is_told_by_file_and_line() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("t.toml");
    let path = file.to_str().unwrap();
    for (text, expected) in [
        ("store = \"memory:\"\nlese = \"5s\"\n", ":2: unknown key \"lese\"; did you mean \"lease\"?"),
        ("\ndrain = 5\n", ":2: drain: write it in quotes, as in drain = \"5s\""),
        ("socket_mode = \"0999\"\n", ":1: socket_mode: use an octal mode such as 0660"),
        ("max_requests = 0\n", ":1: max_requests: use at least 1"),
        ("lease = \"5 parsecs\"\n", ":1: lease: "),
        ("lease = \"5s\n", ":1: this is not TOML: "),
        ("store = \"nats://u:hush@h/a.b\"\n", ":1: store: "),
        ("[socket]\nmode = 1\n", ":1: socket: write it in quotes"),
    ] {
        fs::write(&file, text).unwrap();
        // Serving and looking say the same.
        for arguments in [&["config", "check", "--config", path][..], &["config", "show", "--config", path], &["--config", path]]
        {
            let (code, stdout, stderr) = said(&tenured(home.path(), arguments).output().unwrap());
            assert_eq!((code, stdout.as_str()), (Some(78), ""), "{text:?}: {stderr}");
            assert!(stderr.starts_with(&format!("tenured: {path}{expected}")), "{text:?}: {stderr}");
            assert!(stderr.lines().count() == 1 && !stderr.contains("hush"), "{stderr}");
        }
    }
    fs::write(&file, b"store = \"memory:\"\n# \xff\n").unwrap();
    let missing = home.path().join("none.toml");
    for (arguments, environment, expected) in [
        (&["--config", path][..], ("A", "b"), format!("{path}:2: this is not UTF-8")),
        (&["--config", missing.to_str().unwrap()], ("A", "b"), "cannot read it: No such file".to_owned()),
        (&[], ("TENURE_CONFIG", missing.to_str().unwrap()), "cannot read it".to_owned()),
        (&[], ("TENURE_STORE", "redis://u:hush@h"), "TENURE_STORE: \"redis\" names no store".to_owned()),
        (&[], ("TENURE_MAX_LINE", "2MiB"), "TENURE_MAX_LINE: use a whole number".to_owned()),
    ] {
        let (code, stdout, stderr) =
            said(&tenured(home.path(), arguments).args(["config", "check"]).env(environment.0, environment.1).output().unwrap());
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{stderr}");
        assert!(stderr.contains(&expected) && stderr.lines().count() == 1 && !stderr.contains("hush"), "{expected}: {stderr}");
    }
    // A wrong command line is one, here too.
    for (arguments, remedy) in [
        (&["config"][..], "--help"),
        (&["config", "chekc"], "(did you mean check?)"),
        (&["config", "check", "--lease", "1ms"], "--lease"),
        (&["config", "show", "--nonsense"], "--help"),
        (&["config", "show", "--stoer", "memory:"], "(did you mean --store?)"),
    ] {
        let (code, _, stderr) = said(&tenured(home.path(), arguments).output().unwrap());
        assert!(code == Some(64) && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains(remedy), "{arguments:?}: {stderr}");
    }
}

#[test]
fn check_finds_what_would_keep_the_daemon_from_starting() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("file"), "x").unwrap();
    let (long, under) = (at(&"x".repeat(120)), at("file/s.sock"));
    for (flag, value, expected) in [
        ("--socket", at("file"), "is no socket"),
        ("--socket", under, "is no directory"),
        ("--socket", long, "too long"),
        ("--socket-group", "no-such-group".to_owned(), "no group"),
    ] {
        let (code, _, stderr) = said(&tenured(home.path(), &["config", "check", flag, &value]).output().unwrap());
        assert!(code == Some(78) && stderr.contains(expected) && stderr.lines().count() == 1, "{flag} {value}: {stderr}");
        assert!(stderr.starts_with(&format!("tenured: {flag}: ")), "{stderr}");
    }
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let (code, stdout, stderr) =
        said(&tenured(home.path(), &["config", "check", "--socket", socket.to_str().unwrap()]).output().unwrap());
    assert!(code == Some(0) && stderr.is_empty() && stdout.contains("the configuration is right"), "{stderr}");
    daemon.connect().acquire("a");
    // Looking makes nothing.
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["file"]);
}

#[test]
fn what_show_prints_is_a_configuration_and_says_where_each_setting_is_from() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("a \"file\".toml");
    fs::write(&file, "drain = \"2m\"\n\nstore = \"nats://me:hush@localhost/bucket\"\n").unwrap();
    let show = |more: &[&str]| {
        let mut command = tenured(home.path(), &["config", "show", "--max-leases", "7", "--config"]);
        said(&command.arg(&file).args(more).env("TENURE_LOG", "debug").output().unwrap())
    };
    let (code, shown, stderr) = show(&[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let line = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(&format!("{key} = ")) || line.starts_with(&format!("# {key}: ")));
        line.unwrap_or_else(|| panic!("{key}: {shown}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(line("drain").starts_with("drain = \"2m\" # file ") && line("drain").ends_with(".toml:1"), "{shown}");
    assert_eq!(line("max_leases"), "max_leases = 7 # flag --max-leases");
    assert_eq!(line("log"), "log = \"debug\" # environment TENURE_LOG");
    assert_eq!(line("socket_mode"), "socket_mode = \"0660\" # default");
    assert_eq!(line("lease"), "# lease: 5s, 15s on a cluster # default");
    assert!(line("store").starts_with("store = \"nats://***@localhost/bucket\" # file ") && !shown.contains("hush"), "{shown}");
    let (_, open, _) = show(&["--secrets"]);
    assert!(open.contains("store = \"nats://me:hush@localhost/bucket\" "), "{open}");

    for text in [shown, open] {
        fs::write(&file, &text).unwrap();
        let (code, _, stderr) = said(&tenured(home.path(), &["config", "check", "--config"]).arg(&file).output().unwrap());
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{text}");
    }
}

#[test]
fn what_is_no_regular_file_or_too_long_is_refused_at_once() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    // Nobody ever writes to it: who waits for that waits for ever.
    mkfifo(&at("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    fs::write(at("long"), "#".repeat((1 << 20) + 1)).unwrap();
    symlink(at("pipe"), at("link")).unwrap();
    for (path, expected) in [
        (at("pipe"), "it is no regular file"),
        (at("link"), "it is no regular file"),
        (at("socket"), "it is no regular file"),
        (home.path().to_owned(), "it is no regular file"),
        ("/dev/zero".into(), "it is no regular file"),
        (at("long"), "it has more than 1048576 bytes"),
    ] {
        for flag in ["--config", "--policy"] {
            for action in [&["config", "check"][..], &[]] {
                let mut child = Mortal::spawn(
                    tenured(home.path(), action)
                        .args(["--store", "memory:", "--log", "error", flag])
                        .arg(&path)
                        .stderr(Stdio::piped()),
                );
                let code = wait(&mut child).code();
                let mut stderr = String::new();
                child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
                assert!(
                    code == Some(78) && stderr.contains(expected) && stderr.lines().count() == 1,
                    "{flag} {path:?}: {stderr}"
                );
                assert!(stderr.contains(path.to_str().unwrap()), "{stderr}");
            }
        }
    }
}
