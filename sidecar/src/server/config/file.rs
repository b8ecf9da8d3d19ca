//! The configuration file: TOML with the keys of the settings, and nothing else.

use toml::de::DeValue;

use super::settings::{Form, SETTINGS, Setting};
use crate::server::toml_file::{TomlFile, in_order, unknown};

/// A setting as the file has it.
pub(super) struct Given {
    /// Which of [`SETTINGS`].
    pub(super) setting: usize,
    /// As [`Setting::put`] takes it.
    pub(super) text: String,
    /// Where it stands.
    pub(super) at: usize,
}

/// What the file says, in the order of lines.
///
/// # Errors
/// The first that is wrong, with its line.
pub(super) fn parse(file: &TomlFile) -> Result<Vec<Given>, String> {
    let table = file.table()?;
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    let given = in_order(&table).into_iter().map(|entry| {
        let setting = known.iter().position(|key| *key == entry.key).ok_or_else(|| unknown("key", entry.key, &known));
        let given = setting
            .and_then(|setting| Ok(Given { setting, text: written(&SETTINGS[setting], entry.value.get_ref())?, at: entry.at }));
        given.map_err(|said| file.refuse(entry.at, &said))
    });
    given.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> TomlFile {
        TomlFile { path: "f".into(), text: text.to_owned() }
    }

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
            let error = parse(&file(text)).map(|_| ()).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        let file = file("# c\nmax_line = 0x1_000\nlog = 'warn'");
        let given = parse(&file).unwrap();
        let given: Vec<_> =
            given.iter().map(|given| (SETTINGS[given.setting].key, given.text.as_str(), file.line(given.at))).collect();
        assert_eq!(given, [("max_line", "4096", 2), ("log", "warn", 3)]);
    }
}
