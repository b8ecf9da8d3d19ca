//! What a person sees: lines with the time, in colour where a terminal shows them.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::{Nanos, now};

/// How a piece of text stands out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    Plain,
    Dim,
    Good,
    Warning,
    Bad,
}

/// What should hold of a run, and what does not.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) promise: &'static str,
    /// Empty when it holds.
    pub(crate) broken: Vec<String>,
}

/// Standard output, or nothing.
#[derive(Debug)]
pub(crate) struct Screen {
    silent: bool,
    colour: bool,
    started: Nanos,
}

impl Screen {
    /// A screen whose clock starts now; a silent one shows nothing.
    pub(crate) fn new(silent: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { silent, colour: io::stdout().is_terminal() && !refused, started: now() }
    }

    /// One line as it is.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        if self.silent {
            return Ok(());
        }
        writeln!(io::stdout().lock(), "{text}")
    }

    /// What happened to whom at `at`.
    pub(crate) fn event(&self, at: Nanos, who: &str, tone: Tone, what: &str) -> io::Result<()> {
        let seconds = at.saturating_sub(self.started) as f64 / 1e9;
        self.line(&format!("{seconds:>8.3}  {who:<12}  {}", self.paint(tone, what)))
    }

    /// Each promise, and where it was broken. True when all hold.
    pub(crate) fn verdicts(&self, verdicts: &[Verdict]) -> io::Result<bool> {
        const SHOWN: usize = 3;
        for Verdict { promise, broken } in verdicts {
            let (tone, mark) = if broken.is_empty() { (Tone::Good, "ok") } else { (Tone::Bad, "BROKEN") };
            self.line(&format!("  {}  {promise}", self.paint(tone, mark)))?;
            for what in broken.iter().take(SHOWN) {
                self.line(&format!("      {what}"))?;
            }
            if broken.len() > SHOWN {
                self.line(&format!("      and {} more", broken.len() - SHOWN))?;
            }
        }
        Ok(verdicts.iter().all(|verdict| verdict.broken.is_empty()))
    }

    /// `text` in the colour of `tone`.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
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
