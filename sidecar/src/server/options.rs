//! The command line of `tenured`.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, error::ErrorKind};
use tokio::signal::unix::{SignalKind, signal};
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_subscriber::EnvFilter;

use super::{Access, Config, Server, StartError};
use crate::protocol::{Limits, default_socket};

const USAGE: u8 = 64;
/// Lines of the log that wait to be written; more are dropped.
const LOG_LINES: usize = 4_096;

const AFTER: &str = "\
Clients connect to the socket and speak JSON-RPC 2.0, one message per line. What a client holds is released \
when its connection closes or its process dies. On TERM and INT the daemon tells its clients, gives holders the \
drain time, releases what is left and exits with 0.";

/// Serves locks to the programs of this machine, over a Unix socket.
#[derive(Debug, Parser)]
#[command(name = "tenured", version, after_help = AFTER, max_term_width = 100)]
struct Options {
    /// Where locks are kept: memory:, file:PATH or nats://HOST[,HOST…]/BUCKET
    ///
    /// [default: file:$XDG_STATE_HOME/tenure/tenure.db, for root file:/var/lib/tenure/tenure.db]
    #[arg(long, value_name = "URL", env = "TENURE_STORE", hide_env_values = true)]
    store: Option<String>,

    /// The socket to listen on
    ///
    /// [default: $TENURE_SOCKET, else $XDG_RUNTIME_DIR/tenure/tenured.sock, else /run/tenure/tenured.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// The mode of the socket file
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = mode)]
    socket_mode: u32,

    /// The group of the socket, and of its directory if that is made: a name or a number
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<String>,

    /// How long what is held outlives this daemon if it crashes: 150ms to 24h [default: 5s, 15s on a cluster]
    #[arg(long, value_name = "TIME", value_parser = lease)]
    lease: Option<Duration>,

    /// How long holders may go on after TERM
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    drain: Duration,

    /// What to log: error, warn, info, debug or trace, or such as tenure=debug,info
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = filter)]
    log: String,

    /// Bytes of a line
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().line_bytes, value_parser = at_least(1_024))]
    max_line: usize,

    /// Requests in flight on one connection
    #[arg(long, value_name = "N", default_value_t = Limits::default().requests, value_parser = at_least(1))]
    max_requests: usize,

    /// Leases on one connection
    #[arg(long, value_name = "N", default_value_t = Limits::default().leases, value_parser = at_least(1))]
    max_leases: usize,

    /// Subscriptions on one connection
    #[arg(long, value_name = "N", default_value_t = Limits::default().subscriptions, value_parser = at_least(1))]
    max_subscriptions: usize,

    /// How long the events of a subscription may wait for its client to read before it ends
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    stall: Duration,

    /// Different lengths of leases in use at the same time
    #[arg(long, value_name = "N", default_value_t = Limits::default().lease_lengths, value_parser = at_least(1))]
    max_lease_lengths: usize,

    /// Connections
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections, value_parser = at_least(1))]
    max_connections: usize,
}

/// Runs the daemon with this process's arguments until a signal ends it.
pub fn main() -> ExitCode {
    // What this process makes is its own; the socket gets its mode explicitly.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let options = match parse(std::env::args_os()) {
        Ok(options) => options,
        Err(code) => return code,
    };
    // A thread of its own writes, so that nobody reading standard error stops the log and not the daemon.
    let (writer, written) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LOG_LINES).finish(io::stderr());
    tracing_subscriber::fmt()
        // The NATS client tells of every connection; whoever wants that names it after.
        .with_env_filter(EnvFilter::new(format!("async_nats=warn,{}", options.log)))
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // It would complain on standard error, of all places.
        .log_internal_errors(false)
        .init();
    if let Some(Err(error)) = options.store.as_deref().map(tenure_kv::check_url) {
        say(&error.to_string());
        return ExitCode::from(USAGE);
    }
    let served = options.config().and_then(run);
    drop(written);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> Result<(), StartError> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::new(format!("cannot start: {error}")))?;
    let served = runtime.block_on(async {
        let failed = |error: io::Error| StartError::new(format!("cannot listen to signals: {error}"));
        let mut term = signal(SignalKind::terminate()).map_err(failed)?;
        let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
        // Configuration is on the command line only: there is nothing to read again.
        let _hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let start = Server::start(config);
        let server = tokio::select! {
            server = start => server?,
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        };
        // The second signal may come in the first one's wake.
        let (told, hurried) = (tokio_util::sync::CancellationToken::new(), tokio_util::sync::CancellationToken::new());
        let signals = async {
            for token in [&told, &hurried] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                token.cancel();
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            served = server.run(told.cancelled(), hurried.cancelled()) => served,
            () = signals => Ok(()),
        }
    });
    // What is still in the store's hands has had its time.
    runtime.shutdown_timeout(Duration::from_millis(200));
    served
}

