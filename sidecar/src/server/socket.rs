//! The socket in the file system: claimed by one daemon at a time, replaced only when proven stale.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, Write},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::unistd::Group;
use rustix::fs::{FlockOperation, flock};

use super::StartError;

/// The longest path of a socket that the system takes, in bytes.
const MAX_PATH: usize = 107;

/// Who may connect.
#[derive(Clone, Debug)]
pub struct Access {
    /// The mode of the socket file.
    pub mode: u32,
    /// The group of the socket and of a directory made for it.
    pub group: Option<String>,
}

/// A socket that listens, and the claim to its path.
#[derive(Debug)]
pub(super) struct Claimed {
    path: PathBuf,
    /// Device and inode of our socket, so that nobody else's is removed.
    inode: (u64, u64),
    /// Locked as long as this daemon lives. Never removed: a lock on a removed file guards nothing.
    _lock: File,
}

/// Claims `path` and listens there.
///
/// # Errors
/// When another daemon or program is there, or the path cannot be used.
pub(super) fn claim(path: &Path, access: &Access) -> Result<(Claimed, UnixListener), StartError> {
    let fail = |what: &str, error: io::Error| StartError::new(format!("{what} {}: {error}{}", path.display(), remedy(&error)));
    let (directory, name) = check_path(path)?;
    let group = access.group.as_deref().map(group).transpose()?;
    make_directory(directory, group).map_err(|error| {
        StartError::new(format!("cannot make the directory {}: {error}; name another place with --socket", directory.display()))
    })?;
    let temporary = temporary(directory);

    let mut lock_name = name.to_owned();
    lock_name.push(".lock");
    let lock = lock(&directory.join(lock_name), path)?;
    refuse_living(path)?;

    let bind = || -> io::Result<(UnixListener, (u64, u64))> {
        // Ours by its name: left by a killed daemon that had this process's number.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&temporary)?;
        let finish = || {
            if group.is_some() {
                chown(&temporary, None, group)?;
            }
            fs::set_permissions(&temporary, fs::Permissions::from_mode(access.mode))?;
            let metadata = fs::symlink_metadata(&temporary)?;
            // Ready in every respect before it has its name, and a stale one goes at the same instant.
            fs::rename(&temporary, path)?;
            Ok((metadata.dev(), metadata.ino()))
        };
        match finish() {
            Ok(inode) => Ok((listener, inode)),
            Err(error) => {
                // The first error is the one to tell.
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    };
    let (listener, inode) = bind().map_err(|error| fail("cannot listen on", error))?;
    listener.set_nonblocking(true).map_err(|error| fail("cannot listen on", error))?;
    Ok((Claimed { path: path.to_owned(), inode, _lock: lock }, listener))
}

/// Refuses what can be no socket, and tells the directory and the name. Makes nothing, and asks nobody who may be there.
///
/// # Errors
/// With the remedy.
pub(super) fn check_path(path: &Path) -> Result<(&Path, &OsStr), StartError> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(StartError::new(format!("{} is no path of a socket; name a file with --socket", path.display())));
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let longest = path.as_os_str().len().max(temporary(directory).as_os_str().len());
    if longest > MAX_PATH {
        let said =
            format!("the path {} is too long for a socket by {} bytes; use a shorter one", path.display(), longest - MAX_PATH);
        return Err(StartError::new(said));
    }
    let there = directory.ancestors().find(|ancestor| fs::symlink_metadata(ancestor).is_ok());
    if let Some(there) = there
        && !there.is_dir()
    {
        let said = format!("{} is no directory; name another place with --socket", there.display());
        return Err(StartError::new(said));
    }
    is_socket(path)?;
    Ok((directory, name))
}

/// Refuses a group that is not there.
///
/// # Errors
/// With the remedy.
pub(super) fn check_group(access: &Access) -> Result<(), StartError> {
    access.group.as_deref().map_or(Ok(()), |name| group(name).map(drop))
}

/// Where a socket gets its mode before it gets its name.
fn temporary(directory: &Path) -> PathBuf {
    directory.join(format!(".t{}", std::process::id()))
}

impl Claimed {
    /// Removes the socket file, if it is still this daemon's. The claim stays until it is dropped.
    pub(super) fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the socket file was not removed");
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.remove();
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; run as a user who may, or name another place with --socket",
        _ => "",
    }
}

fn group(name: &str) -> Result<u32, StartError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(StartError::new(format!("there is no group {name:?}; give --socket-group one that exists"))),
        Err(error) => Err(StartError::new(format!("cannot look up the group {name:?}: {error}"))),
    }
}

fn make_directory(directory: &Path, group: Option<u32>) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    match DirBuilder::new().mode(0o750).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => return Ok(()),
        Err(error) => return Err(error),
    }
    if group.is_some() {
        chown(directory, None, group)?;
    }
    // Whatever the umask took away.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o750))
}

fn lock(path: &Path, socket: &Path) -> Result<File, StartError> {
    let fail = |error: io::Error| StartError::new(format!("cannot lock {}: {error}{}", path.display(), remedy(&error)));
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
        .map_err(fail)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            let owner = match file.read_to_string(&mut owner) {
                Ok(_) if !owner.trim().is_empty() => format!("another tenured (process {})", owner.trim()),
                _ => "another tenured".to_owned(),
            };
            return Err(StartError::new(format!(
                "{owner} serves {}; stop it, or name another place with --socket",
                socket.display()
            )));
        }
        Err(error) => return Err(fail(error.into())),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(fail)?;
    Ok(file)
}

/// Whether a socket stands at `path`, or nothing does; anything else is refused.
fn is_socket(path: &Path) -> Result<bool, StartError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StartError::new(format!("cannot look at {}: {error}{}", path.display(), remedy(&error)))),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let said = format!("{} is there and is no socket; move it away, or name another place with --socket", path.display());
            Err(StartError::new(said))
        }
        Ok(_) => Ok(true),
    }
}

/// What stands at `path` must be nothing or a socket that nobody listens on.
fn refuse_living(path: &Path) -> Result<(), StartError> {
    if !is_socket(path)? {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        Ok(_) => {
            let said = format!("another program listens on {}; stop it, or name another place with --socket", path.display());
            Err(StartError::new(said))
        }
        Err(error) => Err(StartError::new(format!(
            "cannot tell whether {} is in use: {error}; remove it if it is not, or name another place with --socket",
            path.display()
        ))),
    }
}
