//! What a store's bytes lie on: a file, or in tests something that fails on demand.

use std::{fmt::Debug, fs::File, io, os::unix::fs::FileExt, path::Path};

#[cfg(test)]
use super::crash::Defect;
use super::path::sync_directory;

/// Bytes at offsets, durable after a sync.
pub(super) trait Medium: Debug + Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// New bytes are zero.
    fn resize(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    /// What is read from now on is on the disk, and not only in a cache that a failed sync left different from it.
    fn settle(&self) -> io::Result<()>;
    /// Makes its name, `path`, as durable as its bytes.
    fn sync_name(&self, path: &Path) -> io::Result<()>;
    /// Lets others have it.
    fn release(&self) {}

    /// What the code above is to do wrong, to show that the tests notice.
    #[cfg(test)]
    fn defect(&self) -> Option<Defect> {
        None
    }
}

impl Medium for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, at)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    /// Growth is allocated at once, so that a full disk shows here and not in the middle of a commit.
    fn resize(&self, len: u64) -> io::Result<()> {
        let old = Medium::len(self)?;
        if len <= old {
            return self.set_len(len);
        }
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), old, len - old) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.set_len(len),
            other => Ok(other?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn settle(&self) -> io::Result<()> {
        self.sync_data()?;
        // Pages whose write failed are taken for clean, and are let go as those are. Not every file system has a cache.
        let _ = rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed);
        Ok(())
    }

    fn sync_name(&self, path: &Path) -> io::Result<()> {
        sync_directory(path)
    }

    /// Closing alone would leave the lock to a child that was forked but has not executed yet.
    fn release(&self) {
        if let Err(error) = self.unlock() {
            tracing::warn!(%error, "a store's file stays locked until this process ends");
        }
    }
}
