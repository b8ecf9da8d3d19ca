//! What a command sees of `tenure lock`: its environment, its signals, its end.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{io::Write, process::Stdio};

use command_stage::{Job, is_alive, is_stopped, lock, outcome, signal, tenure, under_lock, until};
use rustix::process::Signal;

/// A lock nobody else wants.
const ALONE: [&str; 2] = ["--store", "memory:"];

#[test]
fn the_exit_code_is_the_commands_own() {
    assert_eq!(outcome(&mut under_lock(ALONE, &[], "exit 0")).0, 0);
    assert_eq!(outcome(&mut under_lock(ALONE, &[], "exit 7")).0, 7);
    assert_eq!(outcome(&mut under_lock(ALONE, &[], "exit 255")).0, 255);
}

#[test]
fn a_command_ended_by_a_signal_gives_128_and_its_number() {
    for (name, number) in [("TERM", 15), ("KILL", 9), ("INT", 2), ("RTMIN", 34)] {
        assert_eq!(outcome(&mut under_lock(ALONE, &[], &format!("kill -{name} $$"))).0, 128 + number, "{name}");
    }
}

#[test]
fn what_cannot_be_executed_is_told_apart() {
    let run = |program: &str| outcome(&mut lock(["x", "--store", "memory:", "--", program]));
    let (code, errors) = run("no-such-program");
    assert_eq!(code, 127);
    assert!(errors.contains("cannot run no-such-program: not found"), "{errors}");
    assert_eq!(run("").0, 127);
    let (code, errors) = run("/etc/passwd");
    assert_eq!(code, 126);
    assert!(errors.contains("execute permission"), "{errors}");
    assert_eq!(run("/").0, 126);

    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (code, errors) = run(script.to_str().unwrap());
    assert_eq!(code, 127);
    assert!(errors.contains("interpreter"), "{errors}");
}

#[test]
fn wrong_usage_is_64_and_one_line_that_helps() {
    let cases: [(&[&str], &str); 20] = [
        (&[], "NAME"),
        (&["x"], "-- COMMAND"),
        (&["x", "--"], "COMMAND"),
        (&["x", "true"], "-- COMMAND"),
        (&["a b", "--", "true"], "lock name"),
        (&["a..b", "--", "true"], "lock name"),
        (&["", "--", "true"], "lock name"),
        (&[&"n".repeat(513), "--", "true"], "512"),
        (&["x", "-w", "3", "--", "true"], "30s"),
        (&["x", "-n", "-w", "3s", "--", "true"], "cannot be used with"),
        (&["x", "-E", "256", "--", "true"], "0..=255"),
        (&["x", "--lease", "1ms", "--", "true"], "150ms"),
        (&["x", "--on-lost", "pray", "--", "true"], "term, kill, ignore"),
        (&["x", "--store", "carrier-pigeon:", "--", "true"], "memory:, file:PATH or nats://"),
        (&["x", "--store", "file:", "--", "true"], "needs a path"),
        (&["x", "--store", "file://host/a", "--", "true"], "names a host"),
        (&["x", "--store", "file:a?sync=now", "--", "true"], "sync=now"),
        (&["x", "--store", "nats://localhost", "--", "true"], "names no bucket"),
        (&["x", "--store", "nats://localhost/two.tokens", "--", "true"], "letters, digits, - and _"),
        (&["x", "--store", "nats://localhost/b?replicas=many", "--", "true"], "replicas=many"),
    ];
    for (arguments, remedy) in cases {
        let (code, errors) = outcome(&mut lock(arguments));
        assert_eq!(code, 64, "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
        assert!(errors.starts_with("tenure: ") && errors.contains(remedy), "{arguments:?}: {errors}");
    }
    let (code, errors) = outcome(&mut tenure(["--socket", "/tmp/t.sock", "lock", "x", "--", "true"]));
    assert_eq!((code, errors.lines().count()), (64, 1), "{errors}");
    assert!(errors.contains("options stand behind the command"), "{errors}");
}

#[test]
fn a_url_that_leads_to_no_store_is_125() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("notes.txt");
    std::fs::write(&text, "not a store").unwrap();
    for (url, said) in [
        (format!("file:{}", text.display()), "not a Tenure store"),
        ("file:/dev/null".to_owned(), "not a regular file"),
        ("nats://127.0.0.1:1/locks".to_owned(), "127.0.0.1:1"),
    ] {
        let (code, errors) = outcome(&mut lock(["x", "--store", &url, "--", "true"]));
        assert_eq!((code, errors.lines().count()), (125, 1), "{url}: {errors}");
        assert!(errors.contains(said), "{url}: {errors}");
    }
}

