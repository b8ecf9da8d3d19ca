//! The command line with its help as paragraphs that fit the terminal, whatever lines they have in the source.

use clap::{Command, CommandFactory, FromArgMatches};

use super::Cli;

/// What the arguments of this process say.
pub(super) fn read() -> Result<Cli, clap::Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The command line.
fn command() -> Command {
    filled(Cli::command())
}

fn filled(mut command: Command) -> Command {
    if let Some(text) = command.get_after_help().map(|text| paragraphs(&text.to_string())) {
        command = command.after_help(text);
    }
    if let Some(text) = command.get_after_long_help().map(|text| paragraphs(&text.to_string())) {
        command = command.after_long_help(text);
    }
    command.mut_subcommands(filled)
}

/// `text` with the lines of each paragraph as one. What is indented stays as it is.
fn paragraphs(text: &str) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut may_join = false;
    for line in text.trim_end().split('\n') {
        let is_prose = line.starts_with(|first: char| !first.is_whitespace());
        if !filled.is_empty() {
            filled.push(if is_prose && may_join { ' ' } else { '\n' });
        }
        filled.push_str(line);
        may_join = is_prose;
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_indented_is_not_joined() {
        let text = "Examples:\n  a\n  b\n\nOne\ntwo\nthree.\n\nFour:\n\n  c\n";
        assert_eq!(paragraphs(text), "Examples:\n  a\n  b\n\nOne two three.\n\nFour:\n\n  c");
    }

    /// No line ends before the next word would have had no place.
    #[test]
    fn all_help_fills_its_lines() {
        fn look(command: &Command, looked_at: &mut usize) {
            for width in [60, 80, 100] {
                let help = command.clone().max_term_width(100).term_width(width).render_long_help().to_string();
                let lines: Vec<_> = help.lines().collect();
                for pair in lines.windows(2) {
                    let [line, next] = pair else { continue };
                    if line.starts_with(|c: char| !c.is_whitespace()) && next.starts_with(|c: char| !c.is_whitespace()) {
                        let word = next.split(' ').next().unwrap_or_default();
                        assert!(line.len() + 1 + word.len() > width, "{}, {width} columns: {line:?}", command.get_name());
                        *looked_at += 1;
                    }
                }
            }
            command.get_subcommands().for_each(|inner| look(inner, looked_at));
        }
        let mut looked_at = 0;
        let mut command = command();
        command.build();
        look(&command, &mut looked_at);
        assert!(looked_at > 100, "{looked_at}");
    }
}
