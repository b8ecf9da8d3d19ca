//! What is followed in the store for those who ask again and again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long something is followed that nobody asks for.
const LINGER: Duration = Duration::from_secs(60);
/// How many are followed for questions at the same time; beyond that the one longest not asked for goes.
const MOST: usize = 256;

/// By name, what is followed, and when it was asked for last.
#[derive(Debug)]
pub(super) struct Kept<T>(Mutex<HashMap<String, (Arc<T>, Instant)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Kept<T> {
    fn all(&self) -> MutexGuard<'_, HashMap<String, (Arc<T>, Instant)>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one of that name.
    pub(super) fn of(&self, name: &str, begin: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut all = self.all();
        if let Some((found, asked)) = all.get_mut(name) {
            *asked = Instant::now();
            return found.clone();
        }
        if all.len() >= MOST
            && let Some(oldest) = all.iter().min_by_key(|(_, (_, asked))| *asked).map(|(name, _)| name.clone())
        {
            all.remove(&oldest);
        }
        let begun = begin();
        all.insert(name.to_owned(), (begun.clone(), Instant::now()));
        begun
    }

    /// Lets go of what nobody asks for.
    pub(super) fn sweep(&self) {
        self.all().retain(|_, (_, asked)| asked.elapsed() < LINGER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_may_be_are_kept_and_the_latest_stay() {
        let kept = Kept::default();
        for number in 0..MOST {
            kept.of(&number.to_string(), || Arc::new(number));
        }
        kept.of("0", || panic!("it is there"));
        kept.of("one more", || Arc::new(MOST));
        assert_eq!(kept.all().len(), MOST);
        kept.of("0", || panic!("it was asked for lately"));
        assert_eq!(*kept.of("1", || Arc::new(7)), 7, "it had to go");
    }
}
