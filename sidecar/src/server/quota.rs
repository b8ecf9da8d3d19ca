//! A count that the connections of one user share, and its limit.

use std::sync::Arc;

use crate::{
    protocol::ErrorObject,
    sync::atomic::{AtomicUsize, Ordering},
};

/// How many of something one user has, and may have.
#[derive(Clone, Debug, Default)]
pub(super) struct Quota {
    used: Arc<AtomicUsize>,
    /// Absent where there is no limit.
    limit: Option<Limit>,
}

/// A limit of one user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// As `hello` calls it.
    pub(super) name: &'static str,
    /// What is counted, and what to do when there are too many.
    pub(super) words: &'static str,
    pub(super) most: usize,
}

/// Bytes that wait to be read, of all who share this, and how many there may be.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    bytes: Arc<AtomicUsize>,
    most: usize,
}

impl Unread {
    pub(super) fn new(most: usize) -> Self {
        Self { bytes: Arc::default(), most }
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.most
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken(Quota);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl Quota {
    pub(super) fn new(limit: Limit) -> Self {
        Self { used: Arc::default(), limit: Some(limit) }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes one, unless the user has as many as there may be.
    pub(super) fn take(&self) -> Result<Taken, ErrorObject> {
        let before = self.used.fetch_add(1, Ordering::Relaxed);
        let taken = Taken(self.clone());
        match self.limit {
            Some(limit) if before >= limit.most => Err(limit.reached()),
            _ => Ok(taken),
        }
    }

    /// Takes one for what was let in already.
    pub(super) fn take_anyway(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives one back that nobody does by being dropped.
    pub(super) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Limit {
    pub(super) fn reached(self) -> ErrorObject {
        ErrorObject::limit(self.name, format!("one user has at most {} {}", self.most, self.words))
    }
}
