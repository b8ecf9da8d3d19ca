//! A history as a whole, read from and written to JSON lines.

use std::io::{self, BufRead, Write};

use crate::history::{Head, Line};

/// A recorded history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// What was recorded.
    pub head: Head,
    /// Everything after the head, in the order of the file. The line at index `i` is line `i + 2` of it.
    pub lines: Vec<Line>,
}

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is not of this format.
    #[error("line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It does not begin with a head.
    #[error("line 1 is not a head")]
    NoHead,
    /// A head of another version.
    #[error("version {0} of the format is not known; this reads version 1")]
    Version(u32),
    /// There is a second head.
    #[error("line {0} is a second head")]
    SecondHead(usize),
}

impl History {
    /// An empty one.
    pub fn new(head: Head) -> Self {
        Self { head, lines: Vec::new() }
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be read or is not of this format. Empty lines are passed over.
    pub fn read(input: impl BufRead) -> Result<Self, ReadError> {
        let mut history = None;
        for (index, text) in input.lines().enumerate() {
            let text = text?;
            if text.trim().is_empty() {
                continue;
            }
            let line = serde_json::from_str(&text).map_err(|source| ReadError::Line { line: index + 1, source })?;
            match (&mut history, line) {
                (None, Line::Head(head)) if head.version == 1 => history = Some(Self::new(head)),
                (None, Line::Head(head)) => return Err(ReadError::Version(head.version)),
                (None, _) => return Err(ReadError::NoHead),
                (Some(_), Line::Head(_)) => return Err(ReadError::SecondHead(index + 1)),
                (Some(history), line) => history.lines.push(line),
            }
        }
        history.ok_or(ReadError::NoHead)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// What the output says.
    pub fn write(&self, output: impl Write) -> io::Result<()> {
        let mut writer = Writer::new(output, self.head.clone())?;
        for line in &self.lines {
            writer.line(line)?;
        }
        writer.finish().map(drop)
    }
}

/// Writes a history line by line.
#[derive(Debug)]
pub struct Writer<W: Write>(W);

impl<W: Write> Writer<W> {
    /// Begins one with its head.
    ///
    /// # Errors
    /// What the output says.
    pub fn new(output: W, head: Head) -> io::Result<Self> {
        let mut writer = Self(output);
        writer.line(&Line::Head(head))?;
        Ok(writer)
    }

    /// Writes a line.
    ///
    /// # Errors
    /// What the output says.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, line)?;
        self.0.write_all(b"\n")
    }

    /// Flushes it and gives the output back.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<W> {
        self.0.flush()?;
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"line":"head","version":1,"store":"sim","slack_us":0}
{"line":"call","at":1,"id":1,"client":1,"op":{"do":"open","lease_ms":500}}
{"line":"return","at":2,"id":1,"outcome":{"is":"ok","session":"a","epoch":1}}
{"line":"call","at":3,"id":2,"client":1,"op":{"do":"fenced_put","session":"a","under":{"lock":{"lock":"l","token":3}},"key":"k","nonce":"n"}}
{"line":"call","at":3,"id":3,"client":1,"op":{"do":"put","key":"k","nonce":"m","expect":{"at":4}}}
{"line":"return","at":4,"id":3,"outcome":{"is":"failed","kind":"conflict","why":""}}
{"line":"seen","from":4,"at":5,"client":1,"what":{"of":"held","lock":"l","token":3,"yes":true}}
{"line":"fault","from":5,"kind":"crash","client":1}
{"line":"write","revision":3,"epoch":1,"key":"lock.l.a-1","state":"live","value":{"session":"a"},"at":2}
{"line":"quiet","at":6}
{"line":"end","at":9}
"#;

    #[test]
    fn what_is_read_is_written_again() {
        let history = History::read(TEXT.as_bytes()).unwrap();
        assert_eq!(history.lines.len(), 10);
        let mut written = Vec::new();
        history.write(&mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), TEXT);
    }

    #[test]
    fn what_is_no_history_is_refused_in_a_line() {
        let refused = |text: &str| History::read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused(""), "line 1 is not a head");
        assert!(refused(r#"{"line":"head","version":2,"store":"sim"}"#).contains("version 2"));
        let head = r#"{"line":"head","version":1,"store":"sim"}"#;
        assert_eq!(refused(&format!("{head}\n{head}")), "line 2 is a second head");
        assert!(refused(&format!("{head}\nnonsense")).starts_with("line 2: "));
        assert!(refused(&format!("{head}\n{}", r#"{"line":"write","revision":1}"#)).starts_with("line 2: "));
    }
}
