//! What the behaviours of buckets share: keys of their own, writes that must pass or be refused, reads that wait.

use std::{fmt::Display, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use super::Tested;
use crate::{
    Bucket, Entry, Error, Key, KeyRange, Op, Result, Revision, Since, State,
    conformance::support::{Watched, conflict, in_time, ok, poll},
};

/// A bucket and a prefix nobody else uses.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) tested: Tested,
    root: Key,
}

impl Ground {
    pub(super) fn new(tested: &Tested) -> Self {
        let root = ok(Key::new(format!("conform.{}", Uuid::new_v4().simple())), "the suite's prefix");
        Self { bucket: tested.bucket.clone(), tested: tested.clone(), root }
    }

    pub(super) fn key(&self, name: impl Display) -> Key {
        ok(self.root.child(name), "a key of the suite")
    }

    /// Every key of this ground.
    pub(super) fn range(&self) -> KeyRange {
        KeyRange::Under(self.root.clone())
    }

    /// `pattern` below the prefix.
    pub(super) fn like(&self, pattern: impl Display) -> KeyRange {
        ok(KeyRange::new(format!("{}.{pattern}", self.root)), "a range of the suite")
    }

    /// Whether other servers may answer reads, and be behind.
    pub(super) const fn reads_lag(&self) -> bool {
        self.tested.replicas > 1
    }

    /// Writes what must pass.
    pub(super) async fn write(&self, op: Op, what: impl Display) -> Revision {
        ok(self.bucket.write(op).await, what)
    }

    pub(super) async fn put(&self, key: &Key, value: impl Into<Bytes>) -> Revision {
        self.write(Op::put(key.clone(), value), format!("a put of {key}")).await
    }

    /// Writes what must be refused as a conflict with what is at `at`.
    pub(super) async fn refused(&self, op: Op, at: Revision, what: impl Display) {
        let key = op.key.clone();
        let error = conflict(self.bucket.write(op).await, what);
        if let Error::Conflict { key: named, revision, .. } = &error {
            assert!(named.as_ref().is_none_or(|named| *named == key), "the conflict is on {key}, but names {named:?}");
            assert!(revision.is_none_or(|told| told == at), "{key} is at {at}, but the conflict says {revision:?}");
        }
    }

    /// Proves by a write that `key` is still at `revision`.
    pub(super) async fn still_at(&self, key: &Key, revision: Revision) -> Revision {
        self.write(Op::put(key.clone(), "still").if_at(revision), format!("an update of {key}, still at {revision}")).await
    }

    /// The entry of `key` once reads have come to `revision`.
    pub(super) async fn read(&self, key: &Key, revision: Revision) -> Entry {
        poll(format!("a read of {key} that has come to {revision}"), || async {
            ok(self.bucket.entry(key).await, format!("a read of {key}")).filter(|entry| entry.revision >= revision)
        })
        .await
    }

    /// `key` reads as `state` written at `revision`.
    pub(super) async fn reads_as(&self, key: &Key, revision: Revision, state: &State) {
        let entry = self.read(key, revision).await;
        assert_eq!(entry.key, *key, "an entry names another key than the one that was read");
        assert_eq!(entry.revision, revision, "{key} reads at another revision than the write returned");
        assert_eq!(entry.state, *state, "{key} at {revision} reads as something else than was written");
    }

    /// What is kept of `key`, once reads have come to `revision`.
    pub(super) async fn history(&self, key: &Key, most: usize, revision: Revision) -> Vec<Entry> {
        self.read(key, revision).await;
        poll(format!("a history of {key} that has come to {revision}"), || async {
            let all = self.bucket.history(key, usize::MAX).await;
            let all = ok(all, format!("the history of {key}"));
            all.last().filter(|entry| entry.revision >= revision)?;
            Some(ok(self.bucket.history(key, most).await, format!("the history of {key}")))
        })
        .await
    }

    pub(super) async fn watch(&self, range: KeyRange, since: Since) -> Watched {
        let opened = in_time(format!("a watch of {range}"), self.bucket.watch(range.clone(), since)).await;
        Watched::of(ok(opened, format!("a watch of {range}")), range)
    }

    /// What the watch tells up to and beyond the end of what is there, and up to `revision`.
    pub(super) async fn told(&self, watch: &mut Watched, revision: Revision) -> Vec<Entry> {
        let mut told = watch.until_caught_up().await;
        // A server that is behind has less to begin with.
        if told.last().is_none_or(|entry| entry.revision < revision) {
            assert!(self.reads_lag(), "the watch had not told {revision} when what is there had been told");
            told.extend(watch.until(revision).await);
        }
        told
    }
}

/// The value of what must be refused as wrong.
#[track_caller]
pub(super) fn wrong(result: Result<Revision>, what: impl Display) {
    match result {
        Err(error) if error.is_invalid() => {}
        other => panic!("{what} must be refused as invalid, but gave {other:?}"),
    }
}
