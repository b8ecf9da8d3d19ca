//! Opening and locking the file of a store, with an error for everything that can be wrong with it.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Opens `path` for reading and writing, creates it (0600) and its directory (0700) if missing, and
/// takes the lock that makes this process its only user.
pub(super) fn open(path: &Path) -> Result<File> {
    let shown = path.display();
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("a file store needs a path, such as file:/var/lib/tenure/store"));
    }
    if let Some(parent) = directory(path)
        && !parent.exists()
    {
        let failed = |error| unusable(&format!("cannot create the directory {}", parent.display()), error);
        let new = missing(&parent);
        DirBuilder::new().recursive(true).mode(0o700).create(&parent).map_err(failed)?;
        // A power cut must not take away the directory of a file that stays.
        new.iter().try_for_each(|new| sync_directory(new)).map_err(failed)?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A pipe must not make us wait for its other end.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::IsADirectory => {
                Error::invalid(format!("{shown} is a directory: name a file in it, such as {}", path.join("store").display()))
            }
            _ => unusable(&format!("cannot open {shown}"), error),
        })?;
    let about = file.metadata().map_err(|error| unusable(&format!("cannot read {shown}"), error))?;
    if !about.is_file() {
        return Err(Error::invalid(format!("{shown} is not a regular file: name another path")));
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::unavailable(format!(
            "{shown} is in use by {}: a file store serves one process at a time, so stop that one or go through it",
            holder(about.dev(), about.ino()).unwrap_or_else(|| "another process".to_owned())
        ))),
        Err(TryLockError::Error(error)) => Err(unusable(&format!("cannot lock {shown}"), error)),
    }
}

/// Makes a new file's name as lasting as its content.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let Some(parent) = directory(path) else { return Ok(()) };
    match File::open(parent)?.sync_all() {
        // Some file systems have no such thing for directories.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// The directories that are to be made for `path` to be one.
fn missing(path: &Path) -> Vec<PathBuf> {
    path.ancestors()
        .filter(|above| !above.as_os_str().is_empty())
        .take_while(|above| !above.exists())
        .map(Path::to_owned)
        .collect()
}

fn directory(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}

/// `what` failed at the hands of the operating system: whose fault, and what mends it.
pub(super) fn unusable(what: &str, error: io::Error) -> Error {
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => "run as the owner or give this user read and write access",
        ErrorKind::ReadOnlyFilesystem => "name a path on a file system that can be written",
        ErrorKind::NotADirectory | ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::InvalidInput => {
            "name a path whose directory exists or can be created"
        }
        ErrorKind::InvalidFilename => "name a shorter path",
        _ if is_full(&error) => {
            return Error::unavailable(format!("{what}: no space left ({error}); free some and retry")).caused_by(error);
        }
        _ => return Error::unavailable(format!("{what}: {error}; mend that and retry")).caused_by(error),
    };
    Error::invalid(format!("{what}: {error}; {remedy}"))
}

/// Whether `error` says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Who holds the lock of an inode, where the kernel tells.
fn holder(device: u64, inode: u64) -> Option<String> {
    let wanted = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid: u32 = locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&wanted.as_str())).then(|| fields.get(4)?.parse().ok())?
    })?;
    if pid == std::process::id() {
        return Some("this very process".to_owned());
    }
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).map(|name| format!(" ({})", name.trim())).unwrap_or_default();
    (pid != 0).then(|| format!("process {pid}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_that_is_new_is_known() {
        let here = tempfile::tempdir().unwrap();
        let at = |name: &str| here.path().join(name);
        assert_eq!(missing(&at("a/b/c")), [at("a/b/c"), at("a/b"), at("a")]);
        open(&at("a/b/store")).unwrap();
        assert_eq!(missing(&at("a/b/c")), [at("a/b/c")]);
        assert_eq!(missing(&at("a/b")), Vec::<PathBuf>::new());
        assert_eq!(missing(Path::new("no/such")), [Path::new("no/such"), Path::new("no")]);
    }
}
