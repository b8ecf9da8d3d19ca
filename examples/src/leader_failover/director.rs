//! The director: kills and stops leaders, tells how long nobody led, and has the last word.

use std::{collections::BTreeMap, io::Write as _, process::ExitCode, time::Duration};

use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{
    candidate::News,
    check::check,
    options::{Options, Sabotage},
};
use crate::stage::{Crew, Fault, Report, Reports, Screen, Tone, Way, interrupted, now, run_id, unless_interrupted};

/// How long anything may take at most, beside the leases.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many writes make a leader.
const ENOUGH: u64 = 20;

/// How long nobody led after each kind of end, in milliseconds.
#[derive(Debug, Default, Serialize)]
struct Gaps {
    count: usize,
    p50_ms: f64,
    max_ms: f64,
    #[serde(skip)]
    all: Vec<f64>,
}

impl Gaps {
    fn add(&mut self, ms: f64) {
        self.all.push(ms);
        self.all.sort_by(f64::total_cmp);
        self.count = self.all.len();
        // Nearest rank.
        self.p50_ms = self.all.get((self.count - 1) / 2).copied().unwrap_or_default();
        self.max_ms = self.all.last().copied().unwrap_or_default();
    }
}

/// Makes the run, and cleans up however it ends.
pub(super) async fn run(options: &Options) -> Result<ExitCode, Fault> {
    let dir = tempfile::Builder::new().prefix("tenure-leader-failover-").tempdir()?;
    let id = run_id();
    let way = Way::to(options.setting.store.as_deref(), dir.path());
    let lease = humantime::format_duration(options.lease).to_string();
    let mut own = vec![("--lease", &*lease)];
    if let Some(Sabotage::NoFence) = options.sabotage {
        own.push(("--sabotage", "no-fence"));
    }
    let arguments = options.setting.arguments(&id, dir.path(), &own);
    let (crew, reports) = Crew::new(arguments)?;
    let mut director = Director {
        options,
        crew,
        reports,
        screen: Screen::new(options.setting.json),
        heard: Vec::new(),
        started: 0,
        leader: None,
        woken: Vec::new(),
        gaps: BTreeMap::new(),
    };
    let outcome = unless_interrupted(director.play(&way)).await;
    let ended = director.crew.retire(PATIENCE).await?;
    match outcome? {
        Ok(played) => played?,
        Err(code) => return interrupted(code, &format!("{ended} candidates{}", way.and_the_daemon()), dir),
    }
    director.conclude()
}

/// Who leads, and how often it has written.
#[derive(Clone, Copy, Debug)]
struct Leader {
    pid: u32,
    term: u64,
    since: u64,
    writes: u64,
}

struct Director<'a> {
    options: &'a Options,
    crew: Crew,
    reports: Reports,
    screen: Screen,
    heard: Vec<Report<News>>,
    started: u16,
    leader: Option<Leader>,
    /// Those that were stopped while they led, and in which term.
    woken: Vec<(u32, u64)>,
    gaps: BTreeMap<&'static str, Gaps>,
}