#[test]
fn a_missing_daemon_is_125_and_says_what_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("nobody");
    let (code, errors) = outcome(&mut lock(["x", "--socket", nobody.to_str().unwrap(), "--", "true"]));
    assert_eq!(code, 125);
    assert!(errors.contains(nobody.to_str().unwrap()) && errors.contains("start one with `tenured`"), "{errors}");

    let (code, errors) = outcome(lock(["x", "--", "true"]).env("TENURE_SOCKET", &nobody));
    assert_eq!(code, 125);
    assert!(errors.contains(nobody.to_str().unwrap()), "{errors}");
}

#[test]
fn the_environment_names_the_hold() {
    let script = "echo $TENURE_LOCK; echo $TENURE_FENCE; echo $TENURE_LEASE; echo $TENURE_SOCKET; echo $KEPT";
    let job = Job::start(under_lock(ALONE, &[], script).env("TENURE_SOCKET", "as it was").env("KEPT", "kept"));
    job.expect("x");
    assert!(job.line().parse::<u64>().unwrap() > 0);
    assert_eq!(job.line().len(), 32);
    job.expect("as it was");
    job.expect("kept");
    assert_eq!(job.end().0, 0);
}

#[test]
fn arguments_reach_the_command_untouched() {
    let mut command = lock(["x", "--store", "memory:", "--", "printf", "%s|", "a b", "$HOME", "*", "--", "-n", ""]);
    assert_eq!(command.stdin(Stdio::null()).output().unwrap().stdout, b"a b|$HOME|*|--|-n||");
}

