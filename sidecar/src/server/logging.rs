//! The log, and the traces where this is built with them: what is set up before anything runs.

use std::io::{self, IsTerminal};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use super::{StartError, config::Settings};

/// Lines of the log that wait to be written; more are dropped.
const LOG_LINES: usize = 4_096;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

impl LogFormat {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("use text or json".to_owned()),
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What is logged and traced goes out as long as this is kept.
#[derive(Debug)]
pub(super) struct Logging {
    #[cfg(feature = "otlp")]
    _traces: Option<super::traces::Traces>,
    _written: WorkerGuard,
}

/// Sets up this process's log and traces. Call it outside a runtime.
///
/// # Errors
/// When traces are wanted that cannot be sent.
pub(super) fn begin(settings: &Settings) -> Result<Logging, StartError> {
    // A thread of its own writes, so that nobody reading standard error stops the log and not the daemon.
    let (writer, written) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LOG_LINES).finish(io::stderr());
    // The NATS client tells of every connection; whoever wants that names it after.
    let filter = EnvFilter::new(format!("async_nats=warn,{}", settings.log));
    // It would complain on standard error, of all places.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let log = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    {
        let (traces, layer) = super::traces::begin(settings.otlp_endpoint.as_deref())?.unzip();
        log.with(layer).init();
        Ok(Logging { _traces: traces, _written: written })
    }
    #[cfg(not(feature = "otlp"))]
    {
        log.init();
        Ok(Logging { _written: written })
    }
}

/// Refuses what this build cannot do.
///
/// # Errors
/// With the remedy.
pub(crate) fn check(settings: &Settings) -> Result<(), String> {
    if cfg!(feature = "otlp") || settings.otlp_endpoint.is_none() {
        return Ok(());
    }
    Err("this tenured was built without the export of traces; leave it out, or build it with the feature otlp".to_owned())
}

/// An endpoint of a collector.
pub(crate) fn endpoint(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
    if host.is_some_and(|host| !host.is_empty()) && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return Ok(text.to_owned());
    }
    Err("use the URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; for TLS, use one on this machine \
         that forwards"
        .to_owned())
}