impl Director<'_> {
    async fn play(&mut self, way: &Way) -> Result<(), Fault> {
        let Options { candidates, rounds, lease, .. } = *self.options;
        let place = way.open(&mut self.crew, &mut self.reports).await?;
        let lease = humantime::format_duration(lease);
        self.screen.line(&format!(
            "{candidates} candidates, one election on {place}, lease {lease}, {rounds} leaders are killed or stopped\n"
        ))?;
        for _ in 0..candidates {
            self.start()?;
        }
        for round in 0..rounds {
            let leader = self.settled().await?;
            if round % 2 == 0 { self.kill(leader).await? } else { self.stop(leader).await? }
        }
        self.settled().await?;
        Ok(())
    }

    fn start(&mut self) -> Result<(), Fault> {
        self.started += 1;
        self.crew.start("candidate", &format!("c{}", self.started)).map(drop)
    }

    /// Kills the leader, and has another candidate in its place.
    async fn kill(&mut self, leader: Leader) -> Result<(), Fault> {
        self.tell(leader.pid, Tone::Warning, &format!("is killed (SIGKILL) in term {}", leader.term))?;
        let begun = now();
        self.crew.signal(leader.pid, Signal::SIGKILL)?;
        self.next_after(leader, begun, "SIGKILL").await?;
        self.start()
    }

    /// Stops the leader until another leads, and wakes it up to see what becomes of its next write.
    async fn stop(&mut self, leader: Leader) -> Result<(), Fault> {
        self.tell(leader.pid, Tone::Warning, &format!("is stopped (SIGSTOP) in term {}", leader.term))?;
        let begun = now();
        self.crew.signal(leader.pid, Signal::SIGSTOP)?;
        self.next_after(leader, begun, "SIGSTOP").await?;
        self.settled().await?;
        self.tell(leader.pid, Tone::Dim, "wakes up and goes on writing")?;
        self.woken.push((leader.pid, leader.term));
        let since = self.heard.len();
        self.crew.signal(leader.pid, Signal::SIGCONT)?;
        // Without fences it is never refused.
        let went_on = |report: &Report<News>| match report.news {
            News::Refused { term, .. } => term == leader.term,
            News::Wrote { term, .. } => term == leader.term && self.options.sabotage.is_some(),
            _ => false,
        };
        let end = self.patience();
        while !self.heard[since..].iter().any(|report| report.pid == leader.pid && went_on(report)) {
            hear(&mut self.crew, &mut self.reports, end).await.map(|report| self.heard.push(report))?;
            self.take_in()?;
        }
        Ok(())
    }

    /// Waits for a leader that has written enough.
    async fn settled(&mut self) -> Result<Leader, Fault> {
        let end = self.patience();
        loop {
            if let Some(leader) = self.leader.filter(|leader| leader.writes >= ENOUGH) {
                return Ok(leader);
            }
            hear(&mut self.crew, &mut self.reports, end).await.map(|report| self.heard.push(report))?;
            self.take_in()?;
        }
    }

    /// Waits for the leader after `before`, which ended at `begun`.
    async fn next_after(&mut self, before: Leader, begun: u64, how: &'static str) -> Result<(), Fault> {
        let end = self.patience();
        let next = loop {
            if let Some(leader) = self.leader.filter(|leader| leader.term > before.term) {
                break leader;
            }
            hear(&mut self.crew, &mut self.reports, end).await.map(|report| self.heard.push(report))?;
            self.take_in()?;
        };
        let gap = next.since.saturating_sub(begun) as f64 / 1e6;
        self.gaps.entry(how).or_default().add(gap);
        self.screen.line(&format!("          gap {gap:.1} ms"))?;
        Ok(())
    }

    fn patience(&self) -> Instant {
        Instant::now() + 3 * self.options.lease + PATIENCE
    }

    /// Takes in what was heard last.
    fn take_in(&mut self) -> Result<(), Fault> {
        let Some(Report { pid, at, news }) = self.heard.last().cloned() else { return Ok(()) };
        let name = self.crew.name(pid).to_owned();
        match news {
            News::Campaigns => self.screen.event(at, &name, Tone::Dim, "campaigns")?,
            News::Leads { term } => {
                self.leader = Some(Leader { pid, term, since: at, writes: 0 });
                self.screen.event(at, &name, Tone::Good, &format!("leads in term {term}"))?;
            }
            News::Wrote { term, .. } => {
                if let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) {
                    leader.writes += 1;
                }
            }
            News::Refused { term, reason } => {
                self.screen.event(at, &name, Tone::Bad, &format!("write in term {term} refused: {reason}"))?;
            }
            News::Failed { message } => return Err(format!("the candidate {name}: {message}").into()),
        }
        Ok(())
    }

    fn tell(&self, pid: u32, tone: Tone, what: &str) -> Result<(), Fault> {
        Ok(self.screen.event(now(), self.crew.name(pid), tone, what)?)
    }

    fn conclude(&self) -> Result<ExitCode, Fault> {
        let verdicts = check(&self.heard, &self.woken);
        let ok = verdicts.iter().all(|verdict| verdict.broken.is_empty());
        let count = |wanted: fn(&News) -> bool| self.heard.iter().filter(|report| wanted(&report.news)).count();
        let writes = count(|news| matches!(news, News::Wrote { .. }));
        let refused = count(|news| matches!(news, News::Refused { .. }));
        if self.options.setting.json {
            let all = serde_json::json!({
                "ok": ok, "writes": writes, "refused": refused, "gaps": self.gaps, "verdicts": verdicts
            });
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&all)?)?;
        }
        self.screen.line("")?;
        for (how, Gaps { count, p50_ms, max_ms, .. }) in &self.gaps {
            self.screen.line(&format!("after {how}  nobody led for {p50_ms:.1} ms (p50 of {count}), {max_ms:.1} ms at most"))?;
        }
        self.screen.line(&format!("{writes} writes, {refused} refused"))?;
        self.screen.verdicts(&verdicts)?;
        Ok(ExitCode::from(u8::from(!ok)))
    }
}

/// The next report, before `end`.
async fn hear(crew: &mut Crew, reports: &mut Reports, end: Instant) -> Result<Report<News>, Fault> {
    loop {
        tokio::select! {
            biased;
            report = reports.next() => return report,
            ended = crew.ended() => {
                let ended = ended?;
                if !ended.was_killed() {
                    return Err(format!("the candidate {} ended ({})", ended.name, ended.status).into());
                }
            }
            () = sleep_until(end) => return Err("nothing new has been heard for too long: nobody leads".into()),
        }
    }
}
