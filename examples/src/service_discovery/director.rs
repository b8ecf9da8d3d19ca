//! The director: starts servers, has some drain and some crash, and is the client of them all.

use std::{collections::VecDeque, io::Write as _, process::ExitCode, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use nix::sys::signal::Signal;
use tenure::MemberEvent;
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::{self, Outcome},
    coordination::Group,
    options::{Options, Sabotage},
    server::News,
    tally::Tally,
};
use crate::stage::{Crew, Fault, Report, Reports, Screen, Tone, Way, interrupted, now, run_id, unless_interrupted};

/// How long servers may take to open the store and join, and to drain.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happens to the servers, and at which part of the run.
const STORY: [(f64, Act); 4] = [(0.15, Act::Come), (0.3, Act::Drain), (0.5, Act::Crash), (0.7, Act::Come)];

#[derive(Clone, Copy, Debug)]
enum Act {
    Come,
    Drain,
    Crash,
}

/// Makes the run, and cleans up however it ends.
pub(super) async fn run(options: &Options) -> Result<ExitCode, Fault> {
    let dir = tempfile::Builder::new().prefix("tenure-service-discovery-").tempdir()?;
    let id = run_id();
    let way = Way::to(options.setting.store.as_deref(), dir.path());
    let lease = humantime::format_duration(options.lease).to_string();
    let mut own = vec![("--lease", &*lease)];
    if let Some(Sabotage::NoDrain) = options.sabotage {
        own.push(("--sabotage", "no-drain"));
    }
    let arguments = options.setting.arguments(&id, dir.path(), &own);
    let (crew, reports) = Crew::new(arguments)?;
    let mut director = Director {
        options,
        crew,
        reports,
        screen: Screen::new(options.setting.json),
        tally: Tally::default(),
        up: VecDeque::new(),
        started: 0,
    };
    let outcome = unless_interrupted(director.play(&way, &id)).await;
    // Servers that are asked to end leave the group; those that are killed could stay for a while.
    let ended = director.crew.retire(PATIENCE).await?;
    match outcome? {
        Ok(played) => played?,
        Err(code) => return interrupted(code, &format!("{ended} servers{}", way.and_the_daemon()), dir),
    }
    director.conclude()
}

struct Director<'a> {
    options: &'a Options,
    crew: Crew,
    reports: Reports,
    screen: Screen,
    tally: Tally,
    /// Those who are in the group and well, oldest first.
    up: VecDeque<u32>,
    started: u16,
}

