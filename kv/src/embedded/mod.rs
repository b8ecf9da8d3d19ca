//! The stores that need no server: `memory:` and `file:PATH`.

mod memory;
mod shared;
#[allow(dead_code)]
mod state;
mod watch;

use std::time::Duration;

pub use memory::Memory;

/// A store in one file of this machine, used by one process at a time.
#[derive(Clone, Debug)]
pub struct File {}

/// How a [`File`] store is opened.
#[derive(Clone, Debug, Default)]
pub struct FileOptions {
    /// When acknowledged writes are on disk.
    pub sync: Sync,
}

/// When an acknowledged write is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Before it is acknowledged: nothing acknowledged is lost by a crash or a power cut.
    #[default]
    Always,
    /// At most this long after: a power cut may lose what was acknowledged in that time.
    Every(Duration),
}
