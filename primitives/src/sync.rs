//! Locks of what a session counts. `proof/threads` puts those in their place that it can schedule.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