impl Director<'_> {
    async fn play(&mut self, way: &Way, run: &str) -> Result<(), Fault> {
        let Options { servers, clients, seconds, .. } = *self.options;
        let place = way.open(&mut self.crew, &mut self.reports).await?;
        self.screen
            .line(&format!("{servers} HTTP servers in one group on {place}, {clients} requests at a time, for {seconds} s\n"))?;
        let group = Group::open(way, run).await?;
        let mut members = group.watch().await?;
        for _ in 0..servers {
            self.come()?;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.up.len() < usize::from(servers) {
            tokio::select! {
                biased;
                report = self.reports.next() => self.hear(report?)?,
                ended = self.crew.ended() => return Err(format!("the server {} ended before it had joined", ended?.name).into()),
                () = sleep_until(deadline) => return Err(format!("the servers have not joined within {PATIENCE:?}").into()),
            }
        }
        let balancer = group.balancer().await?;
        let (tell, mut outcomes) = mpsc::channel(1_024);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        for _ in 0..clients {
            tasks.spawn(client::run(balancer.clone(), tell.clone(), stop.clone()));
        }
        drop((tell, balancer));
        tasks.close();
        let _stop = stop.clone().drop_guard();
        self.act(&mut outcomes, &mut members, group.remover()).await?;
        stop.cancel();
        let rest = async {
            while let Some(outcome) = outcomes.recv().await {
                self.tally.note(outcome);
            }
            tasks.wait().await;
        };
        timeout(PATIENCE, rest).await.map_err(|_| "the last requests are not answered")?;
        Ok(())
    }

    /// Lets the story happen while requests are sent.
    async fn act(
        &mut self,
        outcomes: &mut mpsc::Receiver<Outcome>,
        members: &mut BoxStream<'static, tenure::Result<MemberEvent>>,
        remover: &str,
    ) -> Result<(), Fault> {
        let all = Duration::from_secs(self.options.seconds);
        let begin = Instant::now();
        let mut story = STORY.into_iter().map(|(part, act)| (begin + all.mul_f64(part), act)).peekable();
        let mut second = interval_at(begin + Duration::from_secs(1), Duration::from_secs(1));
        let mut before = 0;
        loop {
            let next = story.peek().map_or(begin + all, |(at, _)| *at);
            tokio::select! {
                biased;
                // What a process said comes before its end.
                report = self.reports.next() => self.hear(report?)?,
                ended = self.crew.ended() => {
                    let ended = ended?;
                    let expected = ended.was_killed() && self.tally.crashed.contains(&ended.name)
                        || ended.status.success() && self.tally.drained.contains(&ended.name);
                    if !expected {
                        return Err(format!("the server {} ended ({})", ended.name, ended.status).into());
                    }
                }
                event = members.next() => self.see(event.ok_or("the group can no longer be watched")??, remover)?,
                outcome = outcomes.recv() => self.tally.note(outcome.ok_or("the clients are gone")?),
                _ = second.tick() => {
                    let what = format!("{} requests answered in a second by {} servers", self.tally.answered - before, self.up.len());
                    before = self.tally.answered;
                    self.screen.event(now(), "client", Tone::Dim, &what)?;
                }
                () = sleep_until(next) => match story.next() {
                    Some((_, act)) => self.perform(act)?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn come(&mut self) -> Result<(), Fault> {
        self.started += 1;
        self.crew.start("server", &format!("s{}", self.started))?;
        Ok(())
    }

    fn perform(&mut self, act: Act) -> Result<(), Fault> {
        let (signal, what) = match act {
            Act::Come => return self.come(),
            Act::Drain => (Signal::SIGTERM, "is asked to end"),
            Act::Crash => (Signal::SIGKILL, "is killed"),
        };
        let pid = self.up.pop_front().ok_or("there is no server left")?;
        let name = self.crew.name(pid).to_owned();
        self.screen.event(now(), &name, Tone::Warning, &format!("{what} ({signal})"))?;
        self.crew.signal(pid, signal)?;
        match act {
            Act::Crash => self.tally.crashed.insert(name),
            _ => self.tally.drained.insert(name),
        };
        Ok(())
    }

    fn hear(&mut self, Report { pid, at, news }: Report<News>) -> Result<(), Fault> {
        let name = self.crew.name(pid).to_owned();
        let (tone, what) = match news {
            News::Joined { address } => {
                self.up.push_back(pid);
                self.tally.joined.insert(name.clone());
                (Tone::Good, format!("joins at {address}"))
            }
            News::Draining { served } => (Tone::Plain, format!("drains, having answered {served} requests")),
            News::Left { served, late } => (Tone::Good, format!("leaves: {served} requests answered, {late} of them late")),
            News::Failed { message } => return Err(format!("the server {name}: {message}").into()),
        };
        self.screen.event(at, &name, tone, &what)?;
        Ok(())
    }

    /// What the group tells.
    fn see(&mut self, event: MemberEvent, remover: &str) -> Result<(), Fault> {
        if let MemberEvent::Remove { id, .. } = event {
            if self.tally.crashed.contains(&id) {
                self.screen.event(now(), &id, Tone::Good, &format!("is removed from the group by {remover}"))?;
            }
            self.tally.removed.insert(id);
        }
        Ok(())
    }

    fn conclude(&self) -> Result<ExitCode, Fault> {
        let verdicts = self.tally.verdicts();
        let ok = verdicts.iter().all(|verdict| verdict.broken.is_empty());
        if self.options.setting.json {
            let all = serde_json::json!({ "ok": ok, "tally": self.tally, "verdicts": verdicts });
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&all)?)?;
        }
        self.screen.line(&format!(
            "\n{} requests answered, {} of them at the second try or later",
            self.tally.answered, self.tally.retried
        ))?;
        for (name, count) in &self.tally.servers {
            self.screen.line(&format!("  {name:<6} {:>6} answered {:>4} failed", count.answered, count.failed))?;
        }
        self.screen.verdicts(&verdicts)?;
        Ok(ExitCode::from(u8::from(!ok)))
    }
}
