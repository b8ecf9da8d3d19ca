//! Where settings come from, and which of several wins: a flag, the environment, the file, the default.

use std::{
    ffi::OsString,
    fmt,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{
    CONFIG, Refusal, USAGE, file,
    settings::{SETTINGS, Setting, Settings, default_store},
};
use crate::server::toml_file::TomlFile;

/// Read where no file is named, if it is there.
const DEFAULT_FILE: &str = "/etc/tenure/tenured.toml";
/// Names the file where `--config` does not.
const FILE_VARIABLE: &str = "TENURE_CONFIG";

const AFTER: &str = "\
Clients connect to the socket and speak JSON-RPC 2.0, one message per line. What a client holds is released \
when its connection closes or its process dies. On TERM and INT the daemon tells its clients, gives holders the \
drain time, releases what is left and exits with 0.

Each setting may stand in a file, too, with _ for -: socket_mode = \"0660\". A flag is stronger than the environment, \
and that is stronger than the file.";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File(PathBuf, usize),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
            Self::Environment(name) => f.write_str(name),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Serve.
    Serve,
    /// `config check`.
    Check,
    /// `config show`.
    Show {
        /// With the secrets in URLs.
        secrets: bool,
    },
}

/// A command line.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) action: Action,
    /// `--config`.
    pub(super) file: Option<PathBuf>,
    /// Which of [`SETTINGS`], and its value.
    pub(super) flags: Vec<(usize, String)>,
}

/// All settings, and where each came from.
#[derive(Debug)]
pub(crate) struct Effective {
    pub(crate) settings: Settings,
    /// By the index of [`SETTINGS`].
    pub(super) origins: Vec<Origin>,
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
}

impl Effective {
    /// Where the setting `key` came from.
    pub(super) fn origin(&self, key: &str) -> &Origin {
        let at = SETTINGS.iter().position(|setting| setting.key == key);
        at.and_then(|at| self.origins.get(at)).unwrap_or(&Origin::Default)
    }

    /// Somebody has set `key`.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        *self.origin(key) != Origin::Default
    }

    /// Nobody has named a store.
    pub(crate) fn has_default_store(&self) -> bool {
        !self.is_set("store")
    }
}

/// Parses a command line, the program's name first.
///
/// # Errors
/// What is wrong with it, or the help that it asks for.
pub(crate) fn asked(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let (action, matches) = match matches.subcommand() {
        Some(("config", config)) => match config.subcommand() {
            Some(("show", show)) => (Action::Show { secrets: show.get_flag("secrets") }, show.clone()),
            Some((_, check)) => (Action::Check, check.clone()),
            None => (Action::Check, config.clone()),
        },
        _ => (Action::Serve, matches),
    };
    let flags = SETTINGS.iter().enumerate().filter_map(|(at, setting)| Some((at, given(&matches, setting)?))).collect();
    Ok(Asked { action, file: matches.get_one::<PathBuf>("config").cloned(), flags })
}

fn given(matches: &ArgMatches, setting: &Setting) -> Option<String> {
    matches.get_one::<String>(setting.key).cloned()
}

pub(crate) fn command() -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .global(true)
        .help(format!("The file with settings [env: {FILE_VARIABLE}] [default: {DEFAULT_FILE}, if it is there]"));
    let secrets = Arg::new("secrets")
        .long("secrets")
        .action(ArgAction::SetTrue)
        .help("Show the secrets in URLs instead of leaving them out");
    let check = Command::new("check").about("Exits with 0 if the configuration is right, else says why and exits with 78");
    let show =
        Command::new("show").about("Prints the configuration as it takes effect, and where each setting comes from").arg(secrets);
    let config = Command::new("config")
        .about("Looks at the configuration and serves nothing")
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommands([check, show]);
    Command::new("tenured")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serves locks to the programs of this machine, over a Unix socket")
        .after_help(AFTER)
        .max_term_width(100)
        .disable_help_subcommand(true)
        .arg(file)
        .args(SETTINGS.iter().map(flag))
        .subcommand(config)
}

fn flag(setting: &'static Setting) -> Arg {
    let flag = Arg::new(setting.key).long(setting.key.replace('_', "-")).value_name(setting.value).global(true).help(format!(
        "{} [env: {}] [default: {}]",
        setting.help,
        setting.env,
        setting.default_text()
    ));
    if setting.is_secret() {
        // A message about it would repeat it.
        return flag.value_parser(value_parser!(String));
    }
    flag.value_parser(move |text: &str| (setting.put)(&mut Settings::default(), text).map(|()| text.to_owned()))
}

impl Asked {
    /// All settings: those asked for, then those of the environment and of the file.
    ///
    /// # Errors
    /// What is wrong with one of them, or with the file.
    pub(crate) fn effective(&self) -> Result<Effective, Refusal> {
        let named = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let file = match self.file.clone().or(named) {
            Some(path) => read(&path, false)?,
            None => read(DEFAULT_FILE.as_ref(), true)?,
        };
        let mut effective = merged(&self.flags, &|name| std::env::var_os(name), file.as_ref())?;
        if effective.has_default_store() {
            effective.settings.config.store = default_store().map_err(|said| Refusal::new(CONFIG, said))?;
        }
        Ok(effective)
    }
}

