//! The director: starts everybody, kills and pauses holders, tells what it sees, and has the last word.

use std::{
    io::{PipeReader, Write as _},
    process::ExitCode,
    time::Duration,
};

use nix::sys::signal::Signal;
use tenure_sidecar::{
    Client,
    protocol::{Hello, HelloResult, KvEntry, KvGet, VERSION},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use super::{
    Fault,
    check::{Copy, check},
    crew::{Crew, Ended},
    options::{Options, Place},
    record::{Guard, News, Report, now},
    screen::{Row, Screen, Tone},
    script::{Act, HandOver, Script},
    shared_file::{Sabotage, SharedFile},
    summary::{Ending, Setting, Summary},
};

/// How long the daemon may take to open its store.
const OPENING: Duration = Duration::from_secs(30);
/// How long a holder is left in peace before the next disturbance.
const PEACE: Duration = Duration::from_millis(230);

/// Makes the run, and cleans up however it ends.
pub(super) async fn run(options: &Options) -> Result<ExitCode, Fault> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let dir = tempfile::Builder::new().prefix("tenure-failover-").tempdir()?;
    let run = uuid::Uuid::new_v4().simple().to_string();
    let place = Place { dir: dir.path().to_owned(), run: run[..8].to_owned() };
    let store = options.store.clone().unwrap_or_else(|| place.store());
    let (crew, reports) = Crew::new(options, &place, &store)?;
    let mut director = Director {
        options,
        file: SharedFile::open(&place.shared_file(), options.sabotage)?,
        place,
        crew,
        screen: Screen::new(options.json, now()),
        // Who ignores the lock never hears that it was lost.
        script: Script::new(options.sabotage != Some(Sabotage::NoLock)),
        reports: lines(reports)?,
        heard: Vec::new(),
    };

    let outcome = tokio::select! {
        outcome = director.play() => outcome,
        _ = interrupt.recv() => return director.interrupted(dir, 130).await,
        _ = terminate.recv() => return director.interrupted(dir, 143).await,
    };
    let summary = match outcome {
        Ok(summary) => summary,
        Err(fault) => {
            return Err(match director.dismiss().await {
                Ok(_) => fault,
                Err(second) => format!("{fault}; and on the way out: {second}").into(),
            });
        }
    };
    if options.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&summary)?)?;
    }
    summary.show(&director.screen)?;
    if options.keep || !summary.ok {
        let kept = dir.keep();
        director.screen.line(&format!("\nKept to look at: {}", kept.display()))?;
    }
    Ok(ExitCode::from(u8::from(!summary.ok)))
}

fn lines(reports: PipeReader) -> Result<Lines<BufReader<pipe::Receiver>>, Fault> {
    Ok(BufReader::new(pipe::Receiver::from_owned_fd(reports.into())?).lines())
}

struct Director<'a> {
    options: &'a Options,
    place: Place,
    file: SharedFile,
    crew: Crew,
    screen: Screen,
    script: Script,
    reports: Lines<BufReader<pipe::Receiver>>,
    heard: Vec<Report>,
}

