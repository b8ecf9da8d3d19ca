//! The durable side of a file store: what is on disk, and what it means when writing there fails.
//!
//! The file is a redb database with a table of entries and a table of numbers. redb is never closed in
//! its own way: the file is left as the last commit made it, so that every open walks and verifies the
//! checksums of all it reads, and there is one way to open, after a crash or not. A file is written to
//! only once it was found sound.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

#[cfg(test)]
use super::crash::Defect;
use super::{
    backend::{Backend, Fault},
    medium::Medium,
    path::{is_full, unusable},
    record,
    state::Write,
};
use crate::{Error, Key, Result, Revision};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tenure.entries");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("tenure.numbers");
const FORMAT: &str = "format";
const REVISION: &str = "revision";
/// The version of what the tables hold; higher ones are refused.
const OUR_FORMAT: u64 = 1;

const MAGIC: &[u8] = b"redb";
const PAGE: usize = 4096;
/// Reads are answered from memory; redb needs only the pages it is about to change.
const CACHE: usize = 8 << 20;

/// What a file held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) writes: Vec<Write>,
    /// No revision above this one was ever given out.
    pub(super) revision: Revision,
}

#[cfg(test)]
impl Loaded {
    fn without_ceiling(mut self) -> Self {
        self.revision = self.writes.iter().map(|write| write.entry.revision).max().unwrap_or_default();
        self
    }
}

/// What is known of a write that failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// It is not on disk and never will be.
    NotWritten(Error),
    /// It may be on disk; [`Disk::recover`] finds out, unless the disk is beyond that.
    Doubtful(Error),
}

#[derive(Debug)]
enum Engine {
    Open(Database, Backend),
    /// Closed by a failure to write; may be opened again.
    Shut,
    /// The disk did not sync, so what a read finds may not be on it: nothing is written any more.
    Dead(String),
}

/// An open and locked file.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// Holds the lock on the file.
    medium: Arc<dyn Medium>,
    engine: Engine,
}

