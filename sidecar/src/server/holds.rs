//! The holds of all connections by their tokens: for writes fenced by a hold of another connection.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::{
    held::Kind,
    leases::{Found, Lease, Leases},
};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Where every lease of this daemon is found, by its fencing token.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<HashMap<u64, Place>>);

#[derive(Debug)]
struct Place {
    leases: Weak<Leases>,
    number: u64,
}

impl Holds {
    fn places(&self) -> MutexGuard<'_, HashMap<u64, Place>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, fence: u64, leases: &Arc<Leases>, number: u64) {
        self.places().insert(fence, Place { leases: Arc::downgrade(leases), number });
    }

    /// Forgets a lease; not one with the same token that came after, in a bucket made anew.
    pub(super) fn remove(&self, fence: u64, leases: &Weak<Leases>, number: u64) {
        let mut places = self.places();
        if places.get(&fence).is_some_and(|place| place.number == number && place.leases.ptr_eq(leases)) {
            places.remove(&fence);
        }
    }

    /// The lease of that kind that holds `name` with this token.
    pub(super) fn find(&self, kind: Kind, name: &str, fence: u64) -> Option<Arc<Lease>> {
        let (leases, number) = {
            let places = self.places();
            let place = places.get(&fence)?;
            (place.leases.upgrade()?, place.number)
        };
        match leases.numbered(number) {
            Found::Held(lease) if lease.kind == kind && lease.name == name => Some(lease),
            _ => None,
        }
    }
}
