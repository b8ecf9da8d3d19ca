//! Running a command for as long as a lock is held, and not a moment longer.
//!
//! The command gets its own process group, the terminal if there is one, and every signal that is sent
//! here. It ends before the lock can pass on, and it never continues from a stop before the lock was
//! confirmed. It knows locks only as [`Hold`]: what is acquired, and where, is up to the caller.

mod child;
mod hold;
mod keeper;
mod plan;
mod shim;
mod signals;
mod terminal;

use std::{ffi::OsString, os::unix::process::CommandExt, time::Duration};

use futures::FutureExt;
use rustix::process::Signal;
use tenure_kv::{BootClock, Clock, Moment};
use tokio::sync::Notify;

use self::{
    child::{Change, Child},
    keeper::Keeper,
    plan::{Phase, Step},
    terminal::Terminal,
};
pub(crate) use self::{
    hold::{Hold, UNRENEWED, Validity},
    plan::{KILL_AFTER, OnLost, Policy},
    shim::{die_of, divert},
    signals::Signals,
};
use super::{
    exit::{self, Failure},
    say::say,
};

/// How long the group's last members are waited for once KILL was sent: the kernel needs no longer.
const BURIAL: Duration = Duration::from_millis(100);
/// Asking to stop this often, once the lock is lost, is a wish to have it over with.
const INSISTENT: u32 = 3;
/// Signals that ask a command to end. HUP may mean no more than to read a configuration again.
const ENDING: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::QUIT];

/// What to run, and how to stop it.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) command: &'a [OsString],
    pub(crate) environment: &'a [(&'a str, OsString)],
    /// Variables that the command does not inherit.
    pub(crate) unset: &'a [&'a str],
    pub(crate) policy: Policy,
    /// Without what it runs on that is not stopped, for people: "without the lock".
    pub(crate) without: &'a str,
    /// Told when a signal that was sent here asks the command to end.
    pub(crate) ending: Option<&'a Notify>,
}

/// How the command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its own code, 128 + the signal that ended it, or [`exit::LOST`].
    pub(crate) code: u8,
    /// Why what it ran under was lost, or given up, if it was while the command ran.
    pub(crate) lost: Option<String>,
    /// A signal that was sent here asked it to end.
    pub(crate) asked: bool,
    /// It died of this signal, which the user typed at the terminal that was lent to it.
    pub(crate) typed: Option<i32>,
}

/// Runs the command and returns once it is reaped. Call it on the main thread.
pub(crate) async fn run<H: Hold>(hold: &mut H, run: &Run<'_>, signals: &mut Signals) -> Result<Outcome, Failure> {
    signals.hear_job_control().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    let terminal = Terminal::open();
    let lent = terminal.as_ref().is_some_and(Terminal::is_for_command);
    let unable = |error| {
        Failure::failed(format_args!("cannot start a process: {error}; check that /proc is mounted, and the limit of processes"))
    };
    let mut keeper = Keeper::start().map_err(unable)?;
    let child = Child::spawn(run, lent, &keeper).map_err(unable)?;
    if let Err(error) = keeper.guard(child.group()) {
        say(&format!("warning: should tenure be killed, what the command started would run on: {error}"));
    }
    let supervisor = Supervisor {
        hold,
        child,
        signals,
        terminal,
        lent,
        policy: run.policy,
        without: run.without,
        ending: run.ending,
        phase: Phase::Running,
        why: None,
        resumed: false,
        forwarded: Vec::new(),
        insisted: 0,
    };
    supervisor.run().await
}

/// A command that is no more than tied to this process: in a group of its own, away from the terminal, and killed by the
/// kernel when the calling thread ends.
pub(crate) fn tied(command: &[OsString]) -> std::process::Command {
    let mut shim = std::process::Command::new(shim::SELF);
    shim.arg0("tenure").args(shim::arguments(false, None)).args(command).process_group(0);
    shim
}

/// Whether this process has the terminal all to itself and a shell with job control is above.
///
/// That shell, and a script between it and us, must see that ^C ended us; an exit code would tell them
/// that it was dealt with.
pub(crate) fn at_terminal_of_a_shell() -> bool {
    Terminal::open().is_some_and(|terminal| terminal.is_for_command()) && !terminal::is_orphaned()
}

