//! The process `tenured`: its arguments, its log, its signals and its exit code.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::net::UnixListener,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Server, StartError,
    config::{self, Action, Asked, Effective, Refusal},
    logging, service,
};
use crate::usage::in_a_line;

/// Descriptors of a connection: its socket, and its client's process if that has no other.
const DESCRIPTORS: u64 = 2;
/// Descriptors beside those of connections: the store's, the runtime's.
const OWN_DESCRIPTORS: u64 = 64;

/// Runs the daemon with this process's arguments until a signal ends it.
pub fn main() -> ExitCode {
    // What this process makes is its own; the socket gets its mode explicitly.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let asked = match parse(std::env::args_os()) {
        Ok(asked) => asked,
        Err(code) => return code,
    };
    let effective = asked.effective();
    let done = match asked.action {
        Action::Serve => effective.map(serve),
        Action::Check => effective.and_then(|effective| config::check(&effective)).map(|said| print(&format!("{said}\n"))),
        Action::Show { secrets } => effective.map(|effective| print(&config::show(&effective, secrets))),
    };
    done.unwrap_or_else(|Refusal { code, message }| {
        say(&message);
        ExitCode::from(code)
    })
}

fn serve(effective: Effective) -> ExitCode {
    // Before there are threads: it takes what it finds out of the environment.
    let given = service::socket();
    let logging =
        match logging::check(&effective.settings).map_err(StartError::new).and_then(|()| logging::begin(&effective.settings)) {
            Ok(logging) => logging,
            Err(error) => {
                say(&error.to_string());
                return ExitCode::FAILURE;
            }
        };
    let made = if effective.has_default_store() { make_directory(&effective.settings.config.store) } else { Ok(()) };
    let served = made.and(given).and_then(|given| run(effective.settings.config, given));
    // What is left to say is said before the end.
    drop(logging);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(error.code)
        }
    }
}

fn run(mut config: Config, given: Option<UnixListener>) -> Result<(), StartError> {
    let address = given.as_ref().and_then(|listener| listener.local_addr().ok());
    if let Some(place) = address.as_ref().and_then(|address| address.as_pathname()) {
        config.socket = place.to_owned();
    }
    raise_file_limit(config.limits.connections);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::new(format!("cannot start: {error}")))?;
    let served = runtime.block_on(async {
        let failed = |error: io::Error| StartError::new(format!("cannot listen to signals: {error}"));
        let mut term = signal(SignalKind::terminate()).map_err(failed)?;
        let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let (drain, status) = (config.drain, format!("serving on {}", config.socket.display()));
        let start = Server::start_on(config, given);
        let server = tokio::select! {
            server = start => server?,
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        };
        service::ready(&status);
        let policies = server.policies();
        let (told, hurried) = (CancellationToken::new(), CancellationToken::new());
        let reloads = async {
            while hangup.recv().await.is_some() && !told.is_cancelled() {
                service::reloading();
                let policies = policies.clone();
                // Looking users up may take its time. A panic in there would leave the rules as they are.
                let _ = tokio::task::spawn_blocking(move || policies.reload()).await;
                service::ready(&status);
            }
            std::future::pending().await
        };
        // The second signal may come in the first one's wake.
        let signals = async {
            for token in [&told, &hurried] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                if !told.is_cancelled() {
                    service::stopping(drain);
                }
                token.cancel();
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            served = server.run(told.cancelled(), hurried.cancelled()) => served,
            () = signals => Ok(()),
            () = reloads => Ok(()),
            () = service::alive() => Ok(()),
        }
    });
    // What is still in the store's hands has had its time.
    runtime.shutdown_timeout(Duration::from_millis(200));
    served
}

/// Every connection takes two descriptors, so the few that are usual do not go far. No further than the hard limit:
/// whoever set that meant it.
fn raise_file_limit(connections: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_mul(DESCRIPTORS).saturating_add(OWN_DESCRIPTORS);
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        if hard < wanted {
            let room = hard.saturating_sub(OWN_DESCRIPTORS) / DESCRIPTORS;
            tracing::info!(open_files = hard, wanted, "the limit of open files leaves room for about {room} connections");
        }
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Makes the directory of a store that nobody has named.
fn make_directory(store: &str) -> Result<(), StartError> {
    let Some(directory) = store.strip_prefix("file:").and_then(|path| Path::new(path).parent()) else { return Ok(()) };
    std::fs::create_dir_all(directory).map_err(|error| {
        StartError::new(format!("cannot make the directory {}: {error}; name a store with --store", directory.display()))
    })
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Asked, ExitCode> {
    config::asked(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(&error.render().to_string()),
        _ => {
            say(&format!("{}; see tenured --help", in_a_line(&error)));
            ExitCode::from(config::USAGE)
        }
    })
}

/// On standard output. Nobody reads it any more: nothing to do about that.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("cannot write the output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// One line on standard error; nobody reading it is no reason to fail.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "tenured: {message}");
}
