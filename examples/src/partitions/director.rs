//! The director: starts workers, has some come and some go, and tells what moved.

use std::{collections::BTreeMap, io::Write as _, process::ExitCode, time::Duration};

use nix::sys::signal::Signal;
use serde::Serialize;
use tenure::partitions::assign;
use tenure_kv::Revision;
use tokio::time::{Instant, sleep_until};

use super::{
    check::check,
    options::{Options, Sabotage},
    worker::{News, file},
};
use crate::stage::{Crew, Fault, Report, Reports, Screen, Tone, Verdict, Way, interrupted, now, run_id, unless_interrupted};

/// How long anything may take at most, beside the lease.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happened to the workers, and what moved.
#[derive(Debug, Serialize)]
struct Move {
    what: String,
    moved: usize,
    took_ms: u128,
}

/// Makes the run, and cleans up however it ends.
pub(super) async fn run(options: &Options) -> Result<ExitCode, Fault> {
    let dir = tempfile::Builder::new().prefix("tenure-partitions-").tempdir()?;
    let id = run_id();
    let way = Way::to(options.setting.store.as_deref(), dir.path());
    let (lease, partitions) = (humantime::format_duration(options.lease).to_string(), options.partitions.to_string());
    let mut own = vec![("--lease", &*lease), ("--partitions", &partitions)];
    if let Some(Sabotage::Keep) = options.sabotage {
        own.push(("--sabotage", "keep"));
    }
    let arguments = options.setting.arguments(&id, dir.path(), &own);
    let (crew, reports) = Crew::new(arguments)?;
    let mut director = Director {
        options,
        crew,
        reports,
        screen: Screen::new(options.setting.json),
        started: 0,
        workers: BTreeMap::new(),
        owners: BTreeMap::new(),
        moves: Vec::new(),
        needless: Vec::new(),
    };
    let outcome = unless_interrupted(director.play(&way)).await;
    // Workers that are asked to end leave the group; those that are killed would stay for a while.
    let ended = director.crew.retire(if options.sabotage.is_some() { Duration::ZERO } else { PATIENCE }).await?;
    match outcome? {
        Ok(played) => played?,
        Err(code) => return interrupted(code, &format!("{ended} workers{}", way.and_the_daemon()), dir),
    }
    let text = tokio::fs::read_to_string(file(dir.path())).await?;
    director.conclude(&text)
}

struct Director<'a> {
    options: &'a Options,
    crew: Crew,
    reports: Reports,
    screen: Screen,
    started: u16,
    /// Those who should share the partitions.
    workers: BTreeMap<String, u32>,
    /// Who gained each partition last.
    owners: BTreeMap<u32, String>,
    moves: Vec<Move>,
    /// What moved and need not have.
    needless: Vec<String>,
}

