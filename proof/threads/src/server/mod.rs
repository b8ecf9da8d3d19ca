//! What the tasks of one connection of the daemon share, over a store that is played.

#![allow(dead_code, unreachable_pub, reason = "of the product's files only a part is used")]

pub mod answers;
pub mod lease;
mod played;
pub mod wakes;

use played::{connection, elections, errors, held, sessions};

#[path = "../../../../sidecar/src/server/holds.rs"]
mod holds;
#[path = "../../../../sidecar/src/server/inflight.rs"]
mod inflight;
#[path = "../../../../sidecar/src/server/leases.rs"]
mod leases;
#[path = "../../../../sidecar/src/server/outbox.rs"]
mod outbox;
#[path = "../../../../sidecar/src/server/quiet.rs"]
mod quiet;
#[path = "../../../../sidecar/src/server/quota.rs"]
mod quota;
#[path = "../../../../sidecar/src/server/release.rs"]
mod release;
#[path = "../../../../sidecar/src/server/tally.rs"]
mod tally;
#[path = "../../../../sidecar/src/server/work.rs"]
mod work;
