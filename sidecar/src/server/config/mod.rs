//! What `tenured` is told: by flags, by the environment, by a file, in that order of strength. No I/O but reading the file.

mod check;
mod file;
mod layers;
mod settings;
mod show;

pub(crate) use self::{
    check::check,
    layers::{Action, Asked, Effective, asked, command as command_line},
    settings::Settings,
    show::show,
};

/// Exit code of a command line that is wrong.
pub(super) const USAGE: u8 = 64;
/// Exit code of a configuration that is wrong, `EX_CONFIG`.
pub(super) const CONFIG: u8 = 78;

/// Why a configuration is refused: one sentence with the remedy, and the code to exit with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Refusal {
    fn new(code: u8, message: impl Into<String>) -> Self {
        // Whatever is quoted in it: the log and scripts read lines.
        let message = message.into().replace('\r', "").replace('\n', " ");
        Self { code, message }
    }
}

/// The configuration of a command line alone, for [`crate::fuzzing`].
#[cfg(feature = "fuzzing")]
pub(crate) fn of_flags(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<super::Config, String> {
    let arguments = std::iter::once("tenured".into()).chain(arguments);
    match asked(arguments).map_err(|error| crate::usage::in_a_line(&error))? {
        Asked { file: None, action: Action::Serve, flags } => {
            layers::merged(&flags, &|_| None, None).map(|effective| effective.settings.config).map_err(|error| error.to_string())
        }
        asked => Err(format!("more than a daemon is asked for: {:?}", asked.action)),
    }
}

/// The configuration of a file's text alone, and the text that `tenured config show` would make of it.
#[cfg(feature = "fuzzing")]
pub(crate) fn of_file(text: &str) -> Result<(super::Config, String), String> {
    let file = super::toml_file::TomlFile { path: "tenured.toml".into(), text: text.to_owned() };
    let effective = layers::merged(&[], &|_| None, Some(&file)).map_err(|error| error.to_string())?;
    let shown = show(&effective, true, None);
    Ok((effective.settings.config, shown))
}
