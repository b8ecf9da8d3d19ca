//! The embedded stores, whole.

#![allow(dead_code, unreachable_pub, reason = "of the product's files only a part is used")]

pub mod commits;
pub mod listeners;
mod platter;

#[path = "../../../../kv/src/embedded/backend.rs"]
mod backend;
#[path = "../../../../kv/src/embedded/disk.rs"]
mod disk;
#[path = "../../../../kv/src/embedded/file.rs"]
mod file;
#[path = "../../../../kv/src/embedded/medium.rs"]
mod medium;
#[path = "../../../../kv/src/embedded/memory.rs"]
mod memory;
#[path = "../../../../kv/src/embedded/path.rs"]
mod path;
#[path = "../../../../kv/src/embedded/queue.rs"]
mod queue;
#[path = "../../../../kv/src/embedded/record.rs"]
mod record;
#[path = "../../../../kv/src/embedded/shared.rs"]
mod shared;
#[path = "../../../../kv/src/embedded/state.rs"]
mod state;
#[path = "../../../../kv/src/embedded/watch.rs"]
mod watch;
#[path = "../../../../kv/src/embedded/writer.rs"]
mod writer;