/// Whether `signal` is one that is typed.
pub(crate) fn is_typed(signal: i32) -> bool {
    [Signal::INT.as_raw(), Signal::QUIT.as_raw()].contains(&signal)
}

/// Gives those who share this process's group, such as the script it stands in, a signal that was typed
/// while the terminal was the command's. Says whether anybody above should see it.
pub(crate) fn pass_to_shell(signal: i32) -> bool {
    let shared = at_terminal_of_a_shell();
    if shared && let Some(signal) = Signal::from_named_raw(signal) {
        // We are a member, so the group is there.
        let _ = rustix::process::kill_current_process_group(signal);
    }
    shared
}

struct Supervisor<'a, H> {
    hold: &'a mut H,
    child: Child,
    signals: &'a mut Signals,
    terminal: Option<Terminal>,
    /// The terminal goes to the command whenever our group has it.
    lent: bool,
    policy: Policy,
    without: &'a str,
    ending: Option<&'a Notify>,
    phase: Phase,
    why: Option<String>,
    /// The continuation from our own stop was dealt with; its signal is still to be told.
    resumed: bool,
    forwarded: Vec<i32>,
    insisted: u32,
}

impl<H: Hold> Supervisor<'_, H> {
    async fn run(mut self) -> Result<Outcome, Failure> {
        let end = loop {
            let step = plan::next(self.policy, self.phase, &self.hold.validity(), BootClock.now());
            let heard = match step {
                Step::Until(moment) => self.wait(BootClock.sleep_until(moment)).await,
                Step::Rest => self.wait(std::future::pending()).await,
                due => {
                    // A continuation after a stop of this process is heard before anything is done: then
                    // the time that passed says nothing, and the lock may well be held still.
                    tokio::task::yield_now().await;
                    let heard = self.signals.next().now_or_never();
                    if heard.is_none() {
                        self.act(due);
                    }
                    heard
                }
            };
            let Some(signal) = heard else { continue };
            if signal != Signal::CHILD {
                self.hear(signal).await;
                continue;
            }
            if let Some(end) = self.reap().await? {
                break end;
            }
        };
        self.sweep().await;
        Ok(self.outcome(end))
    }

    /// Waits for a signal, for `due`, or for news of the lock.
    async fn wait(&mut self, due: impl Future<Output = ()>) -> Option<Signal> {
        tokio::select! {
            biased;
            signal = self.signals.next() => Some(signal),
            () = due => None,
            () = self.hold.changed(), if self.phase != Phase::Killed => None,
        }
    }

    /// Takes a step that is due.
    fn act(&mut self, step: Step) {
        let known = self.hold.validity();
        let why = match known.wanted {
            Some(who) if matches!(step, Step::Terminate { .. }) && !known.over => who,
            _ => known.why.into_owned(),
        };
        match step {
            Step::Terminate { kill_at } => {
                if self.phase == Phase::Running {
                    self.child.signal(Signal::TERM);
                    // A stopped command could not act on it.
                    self.child.signal(Signal::CONT);
                }
                self.phase = Phase::Terminating { kill_at };
            }
            Step::Kill => {
                self.child.signal(Signal::KILL);
                self.phase = Phase::Killed;
            }
            Step::Warn => {
                say(&format!("warning: {why}; the command runs on {}, as --on-lost ignore asks", self.without));
                self.phase = Phase::Ignoring;
            }
            Step::Until(_) | Step::Rest => return,
        }
        self.why.get_or_insert(why);
    }

    async fn hear(&mut self, signal: Signal) {
        match signal {
            Signal::CONT if self.resumed => self.resumed = false,
            Signal::CONT => self.resume(self.hold.lease() / 4).await,
            signal if ENDING.contains(&signal) && matches!(self.phase, Phase::Terminating { .. }) => {
                self.insisted += 1;
                if self.insisted >= INSISTENT {
                    self.act(Step::Kill);
                } else {
                    self.child.signal(signal);
                }
            }
            _ => {
                if let Some(ending) = self.ending.filter(|_| ENDING.contains(&signal)) {
                    ending.notify_one();
                }
                self.forwarded.push(signal.as_raw());
                self.forwarded.dedup();
                self.child.signal(signal);
            }
        }
    }

    /// Looks after every change of the command; returns its end.
    async fn reap(&mut self) -> Result<Option<Change>, Failure> {
        loop {
            let change = self.child.poll();
            match change.map_err(|error| Failure::failed(format_args!("cannot wait for the command: {error}")))? {
                None => return Ok(None),
                Some(Change::Stopped(signal)) => self.stopped(Signal::from_named_raw(signal)).await,
                Some(Change::Continued) => {}
                Some(end) => return Ok(Some(end)),
            }
        }
    }

    /// The command was stopped. At a terminal this process stops as well, so that the shell above sees
    /// it; elsewhere whoever stopped the command will continue it, and the lock is kept meanwhile.
    async fn stopped(&mut self, signal: Option<Signal>) {
        let (Some(terminal), Some(signal)) = (&self.terminal, signal) else { return };
        let wants_terminal = matches!(signal, Signal::TTIN | Signal::TTOU);
        if !matches!(self.phase, Phase::Running | Phase::Ignoring) || !(wants_terminal || signal == Signal::TSTP) {
            return;
        }
        self.lent |= wants_terminal;
        if wants_terminal && terminal.is_ours() {
            terminal.give_to(self.child.group());
            self.child.signal(Signal::CONT);
        } else if terminal::is_orphaned() {
            // Nobody is there to continue us. The kernel would not have stopped the command here, and
            // would have refused it the terminal.
            if wants_terminal {
                self.child.signal(Signal::HUP);
            }
            self.child.signal(Signal::CONT);
        } else {
            terminal.take_back_from(self.child.group());
            terminal::stop_ourselves();
            self.resumed = true;
            // The command still stands, so there is time for a slow answer.
            self.resume(self.hold.lease().max(Duration::from_secs(1))).await;
        }
    }

    /// Lets the command continue, unless the lock went while nobody was looking.
    async fn resume(&mut self, limit: Duration) {
        self.hold.confirm(limit).await;
        let known = self.hold.validity();
        let gone = known.over || BootClock.now() >= known.until;
        if gone && self.phase == Phase::Running && self.policy.on_lost != OnLost::Ignore {
            return self.act(Step::Kill);
        }
        if let Some(terminal) = &self.terminal
            && self.lent
            && terminal.is_ours()
        {
            terminal.give_to(self.child.group());
        }
        self.child.signal(Signal::CONT);
    }

    /// Ends what the command left of its group when the lock is lost; otherwise leaves it alone.
    async fn sweep(&self) {
        let mut kill_at = match self.phase {
            Phase::Terminating { kill_at } => Some(kill_at),
            Phase::Killed => None,
            Phase::Running | Phase::Ignoring => return,
        };
        let mut end = kill_at.unwrap_or_else(|| BootClock.now()) + BURIAL;
        while self.child.group_remains() {
            let now = BootClock.now();
            if kill_at.is_some_and(|at: Moment| now >= at) {
                self.child.signal(Signal::KILL);
                kill_at = None;
                end = now + BURIAL;
            } else if now >= end {
                return;
            }
            // The end of a process that is not our child is told to nobody here.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn outcome(self, end: Change) -> Outcome {
        let had_terminal = self.terminal.as_ref().is_some_and(|terminal| terminal.take_back_from(self.child.group()));
        let (code, signal) = match end {
            Change::Killed(signal) => (exit::by_signal(signal), Some(signal)),
            Change::Exited(code) => (code, None),
            Change::Stopped(_) | Change::Continued => (exit::FAILED, None),
        };
        if had_terminal
            && signal.is_some()
            && let Some(terminal) = &self.terminal
        {
            terminal.restore_modes();
        }
        let lost = self.why.filter(|_| self.policy.on_lost != OnLost::Ignore);
        let typed =
            signal.filter(|signal| is_typed(*signal) && had_terminal && lost.is_none() && !self.forwarded.contains(signal));
        // HUP may mean no more than to read a configuration again.
        let ending = [Signal::INT, Signal::TERM, Signal::QUIT].map(Signal::as_raw);
        let asked =
            typed.is_some() || self.forwarded.iter().any(|forwarded| ending.contains(forwarded) || signal == Some(*forwarded));
        Outcome { asked, code: if lost.is_some() { exit::LOST } else { code }, lost, typed }
    }
}
