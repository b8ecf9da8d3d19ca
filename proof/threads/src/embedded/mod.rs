//! The embedded stores, whole.

pub mod commits;
pub mod listeners;
mod platter;

#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/backend.rs"]
mod backend;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/disk.rs"]
mod disk;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/file.rs"]
mod file;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/medium.rs"]
mod medium;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/memory.rs"]
mod memory;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/path.rs"]
mod path;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/queue.rs"]
mod queue;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/record.rs"]
mod record;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/shared.rs"]
mod shared;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/state.rs"]
mod state;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/watch.rs"]
mod watch;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../kv/src/embedded/writer.rs"]
mod writer;
