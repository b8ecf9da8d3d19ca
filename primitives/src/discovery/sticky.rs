//! Which instance a key was sent to, for as many keys as there is room for; pure.

use std::{collections::HashMap, sync::Arc};

/// A bounded memory of keys, by their hash. Two keys of one hash share an instance, which does no harm.
///
/// Two generations: what was not asked for while the younger filled up is forgotten with the older.
#[derive(Debug)]
pub(super) struct Sticky {
    room: usize,
    young: HashMap<u64, Arc<str>>,
    old: HashMap<u64, Arc<str>>,
}

impl Sticky {
    /// Room for at least `room` keys, and at most twice as many.
    pub(super) fn new(room: usize) -> Self {
        Self { room: room.max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// The instance that `key` is kept to.
    pub(super) fn get(&mut self, key: u64) -> Option<Arc<str>> {
        if let Some(id) = self.young.get(&key) {
            return Some(id.clone());
        }
        let id = self.old.remove(&key)?;
        self.keep(key, id.clone());
        Some(id)
    }

    /// Keeps `key` to the instance `id`.
    pub(super) fn keep(&mut self, key: u64, id: Arc<str>) {
        if self.young.len() >= self.room {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_use_stay_and_the_memory_is_bounded() {
        let mut sticky = Sticky::new(100);
        sticky.keep(7, "a".into());
        for key in 1_000..2_000 {
            sticky.keep(key, "b".into());
            assert_eq!(sticky.get(7).as_deref(), Some("a"), "asked for all the time");
        }
        assert!(sticky.young.len() + sticky.old.len() <= 200);
        assert_eq!(sticky.get(1_000), None, "forgotten");
        assert_eq!(sticky.get(1_999).as_deref(), Some("b"));
        sticky.keep(7, "c".into());
        assert_eq!(sticky.get(7).as_deref(), Some("c"));
    }
}
