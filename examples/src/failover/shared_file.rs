//! The file everybody appends to, and its guard: a token lower than the highest seen does not pass.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use super::record::Record;

/// How the guard or the file misbehaves, to prove that the check at the end notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sabotage {
    /// Workers take no lock, and the guard lets every token pass.
    NoLock,
    /// The guard lets every token pass.
    NoFence,
    /// Every third append is acknowledged and not written.
    Lose,
}

impl Sabotage {
    /// As the command line has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NoLock => "no-lock",
            Self::NoFence => "no-fence",
            Self::Lose => "lose",
        }
    }
}

/// Why a line was not written.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The file has seen this higher token.
    Stale { highest: u64 },
    /// The file cannot be read or written.
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The shared file, opened by one process.
#[derive(Debug)]
pub(super) struct SharedFile {
    file: File,
    sabotage: Option<Sabotage>,
}

impl SharedFile {
    /// Opens `path`, which is created where it does not exist.
    pub(super) fn open(path: &Path, sabotage: Option<Sabotage>) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        Ok(Self { file, sabotage })
    }

    /// Makes `token` known to the guard, and returns the total so far.
    ///
    /// A new holder does this before it works: from here on no earlier holder can write, even if its next
    /// write was already on the way.
    pub(super) fn enter(&mut self, token: u64, pid: u32, at: u64) -> Result<u64, Refusal> {
        self.guarded(token, |last| Record { token, seq: 0, total: last.map_or(0, |last| last.total), pid, begin: at, end: at })
    }

    /// The total as the last line has it.
    pub(super) fn total(&mut self) -> io::Result<u64> {
        self.file.lock_shared()?;
        let last = self.last();
        self.file.unlock()?;
        Ok(last?.map_or(0, |last| last.total))
    }

    /// Appends `record`.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), Refusal> {
        if self.sabotage == Some(Sabotage::Lose) && record.seq.is_multiple_of(3) {
            return Ok(());
        }
        self.guarded(record.token, |_| record.clone()).map(drop)
    }

    /// Does `act` while nobody is between its look and its write.
    pub(super) fn quietly<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        self.file.lock()?;
        let done = act();
        self.file.unlock()?;
        Ok(done)
    }

    /// Writes what `make` makes of the last line, if the guard lets `token` pass; returns the line's total.
    fn guarded(&mut self, token: u64, make: impl FnOnce(Option<&Record>) -> Record) -> Result<u64, Refusal> {
        // This lock of the operating system makes look and write one step. It is not what keeps holders
        // apart: it is held for microseconds and knows nothing of leases. Whoever is stopped in between would
        // keep everybody out, so the director stops nobody there.
        self.file.lock()?;
        let written = self.locked(token, make);
        self.file.unlock()?;
        written
    }

    fn locked(&mut self, token: u64, make: impl FnOnce(Option<&Record>) -> Record) -> Result<u64, Refusal> {
        let last = self.last()?;
        let fenced = !matches!(self.sabotage, Some(Sabotage::NoLock | Sabotage::NoFence));
        if let Some(last) = &last
            && fenced
            && last.token > token
        {
            return Err(Refusal::Stale { highest: last.token });
        }
        let record = make(last.as_ref());
        let mut line = serde_json::to_vec(&record).map_err(io::Error::from)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        Ok(record.total)
    }

    /// The last line. Tokens never go down, so it has the highest.
    fn last(&mut self) -> io::Result<Option<Record>> {
        const LONGEST: u64 = 512;
        let length = self.file.seek(SeekFrom::End(0))?;
        self.file.seek(SeekFrom::Start(length.saturating_sub(LONGEST)))?;
        let mut tail = Vec::new();
        self.file.read_to_end(&mut tail)?;
        let Some(line) = tail.strip_suffix(b"\n").and_then(|tail| tail.rsplit(|byte| *byte == b'\n').next()) else {
            return if tail.is_empty() { Ok(None) } else { Err(io::Error::other("the shared file ends in half a line")) };
        };
        Ok(Some(serde_json::from_slice(line)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(token: u64, seq: u64, total: u64) -> Record {
        Record { token, seq, total, pid: 1, begin: 0, end: 0 }
    }

    #[test]
    fn a_lower_token_is_refused_once_a_higher_one_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = SharedFile::open(&dir.path().join("shared"), None).unwrap();
        assert_eq!(file.enter(5, 1, 0).unwrap(), 0);
        file.append(&record(5, 1, 1)).unwrap();
        assert_eq!(file.enter(8, 2, 0).unwrap(), 1);
        assert!(matches!(file.append(&record(5, 2, 2)), Err(Refusal::Stale { highest: 8 })));
        assert!(matches!(file.enter(7, 3, 0), Err(Refusal::Stale { highest: 8 })));
        file.append(&record(8, 1, 2)).unwrap();
        assert_eq!(file.total().unwrap(), 2);
    }

    #[test]
    fn nobody_is_between_look_and_write_while_it_is_quiet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        let file = SharedFile::open(&path, None).unwrap();
        let other = SharedFile::open(&path, None).unwrap();
        file.quietly(|| assert!(other.file.try_lock().is_err())).unwrap();
        other.file.try_lock().unwrap();
    }

    #[test]
    fn without_its_guard_the_file_takes_anything() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = SharedFile::open(&dir.path().join("shared"), Some(Sabotage::NoFence)).unwrap();
        file.enter(8, 1, 0).unwrap();
        file.append(&record(5, 1, 1)).unwrap();
    }
}
