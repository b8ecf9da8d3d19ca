//! Locks and counters of a connection. `proof/threads` puts those in their place that it can schedule.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic};
