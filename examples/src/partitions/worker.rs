//! One worker: works on the partitions that it owns, and writes down that it did.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    check::Line,
    coordination::{Owned, Place, Turn},
    options::{Options, Sabotage},
};
use crate::stage::{Fault, now, report, role};

/// How long one piece of work on a partition takes.
const WORK: Duration = Duration::from_millis(25);

/// What happened to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(super) enum News {
    /// It owns this partition now.
    Gained { partition: u32 },
    /// It has left the group, and owns nothing.
    Left,
    /// It gives up.
    Failed { message: String },
}

/// The file that everybody appends to.
pub(super) fn file(dir: &Path) -> std::path::PathBuf {
    dir.join("work.jsonl")
}

/// Works until SIGTERM, then hands everything over and leaves.
pub(super) async fn run(options: &Options) -> Result<ExitCode, Fault> {
    role(work(options), |message| News::Failed { message }).await
}

async fn work(options: &Options) -> Result<(), Fault> {
    let (Some(name), Some(run), Some(dir)) = (&options.setting.name, &options.setting.run, &options.setting.dir) else {
        return Err("--role is for processes that the director starts; leave it out".into());
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let file = Arc::new(OpenOptions::new().create(true).append(true).open(file(dir))?);
    let keep = options.sabotage == Some(Sabotage::Keep);
    let mut place = Place::join(options, run, name).await?;
    let tasks = TaskTracker::new();
    let mut stops = HashMap::new();
    let mut draining = false;
    loop {
        tokio::select! {
            event = place.next() => match event {
                Some(Turn::Gained { partition, hold }) => {
                    report(News::Gained { partition })?;
                    let stop = CancellationToken::new();
                    stops.insert(partition, stop.clone());
                    tasks.spawn(tend(partition, hold, file.clone(), stop, keep));
                }
                Some(Turn::Losing { partition }) => {
                    if let Some(stop) = stops.remove(&partition).filter(|_| !keep) {
                        stop.cancel();
                    }
                }
                None if draining => break,
                None => return Err("its place in the group is lost".into()),
            },
            _ = terminate.recv(), if !draining => {
                draining = true;
                place.drain().await?;
            }
        }
    }
    place.leave().await?;
    report(News::Left)
}

/// Works on one partition until it is to be let go.
async fn tend(partition: u32, hold: Owned, file: Arc<File>, stop: CancellationToken, keep: bool) {
    let (token, pid) = (hold.token(), std::process::id());
    while !stop.is_cancelled() {
        let begin = now();
        tokio::time::sleep(WORK).await;
        if !hold.is_held() && !keep {
            return;
        }
        let line = serde_json::to_string(&Line { partition, token, pid, begin, end: now() });
        // One write per line, so that lines of several processes stay whole.
        if line.is_err() || line.is_ok_and(|line| (&*file).write_all(format!("{line}\n").as_bytes()).is_err()) {
            return;
        }
    }
    hold.release().await;
}
