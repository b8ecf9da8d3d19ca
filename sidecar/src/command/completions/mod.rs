//! `tenure completions`: what a shell needs to complete this command, and the names there are.

mod names;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

pub(super) use self::names::{asked, complete};
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

In bash, zsh and fish names of locks, elections, groups and keys are completed, too: those that the daemon
at $TENURE_SOCKET knows, or at --socket. Where none answers at once there are no names.
";

/// Runs the subcommand.
pub(super) fn run(args: &Args) -> Result<End, Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "tenure", &mut script);
    let script = String::from_utf8_lossy(&script);
    data(with_names(args.shell, &script).as_bytes());
    Ok(0.into())
}

/// The script, with names that are asked of the daemon where it only knows that something is to be named.
fn with_names(shell: Shell, script: &str) -> String {
    match shell {
        Shell::Bash => format!("{script}{}", include_str!("live.bash")),
        Shell::Fish => format!("{script}{}", include_str!("live.fish")),
        Shell::Zsh => {
            let begin = "_tenure() {\n";
            let typed = format!("{}{begin}    local -a _tenure_typed=(\"${{(@)words[1,CURRENT]}}\")\n", include_str!("live.zsh"));
            script.replace(":_default' ", ":_tenure_names' ").replacen(begin, &typed, 1)
        }
        _ => script.to_owned(),
    }
}