/// The settings of these sources, on a store in memory if none names another.
pub(super) fn merged(
    flags: &[(usize, String)],
    environment: &dyn Fn(&str) -> Option<OsString>,
    file: Option<&TomlFile>,
) -> Result<Effective, Refusal> {
    let mut effective = Effective {
        settings: Settings::default(),
        origins: vec![Origin::Default; SETTINGS.len()],
        file: file.map(|file| file.path.clone()),
    };
    // The weakest first: what is overruled is looked at all the same, so that it is not found wrong on another day.
    if let Some(file) = file {
        for given in file::parse(file).map_err(|said| Refusal::new(CONFIG, said))? {
            let key = SETTINGS[given.setting].key;
            effective
                .put(given.setting, &given.text, Origin::File(file.path.clone(), file.line(given.at)))
                .map_err(|said| Refusal::new(CONFIG, file.refuse(given.at, &format!("{key}: {said}"))))?;
        }
    }
    for (at, setting) in SETTINGS.iter().enumerate() {
        let Some(value) = environment(setting.env).filter(|value| !value.is_empty()) else { continue };
        let refuse = |said: &str| Refusal::new(CONFIG, format!("{}: {said}", setting.env));
        let text = value.to_str().ok_or_else(|| refuse("it is not UTF-8"))?;
        effective.put(at, text, Origin::Environment(setting.env)).map_err(|said| refuse(&said))?;
    }
    for (at, text) in flags {
        let origin = Origin::Flag(SETTINGS[*at].key);
        effective.put(*at, text, origin.clone()).map_err(|said| Refusal::new(USAGE, format!("{origin}: {said}")))?;
    }
    Ok(effective)
}

impl Effective {
    fn put(&mut self, at: usize, text: &str, origin: Origin) -> Result<(), String> {
        (SETTINGS[at].put)(&mut self.settings, text)?;
        self.origins[at] = origin;
        Ok(())
    }
}

/// The file; absent when there is none and that is allowed.
fn read(path: &Path, may_be_absent: bool) -> Result<Option<TomlFile>, Refusal> {
    match TomlFile::read(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if may_be_absent && error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Refusal::new(CONFIG, format!("{}; --config names another file", TomlFile::unreadable(path, &error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_names_of_its_own_and_takes_its_example_and_what_it_shows() {
        command().debug_assert();
        for (at, setting) in SETTINGS.iter().enumerate() {
            let Setting { key, env, example, .. } = setting;
            assert!(SETTINGS[at + 1..].iter().all(|other| other.key != *key && other.env != *env), "{key}");
            assert!(env.strip_prefix("TENURE_").is_some_and(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')));
            let mut settings = Settings::default();
            (setting.put)(&mut settings, example).unwrap();
            let shown = (setting.show)(&settings).unwrap();
            (setting.put)(&mut settings, &shown).unwrap();
            assert_eq!((setting.show)(&settings), Some(shown), "{key}");
        }
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_the_file() {
        let of = |flags: &[&str], environment: &[(&str, &str)], file: &str| {
            let flags = flags.iter().map(|flag| OsString::from(*flag));
            let flags = asked(std::iter::once("tenured".into()).chain(flags)).unwrap().flags;
            let variable = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(*value));
            let effective = merged(&flags, &variable, Some(&TomlFile { path: "f".into(), text: file.to_owned() }))?;
            Ok::<_, Refusal>((effective.settings.log.clone(), effective.origin("log").to_string()))
        };
        let found = |flags: &[&str], environment: &[(&str, &str)], file: &str| of(flags, environment, file).unwrap();
        let (file, environment) = ("\nlog = \"warn\"", [("TENURE_LOG", "debug")]);
        assert_eq!(found(&["--log", "trace"], &environment, file), ("trace".into(), "--log".into()));
        assert_eq!(found(&[], &environment, file), ("debug".into(), "TENURE_LOG".into()));
        assert_eq!(found(&[], &[("TENURE_LOG", "")], file), ("warn".into(), "f:2".into()));
        assert_eq!(found(&[], &[], ""), ("info".into(), "default".into()));
        // What is overruled is wrong all the same.
        let error = of(&["--log", "trace"], &[("TENURE_DEFAULT_LEASE", "1ms")], file).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (CONFIG, "TENURE_DEFAULT_LEASE: use 150ms to 24h"));
        let error = of(&["--store", "redis://u:secret@h"], &[], "lease = \"1ms\"").unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (CONFIG, "f:1: lease: use 150ms to 24h"));
        let error = of(&["--store", "redis://u:secret@h"], &[], "").unwrap_err();
        assert!(error.code == USAGE && error.message.starts_with("--store: ") && !error.message.contains("secret"), "{error}");
    }
}
