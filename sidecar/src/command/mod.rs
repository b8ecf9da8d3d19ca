//! The `tenure` command: one file per subcommand, and what they share.
//!
//! The binary is one line that calls [`main`]. Running a command under a lock is in `run`; it knows no
//! lock but the trait that it asks for.

mod completions;
mod daemon;
mod doctor;
mod elect;
mod exit;
mod help;
mod join;
mod keep;
mod kv;
mod live;
mod lock;
mod locks;
mod man;
mod members;
mod output;
mod permissions;
mod refusal;
mod rpc;
mod run;
mod say;
mod status;
mod top;
mod wait;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use self::exit::Failure;
use crate::usage::in_a_line;

/// Locks, elections and groups for programs and scripts, kept by the daemon `tenured` or straight in a store.
#[derive(Debug, Parser)]
#[command(name = "tenure", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lock(lock::Args),
    Elect(elect::Args),
    Members(members::Args),
    Join(join::Args),
    Kv(kv::Args),
    Locks(locks::Args),
    Wait(wait::Args),
    Watch(watch::Args),
    Status(status::Args),
    Top(top::Args),
    Doctor(doctor::Args),
    Permissions(permissions::Args),
    Rpc(rpc::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// How the process is to end.
#[derive(Debug)]
struct End {
    code: u8,
    /// End by this signal if possible; `code` is 128 + its number.
    signal: Option<i32>,
}

impl From<u8> for End {
    fn from(code: u8) -> Self {
        Self { code, signal: None }
    }
}

/// Runs the `tenure` command with the arguments of this process and returns its exit code.
///
/// Call it first thing on the main thread: a command that runs under a lock lives only as long as the
/// thread that started it.
pub fn main() -> ExitCode {
    if let Some(code) = run::divert(std::env::args_os().skip(1)) {
        return code.into();
    }
    if let Some(words) = completions::asked(std::env::args_os().skip(1)) {
        completions::complete(&words);
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|panic| {
        say::say(&format!("internal error, please report it: {panic}"));
        std::process::exit(exit::FAILED.into());
    }));
    let end = match help::read() {
        Ok(cli) => dispatch(cli.command),
        Err(error) => explain(&error),
    };
    match end {
        Ok(end) => {
            if let Some(signal) = end.signal {
                run::die_of(signal);
            }
            end.code.into()
        }
        Err(failure) => {
            if !failure.message.is_empty() {
                say::say(&failure.message);
            }
            failure.code.into()
        }
    }
}

fn dispatch(command: Command) -> Result<End, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    let end = runtime.block_on(async {
        match command {
            Command::Lock(args) => lock::run(args).await,
            Command::Elect(args) => elect::run(args).await,
            Command::Members(args) => members::run(args).await,
            Command::Join(args) => join::run(args).await,
            Command::Kv(args) => kv::run(args).await,
            Command::Locks(args) => locks::run(args).await,
            Command::Wait(args) => wait::run(args).await,
            Command::Watch(args) => watch::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Top(args) => top::run(args).await,
            Command::Doctor(args) => doctor::run(args).await,
            Command::Permissions(args) => permissions::run(&args),
            Command::Rpc(args) => rpc::run(args).await,
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
        }
    });
    // A look-up that hangs in its own thread must not keep the command from ending.
    runtime.shutdown_background();
    end
}

/// Prints the help that was asked for, or puts what is wrong with the arguments into one line.
fn explain(error: &clap::Error) -> Result<End, Failure> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        say::print(&format!("{}\n", error.render().to_string().trim_end()));
        return Ok(0.into());
    }
    let (command, path) = meant(std::env::args_os().skip(1));
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).filter(|name| *name != "help").collect();
        let what = if path == "tenure" {
            ", for example `tenure lock NAME -- COMMAND`".to_owned()
        } else {
            format!(": {}", names.join(", "))
        };
        return Err(Failure::usage(format!("say what to do{what}; see `{path} --help`")));
    }
    let hint = match error.kind() {
        ErrorKind::UnknownArgument if path == "tenure" && option_stands_first(&command) => {
            "options stand behind the command, as in `tenure status --socket PATH`; ".to_owned()
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument if path != "tenure" => {
            format!("write `{}`, or ", usage(command))
        }
        _ => String::new(),
    };
    Err(Failure::usage(format!("{}; {hint}see `{path} --help`", in_a_line(error))))
}

/// Whether an option stands before a subcommand.
fn option_stands_first(command: &clap::Command) -> bool {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let option = arguments.peek().is_some_and(|first| first.as_encoded_bytes().starts_with(b"--") && first != "--");
    option && arguments.any(|argument| command.find_subcommand(argument).is_some())
}

/// The subcommand that the arguments name, as far as they name one, and how it is written.
fn meant(arguments: impl Iterator<Item = std::ffi::OsString>) -> (clap::Command, String) {
    let mut command = Cli::command();
    command.build();
    let mut path = command.get_name().to_owned();
    for argument in arguments {
        let Some(next) = command.find_subcommand(argument) else { break };
        path = format!("{path} {}", next.get_name());
        command = next.clone();
    }
    (command, path)
}

/// How a command is written, in one line.
fn usage(mut command: clap::Command) -> String {
    let text = command.render_usage().to_string();
    text.trim_start_matches("Usage: ").lines().next().unwrap_or_default().trim().to_owned()
}

/// A length of time as written on the command line.
fn time(text: &str) -> Result<std::time::Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a length of time with its unit, such as 500ms, 30s or 1m30s".to_owned())
}

/// Where the daemon listens.
#[derive(Debug, clap::Args)]
struct Socket {
    /// Socket of the daemon [default: $TENURE_SOCKET, else tenured's own default]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Socket {
    fn path(&self) -> Option<&std::path::Path> {
        self.socket.as_deref()
    }
}
