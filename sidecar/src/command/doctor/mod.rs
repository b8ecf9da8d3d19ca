//! `tenure doctor`: whether a store, or the daemon and its store, is fit for what rests on it.

mod daemon;
mod nagios;

use std::time::Duration;

use tenure_kv::{Finding, Level};

use super::{
    End, Socket,
    exit::Failure,
    output::{Cell, Colour},
    run::Signals,
    say::data,
    time,
};

/// Look whether the daemon, or a store, is fit for coordination, and say how to mend what is not
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// Look at this store itself, without a daemon: nats://HOST/BUCKET or file:PATH
    #[arg(long, value_name = "URL", conflicts_with = "socket")]
    store: Option<String>,

    /// The shortest lease that rests on the store [default: 5s, or those the daemon has]
    #[arg(long, value_name = "TIME", value_parser = time, requires = "store")]
    lease: Option<Duration>,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    socket: Socket,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One array of objects
    Json,
    /// One line with performance data, and the exit codes of a Nagios plugin
    Nagios,
}

const MORE: &str = "\
Examples:
  tenure doctor
  tenure doctor --store nats://n1,n2,n3/locks
  tenure doctor --store nats://n1/locks --format json | jq '.[] | select(.level == \"critical\")'
  tenure doctor --format nagios

A finding is ok, warning, critical or unseen: unseen is what nobody can see from here, with where to look.
--store looks with the permissions of the user that the URL names. It creates nothing; it writes a
few messages that go by themselves.

Exit code:
  0   nothing is critical
  2   something is critical, or there is no daemon
  64  wrong usage (3 with --format nagios)
With --format nagios: 0 ok, 1 warning, 2 critical, 3 unknown.
";

/// Runs the subcommand.
pub(super) async fn run(args: Args) -> Result<End, Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::failed(format_args!("cannot hear signals: {error}")))?;
    let looking = async {
        match &args.store {
            Some(url) => {
                let lease = args.lease.unwrap_or(Duration::from_secs(5));
                tenure_kv::examine(url, lease).await.map_err(|error| Failure::usage(error.to_string()))
            }
            None => Ok(daemon::examine(&args.socket).await),
        }
    };
    let findings = super::keep::interruptible(&mut signals, looking).await;
    if args.format == Format::Nagios {
        return Ok(nagios::print(findings));
    }
    let findings = findings?;
    match args.format {
        Format::Json => data((serde_json::to_string_pretty(&findings).unwrap_or_default() + "\n").as_bytes()),
        _ => data(text(&findings, Cell::shown_in_colour()).as_bytes()),
    }
    let critical = findings.iter().any(|finding| finding.level == Level::Critical);
    Ok(if critical { CRITICAL } else { 0 }.into())
}

/// Something is critical.
const CRITICAL: u8 = 2;

fn text(findings: &[Finding], colour: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let shade = match finding.level {
            Level::Ok => Colour::Good,
            Level::Warning => Colour::Warning,
            Level::Critical => Colour::Bad,
            Level::Unseen => Colour::Dim,
        };
        let level = Cell::coloured(format!("{:<8}", finding.level.to_string()), shade).painted(colour);
        let says = Cell::plain(&finding.says).painted(false);
        text.push_str(&format!("{level}  {:<width$}  {says}\n", finding.check));
        if let Some(mend) = &finding.mend {
            text.push_str(&format!("{:8}  {:<width$}  → {}\n", "", "", Cell::plain(mend).painted(false)));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (critical, warning, unseen) = (count(Level::Critical), count(Level::Warning), count(Level::Unseen));
    let ok = findings.len() - critical - warning - unseen;
    text.push_str(&format!("{ok} ok, {warning} warnings, {critical} critical, {unseen} unseen\n"));
    text
}
