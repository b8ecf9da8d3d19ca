//! The configuration file: TOML with the keys of the settings, and nothing else.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{
    CONFIG, Refusal,
    settings::{Form, SETTINGS, Setting},
};

/// From here on two names are alike enough to ask whether the one was meant.
const ALIKE: f64 = 0.7;

/// A setting as the file has it.
pub(super) struct Given {
    /// Which of [`SETTINGS`].
    pub(super) setting: usize,
    /// As [`Setting::put`] takes it.
    pub(super) text: String,
    pub(super) line: usize,
}

/// What the text says, in the order of lines.
///
/// # Errors
/// The first that is wrong, with its line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Given>, Refusal> {
    let at = |position: usize, said: String| refuse(path, line_of(text, position), &said);
    let table = DeTable::parse(text).map_err(|error| {
        let position = error.span().map_or(0, |span| span.start);
        at(position, format!("this is not TOML: {}", error.message()))
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
        .into_iter()
        .map(|(key, value)| {
            let position = key.span().start;
            let line = line_of(text, position);
            let name = key.get_ref();
            let found = SETTINGS.iter().enumerate().find(|(_, setting)| setting.key == name.as_ref());
            let (setting, known) = found.ok_or_else(|| at(position, unknown(name)))?;
            let text = written(known, value.get_ref()).map_err(|said| at(position, said))?;
            Ok(Given { setting, text, line })
        })
        .collect()
}

pub(super) fn refuse(path: &Path, line: usize, said: &str) -> Refusal {
    Refusal::new(CONFIG, format!("{}:{line}: {said}", path.display()))
}

pub(super) fn line_of(text: &str, position: usize) -> usize {
    text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count() + 1
}

/// The value in the words of a flag.
fn written(setting: &Setting, value: &DeValue<'_>) -> Result<String, String> {
    let Setting { key, example, form, .. } = setting;
    match (form, value) {
        (Form::Text, DeValue::String(text)) => Ok(text.to_string()),
        (Form::Text, _) => Err(format!("{key}: write it in quotes, as in {key} = \"{example}\"")),
        (Form::Number, DeValue::Integer(number)) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err(format!("{key}: use a whole number from 1 on, as in {key} = {example}")),
        },
        (Form::Number, _) => Err(format!("{key}: write a number without quotes, as in {key} = {example}")),
    }
}

fn unknown(key: &str) -> String {
    let key: String = key.chars().take(64).collect();
    let plain = key.to_lowercase().replace('-', "_");
    let alike = |setting: &Setting| strsim::jaro_winkler(&plain, setting.key);
    match SETTINGS.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))) {
        Some(nearest) if alike(nearest) >= ALIKE => format!("unknown key {key:?}; did you mean {:?}?", nearest.key),
        _ => {
            let all: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
            format!("unknown key {key:?}; there are {}", all.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_the_remedy() {
        for (text, said) in [
            ("lease = \"5s\"\nlese = \"5s\"", "f:2: unknown key \"lese\"; did you mean \"lease\"?"),
            ("socket-mode = \"0660\"", "f:1: unknown key \"socket-mode\"; did you mean \"socket_mode\"?"),
            ("max_conections = 5", "did you mean \"max_connections\"?"),
            ("zzz = 1", "f:1: unknown key \"zzz\"; there are store, socket, "),
            ("[limits]\nlease = \"5s\"", "f:1: unknown key \"limits\""),
            ("\n\ndrain = 5", "f:3: drain: write it in quotes, as in drain = \"5s\""),
            ("socket_mode = 0o660", "f:1: socket_mode: write it in quotes, as in socket_mode = \"0660\""),
            ("max_line = \"5\"", "f:1: max_line: write a number without quotes, as in max_line = 2097152"),
            ("max_line = -5", "f:1: max_line: use a whole number"),
            ("max_line = 1e3", "without quotes"),
            ("lease.x = 1", "f:1: lease: write it in quotes"),
            ("lease = \"5s\"\nlease = \"6s\"", "f:2: this is not TOML: duplicate key"),
            ("\nlease = ", "f:2: this is not TOML: "),
            // The first of two.
            ("zz = 1\naa = 1", "f:1: unknown key \"zz\""),
        ] {
            let error = parse("f".as_ref(), text).map(|_| ()).unwrap_err();
            assert!(error.code == CONFIG && error.message.contains(said), "{text:?}: {error}");
        }
        let given = parse("f".as_ref(), "# c\nmax_line = 0x1_000\nlog = 'warn'").unwrap();
        let given: Vec<_> = given.iter().map(|given| (SETTINGS[given.setting].key, given.text.as_str(), given.line)).collect();
        assert_eq!(given, [("max_line", "4096", 2), ("log", "warn", 3)]);
    }
}
