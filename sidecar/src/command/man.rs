//! `tenure man`: the manual, a page for each command.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::{Man, generate_to};

use super::{Cli, End, exit::Failure, say::data};

/// Print the manual page of tenure, or write those of all its commands and of tenured to a directory
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// Where to write the pages, such as tenure-lock.1 and tenured.8; it must exist
    dir: Option<PathBuf>,
}

const MORE: &str = "\
Examples:
  tenure man | man -l -
  mkdir -p ~/.local/share/man/man1 && tenure man ~/.local/share/man/man1 && man tenure-lock
";

/// Runs the subcommand.
pub(super) fn run(args: &Args) -> Result<End, Failure> {
    match &args.dir {
        Some(dir) => {
            let daemon = dir.join("tenured.8");
            let mut page = Vec::new();
            let written = generate_to(Cli::command(), dir)
                .and_then(|()| {
                    Man::new(crate::server::command_line().disable_help_subcommand(true)).section("8").render(&mut page)
                })
                .and_then(|()| std::fs::write(daemon, page));
            written.map_err(|error| {
                Failure::failed(format_args!(
                    "cannot write manual pages to {}: {error}; name a directory of yours",
                    dir.display()
                ))
            })?;
        }
        None => {
            let mut page = Vec::new();
            let rendered = Man::new(Cli::command().disable_help_subcommand(true)).render(&mut page);
            rendered.map_err(|error| Failure::failed(format_args!("cannot make the manual page: {error}")))?;
            data(&page);
        }
    }
    Ok(0.into())
}
