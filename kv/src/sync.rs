//! Locks and threads of the embedded stores. `proof/threads` puts those in their place that it can schedule.

pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};
