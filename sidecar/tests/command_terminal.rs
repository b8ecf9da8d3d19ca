//! The command at a terminal: who has it, what ^C and ^Z do, and the line shown while waiting.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use std::{thread, time::Duration};

use command_stage::{
    Puppet,
    daemon::{Daemon, LONG},
    screen::Screen,
    until,
};
use rustix::{
    process::Signal,
    termios::{LocalModes, tcgetattr},
};

const TENURE: &str = env!("CARGO_BIN_EXE_tenure");
const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";

/// `tenure lock` with a lock nobody else wants.
fn alone(options: &str, command: &str) -> String {
    format!("{TENURE} lock x --store memory: {options} -- {command}")
}

/// Tells whether it has the terminal, and how.
const WHOSE: &str = "read -r _ _ _ _ group _ _ front _ </proc/self/stat
if [ $group = $front ]; then echo is-front; else echo is-back; fi";

#[test]
fn the_command_gets_the_terminal_and_its_keys() {
    let script =
        format!("trap 'echo interrupted; exit 5' INT; {WHOSE}; read line; echo heard $line; while :; do sleep 0.2; done");
    let mut screen = Screen::new(&[TENURE, "lock", "x", "--store", "memory:", "--", "bash", "-c", &script]);
    screen.expect("is-front");
    screen.types("word\n");
    screen.expect("heard word");
    screen.types(CTRL_C);
    screen.expect("interrupted");
    assert_eq!(screen.end(), 5);
}

#[test]
fn ctrl_c_ends_a_command_that_does_not_care() {
    let mut screen = Screen::new(&[TENURE, "lock", "x", "--store", "memory:", "--", "bash", "-c", "echo go; exec sleep 60"]);
    screen.expect("go");
    screen.types(CTRL_C);
    assert_eq!(screen.end(), 130);
}

#[test]
fn without_a_shell_above_nothing_stops() {
    let script = "echo go; while read line; do echo heard $line; done; echo end";
    let mut screen = Screen::new(&[TENURE, "lock", "x", "--store", "memory:", "--", "bash", "-c", script]);
    screen.expect("go");
    screen.types(CTRL_Z);
    screen.types("word\n");
    screen.expect("heard word");
    screen.types("\x04");
    screen.expect("end");
    assert_eq!(screen.end(), 0);
}

#[test]
fn ctrl_z_stops_and_fg_continues() {
    let screen = Screen::shell();
    screen.script("job", "echo go; while read line; do echo heard $line; done; exit 6");
    screen.types(&format!("{}\n", alone("", "bash job")));
    screen.expect("go");
    for round in ["one", "two"] {
        screen.types(CTRL_Z);
        screen.expect("Stopped");
        screen.expect("$ ");
        screen.types("echo shell-$((40 + 2))\n");
        screen.expect("shell-42");
        screen.types("fg\n");
        screen.types(&format!("{round}\n"));
        screen.expect(&format!("heard {round}"));
    }
    screen.types("\x04");
    screen.expect("$ ");
    screen.types("echo code-$?\n");
    screen.expect("code-6");
}

#[test]
fn bg_continues_without_the_terminal_and_fg_gives_it() {
    let screen = Screen::shell();
    screen.script(
        "job",
        &format!("{WHOSE}\necho go; while [ ! -e on ]; do sleep 0.02; done; {WHOSE}\nread line; echo heard $line"),
    );
    screen.types(&format!("{}\n", alone("", "bash job")));
    screen.expect("is-front");
    screen.expect("go");
    screen.types(CTRL_Z);
    screen.expect("Stopped");
    screen.types("bg\n");
    screen.expect("$ ");
    screen.types("touch on\n");
    screen.expect("is-back");
    // It reads, which a background job must not: the shell sees it stop, by and by.
    until("the job stands", || {
        screen.types("jobs\n");
        thread::sleep(Duration::from_millis(50));
        screen.all().matches("Stopped").count() > 1
    });
    screen.types("fg\n");
    screen.types("word\n");
    screen.expect("heard word");
    screen.expect("$ ");
}

