//! The stores that need no server: `memory:` and `file:PATH`.

mod backend;
#[cfg(test)]
mod crash;
mod disk;
mod file;
mod medium;
mod memory;
mod path;
mod queue;
mod record;
mod shared;
mod state;
mod watch;
mod writer;

pub use file::{File, FileOptions, Sync};
pub use memory::Memory;
