//! One worker: campaigns, and while it leads runs the job once per round.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tenure_kv::{BootClock, Clock, Moment};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    check::Line,
    coordination::{Candidacy, Office},
    options::{Options, Sabotage},
};
use crate::stage::{Fault, now, report, role};

/// How long the job takes.
const JOB: Duration = Duration::from_millis(20);

/// What happened to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(super) enum News {
    /// It campaigns.
    Ready,
    /// It leads.
    Leads { term: u64 },
    /// It has run the job of this round.
    Ran { round: u64, term: u64 },
    /// It gives up.
    Failed { message: String },
}

/// The file that everybody appends to.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("jobs.jsonl")
}

/// Whether to end, and whether a job is being run.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    ending: bool,
    busy: bool,
}

/// Campaigns and works until SIGTERM, and then gives the office up after the round.
pub(super) async fn run(options: &Options) -> Result<ExitCode, Fault> {
    role(work(options), |message| News::Failed { message }).await
}

async fn work(options: &Options) -> Result<(), Fault> {
    let (Some(name), Some(run), Some(dir)) = (&options.setting.name, &options.setting.run, &options.setting.dir) else {
        return Err("--role is for processes that the director starts; leave it out".into());
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let job = Job {
        file: OpenOptions::new().create(true).append(true).open(file(dir))?,
        round: u64::try_from(options.round.as_nanos())?,
        state: watch::Sender::default(),
    };
    let candidacy = Candidacy::open(options, run, name).await?;
    report(News::Ready)?;
    let leading = async {
        if options.sabotage == Some(Sabotage::Everyone) {
            return job.repeat(None).await;
        }
        candidacy.lead(|office| job.repeat(Some(office))).await
    };
    let asked = async {
        terminate.recv().await;
        job.state.send_modify(|state| state.ending = true);
        // Whoever does not lead has nothing to finish.
        let _ = job.state.subscribe().wait_for(|state| !state.busy).await;
    };
    tokio::select! {
        outcome = leading => outcome?,
        () = asked => {}
    }
    candidacy.close().await
}

struct Job {
    file: File,
    /// The length of a round in nanoseconds.
    round: u64,
    state: watch::Sender<State>,
}

impl Job {
    /// Runs the job of every round from the one after the last claimed, until the process is to end.
    async fn repeat(&self, mut office: Option<Office>) -> Result<(), Fault> {
        let term = office.as_ref().map_or(0, Office::term);
        report(News::Leads { term })?;
        let last = match &mut office {
            Some(office) => office.last().await?,
            None => None,
        };
        let mut round = last.map_or(now() / self.round, |last| last + 1);
        loop {
            BootClock.sleep_until(Moment::new(Duration::from_nanos(round * self.round))).await;
            if self.state.borrow().ending {
                return Ok(());
            }
            self.state.send_modify(|state| state.busy = true);
            let ran = self.once(round, term, office.as_mut()).await;
            self.state.send_modify(|state| state.busy = false);
            if !ran? {
                return Err("somebody else claims rounds".into());
            }
            round += 1;
        }
    }

    async fn once(&self, round: u64, term: u64, office: Option<&mut Office>) -> Result<bool, Fault> {
        if let Some(office) = office
            && !office.claim(round).await?
        {
            return Ok(false);
        }
        tokio::time::sleep(JOB).await;
        let line = serde_json::to_string(&Line { round, term, pid: std::process::id() })?;
        // One write per line, so that lines of several processes stay whole.
        (&self.file).write_all(format!("{line}\n").as_bytes())?;
        report(News::Ran { round, term })?;
        Ok(true)
    }
}