#[test]
fn a_background_job_leaves_the_terminal_alone() {
    let screen = Screen::shell();
    screen.script("job", &format!("{WHOSE}\necho done-$((1 + 1))"));
    screen.types(&format!("{} &\n", alone("", "bash job")));
    screen.expect("is-back");
    screen.expect("done-2");
    screen.types("wait; echo shell-$((40 + 2))\n");
    screen.expect("shell-42");
}

#[test]
fn a_lease_that_ran_out_during_ctrl_z_kills_on_fg() {
    let screen = Screen::shell();
    screen.script("job", "echo go; while :; do sleep 0.2; done");
    screen.types(&format!("{}\n", alone("--lease 1s", "bash job")));
    screen.expect("go");
    screen.types(CTRL_Z);
    screen.expect("Stopped");
    thread::sleep(Duration::from_millis(1_200));
    screen.types("fg\n");
    screen.expect("lost x:");
    screen.types("echo code-$?\n");
    screen.expect("code-79");
}

#[test]
fn ctrl_z_keeps_the_lock_at_the_daemon() {
    let daemon = Puppet::new(Duration::from_millis(600));
    let screen = Screen::shell();
    screen.script("job", "echo go; read line; echo heard $line; exit 6");
    screen.types(&format!("{TENURE} lock x --socket {} -- bash job\n", daemon.path().display()));
    screen.expect("go");
    screen.types(CTRL_Z);
    screen.expect("Stopped");
    thread::sleep(Duration::from_millis(800));
    screen.types("fg\n");
    screen.types("word\n");
    screen.expect("heard word");
    screen.types("echo code-$?\n");
    screen.expect("code-6");
}

#[test]
fn in_a_pipeline_the_terminal_is_given_when_it_is_needed() {
    let screen = Screen::shell();
    screen.script("job", &format!("{WHOSE}\nread piped; read typed </dev/tty; echo $piped-$typed; {WHOSE}"));
    screen.types(&format!("echo from-pipe | {} | cat\n", alone("", "bash job")));
    screen.expect("is-back");
    screen.types("keys\n");
    screen.expect("from-pipe-keys");
    screen.expect("is-front");
    screen.expect("$ ");
}

#[test]
fn the_terminal_is_given_back() {
    let screen = Screen::shell();
    screen.script(
        "script",
        &format!("{}\nread line; echo script-heard $line\n", alone("", "bash -c 'read line; echo heard $line'")),
    );
    screen.types("bash script\n");
    screen.types("one\n");
    screen.expect("heard one");
    screen.types("two\n");
    screen.expect("script-heard two");
    screen.expect("$ ");
}

#[test]
fn ctrl_c_ends_the_script_around_it() {
    let screen = Screen::shell();
    screen.script("script", &format!("{}\necho never-$((1 + 1))\n", alone("", "bash -c 'echo go; exec sleep 60'")));
    screen.types("bash script\n");
    screen.expect("go");
    screen.types(CTRL_C);
    screen.expect("$ ");
    screen.types("echo code-$?\n");
    screen.expect("code-130");
    assert!(!screen.all().contains("never-2"), "{}", screen.all());
}

#[test]
fn a_command_that_is_killed_leaves_the_terminal_as_it_was() {
    let mut screen = Screen::new(&[TENURE, "lock", "x", "--store", "memory:", "--", "bash", "-c", "stty raw -echo; kill -9 $$"]);
    let modes = |screen: &Screen| tcgetattr(&screen.terminal).unwrap().local_modes;
    let wanted = LocalModes::ICANON | LocalModes::ECHO;
    assert_eq!(screen.end(), 137);
    assert!(modes(&screen).contains(wanted), "{:?}", modes(&screen));
}

#[test]
fn the_waiting_line_says_who_holds_and_is_wiped() {
    let daemon = Puppet::new(Duration::from_secs(3));
    daemon.hold_back();
    let path = daemon.path();
    let mut screen = Screen::new(&[TENURE, "lock", "x", "--socket", path.to_str().unwrap(), "--", "echo", "granted"]);
    screen.expect("waiting ");
    screen.expect(" for x, held by other job (web1, pid 42) for ");
    screen.expect("\r\x1b[K");
    daemon.grant();
    screen.expect("granted");
    assert_eq!(screen.end(), 0);
    let all = screen.all();
    assert!(all.ends_with("\r\x1b[Kgranted\r\n"), "{all:?}");
    assert!(!all.trim_end().contains('\n'), "one line: {all:?}");
}

