//! What the tasks of one connection of the daemon share, over a store that is played.

pub mod answers;
pub mod lease;
mod played;

use played::{connection, elections, errors, held, sessions};

#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../sidecar/src/server/holds.rs"]
mod holds;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../sidecar/src/server/inflight.rs"]
mod inflight;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../sidecar/src/server/leases.rs"]
mod leases;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../sidecar/src/server/outbox.rs"]
mod outbox;
#[allow(dead_code, unreachable_pub, reason = "only a part of the file is used")]
#[path = "../../../../sidecar/src/server/release.rs"]
mod release;