impl Disk {
    /// Opens the file, creates it if need be, and reads all it holds.
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded)> {
        Self::on(path, Arc::new(super::path::open(path)?))
    }

    /// Opens what lies on `medium`, which errors call `path`.
    pub(super) fn on(path: &Path, medium: Arc<dyn Medium>) -> Result<(Self, Loaded)> {
        medium.settle().map_err(|error| unusable(&format!("cannot sync {}", path.display()), error))?;
        let mut disk = Self { path: path.to_owned(), medium, engine: Engine::Shut };
        let loaded = disk.start()?;
        #[cfg(test)]
        let loaded = if disk.has(Defect::ReusesRevisions) { loaded.without_ceiling() } else { loaded };
        let named = disk.medium.sync_name(path);
        named.map_err(|error| unusable(&format!("cannot sync the directory of {}", path.display()), error))?;
        Ok((disk, loaded))
    }

    /// Makes the forgetting of `forgotten` and then `writes` durable, all or nothing, and notes that no
    /// revision above `ceiling`, which is new with every call that has writes, was given out.
    pub(super) fn write<'a>(
        &mut self,
        forgotten: impl IntoIterator<Item = &'a Key>,
        writes: impl IntoIterator<Item = &'a Write>,
        ceiling: Revision,
    ) -> Result<(), Failed> {
        let Engine::Open(database, backend) = &self.engine else {
            return Err(Failed::NotWritten(Error::unavailable(format!(
                "{} is closed by an earlier failure",
                self.path.display()
            ))));
        };
        let Err(error) = commit(database, forgotten, writes, ceiling) else { return Ok(()) };
        let (fault, error) = backend.take_fault().unwrap_or_else(|| (Fault::Write, io::Error::other(error)));
        #[cfg(test)]
        let fault = if self.has(Defect::GoesOnAfterAFailedSync) { Fault::Write } else { fault };
        let error = self.fail(fault, error);
        if fault == Fault::Sync {
            return Err(Failed::Doubtful(Error::unknown(error.to_string())));
        }
        match self.recover() {
            Ok(revision) if revision >= ceiling => Ok(()),
            Ok(_) => Err(Failed::NotWritten(error)),
            Err(_) => Err(Failed::Doubtful(Error::unknown(format!("{error}; whether this write is on disk is not known yet")))),
        }
    }

    /// Whether nothing failed since the file was opened, last time.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.engine, Engine::Open(..))
    }

    /// Opens the file again if a failure closed it, and returns the ceiling that is on disk.
    pub(super) fn recover(&mut self) -> Result<Revision> {
        match &self.engine {
            Engine::Open(database, _) => read_numbers(database).map_err(|error| self.unreadable(error.into())),
            Engine::Shut => Ok(self.start()?.revision),
            Engine::Dead(message) => Err(Error::unavailable(message.clone())),
        }
    }

    /// Leaves the file as after a crash that came just after the last commit, in which only `ceiling` is new.
    ///
    /// Of that commit and the one before, the file keeps what a reader needs to fall back from the last to the
    /// one before; so a damage to any data shows, and is not taken for a commit that was cut short.
    pub(super) fn close(mut self, ceiling: Revision) -> Result<(), Failed> {
        let written = self.write([], [], ceiling);
        self.shut();
        written
    }

    #[cfg(test)]
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.medium.defect() == Some(defect)
    }

    fn start(&mut self) -> Result<Loaded> {
        let (database, backend, fresh) = self.try_out()?;
        let loaded = match load(&database) {
            Ok(loaded) => loaded,
            Err(error) => {
                backend.freeze();
                return Err(self.unreadable(error));
            }
        };
        let live = if fresh { backend.go_live_as_new(PAGE).map_err(|error| (Fault::Write, error)) } else { backend.go_live() };
        match live {
            Ok(()) => {
                self.engine = Engine::Open(database, backend);
                Ok(loaded)
            }
            Err((fault, error)) => {
                backend.freeze();
                Err(self.fail(fault, error))
            }
        }
    }

    /// Opens the database without changing the file, and tells whether it is a new one.
    fn try_out(&self) -> Result<(Database, Backend, bool)> {
        let mut head = [0; PAGE];
        let len =
            self.len_and_head(&mut head).map_err(|error| unusable(&format!("cannot read {}", self.path.display()), error))?;
        let begun = head.iter().all(|byte| *byte == 0);
        if !begun && !head.starts_with(MAGIC) {
            return Err(self.foreign());
        }
        let backend = Backend::trial(self.medium.clone(), if begun { 0 } else { len });
        let mut builder = Database::builder();
        // Even where a damage says that the file was closed in redb's own way, which would be believed.
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        #[cfg(test)]
        builder.set_check_integrity_on_open(!self.has(Defect::SkipsChecksums));
        let database = builder
            .create_with_backend(backend.clone())
            .map_err(|error| self.unreadable(Unreadable::from(redb::Error::from(error))))?;
        if begun {
            create_tables(&database).map_err(|error| self.unreadable(error.into()))?;
            let same = self.is_ours_half_done(&backend, len);
            if !same.map_err(|error| unusable(&format!("cannot read {}", self.path.display()), error))? {
                backend.freeze();
                return Err(self.foreign());
            }
        }
        Ok((database, backend, begun))
    }

    fn len_and_head(&self, head: &mut [u8]) -> io::Result<u64> {
        let len = self.medium.len()?;
        let known = head.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        self.medium.read(0, &mut head[..known])?;
        Ok(len)
    }

    /// Whether the file, whose first page is empty, is what a creation leaves that was cut short.
    fn is_ours_half_done(&self, backend: &Backend, len: u64) -> io::Result<bool> {
        let image = backend.image()?;
        if len > image.len() as u64 {
            return Ok(false);
        }
        let mut found = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.medium.read(0, &mut found)?;
        Ok(found.iter().zip(&image).all(|(found, ours)| *found == 0 || found == ours))
    }

    fn shut(&mut self) {
        #[cfg(test)]
        if self.has(Defect::SkipsChecksums) {
            self.engine = Engine::Shut;
        }
        if let Engine::Open(_, backend) = &self.engine {
            backend.freeze();
        }
        self.engine = Engine::Shut;
    }

    /// Closes the database after a failure and words it.
    fn fail(&mut self, fault: Fault, error: io::Error) -> Error {
        self.shut();
        let shown = self.path.display();
        if fault == Fault::Sync {
            let message = format!("the disk failed to sync {shown} ({error}): nothing more is written; check it, then restart");
            self.engine = Engine::Dead(message.clone());
            return Error::unavailable(message).caused_by(error);
        }
        if is_full(&error) {
            return Error::unavailable(format!("no space left to write {shown} ({error}): free some and retry")).caused_by(error);
        }
        Error::unavailable(format!("cannot write {shown}: {error}; mend that and retry")).caused_by(error)
    }

    fn foreign(&self) -> Error {
        Error::invalid(format!("{} is not a Tenure store; it was left as it is: name another path", self.path.display()))
    }

    fn unreadable(&self, error: Unreadable) -> Error {
        let shown = self.path.display();
        match error {
            Unreadable::Foreign => self.foreign(),
            Unreadable::Newer(format) => Error::invalid(format!(
                "{shown} has format {format}, this version knows up to {OUR_FORMAT}; it was left as it is: use a newer Tenure"
            )),
            Unreadable::Damaged(detail) => Error::invalid(format!(
                "{shown} is damaged ({detail}); it was left as it is: restore a copy, or move it away to begin anew"
            )),
            Unreadable::Io(error) => unusable(&format!("cannot read {shown}"), error),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shut();
        self.medium.release();
    }
}

