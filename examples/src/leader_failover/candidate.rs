//! One candidate: campaigns, writes while it leads, and campaigns again when a write is refused.

use std::{process::ExitCode, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    coordination::{Candidacy, Put},
    options::Options,
};
use crate::stage::{Fault, report, role};

/// From one write to the next.
const PAUSE: Duration = Duration::from_millis(5);

/// What happened to a candidate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(super) enum News {
    /// It campaigns.
    Campaigns,
    /// It leads.
    Leads { term: u64 },
    /// What it wrote in this term stands at this revision.
    Wrote { term: u64, revision: u64 },
    /// What it wrote in this term was refused.
    Refused { term: u64, reason: String },
    /// It gives up.
    Failed { message: String },
}

/// Campaigns and leads until SIGTERM.
pub(super) async fn run(options: &Options) -> Result<ExitCode, Fault> {
    role(work(options), |message| News::Failed { message }).await
}

async fn work(options: &Options) -> Result<(), Fault> {
    let (Some(name), Some(run)) = (&options.setting.name, &options.setting.run) else {
        return Err("--role is for processes that the director starts; leave it out".into());
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut candidacy = Candidacy::open(options, run, name).await?;
    tokio::select! {
        fault = lead(&mut candidacy, name) => fault.map(|never| match never {})?,
        _ = terminate.recv() => {}
    }
    candidacy.close().await
}

async fn lead(candidacy: &mut Candidacy, name: &str) -> Result<std::convert::Infallible, Fault> {
    loop {
        report(News::Campaigns)?;
        let office = candidacy.campaign().await?;
        let term = office.term();
        report(News::Leads { term })?;
        loop {
            match candidacy.write(&office, name.to_owned()).await? {
                Put::Stored(revision) => report(News::Wrote { term, revision })?,
                Put::Refused(reason) => break report(News::Refused { term, reason })?,
                Put::Unknown => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
