//! `tenure top` at a terminal: what is there is drawn, a hold is broken after a question, and the terminal is given back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command_stage;

use command_stage::{
    daemon::{Daemon, LONG},
    outcome,
    screen::Screen,
    tenure, until,
};
use rustix::{
    process::Signal,
    termios::{LocalModes, tcgetattr},
};

const TENURE: &str = env!("CARGO_BIN_EXE_tenure");
const CTRL_C: &str = "\x03";
// What is drawn again leaves out what stands there already: only whole words on ground that was empty are looked for.

/// Leaves the screen that is not scrolled.
const LEFT: &str = "\x1b[?1049l";

fn top(daemon: &Daemon, environment: &[(&str, &str)]) -> Screen {
    looking("50ms", daemon, environment)
}

/// One that looks that often.
fn looking(interval: &str, daemon: &Daemon, environment: &[(&str, &str)]) -> Screen {
    let socket = daemon.socket();
    Screen::with(&[TENURE, "top", "--interval", interval, "--socket", socket.to_str().unwrap()], (80, 24), environment)
}

fn is_cooked(screen: &Screen) -> bool {
    tcgetattr(&screen.terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
}

#[test]
fn a_hold_is_drawn_and_broken_after_a_question() {
    let daemon = Daemon::memory();
    let held = daemon.run(&["--label", "backup"], LONG);
    held.line();
    let mut screen = top(&daemon, &[]);
    screen.expect("backup");
    assert!(!is_cooked(&screen));
    screen.types("b");
    screen.expect("breaks");
    screen.types("n");
    screen.expect("alone");
    assert_eq!(daemon.rpc("lock.get", r#"{"name":"x"}"#)["holder"]["label"], "backup");
    screen.types("b");
    screen.expect("breaks");
    screen.types("y");
    screen.expect("broken");
    assert_eq!(held.end().0, 79);
    screen.types("q");
    screen.expect(LEFT);
    assert_eq!(screen.end(), 0);
    assert!(is_cooked(&screen));
}

#[test]
fn every_pane_is_there_on_every_size_and_ctrl_c_ends_it() {
    let daemon = Daemon::memory();
    let leads = daemon.start_tenure(&["elect", "scheduler", "--label", "chief", "--", "bash", "-c", LONG]);
    leads.line();
    let member = daemon.start_tenure(&["join", "web", "--id", "first", "--", "bash", "-c", LONG]);
    member.line();
    let mut screen = top(&daemon, &[]);
    screen.expect("tenured/");
    screen.types("2");
    screen.expect("scheduler");
    screen.types("3");
    screen.expect("first");
    screen.resize((60, 15));
    // A key that comes together with a new size is heard only with the next one.
    let insist = |key: &str, shown: &str| {
        until(shown, || {
            screen.types(key);
            std::thread::sleep(std::time::Duration::from_millis(20));
            screen.all().contains(shown)
        });
    };
    insist("4", "TIME");
    drop(leads);
    let next = daemon.start_tenure(&["elect", "scheduler", "--label", "deputy", "--", "bash", "-c", LONG]);
    next.line();
    screen.expect("deputy");
    screen.resize((10, 2));
    insist(CTRL_C, LEFT);
    assert_eq!(screen.end(), 130);
    assert!(is_cooked(&screen));
}

#[test]
fn what_becomes_of_what_is_shown_is_told_and_not_looked_for() {
    let daemon = Daemon::memory();
    let held = daemon.run(&["--label", "backup"], LONG);
    held.line();
    let leads = daemon.start_tenure(&["elect", "scheduler", "--label", "chief", "--", "bash", "-c", LONG]);
    leads.line();
    let member = daemon.start_tenure(&["join", "web", "--id", "first", "--", "bash", "-c", LONG]);
    member.line();
    // It looks once.
    let mut screen = looking("1h", &daemon, &[]);
    screen.expect("backup");
    let next = daemon.run(&["--label", "ZZZZZZZZZZ"], LONG);
    until("it waits", || daemon.waiters() == 1);
    drop(held);
    next.line();
    screen.expect("ZZZZZZZZZZ");
    screen.types("2");
    screen.expect("chief");
    drop(leads);
    screen.expect("nobody");
    let next = daemon.start_tenure(&["elect", "scheduler", "--label", "XXXXXXXXXX", "--", "bash", "-c", LONG]);
    next.line();
    screen.expect("XXXXXXXXXX");
    screen.types("3");
    screen.expect("first");
    let another = daemon.start_tenure(&["join", "web", "--id", "second", "--", "bash", "-c", LONG]);
    another.line();
    screen.expect("second");
    screen.types("4");
    screen.expect("TIME");
    screen.expect("scheduler");
    screen.types("q");
    screen.expect(LEFT);
    assert_eq!(screen.end(), 0);
    until("nothing is followed any more", || daemon.rpc("status", "{}")["subscriptions"] == 0);
}

#[test]
fn where_nothing_is_told_it_looks() {
    let daemon = Daemon::start("memory:", &["--max-subscriptions-per-uid", "1", "--lease", "60s"]);
    let watch = daemon.start_tenure(&["kv", "watch", "k"]);
    until("it is told", || daemon.rpc("status", "{}")["subscriptions"] == 1);
    let member = daemon.start_tenure(&["join", "web", "--id", "first", "--", "bash", "-c", LONG]);
    member.line();
    let mut screen = top(&daemon, &[]);
    screen.expect("memory:");
    let held = daemon.run(&["--label", "backup"], LONG);
    held.line();
    screen.expect("backup");
    screen.types("3");
    screen.expect("first");
    // Once there is room, it is told again.
    drop(watch);
    let another = daemon.start_tenure(&["join", "web", "--id", "second", "--", "bash", "-c", LONG]);
    another.line();
    screen.expect("second");
    until("it is told", || daemon.rpc("status", "{}")["subscriptions"] == 1);
    screen.types("q");
    screen.expect(LEFT);
    assert_eq!(screen.end(), 0);
}

#[test]
fn a_daemon_that_goes_away_is_waited_for() {
    let daemon = Daemon::memory();
    let mut screen = top(&daemon, &[]);
    screen.expect("memory:");
    let daemon = daemon.replace(Signal::KILL);
    screen.expect("looking");
    let held = daemon.run(&["--label", "later"], LONG);
    held.line();
    screen.expect("later");
    rustix::process::kill_process(rustix::process::Pid::from_child(&screen.child), Signal::TERM).unwrap();
    screen.expect(LEFT);
    assert_eq!(screen.end(), 143);
    assert!(is_cooked(&screen));
}

#[test]
fn no_colour_means_none() {
    let daemon = Daemon::memory();
    let member = daemon.start_tenure(&["join", "web", "--id", "first", "--", "bash", "-c", LONG]);
    member.line();
    // Who is well is green.
    let green = |environment: &[(&str, &str)]| {
        let mut screen = top(&daemon, environment);
        screen.expect("memory:");
        screen.types("3");
        screen.expect("passing");
        screen.types("q");
        screen.expect(LEFT);
        assert_eq!(screen.end(), 0);
        let shown = screen.all();
        shown.contains("\x1b[38;5;2")
    };
    assert!(green(&[]));
    assert!(!green(&[("NO_COLOR", "1")]));
}

#[test]
fn without_a_terminal_another_command_is_named() {
    let (code, errors) = outcome(&mut tenure(["top"]));
    assert_eq!((code, errors.lines().count()), (64, 1), "{errors}");
    assert!(errors.contains("tenure locks ls"), "{errors}");
}