/// Why a file that could be opened cannot be used.
#[derive(Debug)]
enum Unreadable {
    Foreign,
    Newer(u64),
    Damaged(String),
    Io(io::Error),
}

impl From<redb::Error> for Unreadable {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                Self::Io(error)
            }
            redb::Error::UpgradeRequired(version) => Self::Damaged(format!("its container has the old version {version}")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let change = database.begin_write()?;
    change.open_table(ENTRIES)?;
    let mut numbers = change.open_table(NUMBERS)?;
    numbers.insert(FORMAT, OUR_FORMAT)?;
    numbers.insert(REVISION, 0)?;
    drop(numbers);
    Ok(change.commit()?)
}

fn commit<'a>(
    database: &Database,
    forgotten: impl IntoIterator<Item = &'a Key>,
    writes: impl IntoIterator<Item = &'a Write>,
    ceiling: Revision,
) -> Result<(), redb::Error> {
    let change = database.begin_write()?;
    let mut entries = change.open_table(ENTRIES)?;
    for key in forgotten {
        entries.remove(key.as_str())?;
    }
    for write in writes {
        let key = write.entry.key.as_str();
        match record::encode(write) {
            Some(record) => entries.insert(key, record.as_slice())?,
            None => entries.remove(key)?,
        };
    }
    drop(entries);
    change.open_table(NUMBERS)?.insert(REVISION, ceiling.get())?;
    Ok(change.commit()?)
}

fn read_numbers(database: &Database) -> Result<Revision, redb::Error> {
    let numbers = database.begin_read()?.open_table(NUMBERS)?;
    Ok(Revision::new(numbers.get(REVISION)?.map_or(0, |found| found.value())))
}

fn load(database: &Database) -> Result<Loaded, Unreadable> {
    let snapshot = database.begin_read().map_err(redb::Error::from)?;
    let numbers = match snapshot.open_table(NUMBERS) {
        Ok(numbers) => numbers,
        Err(TableError::Storage(error)) => return Err(redb::Error::from(error).into()),
        Err(_) => return Err(Unreadable::Foreign),
    };
    let number = |name| numbers.get(name).map(|found| found.map(|found| found.value())).map_err(redb::Error::from);
    match number(FORMAT)? {
        Some(OUR_FORMAT) => {}
        Some(newer) => return Err(Unreadable::Newer(newer)),
        None => return Err(Unreadable::Foreign),
    }
    let damaged = |what: &str| Unreadable::Damaged(what.to_owned());
    let revision = Revision::new(number(REVISION)?.ok_or_else(|| damaged("its revision is missing"))?);
    let mut writes = Vec::new();
    for found in snapshot.open_table(ENTRIES).map_err(redb::Error::from)?.iter().map_err(redb::Error::from)? {
        let (key, record) = found.map_err(redb::Error::from)?;
        let write = record::decode(key.value(), record.value());
        let sound = write.filter(|write| write.entry.revision <= revision);
        writes.push(sound.ok_or_else(|| damaged("an entry is not as it was written"))?);
    }
    Ok(Loaded { writes, revision })
}
