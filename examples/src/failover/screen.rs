//! What a person sees: aligned lines, in colour where a terminal shows them.

use std::io::{self, IsTerminal as _, Write as _};

use super::record::Nanos;

/// How a piece of text stands out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tone {
    Plain,
    Dim,
    Good,
    Warning,
    Bad,
}

/// What happened, when, and to whom.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) at: Nanos,
    pub(super) token: Option<u64>,
    pub(super) worker: &'a str,
    /// How long the hand-over took that this is the end of.
    pub(super) hand_over: Option<Nanos>,
    pub(super) tone: Tone,
    pub(super) what: String,
}

/// Standard output, or nothing.
#[derive(Debug)]
pub(super) struct Screen {
    silent: bool,
    colour: bool,
    started: Nanos,
}

impl Screen {
    /// A screen whose clock starts at `started`; a silent one shows nothing.
    pub(super) fn new(silent: bool, started: Nanos) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { silent, colour: io::stdout().is_terminal() && !refused, started }
    }

    /// One line as it is.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        if self.silent {
            return Ok(());
        }
        writeln!(io::stdout().lock(), "{text}")
    }

    /// The names of the columns of [`row`](Self::row).
    pub(super) fn head(&self) -> io::Result<()> {
        let text = format!("{:>8}  {:>7}  {:<14}  {:>10}  {}", "seconds", "token", "worker", "hand-over", "what happened");
        self.line(&self.paint(Tone::Dim, &text))
    }

    /// One line under these columns.
    pub(super) fn row(&self, row: &Row<'_>) -> io::Result<()> {
        let seconds = row.at.saturating_sub(self.started) as f64 / 1e9;
        let token = row.token.map(|token| token.to_string()).unwrap_or_default();
        let hand_over = row.hand_over.map(|nanos| format!("{:.1} ms", milliseconds(nanos))).unwrap_or_default();
        let what = self.paint(row.tone, &row.what);
        self.line(&format!("{seconds:>8.3}  {token:>7}  {:<14}  {hand_over:>10}  {what}", row.worker))
    }

    /// `text` in the colour of `tone`.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.colour => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Nanoseconds as milliseconds.
pub(super) fn milliseconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e6
}
