//! What stories of several processes share: starting them, hearing from them, telling what happens, cleaning up.

mod crew;
pub(crate) mod daemon;
mod options;
mod screen;
pub(crate) mod socket;

use std::{future::Future, io::Write as _, process::ExitCode};

use serde::{Deserialize, Serialize};
use tenure_kv::{BootClock, Clock};

pub(crate) use self::{
    crew::{Crew, Reports},
    daemon::Way,
    options::Setting,
    screen::{Screen, Tone, Verdict},
};

/// What ends a process before its work is done: one sentence.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Nanoseconds on the boot-time clock, the same in every process of this machine.
pub(crate) type Nanos = u64;

/// Now.
pub(crate) fn now() -> Nanos {
    u64::try_from(BootClock.now().since_origin().as_nanos()).unwrap_or(Nanos::MAX)
}

/// A piece of news, and who sends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report<N> {
    pub(crate) pid: u32,
    pub(crate) at: Nanos,
    #[serde(flatten)]
    pub(crate) news: N,
}

/// Tells the director. One pipe for all processes and one write per report keep reports whole, and in the
/// order in which things happened.
pub(crate) fn report<N: Serialize>(news: N) -> Result<(), Fault> {
    let mut line = serde_json::to_vec(&Report { pid: std::process::id(), at: now(), news })?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()?;
    Ok(())
}

/// Parses the command line and runs the process that it asks for.
///
/// Ends with 0 when everything held, 1 when something did not, 2 when the run could not be made, 64 for a
/// command line that makes no sense, and 130 when it was interrupted.
pub(crate) fn main<O: clap::Parser, F: Future<Output = Result<ExitCode, Fault>>>(
    name: &str,
    run: impl FnOnce(O) -> F,
) -> ExitCode {
    let options = match O::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let fail = |message: &str| {
        // With standard error closed the exit code has to do.
        let _ = writeln!(std::io::stderr(), "{name}: {message}");
        ExitCode::from(2)
    };
    // One thread: a child asks to be killed when the thread that started it ends.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(options)).unwrap_or_else(|fault| fail(&fault.to_string())),
        Err(error) => fail(&format!("the runtime does not start: {error}")),
    }
}

/// The work of a process that the director starts, and then its exit code. A fault goes to the director, who says it.
pub(crate) async fn role<N: Serialize>(
    work: impl Future<Output = Result<(), Fault>>,
    failed: impl FnOnce(String) -> N,
) -> Result<ExitCode, Fault> {
    die_with_the_director()?;
    match work.await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(fault) => {
            report(failed(fault.to_string()))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Has the kernel kill this process, stopped or not, when the director ends however it ends.
fn die_with_the_director() -> Result<(), Fault> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}

/// Runs `play`; an interrupt ends it, and is the exit code to end with.
pub(crate) async fn unless_interrupted<T>(play: impl Future<Output = T>) -> Result<Result<T, u8>, Fault> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = play => Ok(Ok(outcome)),
        _ = interrupt.recv() => Ok(Err(130)),
        _ = terminate.recv() => Ok(Err(143)),
    }
}

/// A lease on the command line.
pub(crate) fn lease(text: &str) -> Result<std::time::Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 2s or 500ms"))?;
    if !(tenure::MIN_LEASE..=tenure::MAX_LEASE).contains(&lease) {
        let (least, most) = (humantime::format_duration(tenure::MIN_LEASE), humantime::format_duration(tenure::MAX_LEASE));
        return Err(format!("it lies between {least} and {most}"));
    }
    Ok(lease)
}

/// A name for a run, so that several may share a bucket.
pub(crate) fn run_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
}

/// Says that a run was interrupted, and what was cleaned up.
pub(crate) fn interrupted(code: u8, ended: &str, dir: tempfile::TempDir) -> Result<ExitCode, Fault> {
    let path = dir.path().to_owned();
    dir.close()?;
    // With standard error closed the exit code has to do.
    let _ = writeln!(std::io::stderr(), "interrupted: ended {ended}, removed {}", path.display());
    Ok(ExitCode::from(code))
}
