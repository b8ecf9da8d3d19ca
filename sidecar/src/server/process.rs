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
    descriptors::{self, Room},
    logging, service,
};
use crate::usage::in_a_line;

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
        Action::Show { secrets } => effective.map(|effective| {
            let room = Room::of_process(effective.settings.config.http.is_some());
            print(&config::show(&effective, secrets, room))
        }),
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
    let asked = effective.is_set("max_connections");
    let made = if effective.has_default_store() { make_directory(&effective.settings.config.store) } else { Ok(()) };
    let served = made.and(given).and_then(|given| run(effective.settings.config, given, asked));
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

fn run(mut config: Config, given: Option<UnixListener>, asked: bool) -> Result<(), StartError> {
    let address = given.as_ref().and_then(|listener| listener.local_addr().ok());
    if let Some(place) = address.as_ref().and_then(|address| address.as_pathname()) {
        config.socket = place.to_owned();
    }
    descriptors::raise_limit();
    make_room(&mut config, asked);
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

/// Lets in no more than the limit of open files leaves room for. Where somebody has `asked` for more that is worth a warning.
fn make_room(config: &mut Config, asked: bool) {
    let Some(room) = Room::of_process(config.http.is_some()) else { return };
    let limits = room.within(config.limits.clone());
    let (files, wanted, connections, of_one_process) = (room.files, config.limits.connections, room.fewest(), limits.connections);
    if connections < wanted {
        let said = "the limit of open files leaves no room for max_connections of as many processes; raise it, or lower that";
        if asked {
            tracing::warn!(files, wanted, connections, of_one_process, "{said}");
        } else {
            tracing::info!(files, wanted, connections, of_one_process, "{said}");
        }
    }
    config.limits = limits;
    config.client_files = config.client_files.min(room.clients);
    config.http_connections = config.http_connections.min(room.http);
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
