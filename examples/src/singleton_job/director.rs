//! The director: starts workers, ends leaders, and tells who takes over.

use std::{io::Write as _, process::ExitCode, time::Duration};

use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{
    check::check,
    options::{Options, Sabotage},
    worker::{News, file},
};
use crate::stage::{Crew, Fault, Nanos, Report, Reports, Screen, Tone, Way, interrupted, now, run_id, unless_interrupted};

/// How long anything may take at most, beside the lease.
const PATIENCE: Duration = Duration::from_secs(20);

/// The end of a leader, and how long until the next led.
#[derive(Debug, Serialize)]
struct TakeOver {
    after: &'static str,
    took_ms: f64,
}

/// Makes the run, and cleans up however it ends.
pub(super) async fn run(options: &Options) -> Result<ExitCode, Fault> {
    let dir = tempfile::Builder::new().prefix("tenure-singleton-job-").tempdir()?;
    let id = run_id();
    let way = Way::to(options.setting.store.as_deref(), dir.path());
    let time = |duration| humantime::format_duration(duration).to_string();
    let (lease, round) = (time(options.lease), time(options.round));
    let mut own = vec![("--lease", &*lease), ("--round", &round)];
    if let Some(Sabotage::Everyone) = options.sabotage {
        own.push(("--sabotage", "everyone"));
    }
    let arguments = options.setting.arguments(&id, dir.path(), &own);
    let (crew, reports) = Crew::new(arguments)?;
    let mut director = Director {
        options,
        crew,
        reports,
        screen: Screen::new(options.setting.json),
        leader: None,
        ran: 0,
        ended: None,
        take_overs: Vec::new(),
    };
    let outcome = unless_interrupted(director.play(&way)).await;
    let ended = director.crew.retire(PATIENCE).await?;
    match outcome? {
        Ok(played) => played?,
        Err(code) => return interrupted(code, &format!("{ended} workers{}", way.and_the_daemon()), dir),
    }
    director.conclude(&tokio::fs::read_to_string(file(dir.path())).await?)
}

struct Director<'a> {
    options: &'a Options,
    crew: Crew,
    reports: Reports,
    screen: Screen,
    leader: Option<u32>,
    /// How often this leader has run the job.
    ran: u64,
    /// When and how the last leader was ended.
    ended: Option<(Nanos, &'static str)>,
    take_overs: Vec<TakeOver>,
}

impl Director<'_> {
    async fn play(&mut self, way: &Way) -> Result<(), Fault> {
        let Options { workers, seconds, lease, round, .. } = *self.options;
        let (lease, every) = (humantime::format_duration(lease), humantime::format_duration(round));
        let place = way.open(&mut self.crew, &mut self.reports).await?;
        self.screen.line(&format!(
            "{workers} workers, one election on {place}, a job every {every}, lease {lease}, for {seconds} s\n"
        ))?;
        for number in 1..=workers {
            self.crew.start("worker", &format!("w{number}"))?;
        }
        let part = Duration::from_secs(seconds) / 3;
        for (signal, what) in [(Signal::SIGKILL, "is killed"), (Signal::SIGTERM, "is asked to end")] {
            let pid = self.work_for(part).await?;
            let name = self.crew.name(pid).to_owned();
            self.screen.event(
                now(),
                &name,
                Tone::Warning,
                &format!("{what} ({signal}), having run the job {} times", self.ran),
            )?;
            self.ended = Some((now(), what));
            self.leader = None;
            self.crew.signal(pid, signal)?;
        }
        self.work_for(part).await?;
        Ok(())
    }

    /// Lets the leader work for so long, and on to the end of a job; the leader.
    async fn work_for(&mut self, part: Duration) -> Result<u32, Fault> {
        let end = Instant::now() + part;
        let give_up = end + 2 * self.options.lease + 2 * self.options.round + PATIENCE;
        self.ran = 0;
        loop {
            let ran = self.ran;
            tokio::select! {
                biased;
                report = self.reports.next() => self.hear(report?)?,
                ended = self.crew.ended() => {
                    let ended = ended?;
                    let expected = self.ended.is_some() && (ended.was_killed() || ended.status.success());
                    if !expected {
                        return Err(format!("the worker {} ended ({})", ended.name, ended.status).into());
                    }
                }
                () = sleep_until(give_up) => return Err(format!("nobody has run the job for {:?}", give_up - end + part).into()),
            }
            // Right after a job the next is furthest away.
            if let Some(leader) = self.leader.filter(|_| self.ran > ran && self.ran > 1 && Instant::now() >= end) {
                return Ok(leader);
            }
        }
    }

    fn hear(&mut self, Report { pid, at, news }: Report<News>) -> Result<(), Fault> {
        let name = self.crew.name(pid).to_owned();
        match news {
            News::Ready => self.screen.event(at, &name, Tone::Dim, "campaigns")?,
            News::Leads { term } => {
                let mut what = format!("leads in term {term}");
                if let Some((when, how)) = self.ended {
                    let took_ms = at.saturating_sub(when) as f64 / 1e6;
                    what += &format!(", {took_ms:.1} ms after the leader before {how}");
                    self.take_overs.push(TakeOver { after: how, took_ms });
                }
                (self.leader, self.ran) = (Some(pid), 0);
                self.screen.event(at, &name, Tone::Good, &what)?;
            }
            // Where everyone works, whoever did last will do for a leader.
            News::Ran { .. } if self.options.sabotage.is_some() => (self.leader, self.ran) = (Some(pid), self.ran + 1),
            News::Ran { .. } => self.ran += u64::from(self.leader == Some(pid)),
            News::Failed { message } => return Err(format!("the worker {name}: {message}").into()),
        }
        Ok(())
    }

    fn conclude(&self, text: &str) -> Result<ExitCode, Fault> {
        let verdicts = check(text, 3);
        let ok = verdicts.iter().all(|verdict| verdict.broken.is_empty());
        let jobs = text.lines().count();
        if self.options.setting.json {
            let all = serde_json::json!({ "ok": ok, "jobs": jobs, "take_overs": self.take_overs, "verdicts": verdicts });
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&all)?)?;
        }
        self.screen.line(&format!("\nThe job ran {jobs} times"))?;
        self.screen.verdicts(&verdicts)?;
        Ok(ExitCode::from(u8::from(!ok)))
    }
}