/// Every connection takes two descriptors, so the few that are usual do not go far.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

impl Options {
    fn config(self) -> Result<Config, StartError> {
        let store = match self.store {
            Some(store) => store,
            None => default_store()?,
        };
        Ok(Config {
            socket: self.socket.unwrap_or_else(default_socket),
            access: Access { mode: self.socket_mode, group: self.socket_group },
            store,
            lease: self.lease,
            limits: Limits {
                line_bytes: self.max_line,
                requests: self.max_requests,
                subscriptions: self.max_subscriptions,
                stall_ms: super::sessions::millis(self.stall),
                leases: self.max_leases,
                connections: self.max_connections,
                lease_lengths: self.max_lease_lengths,
                ..Limits::default()
            },
            drain: self.drain,
        })
    }
}

/// `file:` in `$XDG_STATE_HOME/tenure`; without that in `/var/lib/tenure` for root, else in `~/.local/state/tenure`.
fn default_store() -> Result<String, StartError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").filter(|_| !rustix::process::geteuid().is_root()).map(|home| home.join(".local/state"));
    let directory = set("XDG_STATE_HOME").or_else(home).unwrap_or_else(|| "/var/lib".into()).join("tenure");
    std::fs::create_dir_all(&directory).map_err(|error| {
        StartError::new(format!("cannot make the directory {}: {error}; name a store with --store", directory.display()))
    })?;
    let path = directory.join("tenure.db");
    match path.to_str() {
        Some(path) => Ok(format!("file:{path}")),
        None => Err(StartError::new(format!("{} is not UTF-8; name a store with --store", path.display()))),
    }
}

/// The configuration, for [`crate::fuzzing`].
#[cfg(feature = "fuzzing")]
pub(crate) fn configured(arguments: impl IntoIterator<Item = OsString>) -> Result<Config, String> {
    let arguments = std::iter::once("tenured".into()).chain(arguments);
    let options = Options::try_parse_from(arguments).map_err(|error| in_a_line(&error))?;
    let store = options.store.as_deref().ok_or("it names no store")?;
    tenure_kv::check_url(store).map_err(|error| error.to_string())?;
    options.config().map_err(|error| error.to_string())
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Options, ExitCode> {
    Options::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody reads it: nothing to do about that.
            let _ = write!(io::stdout(), "{}", error.render());
            ExitCode::SUCCESS
        }
        _ => {
            say(&format!("{}; see tenured --help", in_a_line(&error)));
            ExitCode::from(USAGE)
        }
    })
}

fn in_a_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// One line on standard error; nobody reading it is no reason to fail.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "tenured: {message}");
}

fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| "use an octal mode such as 0660".to_owned())
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (tenure::MIN_LEASE..=tenure::MAX_LEASE).contains(&lease) { Ok(lease) } else { Err("use 150ms to 24h".to_owned()) }
}

fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn at_least(least: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let number = text.parse::<usize>().map_err(|_| "use a whole number".to_owned())?;
        // Semaphores count no further.
        if (least..=1 << 40).contains(&number) { Ok(number) } else { Err(format!("use at least {least}")) }
    }
}
