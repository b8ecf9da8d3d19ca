//! One long history in which nobody is replaced, to see whether anybody grows.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    Failed, Verdict,
    crew::Program,
    growth::Growth,
    options::{Faults, Options},
    run::Storm,
    stage::Stage,
};

/// Whatever leaves processes alive. Not "descriptors": a server that had none left may need a restart to serve its part
/// of a bucket again, as after a full disk.
const FAULTS: [&str; 12] = [
    "pause-client",
    "cut-client",
    "mute-client",
    "slow-client",
    "clock",
    "pause-server",
    "cut-server",
    "slow-server",
    "step-down",
    "pause-daemon",
    "cut-daemon",
    "starve-daemon",
];

/// What came of a soak.
#[derive(Debug)]
pub struct Soaked {
    /// As of any history.
    pub verdict: Verdict,
    /// One line for each process.
    pub courses: Vec<String>,
    /// Those who grew.
    pub grew: usize,
}

/// The faults of a soak.
pub(crate) fn faults() -> Faults {
    Faults::Only(FAULTS.iter().map(|name| (*name).to_owned()).collect())
}

/// Runs one history and looks at everybody every `interval`.
///
/// # Errors
/// As [`run`](crate::run).
pub async fn soak(program: &Program, options: &Options, interval: Duration) -> Result<Soaked, Failed> {
    let storm = Storm::begin(program, options).await?;
    let until = Instant::now() + options.span + storm.calm();
    let mut growth = Growth::default();
    let looking = async {
        while Instant::now() < until {
            sleep(interval).await;
            look(&storm, &mut growth).await;
        }
        Ok::<_, Failed>(())
    };
    tokio::try_join!(storm.rage(), looking)?;
    let courses = growth.courses();
    let verdict = storm.finish().await?;
    let grew = courses.iter().filter(|course| course.grew).count();
    Ok(Soaked { verdict, courses: courses.iter().map(ToString::to_string).collect(), grew })
}

async fn look(storm: &Storm, growth: &mut Growth) {
    for (number, pid) in storm.crew.pids() {
        growth.look(&format!("client-{number}"), pid);
    }
    // Whoever has them does something to them, and is looked at next time.
    if let Ok(daemon) = storm.daemon.try_lock()
        && let Some(pid) = daemon.as_ref().and_then(|daemon| daemon.child.id())
    {
        growth.look("daemon", pid);
    }
    if let Stage::Nats(nats) = &storm.stage
        && let Ok(servers) = nats.servers.try_lock()
    {
        for i in 0..servers.size() {
            servers.pid(i).into_iter().for_each(|pid| growth.look(&format!("server-{i}"), pid));
        }
    }
}