impl Director<'_> {
    /// The whole run, up to the verdict.
    async fn play(&mut self) -> Result<Summary, Fault> {
        let Options { workers, seconds, lease, .. } = *self.options;
        let heartbeat = self.options.heartbeat();
        let client = self.open().await?;
        // As the daemon shows it: without secrets.
        let hello = Hello { protocol: vec![VERSION], ..Hello::default() };
        let HelloResult { store, .. } = client.call_as("hello", hello).await?;
        self.screen.line(&format!(
            "{workers} workers, one lock on {}, lease {}, heartbeat {}, for {seconds} s\n",
            store.url,
            humantime::format_duration(lease),
            humantime::format_duration(heartbeat)
        ))?;
        if store.shared {
            let note = "A bucket that is new grants nothing for one lease: it may replace one that had holders.\n";
            self.screen.line(&self.screen.paint(Tone::Dim, note))?;
        }
        self.screen.head()?;
        for number in 1..=workers {
            self.crew.start_worker(format!("w{number}"))?;
        }
        self.act_until(Instant::now() + Duration::from_secs(seconds)).await?;
        self.crew.kill_workers().await?;
        let copy = self.copy(&client).await?;
        drop(client);
        self.crew.stop_daemon().await?;
        while let Some(line) = self.reports.next_line().await? {
            self.heard.push(serde_json::from_str(&line)?);
        }
        let file = tokio::fs::read_to_string(self.place.shared_file()).await?;
        let mut violations = check(&file, &self.heard, copy);
        violations.truncate(1_000);
        let setting = Setting { store: store.url, workers, lease, heartbeat };
        Ok(Summary::new(setting, std::mem::take(&mut self.script.hand_overs), &self.heard, violations))
    }

    /// Starts the daemon, and connects to it once it listens.
    async fn open(&mut self) -> Result<Client, Fault> {
        self.crew.start_daemon()?;
        let deadline = Instant::now() + OPENING;
        loop {
            tokio::select! {
                line = self.reports.next_line() => {
                    let report: Report = serde_json::from_str(&line?.ok_or("the daemon is gone")?)?;
                    if let News::Listening = report.news {
                        return Ok(Client::connect(self.place.socket()).await?);
                    }
                }
                ended = self.crew.ended() => {
                    ended?;
                    return Err("the daemon did not start; what it said is above".into());
                }
                () = sleep_until(deadline) => return Err(format!("the store was not open after {OPENING:?}").into()),
            }
        }
    }

    /// Lets the workers compete and disturbs them until `end`.
    async fn act_until(&mut self, end: Instant) -> Result<(), Fault> {
        let patience = 2 * self.options.lease + Duration::from_secs(10);
        let mut calm_until = Instant::now() + PEACE;
        let mut give_up = Instant::now() + patience;
        loop {
            tokio::select! {
                biased;
                line = self.reports.next_line() => {
                    let report: Report = serde_json::from_str(&line?.ok_or("the workers are gone")?)?;
                    if let News::Granted { .. } = report.news {
                        if self.script.is_settled() {
                            give_up = Instant::now() + patience;
                        }
                        if !self.script.is_calm() {
                            calm_until = Instant::now() + PEACE;
                        }
                    }
                    self.hear(report)?;
                }
                ended = self.crew.ended() => match ended? {
                    Ended::Worker { name, status } if killed(status) => self.crew.start_worker(name)?,
                    ended => return Err(unexpected(&ended)),
                },
                () = sleep_until(calm_until), if self.script.can_disturb() && Instant::now() < end => {
                    if let Some(act) = self.script.disturb(now()) {
                        self.act(act)?;
                    }
                }
                () = sleep_until(end), if self.script.is_settled() => return Ok(()),
                () = sleep_until(give_up) => return Err(self.stuck(patience)),
            }
        }
    }

    fn stuck(&self, patience: Duration) -> Fault {
        if self.script.is_settled() {
            return format!("nobody was granted the lock for {patience:?}").into();
        }
        format!("a holder was stopped, and {patience:?} later it had not been refused").into()
    }

    fn hear(&mut self, report: Report) -> Result<(), Fault> {
        let worker = self.crew.name(report.pid);
        let mut hand_over = None;
        let told = match &report.news {
            News::Granted { token, .. } => {
                let ended = self.script.granted(*token, report.at);
                hand_over = ended.and_then(|ended| ended.took);
                let what = match ended {
                    None => "holds".to_owned(),
                    Some(HandOver { from, ending: Ending::Release, .. }) => format!("holds, {from} was released"),
                    Some(HandOver { from, ending: Ending::Kill, .. }) => format!("holds, the holder of {from} was killed"),
                    Some(HandOver { from, ending: Ending::Pause, .. }) => format!("holds, the holder of {from} is stopped"),
                    Some(HandOver { from, ending: Ending::Loss, .. }) => format!("holds, {from} was lost"),
                };
                Some((*token, Tone::Plain, what))
            }
            News::Lost { token, reason } => Some((*token, Tone::Dim, format!("learns that it holds no more: {reason}"))),
            News::Refused { token, by, reason } => {
                let by = match by {
                    Guard::File => "file",
                    Guard::Store => "store",
                };
                Some((*token, Tone::Good, format!("stale write refused by the {by}: {reason}")))
            }
            News::Passed { token } => Some((*token, Tone::Bad, "stale write taken by the store".to_owned())),
            News::Failed { message } => return Err(format!("worker {worker}: {message}").into()),
            News::Listening
            | News::Entered { .. }
            | News::Appended { .. }
            | News::Stored { .. }
            | News::Releasing { .. }
            | News::Released { .. } => None,
        };
        if let Some((token, tone, what)) = told {
            self.screen.row(&Row { at: report.at, token: Some(token), worker: &worker, hand_over, tone, what })?;
        }
        let act = self.script.note(&report);
        self.heard.push(report);
        act.map_or(Ok(()), |act| self.act(act))
    }

    fn act(&self, act: Act) -> Result<(), Fault> {
        let (pid, signal) = match act {
            Act::Kill(pid) => (pid, Signal::SIGKILL),
            Act::Stop(pid) => (pid, Signal::SIGSTOP),
            Act::Wake(pid) => (pid, Signal::SIGCONT),
        };
        match act {
            // Stopped between look and write it would keep the file shut, and its successor with it.
            Act::Stop(pid) => self.file.quietly(|| self.crew.stop(pid))??,
            Act::Kill(_) | Act::Wake(_) => self.crew.signal(pid, signal)?,
        }
        let (worker, what) = (self.crew.name(pid), format!("gets {signal}"));
        self.screen.row(&Row { at: now(), token: None, worker: &worker, hand_over: None, tone: Tone::Warning, what })?;
        Ok(())
    }

    /// The total in the store.
    async fn copy(&self, client: &Client) -> Result<Option<Copy>, Fault> {
        let params = KvGet { key: self.place.key(), ..KvGet::default() };
        let Some(entry) = client.call_as::<KvEntry>("kv.get", params).await?.entry else { return Ok(None) };
        let value = entry.value.unwrap_or_default();
        let (token, total) = value.split_once(' ').ok_or("the store's copy of the total is damaged")?;
        Ok(Some(Copy { token: token.parse()?, total: total.parse()? }))
    }

    async fn dismiss(&mut self) -> Result<usize, Fault> {
        let workers = self.crew.kill_workers().await?;
        self.crew.stop_daemon().await?;
        Ok(workers)
    }

    async fn interrupted(&mut self, dir: tempfile::TempDir, code: u8) -> Result<ExitCode, Fault> {
        let workers = self.dismiss().await?;
        let path = dir.path().to_owned();
        dir.close()?;
        let _ = writeln!(std::io::stderr(), "interrupted: ended {workers} workers and the daemon, removed {}", path.display());
        Ok(ExitCode::from(code))
    }
}

fn killed(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    status.signal() == Some(Signal::SIGKILL as i32)
}

fn unexpected(ended: &Ended) -> Fault {
    match ended {
        Ended::Daemon(status) => format!("the daemon ended ({status})").into(),
        Ended::Worker { name, status } => format!("the worker {name} ended ({status})").into(),
    }
}