impl Director<'_> {
    async fn play(&mut self, way: &Way) -> Result<(), Fault> {
        let Options { workers, partitions, seconds, lease, .. } = *self.options;
        let lease = humantime::format_duration(lease);
        let place = way.open(&mut self.crew, &mut self.reports).await?;
        self.screen.line(&format!(
            "{partitions} partitions, {workers} workers, one group on {place}, lease {lease}, for {seconds} s\n"
        ))?;
        let rest = Duration::from_secs(seconds) / 4;
        for _ in 0..workers {
            self.come()?;
        }
        self.settle("all workers join").await?;
        self.watch(Instant::now() + rest).await?;

        let newcomer = self.come()?;
        self.screen.event(now(), &newcomer, Tone::Warning, "is started")?;
        self.settle(&format!("{newcomer} joins")).await?;
        self.watch(Instant::now() + rest).await?;

        for (signal, act, done) in [(Signal::SIGTERM, "is asked to leave", "leaves"), (Signal::SIGKILL, "is killed", "is dead")] {
            let (name, pid) = self.workers.pop_first().ok_or("there is no worker left")?;
            self.screen.event(now(), &name, Tone::Warning, &format!("{act} ({signal})"))?;
            self.crew.signal(pid, signal)?;
            self.settle(&format!("{name} {done}")).await?;
            self.watch(Instant::now() + rest).await?;
        }
        Ok(())
    }

    fn come(&mut self) -> Result<String, Fault> {
        self.started += 1;
        let name = format!("w{}", self.started);
        let pid = self.crew.start("worker", &name)?;
        self.workers.insert(name.clone(), pid);
        Ok(name)
    }

    /// Waits until everybody owns what they should.
    async fn settle(&mut self, what: &str) -> Result<(), Fault> {
        let begun = Instant::now();
        let deadline = begun + 2 * self.options.lease + PATIENCE;
        let before = self.owners.clone();
        let names = self.workers.keys().map(|name| (name.as_str(), 1));
        let wanted = assign(self.options.partitions, Revision::ZERO, names);
        let wanted: BTreeMap<u32, String> = wanted.iter().filter_map(|(n, owner)| Some((n, owner?.to_string()))).collect();
        while self.owners != wanted {
            self.step(deadline).await?;
            if Instant::now() >= deadline {
                let missing = wanted.iter().filter(|(n, owner)| self.owners.get(n) != Some(owner)).count();
                return Err(format!("{what}: {missing} partitions have not moved within {:?}", deadline - begun).into());
            }
        }
        let took = begun.elapsed();
        let moved = wanted.iter().filter(|(n, owner)| before.get(n) != Some(owner)).count();
        for (n, owner) in &wanted {
            let was = before.get(n);
            let needed =
                was.is_none_or(|was| was == owner || !self.workers.contains_key(was) || !before.values().any(|old| old == owner));
            if !needed {
                self.needless.push(format!("{what}: partition {n} moved between two who stayed"));
            }
        }
        let shares: Vec<_> =
            self.workers.keys().map(|name| (name, wanted.values().filter(|owner| *owner == name).count())).collect();
        let shares: Vec<_> = shares.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        self.screen.event(
            now(),
            "",
            Tone::Good,
            &format!("{what}: {moved} partitions moved in {} ms ({})", took.as_millis(), shares.join(", ")),
        )?;
        self.moves.push(Move { what: what.to_owned(), moved, took_ms: took.as_millis() });
        Ok(())
    }

    async fn watch(&mut self, until: Instant) -> Result<(), Fault> {
        while Instant::now() < until {
            self.step(until).await?;
        }
        Ok(())
    }

    /// Takes one thing in, or returns at `until`.
    async fn step(&mut self, until: Instant) -> Result<(), Fault> {
        tokio::select! {
            biased;
            report = self.reports.next() => self.hear(report?),
            ended = self.crew.ended() => {
                let ended = ended?;
                let expected = !self.workers.contains_key(&ended.name) && (ended.was_killed() || ended.status.success());
                if expected { Ok(()) } else { Err(format!("the worker {} ended ({})", ended.name, ended.status).into()) }
            }
            () = sleep_until(until) => Ok(()),
        }
    }

    fn hear(&mut self, Report { pid, at, news }: Report<News>) -> Result<(), Fault> {
        let name = self.crew.name(pid).to_owned();
        match news {
            News::Gained { partition } => {
                if let Some(from) = self.owners.insert(partition, name.clone()) {
                    self.screen.event(at, &name, Tone::Dim, &format!("partition {partition} comes from {from}"))?;
                }
            }
            News::Left => self.screen.event(at, &name, Tone::Plain, "has handed everything over and left")?,
            News::Failed { message } => return Err(format!("the worker {name}: {message}").into()),
        }
        Ok(())
    }

    fn conclude(&self, text: &str) -> Result<ExitCode, Fault> {
        let mut verdicts = check(text, self.options.partitions);
        verdicts.push(Verdict { promise: "nothing moved that need not", broken: self.needless.clone() });
        let ok = verdicts.iter().all(|verdict| verdict.broken.is_empty());
        let lines = text.lines().count();
        if self.options.setting.json {
            let all = serde_json::json!({ "ok": ok, "moves": self.moves, "lines": lines, "verdicts": verdicts });
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&all)?)?;
        }
        self.screen.line(&format!("\n{lines} pieces of work"))?;
        self.screen.verdicts(&verdicts)?;
        Ok(ExitCode::from(u8::from(!ok)))
    }
}
