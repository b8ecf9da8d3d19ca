//! The table of settings. A new one is an entry here and a field in [`Config`] or [`Settings`]: flag, environment, file,
//! `config check` and `config show` follow from it.

use std::{path::PathBuf, time::Duration};

use humantime::{format_duration, parse_duration};
use tracing_subscriber::EnvFilter;

use crate::server::{
    Config, http,
    logging::{self, LogFormat},
    sessions::millis,
};

/// Longer than what anybody would burn a processor for.
const MAX_BUSY_POLL: Duration = Duration::from_millis(10);

/// Everything `tenured` is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    /// What to log.
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    /// Where traces are sent.
    pub(crate) otlp_endpoint: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { config: Config::default(), log: "info".to_owned(), log_format: LogFormat::default(), otlp_endpoint: None }
    }
}

/// How a value is written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In quotes.
    Text,
    /// As it is.
    Number,
}

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its name in the file. The flag is the same with `-` for `_`.
    pub(super) key: &'static str,
    /// Its variable.
    pub(super) env: &'static str,
    pub(super) form: Form,
    /// What stands for the value in the help.
    pub(super) value: &'static str,
    pub(super) example: &'static str,
    pub(super) help: &'static str,
    /// What the default is, where it is not the same everywhere.
    pub(super) default: Option<&'static str>,
    /// Refuses what is wrong with a remedy.
    pub(super) put: fn(&mut Settings, &str) -> Result<(), String>,
    /// As `put` takes it; absent for what has no value.
    pub(super) show: fn(&Settings) -> Option<String>,
}

impl Setting {
    /// The default in words.
    pub(super) fn default_text(&self) -> String {
        self.default.map(str::to_owned).or_else(|| (self.show)(&Settings::default())).unwrap_or_else(|| "none".to_owned())
    }

    /// Its value may hold a secret, which no message repeats.
    pub(super) fn is_secret(&self) -> bool {
        self.key == "store"
    }
}