#[test]
fn a_candidate_sees_who_leads_and_for_how_long() {
    let daemon = Daemon::memory();
    let leader = daemon.start_tenure(&["elect", "x", "--label", "boss", "--", "bash", "-c", LONG]);
    leader.line();
    let socket = daemon.socket();
    let mut screen = Screen::new(&[TENURE, "elect", "x", "--socket", socket.to_str().unwrap(), "--", "echo", "elected"]);
    screen.expect(&format!(" for x, led by boss ({}, pid {}) for ", host(), leader.pid()));
    screen.expect("\r\x1b[K");
    leader.signal(Signal::TERM);
    screen.expect("elected");
    assert_eq!(screen.end(), 0);
    let all = screen.all();
    assert!(all.ends_with("\r\x1b[Kelected\r\n"), "{all:?}");
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[test]
fn quiet_shows_no_waiting_line_and_ctrl_c_ends_the_wait() {
    let daemon = Puppet::new(Duration::from_secs(3));
    daemon.hold_back();
    let path = daemon.path();
    let mut screen = Screen::new(&[TENURE, "lock", "x", "-q", "--socket", path.to_str().unwrap(), "--", "echo", "granted"]);
    daemon.request("lock.acquire");
    // Longer than it takes until a line would show.
    thread::sleep(Duration::from_millis(500));
    screen.types(CTRL_C);
    daemon.request("end");
    assert_eq!(screen.end(), 130);
    assert_eq!(screen.all().replace("^C", "").trim(), "");
}

#[test]
fn breaking_a_hold_asks_first() {
    let daemon = Daemon::memory();
    let holder = daemon.run(&["--label", "the job"], &format!("echo $TENURE_FENCE; {LONG}"));
    let token = holder.line();
    let socket = daemon.socket();
    let ask = |options: &[&str]| {
        let arguments = ["locks", "break", "x", "--fence", &token, "--socket", socket.to_str().unwrap()];
        Screen::new(&[&[TENURE], &arguments[..], options].concat())
    };
    for answer in ["\n", "no\n"] {
        let mut screen = ask(&[]);
        screen.expect("x is held by the job (");
        screen.expect("Break this hold? [y/N] ");
        screen.types(answer);
        screen.expect("x was left alone");
        assert_eq!(screen.end(), 1);
    }
    let mut screen = ask(&[]);
    screen.expect("[y/N] ");
    screen.types(CTRL_C);
    until("the question ends", || screen.child.try_wait().unwrap().is_some());
    assert_eq!(daemon.rpc("lock.get", r#"{"name":"x"}"#)["holder"]["fence"].to_string(), token);

    let mut screen = ask(&[]);
    screen.expect("[y/N] ");
    screen.types("y\n");
    assert_eq!(screen.end(), 0);
    assert_eq!(holder.end().0, 79);

    // What is over already is told without a question.
    let mut screen = ask(&[]);
    screen.expect("x is not held with token");
    assert_eq!(screen.end(), 73);
    let mut screen = ask(&["--yes"]);
    screen.expect("x is not held with token");
    assert_eq!(screen.end(), 73);
    assert!(!screen.all().contains("[y/N]"));
}

#[test]
fn colours_are_for_terminals_and_not_for_all() {
    let daemon = Daemon::memory();
    let holder = daemon.run(&[], LONG);
    holder.line();
    let socket = daemon.socket();
    let list = [TENURE, "locks", "ls", "--socket", socket.to_str().unwrap()];
    let mut screen = Screen::new(&[&["env", "-u", "NO_COLOR"], &list[..]].concat());
    screen.expect("\x1b[2mLOCK");
    assert_eq!(screen.end(), 0);
    let mut screen = Screen::new(&[&["env", "NO_COLOR=1"], &list[..]].concat());
    screen.expect("LOCK");
    assert_eq!(screen.end(), 0);
    assert!(!screen.all().contains('\x1b'));
}
