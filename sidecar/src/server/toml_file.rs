//! A TOML file of the daemon: read whole, and refused with file and line.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// No file is longer.
const MAX_BYTES: u64 = 1 << 20;
/// From here on two names are alike enough to ask whether the one was meant.
const ALIKE: f64 = 0.7;
/// How much of a name is repeated in a message.
const REPEATED: usize = 64;

/// The text of a file, and the file's name for messages.
#[derive(Clone, Debug)]
pub(super) struct TomlFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// A key, where it stands, and its value.
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) at: usize,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl TomlFile {
    /// Reads `path`. What is no regular file is not waited for: whoever opens a pipe waits for the other end.
    ///
    /// # Errors
    /// As the system says; of kind [`InvalidData`](std::io::ErrorKind::InvalidData) with a whole sentence where the file
    /// is not what is expected.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        let invalid = |said: String| std::io::Error::new(std::io::ErrorKind::InvalidData, said);
        let not_regular = || invalid(format!("{}: it is no regular file; name one that is", path.display()));
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // A socket, or a device that is not there.
            Err(Errno::NXIO | Errno::NODEV) => return Err(not_regular()),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(not_regular());
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(invalid(format!("{}: it has more than {MAX_BYTES} bytes", path.display())));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            invalid(format!("{}:{}: this is not UTF-8", path.display(), line_of(error.as_bytes(), good)))
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// What `read` failed with, in a sentence.
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> String {
        match error.kind() {
            std::io::ErrorKind::InvalidData => error.to_string(),
            _ => format!("{}: cannot read it: {error}", path.display()),
        }
    }

    /// Its outermost table.
    ///
    /// # Errors
    /// When it is no TOML.
    pub(super) fn table(&self) -> Result<DeTable<'_>, String> {
        DeTable::parse(&self.text).map(Spanned::into_inner).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.refuse(at, &format!("this is not TOML: {}", error.message()))
        })
    }

    /// The line at that byte.
    pub(super) fn line(&self, at: usize) -> usize {
        line_of(self.text.as_bytes(), at)
    }

    /// Says what is wrong at that byte, in one line.
    pub(super) fn refuse(&self, at: usize, said: &str) -> String {
        format!("{}:{}: {said}", self.path.display(), self.line(at)).replace('\r', "").replace('\n', " ")
    }
}

fn line_of(text: &[u8], at: usize) -> usize {
    text.iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// The entries of a table in the order of the file, so that the first mistake is the one told.
pub(super) fn in_order<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut entries: Vec<_> =
        table.iter().map(|(key, value)| Entry { key: key.get_ref(), at: key.span().start, value }).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

/// Says that `word` is no `what`, and which one may have been meant.
pub(super) fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let word: String = word.chars().take(REPEATED).collect();
    let plain = word.to_lowercase().replace('-', "_");
    let alike = |known: &str| strsim::jaro_winkler(&plain, known);
    match known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))) {
        Some(nearest) if alike(nearest) >= ALIKE => format!("unknown {what} {word:?}; did you mean {nearest:?}?"),
        _ => format!("unknown {what} {word:?}; there are {}", known.join(", ")),
    }
}