#[test]
fn standard_input_is_the_commands() {
    let mut child = lock(["x", "--store", "memory:", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through");
}

#[test]
fn closed_and_broken_streams_do_no_harm() {
    let tenure = env!("CARGO_BIN_EXE_tenure");
    let closed = format!("{tenure} lock x --store memory: -- bash -c 'exit 7' <&- >&- 2>&-; echo $?");
    let output = std::process::Command::new("bash").args(["-c", &closed]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "7\n");
    for words in ["--help", "lock x --store memory: -- no-such-program"] {
        let broken = format!("{tenure} {words} 2>&1 >&2 | true; echo ${{PIPESTATUS[0]}}");
        let output = std::process::Command::new("bash").args(["-c", &broken]).output().unwrap();
        let code = if words == "--help" { "0\n" } else { "127\n" };
        assert_eq!(String::from_utf8_lossy(&output.stdout), code, "{words}");
    }
    // A command that writes to a closed pipe must end of it as it would have without us.
    let piped = format!("{tenure} lock x --store memory: -- yes | head -n1; echo ${{PIPESTATUS[0]}}");
    let output = std::process::Command::new("bash").args(["-c", &piped]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "y\n141\n");
}

/// A script that tells of every signal and ends with TERM.
const TELLS: &str = "for s in INT HUP QUIT USR1 USR2 WINCH; do trap \"echo got $s\" $s; done
    trap 'echo got TERM; exit' TERM; echo ready; while :; do sleep 0.02; done";

fn expect_seven(job: &Job) {
    job.expect("ready");
    let names = ["INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "TERM"];
    let kinds = [Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH, Signal::TERM];
    for (name, kind) in names.into_iter().zip(kinds) {
        job.signal(kind);
        job.expect(&format!("got {name}"));
    }
}

#[test]
fn seven_signals_reach_the_command() {
    let job = Job::start(&mut under_lock(ALONE, &[], TELLS));
    expect_seven(&job);
    assert_eq!(job.end().0, 0);
}

#[test]
fn seven_signals_reach_the_whole_group() {
    let child = "for s in INT HUP QUIT USR1 USR2 WINCH TERM; do trap : $s; done; bash -c \"$TELLS\"; exit 9";
    let job = Job::start(under_lock(ALONE, &[], child).env("TELLS", TELLS));
    expect_seven(&job);
    assert_eq!(job.end().0, 9);
}

#[test]
fn a_signal_that_ends_the_command_ends_us_with_its_code() {
    let job = Job::start(&mut under_lock(ALONE, &[], "echo ready; exec sleep 60"));
    job.expect("ready");
    job.signal(Signal::TERM);
    assert_eq!(job.end().0, 143);
}

#[test]
fn what_was_ignored_stays_ignored() {
    let script = format!(
        "trap '' HUP; exec {} lock x --store memory: -- bash -c 'echo ready; read line; echo $line'",
        env!("CARGO_BIN_EXE_tenure")
    );
    let mut command = std::process::Command::new("bash");
    let mut child =
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    signal(i32::try_from(child.id()).unwrap(), Signal::HUP);
    child.stdin.take().unwrap().write_all(b"alive\n").unwrap();
    line.clear();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "alive\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_command_has_its_own_group_and_dies_with_us() {
    let job = Job::start(&mut under_lock(ALONE, &[], "echo $$; ps -o pgid= $$; exec sleep 60"));
    let pid: i32 = job.line().parse().unwrap();
    assert_eq!(job.line().trim().parse::<i32>().unwrap(), pid);
    job.signal(Signal::KILL);
    until("the command dies with tenure", || !is_alive(pid));
}

/// The processes whose parent is `pid`.
fn children(pid: i32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn without_the_keeper_the_kernel_still_kills_the_command() {
    let job = Job::start(&mut under_lock(ALONE, &[], "echo $$; exec sleep 60"));
    let pid: i32 = job.line().parse().unwrap();
    let keepers: Vec<i32> = children(job.pid()).into_iter().filter(|child| *child != pid).collect();
    assert_eq!(keepers.len(), 1);
    signal(keepers[0], Signal::KILL);
    until("the keeper is dead", || !is_alive(keepers[0]));
    assert!(is_alive(pid));
    job.signal(Signal::KILL);
    until("the command dies with tenure", || !is_alive(pid));
}

#[test]
fn what_the_command_started_dies_with_us_too() {
    let script = "(trap '' TERM HUP; echo $BASHPID; while :; do sleep 0.2; done) & wait";
    let job = Job::start(&mut under_lock(ALONE, &[], script));
    let grandchild: i32 = job.line().parse().unwrap();
    job.signal(Signal::KILL);
    assert!(job.rest().is_empty());
    until("the grandchild dies with tenure", || !is_alive(grandchild));
}

#[test]
fn what_the_command_leaves_in_the_background_stays() {
    let job = Job::start(&mut under_lock(ALONE, &[], "(exec >&-; exec 2>&-; sleep 1000) & echo $!"));
    let left: i32 = job.line().parse().unwrap();
    assert_eq!(job.end().0, 0);
    assert!(is_alive(left));
    signal(left, Signal::KILL);
}

#[test]
fn a_command_stopped_from_outside_is_waited_for() {
    let job = Job::start(&mut under_lock(ALONE, &[], "echo $$; while :; do sleep 0.2; done"));
    let pid: i32 = job.line().parse().unwrap();
    signal(pid, Signal::STOP);
    until("it stands", || is_stopped(pid));
    signal(pid, Signal::CONT);
    signal(pid, Signal::TERM);
    assert_eq!(job.end().0, 143);
}

#[test]
fn a_lease_that_ran_out_while_everything_stood_kills_instead_of_continuing() {
    let job = Job::start(&mut under_lock(ALONE, &["--lease", "1s"], "echo $$; while :; do sleep 0.2; done"));
    let pid: i32 = job.line().parse().unwrap();
    job.signal(Signal::STOP);
    until("tenure stands", || is_stopped(job.pid()));
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    job.signal(Signal::CONT);
    let (code, errors) = job.end();
    assert_eq!(code, 79, "{errors}");
    assert!(errors.contains("lost x:"), "{errors}");
    assert!(!is_alive(pid));
}

#[test]
fn a_stop_asked_of_us_stops_the_command_too() {
    let job = Job::start(&mut under_lock(ALONE, &[], "echo $$; while :; do sleep 0.2; done"));
    let pid: i32 = job.line().parse().unwrap();
    job.signal(Signal::TSTP);
    until("the command stands", || is_stopped(pid));
    job.signal(Signal::CONT);
    until("the command goes on", || !is_stopped(pid));
    job.signal(Signal::TERM);
    assert_eq!(job.end().0, 143);
}

#[test]
fn a_grace_longer_than_the_lease_allows_is_cut_with_a_warning() {
    let (code, errors) = outcome(&mut under_lock(ALONE, &["--lease", "10s", "--kill-after", "9s"], "exit 3"));
    assert_eq!(code, 3);
    assert!(errors.contains("--kill-after 9s is cut to 5s"), "{errors}");
    let (_, errors) = outcome(&mut under_lock(ALONE, &["--lease", "10s", "--kill-after", "5s"], "exit 3"));
    assert!(!errors.contains("kill-after"), "{errors}");
}
