//! Writes and their preconditions, as data.

use bytes::Bytes;

use crate::{Error, Key, Result, Revision, Ttl};

/// The most operations a batch may hold, each distinct fence counted as one more.
pub const MAX_BATCH: usize = 1_000;
/// The longest value in bytes: the default payload limit of a NATS server less room for headers.
pub const MAX_VALUE: usize = (1 << 20) - (8 << 10);

/// What must hold of a key for its change to be applied. A tombstone counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No condition.
    Any,
    /// The key has no value.
    Absent,
    /// The latest write to the key, tombstone or value, is this one.
    At(Revision),
}

/// What is done to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Store a value, to be forgotten after the TTL if there is one.
    Put(Bytes, Option<Ttl>),
    /// Leave a tombstone ([`crate::State::Deleted`]) that carries a note and is forgotten after `marker`.
    Delete {
        /// How long the tombstone stays; `None` for ever.
        marker: Option<Ttl>,
        /// A word from the deleter to whoever reads the tombstone; mostly empty.
        note: Bytes,
    },
    /// Leave a tombstone ([`crate::State::Purged`]) that is forgotten after `marker`.
    Purge {
        /// How long the tombstone stays; `None` for ever.
        marker: Option<Ttl>,
    },
}

/// Another key that must still be at a revision, or the change is refused by the store itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The key that guards the change.
    pub key: Key,
    /// Where it must be.
    pub revision: Revision,
}

/// One change with its preconditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The key to change.
    pub key: Key,
    /// What must hold of that key.
    pub expect: Expect,
    /// The change.
    pub change: Change,
    /// What must hold of another key.
    pub fence: Option<Fence>,
}

impl Op {
    /// Stores `value` under `key`, unconditionally until told otherwise.
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self::new(key, Change::Put(value.into(), None))
    }

    /// Deletes `key` and leaves a tombstone without end until told otherwise.
    pub fn delete(key: Key) -> Self {
        Self::new(key, Change::Delete { marker: None, note: Bytes::new() })
    }

    /// Purges `key` and leaves a tombstone without end until told otherwise.
    pub fn purge(key: Key) -> Self {
        Self::new(key, Change::Purge { marker: None })
    }

    /// `change` to `key`, unconditionally until told otherwise.
    pub const fn new(key: Key, change: Change) -> Self {
        Self { key, expect: Expect::Any, change, fence: None }
    }

    /// Requires `expect` of the key.
    #[must_use]
    pub const fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// Requires the key to have no value.
    #[must_use]
    pub const fn if_absent(self) -> Self {
        self.expect(Expect::Absent)
    }

    /// Requires the latest write to the key to be `revision`.
    #[must_use]
    pub const fn if_at(self, revision: Revision) -> Self {
        self.expect(Expect::At(revision))
    }

    /// Gives the value or the tombstone a TTL.
    #[must_use]
    pub const fn ttl(mut self, ttl: Ttl) -> Self {
        match &mut self.change {
            Change::Put(_, slot) | Change::Delete { marker: slot, .. } | Change::Purge { marker: slot } => *slot = Some(ttl),
        }
        self
    }

    /// Leaves `note` in the tombstone of a delete; no effect on other changes.
    #[must_use]
    pub fn note(mut self, text: impl Into<Bytes>) -> Self {
        if let Change::Delete { note, .. } = &mut self.change {
            *note = text.into();
        }
        self
    }

    /// Requires `key` to be at `revision`.
    #[must_use]
    pub fn fenced(mut self, key: Key, revision: Revision) -> Self {
        self.fence = Some(Fence { key, revision });
        self
    }
}

/// Operations that are applied all together or not at all, each key at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The operations, applied in this order at consecutive revisions.
    pub ops: Vec<Op>,
}

impl Batch {
    /// An empty batch.
    pub const fn new() -> Self {
        Self { ops: Vec::new() }
    }

    /// Adds an operation.
    #[must_use]
    pub fn and(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Checks what every store refuses: an empty batch, more than [`MAX_BATCH`] operations and fences, a key
    /// that stands twice, a value or note over [`MAX_VALUE`] bytes, a fence on a key the batch changes.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the offender.
    pub fn validate(&self) -> Result<()> {
        if self.ops.is_empty() {
            return Err(Error::invalid("a batch holds at least one operation"));
        }
        if let [op] = self.ops.as_slice() {
            return op.validate(|key| *key == op.key);
        }
        let fences = self.ops.iter().filter_map(|op| op.fence.as_ref()).map(|fence| (&fence.key, fence.revision));
        let fences = fences.collect::<std::collections::HashSet<_>>().len();
        if self.ops.len() + fences > MAX_BATCH {
            let count = self.ops.len();
            return Err(Error::invalid(format!(
                "a batch holds at most {MAX_BATCH} operations and fences, this one has {count} and {fences}"
            )));
        }
        let mut keys = std::collections::HashSet::with_capacity(self.ops.len());
        for op in &self.ops {
            if !keys.insert(&op.key) {
                return Err(Error::invalid(format!("the key {} stands twice in one batch", op.key)));
            }
        }
        self.ops.iter().try_for_each(|op| op.validate(|key| keys.contains(key)))
    }
}

impl Op {
    fn validate(&self, changed: impl Fn(&Key) -> bool) -> Result<()> {
        let size = match &self.change {
            Change::Put(value, _) => value.len(),
            Change::Delete { note, .. } => note.len(),
            Change::Purge { .. } => 0,
        };
        if size > MAX_VALUE {
            return Err(Error::invalid(format!("the value of {} has {size} bytes; the limit is {MAX_VALUE}", self.key)));
        }
        match &self.fence {
            Some(fence) if changed(&fence.key) => {
                Err(Error::invalid(format!("{} is fenced by {}, which the same batch changes", self.key, fence.key)))
            }
            _ => Ok(()),
        }
    }
}

impl From<Op> for Batch {
    fn from(op: Op) -> Self {
        Self { ops: vec![op] }
    }
}

impl FromIterator<Op> for Batch {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        Self { ops: ops.into_iter().collect() }
    }
}
