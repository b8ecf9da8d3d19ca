//! `tenure completions`: what a shell needs to complete this command.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::{Cli, End, exit::Failure, say::data};

/// Print what a shell needs to complete the arguments of tenure
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const MORE: &str = "\
Examples:
  tenure completions bash > ~/.local/share/bash-completion/completions/tenure
  tenure completions zsh > ~/.zfunc/_tenure      a directory that is in $fpath
  tenure completions fish > ~/.config/fish/completions/tenure.fish
";

/// Runs the subcommand.
pub(super) fn run(args: &Args) -> Result<End, Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "tenure", &mut script);
    data(&script);
    Ok(0.into())
}