/// All of them, in the order in which they are shown.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "store",
        env: "TENURE_STORE",
        form: Form::Text,
        value: "URL",
        example: "file:/var/lib/tenure/tenure.db",
        help: "Where locks are kept: memory:, file:PATH or nats://HOST[,HOST…]/BUCKET",
        default: Some("file:$XDG_STATE_HOME/tenure/tenure.db, for root file:/var/lib/tenure/tenure.db"),
        put: |settings, text| {
            tenure_kv::check_url(text).map_err(|error| error.to_string())?;
            text.clone_into(&mut settings.config.store);
            Ok(())
        },
        show: |settings| Some(settings.config.store.clone()),
    },
    Setting {
        key: "socket",
        env: "TENURE_SOCKET",
        form: Form::Text,
        value: "PATH",
        example: "/run/tenure/tenured.sock",
        help: "The socket to listen on",
        default: Some("$XDG_RUNTIME_DIR/tenure/tenured.sock, else /run/tenure/tenured.sock"),
        put: |settings, text| path(&mut settings.config.socket, text),
        show: |settings| settings.config.socket.to_str().map(str::to_owned),
    },
    Setting {
        key: "socket_mode",
        env: "TENURE_SOCKET_MODE",
        form: Form::Text,
        value: "MODE",
        example: "0660",
        help: "The mode of the socket file",
        default: None,
        put: |settings, text| {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
            settings.config.access.mode = mode.ok_or("use an octal mode such as 0660")?;
            Ok(())
        },
        show: |settings| Some(format!("{:04o}", settings.config.access.mode)),
    },
    Setting {
        key: "socket_group",
        env: "TENURE_SOCKET_GROUP",
        form: Form::Text,
        value: "GROUP",
        example: "tenure",
        help: "The group of the socket, and of its directory if that is made: a name or a number",
        default: Some("the group of the daemon"),
        put: |settings, text| {
            settings.config.access.group = Some(text.to_owned());
            Ok(())
        },
        show: |settings| settings.config.access.group.clone(),
    },
    Setting {
        key: "lease",
        // TENURE_LEASE is what commands under `tenure lock` find the handle of their lease in.
        env: "TENURE_DEFAULT_LEASE",
        form: Form::Text,
        value: "TIME",
        example: "5s",
        help: "How long what is held outlives this daemon if it crashes: 150ms to 24h",
        default: Some("5s, 15s on a cluster"),
        put: |settings, text| {
            let lease = time(text)?;
            let allowed = tenure::MIN_LEASE..=tenure::MAX_LEASE;
            settings.config.lease = Some(Some(lease).filter(|lease| allowed.contains(lease)).ok_or("use 150ms to 24h")?);
            Ok(())
        },
        show: |settings| settings.config.lease.map(|lease| format_duration(lease).to_string()),
    },
    Setting {
        key: "policy",
        env: "TENURE_POLICY",
        form: Form::Text,
        value: "PATH",
        example: "/etc/tenure/policy.toml",
        help: "The file with the rules that say who may do what; read again on HUP",
        default: Some("no rules: who may connect may everything but break locks"),
        put: |settings, text| path(settings.config.policy.get_or_insert_default(), text),
        show: |settings| settings.config.policy.as_ref().and_then(|path| path.to_str()).map(str::to_owned),
    },
    Setting {
        key: "drain",
        env: "TENURE_DRAIN",
        form: Form::Text,
        value: "TIME",
        example: "5s",
        help: "How long holders may go on after TERM",
        default: None,
        put: |settings, text| {
            settings.config.drain = time(text)?;
            Ok(())
        },
        show: |settings| Some(format_duration(settings.config.drain).to_string()),
    },
    Setting {
        key: "busy_poll",
        env: "TENURE_BUSY_POLL",
        form: Form::Text,
        value: "TIME",
        example: "200us",
        help: "How long to look again in place of going to sleep while a client waits for the store, where cores are idle: up to 10ms",
        default: Some("0s, never"),
        put: |settings, text| {
            let time = time(text)?;
            settings.config.busy_poll = Some(time).filter(|time| *time <= MAX_BUSY_POLL).ok_or("use 0 to 10ms")?;
            Ok(())
        },
        show: |settings| Some(format_duration(settings.config.busy_poll).to_string()),
    },
    Setting {
        key: "http",
        env: "TENURE_HTTP",
        form: Form::Text,
        value: "ADDRESS",
        example: "9464",
        help: "Answer questions over HTTP, which are public to whoever reaches it: a port of 127.0.0.1, or an address and a port",
        default: Some("nowhere"),
        put: |settings, text| {
            settings.config.http = Some(http::address(text)?);
            Ok(())
        },
        show: |settings| settings.config.http.map(|address| address.to_string()),
    },
    Setting {
        key: "log",
        env: "TENURE_LOG",
        form: Form::Text,
        value: "LEVEL",
        example: "info",
        help: "What to log: error, warn, info, debug or trace, or such as tenure=debug,info",
        default: None,
        put: |settings, text| {
            EnvFilter::try_new(text).map_err(|error| error.to_string())?;
            text.clone_into(&mut settings.log);
            Ok(())
        },
        show: |settings| Some(settings.log.clone()),
    },
    Setting {
        key: "log_format",
        env: "TENURE_LOG_FORMAT",
        form: Form::Text,
        value: "FORMAT",
        example: "json",
        help: "How the log is written: text, or json with an object in each line",
        default: None,
        put: |settings, text| {
            settings.log_format = LogFormat::read(text)?;
            Ok(())
        },
        show: |settings| Some(settings.log_format.as_str().to_owned()),
    },
    Setting {
        key: "otlp_endpoint",
        env: "TENURE_OTLP_ENDPOINT",
        form: Form::Text,
        value: "URL",
        example: "http://127.0.0.1:4318",
        help: "Send traces to this collector, by OTLP over HTTP; for builds with the feature otlp",
        default: Some("nowhere"),
        put: |settings, text| {
            settings.otlp_endpoint = Some(logging::endpoint(text)?);
            Ok(())
        },
        show: |settings| settings.otlp_endpoint.clone(),
    },
    Setting {
        key: "max_line",
        env: "TENURE_MAX_LINE",
        form: Form::Number,
        value: "BYTES",
        example: "2097152",
        help: "Bytes of a line",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.line_bytes, 1_024, text),
        show: |settings| Some(settings.config.limits.line_bytes.to_string()),
    },
    Setting {
        key: "max_requests",
        env: "TENURE_MAX_REQUESTS",
        form: Form::Number,
        value: "N",
        example: "64",
        help: "Requests in flight on one connection",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.requests, 1, text),
        show: |settings| Some(settings.config.limits.requests.to_string()),
    },
    Setting {
        key: "max_leases",
        env: "TENURE_MAX_LEASES",
        form: Form::Number,
        value: "N",
        example: "1024",
        help: "Leases on one connection",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.leases, 1, text),
        show: |settings| Some(settings.config.limits.leases.to_string()),
    },
    Setting {
        key: "max_subscriptions",
        env: "TENURE_MAX_SUBSCRIPTIONS",
        form: Form::Number,
        value: "N",
        example: "256",
        help: "Subscriptions on one connection",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.subscriptions, 1, text),
        show: |settings| Some(settings.config.limits.subscriptions.to_string()),
    },
    Setting {
        key: "stall",
        env: "TENURE_STALL",
        form: Form::Text,
        value: "TIME",
        example: "10s",
        help: "How long the events of a subscription may wait for its client to read before it ends",
        default: None,
        put: |settings, text| {
            settings.config.limits.stall_ms = millis(time(text)?);
            Ok(())
        },
        show: |settings| Some(format_duration(Duration::from_millis(settings.config.limits.stall_ms)).to_string()),
    },
    Setting {
        key: "min_check_interval",
        env: "TENURE_MIN_CHECK_INTERVAL",
        form: Form::Text,
        value: "TIME",
        example: "1s",
        help: "The shortest interval of a member's check for which the daemon connects somewhere",
        default: None,
        put: |settings, text| {
            settings.config.limits.min_check_interval_ms = millis(time(text)?);
            Ok(())
        },
        show: |settings| Some(format_duration(Duration::from_millis(settings.config.limits.min_check_interval_ms)).to_string()),
    },
    Setting {
        key: "max_lease_lengths",
        env: "TENURE_MAX_LEASE_LENGTHS",
        form: Form::Number,
        value: "N",
        example: "64",
        help: "Different lengths of leases in use at the same time",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.lease_lengths, 1, text),
        show: |settings| Some(settings.config.limits.lease_lengths.to_string()),
    },
    Setting {
        key: "max_connections",
        env: "TENURE_MAX_CONNECTIONS",
        form: Form::Number,
        value: "N",
        example: "10000",
        help: "Connections",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.connections, 1, text),
        show: |settings| Some(settings.config.limits.connections.to_string()),
    },
    Setting {
        key: "max_connections_per_uid",
        env: "TENURE_MAX_CONNECTIONS_PER_UID",
        form: Form::Number,
        value: "N",
        example: "10000",
        help: "Connections of one user",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.connections_per_uid, 1, text),
        show: |settings| Some(settings.config.limits.connections_per_uid.to_string()),
    },
    Setting {
        key: "max_requests_per_uid",
        env: "TENURE_MAX_REQUESTS_PER_UID",
        form: Form::Number,
        value: "N",
        example: "16384",
        help: "Requests in flight on all connections of one user",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.requests_per_uid, 1, text),
        show: |settings| Some(settings.config.limits.requests_per_uid.to_string()),
    },
    Setting {
        key: "max_leases_per_uid",
        env: "TENURE_MAX_LEASES_PER_UID",
        form: Form::Number,
        value: "N",
        example: "16384",
        help: "Leases on all connections of one user, waits for one included",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.leases_per_uid, 1, text),
        show: |settings| Some(settings.config.limits.leases_per_uid.to_string()),
    },
    Setting {
        key: "max_subscriptions_per_uid",
        env: "TENURE_MAX_SUBSCRIPTIONS_PER_UID",
        form: Form::Number,
        value: "N",
        example: "4096",
        help: "Subscriptions on all connections of one user",
        default: None,
        put: |settings, text| number(&mut settings.config.limits.subscriptions_per_uid, 1, text),
        show: |settings| Some(settings.config.limits.subscriptions_per_uid.to_string()),
    },
];

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("{error}; use a time such as 5s, 150ms or 1m 30s"))
}

fn number(place: &mut usize, least: usize, text: &str) -> Result<(), String> {
    let number = text.parse::<usize>().map_err(|_| "use a whole number".to_owned())?;
    // Semaphores count no further.
    if !(least..=1 << 40).contains(&number) {
        return Err(format!("use at least {least}"));
    }
    *place = number;
    Ok(())
}

fn path(place: &mut PathBuf, text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('\0') {
        return Err("use the path of a file".to_owned());
    }
    *place = PathBuf::from(text);
    Ok(())
}

/// `file:` in `$XDG_STATE_HOME/tenure`; without that in `/var/lib/tenure` for root, else in `~/.local/state/tenure`.
pub(super) fn default_store() -> Result<String, String> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").filter(|_| !rustix::process::geteuid().is_root()).map(|home| home.join(".local/state"));
    let directory = set("XDG_STATE_HOME").or_else(home).unwrap_or_else(|| "/var/lib".into());
    let path = directory.join("tenure").join("tenure.db");
    match path.to_str() {
        Some(path) => Ok(format!("file:{path}")),
        None => Err(format!("{} is not UTF-8; name a store with --store", path.display())),
    }
}
