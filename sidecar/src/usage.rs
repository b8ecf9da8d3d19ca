//! A wrong command line, told in one line.

use clap::error::{ContextKind, ContextValue};

/// What is wrong, and what was probably meant.
pub(crate) fn in_a_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let wrong = lines.map(|line| line.trim_start_matches("error: ")).collect::<Vec<_>>().join(" ");
    let meant: Vec<&str> = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
        .into_iter()
        .filter_map(|kind| match error.get(kind)? {
            ContextValue::String(word) => Some(&**word),
            // The most alike is the last one.
            ContextValue::Strings(words) => words.last().map(|word| &**word),
            _ => None,
        })
        .collect();
    if meant.is_empty() { wrong } else { format!("{wrong} (did you mean {}?)", meant.join(" ")) }
}
